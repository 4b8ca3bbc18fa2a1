"""Exercises that check themselves: `check`, `hint`, `progress` and `quiz` (floor 2).

Each chapter has a room here with its exercises, and an exercise is named by the room and its number:
`"tversky.2"` is the second one of `exercises.tversky`. A new room holds a tuple `EXERCISES` of the three kinds
in `exercises.kinds` and a tuple `QUIZ` of questions; nothing has to be registered.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.exercises.answers import unfinished
from cxr_tutorial.reader.exercises.display import Hints, Progress, Result
from cxr_tutorial.reader.exercises.kinds import NOT_DONE, Exercise
from cxr_tutorial.reader.exercises.quiz import Quiz

_results: dict[str, Result] = {}  # the best result of each exercise in this session
_calls: dict[str, int] = {}  # how many hints were asked for


def check(name: str, answer: Any, *, solution: bool = False) -> Result:
    """Look at an answer to an exercise and say kindly what is right, missing or misunderstood.

    Put it on the last line of a cell: what comes back shows itself. It does not raise for a wrong answer, nor for
    a function that stops with an error.

    Parameters
    ----------
    name : chapter and number, such as `"tversky.2"`.
    answer : what the exercise asks for: a number, a tuple, a dictionary, a function. None, `...` and functions that
        return them count as not done yet.
    solution : the answer is the book's own: it must be right, and it leaves `progress` alone.

    Returns
    -------
    A `Result`; `.passed` is True if the answer is right.

    Raises
    ------
    InputError : there is no exercise of this name.
    AssertionError : the book's own answer is wrong.

    Examples
    --------
    >>> check("tversky.1", {"loss": None, "worse": None})
    tversky.1: not done yet.
    """
    exercise = _find(name)
    try:
        message = NOT_DONE if unfinished(answer) else exercise.judge(answer)
    except Exception as error:
        message = f"This answer cannot be read ({type(error).__name__}: {error}): compare its form with the question."
    if message is None:
        result = Result(name, "passed", exercise.praise)
    else:
        result = Result(name, "open" if message == NOT_DONE else "tried", message)
    if solution:
        assert result.passed, f"the solution of {result}"
    elif name not in _results or not _results[name].passed:
        _results[name] = result
    return result


def hint(name: str) -> Hints:
    """The hints of an exercise, in steps.

    In a notebook and in the rendered book each hint is a fold inside the one before; as text, each call shows one
    hint more.

    Raises
    ------
    InputError : there is no exercise of this name.

    Examples
    --------
    >>> hint("tversky.1").shown
    1
    """
    exercise = _find(name)
    _calls[name] = min(_calls.get(name, 0) + 1, len(exercise.hints))
    return Hints(name, exercise.hints, _calls[name])


def progress(chapter: str) -> Progress:
    """Which of a chapter's exercises pass, were tried, or are open; kept until the kernel restarts.

    Raises
    ------
    InputError : there is no chapter of this name.
    """
    exercises = _room(chapter).EXERCISES
    rows = []
    for number, exercise in enumerate(exercises, 1):
        name = f"{chapter}.{number}"
        rows.append((_results.get(name, Result(name, "open")), f"{exercise.tier}: {exercise.title}"))
    return Progress(tuple(rows))


def quiz(chapter: str) -> Quiz:
    """A chapter's quiz: open an answer to see what is to be said of it.

    Raises
    ------
    InputError : there is no chapter of this name.

    Examples
    --------
    >>> len(quiz("tversky").questions)
    3
    """
    return Quiz(chapter, _room(chapter).QUIZ)


def _find(name: str) -> Exercise:
    chapter, _, number = str(name).partition(".")
    exercises: tuple[Exercise, ...] = _room(chapter).EXERCISES
    if not (number.isdecimal() and 1 <= int(number) <= len(exercises)):
        raise InputError(f"there is no exercise {name!r}: this chapter has {chapter}.1 to {chapter}.{len(exercises)}")
    return exercises[int(number) - 1]


def _room(chapter: str) -> Any:
    module = f"{__name__}.{chapter}"
    room = import_module(module) if chapter.isidentifier() and find_spec(module) else None
    if not hasattr(room, "EXERCISES"):
        raise InputError(f"no chapter's exercises are called {chapter!r}: write, for example, 'tversky.1'")
    return room
