"""Semi-supervised multi-task learning with chest X-rays: the package that the book builds."""

__version__ = "0.1.0"
