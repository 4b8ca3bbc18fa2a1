"""The one exception for a user's mistake (floor 0)."""


class InputError(ValueError):
    """Something the user gave us cannot be used.

    The message names the file or value, says what was expected and what to do. The command line
    prints it alone, without a traceback, and exits with 2.

    Introduced in chapter 7.

    >>> raise InputError("fp_weight must be >= 0, got -0.3: choose a weight such as 0.3")
    Traceback (most recent call last):
    cxr_tutorial.errors.InputError: fp_weight must be >= 0, got -0.3: choose a weight such as 0.3
    """
