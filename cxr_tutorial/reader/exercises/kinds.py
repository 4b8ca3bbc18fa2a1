"""The three kinds of exercise: predict, implement, extend (floor 2).

A typical wrong answer stands beside the right one, with what its author believed. It serves twice: an answer that
equals it gets its message, and the tests give it to `check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from cxr_tutorial.reader.exercises.answers import call, difference, equal, show, unfinished

NOT_DONE = "not done yet."


class Exercise(Protocol):
    """What `check`, `hint` and `progress` need to know of an exercise."""

    tier: ClassVar[str]

    @property
    def title(self) -> str: ...
    @property
    def hints(self) -> tuple[str, ...]: ...
    @property
    def praise(self) -> str: ...
    def judge(self, answer: Any) -> str | None:
        """None if the answer is right, otherwise what to tell its author."""


@dataclass(frozen=True)
class Misconception:
    """A typical wrong answer and what it reveals.

    Parameters
    ----------
    answer : a value or a function, of the same form as the right answer. A dictionary may hold only
        the parts that reveal the misconception.
    message : what its author probably believed, and a way back; whole sentences.
    """

    answer: Any
    message: str


@dataclass(frozen=True)
class Predict:
    """An exercise on paper: the answer is a value.

    Parameters
    ----------
    title : two to five words.
    solution : a number, word or truth value, a tuple of them, or a dictionary that names the parts.
    misconceptions : typical wrong answers; the first that equals the given one gives the message.
    hints : in steps; the last one all but gives the answer away.
    praise : one sentence for the right answer, a thought to take along.
    tolerance : relative and absolute, for numbers.

    Examples
    --------
    >>> halves = Predict("Half a lung", 0.5, (Misconception(2, "That is its inverse."),), (), "", 0.01)
    >>> halves.judge(2), halves.judge(0.5)
    ('That is its inverse.', None)
    """

    tier: ClassVar = "predict"

    title: str
    solution: Any
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, ...]
    praise: str
    tolerance: float = 0.005

    def judge(self, answer: Any) -> str | None:
        """None if the answer equals the solution, otherwise the misconception's message or the difference."""
        why = difference(answer, self.solution, self.tolerance)
        if why is None:
            return None
        return next((m.message for m in self.misconceptions if equal(answer, m.answer, self.tolerance)), why)


@dataclass(frozen=True)
class Implement:
    """An exercise whose answer is a function, which must do on fresh random data what the solution does.

    Parameters
    ----------
    title : two to five words.
    solution : the function that is right; the package's own where it has one.
    examples : takes a random generator and yields the arguments of one call after the other, by name and in
        order, **small ones first**: the first on which answer and solution differ is shown to the reader.
    misconceptions : functions that are typically written instead. An answer that agrees with one of
        them on all examples, NaN included, gets its message.
    hints, praise, tolerance : as for `Predict`.
    run : `run(function, **arguments)`, if an example is more than one call: it may return a dictionary that also holds
        a gradient, or build and call a module.

    Examples
    --------
    >>> def numbers(generator):
    ...     yield {"x": 0.0}
    ...     yield {"x": torch.rand((), generator=generator).item()}
    >>> def odd(x):
    ...     return -x
    >>> double = Implement("Double", lambda x: 2 * x, numbers, (Misconception(odd, "The sign."),), (), "")
    >>> double.judge(odd)
    'The sign.'
    """

    tier: ClassVar = "implement"

    title: str
    solution: Callable[..., Any]
    examples: Callable[[torch.Generator], Iterator[Mapping[str, Any]]]
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, ...]
    praise: str
    tolerance: float = 1e-4
    run: Callable[..., Any] | None = None

    def judge(self, answer: Any) -> str | None:
        """None if the function agrees with the solution on all examples, otherwise the message."""
        if not callable(answer):
            return "give the check the function itself, its name without brackets."
        generator = torch.Generator()
        generator.seed()
        examples = list(self.examples(generator))
        wanted = [call(self.solution, self.run, example)[0] for example in examples]
        answers = [call(answer, self.run, example) for example in examples]
        for example, (got, trouble), right in zip(examples, answers, wanted, strict=True):
            if unfinished(got) and not trouble:
                return NOT_DONE
            why = trouble or difference(got, right, self.tolerance)
            if why:
                known = self._known(examples, [got for got, _ in answers]) if not trouble else None
                return known or (why if trouble else f"for {show(example)}: {why} Expected {show(right)}.")
        return None

    def _known(self, examples: list[Mapping[str, Any]], got: list[Any]) -> str | None:
        for misconception in self.misconceptions:
            same = (call(misconception.answer, self.run, example)[0] for example in examples)
            if all(equal(a, b, self.tolerance) for a, b in zip(got, same, strict=True)):
                return misconception.message
        return None


@dataclass(frozen=True)
class Extend:
    """An open exercise: many answers are right, and the judge only asks for what each of them must have.

    Parameters
    ----------
    title : two to five words.
    judge : takes the answer; None if nothing is missing, otherwise what is.
    hints, praise : as for `Predict`.
    misconceptions : answers that lack something; their messages are the judge's.
    """

    tier: ClassVar = "extend"

    title: str
    judge: Callable[[Any], str | None]
    misconceptions: tuple[Any, ...]
    hints: tuple[str, ...]
    praise: str
