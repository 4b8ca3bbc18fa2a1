"""Where the files that ship with the package lie (floor 0)."""

from pathlib import Path


def shipped(*parts: str) -> Path:
    """The path of a shipped file: inside the wheel, or `data/` of a checkout.

    >>> shipped("splits").is_dir()
    True
    """
    package = Path(__file__).parent
    wheel = package / "_shipped"
    return (wheel if wheel.is_dir() else package.parent / "data").joinpath(*parts)
