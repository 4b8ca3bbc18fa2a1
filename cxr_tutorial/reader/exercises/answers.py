"""Two answers compared, and the difference said in words (floor 2)."""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch

FEW = 12  # numbers that a message may show


class Trouble(Exception):
    """What is wrong with a reader's function, in words for the reader; a `run` may raise it."""


def unfinished(answer: Any) -> bool:
    """Whether an answer is None or `...`, or holds one where something was asked for."""
    if isinstance(answer, Mapping):
        return any(unfinished(value) for value in answer.values())
    if isinstance(answer, (tuple, list)):
        return any(unfinished(value) for value in answer)
    return answer is None or answer is ...


def equal(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two answers are the same but for rounding; NaN equals NaN."""
    if isinstance(wanted, Mapping):
        return isinstance(got, Mapping) and all(k in got and equal(got[k], wanted[k], tolerance) for k in wanted)
    a, b = _array(got), _array(wanted)
    if a is None or b is None or a.shape != b.shape:
        return False
    if a.dtype.kind == b.dtype.kind == "U":
        return bool((np.char.lower(np.char.strip(a)) == np.char.lower(np.char.strip(b))).all())
    if b.dtype.kind in "bU" or a.dtype.kind in "bU":
        return a.dtype.kind == b.dtype.kind and bool((a == b).all())
    return np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def difference(got: Any, wanted: Any, tolerance: float) -> str | None:
    """Why `got` is not `wanted`, in words that give nothing away but its form; None if they are the same."""
    if equal(got, wanted, tolerance):
        return None
    if isinstance(wanted, Mapping):
        if not isinstance(got, Mapping) or set(wanted) - set(got):
            return f"expected a dictionary with the keys {', '.join(map(repr, wanted))}, got {show(got)}."
        parts = [(key, difference(got[key], wanted[key], tolerance)) for key in wanted]
        return " ".join(f"`{key}`: {why}" for key, why in parts if why)
    a, b = _array(got), _array(wanted)
    if a is None or b is None or a.shape != b.shape or _sort(a) != _sort(b):
        return f"expected {_kind(wanted)}, got {_kind(got)}."
    if a.dtype.kind == "f" and np.isnan(a).any() and not np.isnan(b.astype(float)).any():
        return f"{np.isnan(a).sum()} of {a.size} numbers are NaN, not a number." if a.size > 1 else "NaN, not a number."
    return f"{show(got)} is not right yet."


def call(function: Callable[..., Any], run: Callable[..., Any] | None, example: Mapping[str, Any]) -> tuple[Any, str]:
    """What a reader's function makes of an example, and what went wrong on the way ('' if nothing did)."""
    arguments = deepcopy(dict(example))
    try:
        got = run(function, **arguments) if run else function(*arguments.values())
    except Trouble as trouble:
        return None, str(trouble)
    except Exception as error:
        return None, _said(error, function)
    for name, before in example.items():
        if isinstance(before, (torch.Tensor, np.ndarray)) and not equal(arguments[name], before, 0.0):
            return (
                None,
                f"your function changes its input `{name}` in place. Work on a copy, or write x = x * 2, not x *= 2.",
            )
    return got, ""


def value_and_gradient(function: Callable[..., Any], **arguments: Any) -> dict[str, Any] | None:
    """A `run` that also compares the gradient, with respect to the first argument."""
    first, *_ = arguments.values()
    first.requires_grad_()
    value = function(*arguments.values())
    if unfinished(value):
        return None
    if not isinstance(value, torch.Tensor):
        raise Trouble(f"expected a torch tensor, got {_kind(value)}.")
    if not value.requires_grad:
        raise Trouble(
            "your function has no gradient: it leaves torch on the way, by NumPy, `.item()`, `.detach()` or a "
            "comparison."
        )
    (gradient,) = torch.autograd.grad(value.sum(), first)
    return {"value": value, "gradient": gradient}


def show(value: Any) -> str:
    """A value on one line: its numbers if they are few, else its shape."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {show(item)}" for key, item in value.items())
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = _array(value)
        if array is None or array.size > FEW:
            return f"an array of shape {tuple(value.shape)}"
        return str(np.round(array, 4).tolist() if array.dtype.kind == "f" else array.tolist())
    if isinstance(value, float):
        return f"{value:.4g}"
    if callable(value):
        return f"the function {getattr(value, '__name__', value)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(show, value))})"
    return repr(value) if len(repr(value)) < 80 else type(value).__name__


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().to(torch.float64 if value.is_floating_point() else value.dtype).numpy()
    try:
        array = np.asarray([_array(item) for item in value] if isinstance(value, (tuple, list)) else value)
    except (ValueError, TypeError):  # ragged
        return None
    return array if array.dtype.kind in "biufU" else None


def _sort(array: np.ndarray) -> str:
    return {"b": "truth", "U": "word"}.get(array.dtype.kind, "number")


def _kind(value: Any) -> str:
    """What sort of thing a value is, in words."""
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim:
        return f"an array of shape {tuple(value.shape)}{' of True and False' if 'bool' in str(value.dtype) else ''}"
    if isinstance(value, (bool, np.bool_)):
        return "True or False"
    if isinstance(value, (int, float, np.number, torch.Tensor, np.ndarray)):
        return "one number"
    if isinstance(value, str):
        return "a word in quotes"
    if isinstance(value, (tuple, list)):
        return f"{len(value)} values, ({', '.join(map(_kind, value))})"
    return "a function" if callable(value) else f"a {type(value).__name__}"


_IN_WORDS = {
    NameError: "a name is used that does not exist here",
    ZeroDivisionError: "a division by zero",
    IndexError: "an index outside of what is there",
    KeyError: "a key that is not there",
    AttributeError: "something is asked for that this object does not have",
    TypeError: "values of a type that does not fit",
    AssertionError: "an assertion that does not hold",
    NotImplementedError: "a part that is not written yet",
    RuntimeError: "an operation that torch refuses",
}


def _said(error: Exception, function: Callable[..., Any]) -> str:
    """An error in a reader's function: which line of it, and what the error means."""
    words = next((text for kind, text in _IN_WORDS.items() if isinstance(error, kind)), "an error")
    source = inspect.unwrap(function) if inspect.isroutine(function) else getattr(function, "forward", function)
    file = getattr(getattr(source, "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    reason = f"{words} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is known'})"
    if not frames:
        return f"your function cannot be called as the exercise asks: {reason}."
    line = frames[-1].lineno or 0
    text = linecache.getline(frames[-1].filename, line).strip()
    return f"your function stops in line {line}{f', `{text}`' if text else ''}: {reason}."
