"""What a student's notebook says about an answer before it is handed in (floor 3)."""

from __future__ import annotations

import traceback
from collections.abc import Callable


def self_check(check: Callable[[], object]) -> None:
    """Run a function of assertions at once and say in one line how it went; nothing is raised, the notebook runs on.

    Parameters
    ----------
    check : a function without arguments, its name the name of the task; put `@self_check` above it.

    >>> @self_check
    ... def the_sum():
    ...     assert 1 + 1 == 3, "one and one"
    the sum: not right yet (one and one)
    >>> @self_check
    ... def an_empty_answer():
    ...     None + 1
    an empty answer: not done yet (something here is None: is a `return` missing?)
    """
    name = getattr(check, "__name__", "this").replace("_", " ")
    try:
        check()
    except NotImplementedError:
        print(f"{name}: not done yet")
    except AssertionError as error:
        failed = traceback.extract_tb(error.__traceback__)[-1].line or "an assertion failed"
        print(f"{name}: not right yet ({str(error) or failed})")
    except Exception as error:
        blank = isinstance(error, TypeError | AttributeError) and "NoneType" in str(error)
        told = f"not right yet ({type(error).__name__}: {error})"
        told = "not done yet (something here is None: is a `return` missing?)" if blank else told
        print(f"{name}: {told}")
    else:
        print(f"{name}: looks right; your marks come from more checks than these, on other data")
