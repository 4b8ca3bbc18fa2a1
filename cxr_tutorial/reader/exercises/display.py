"""How a check, a hint and a chapter's progress show themselves, as text and in a notebook (floor 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Literal

Status = Literal["open", "tried", "passed"]

_SIGN = {"open": "○", "tried": "→", "passed": "✓"}
_COLOUR = {
    "open": "#767676",
    "tried": "#B85000",
    "passed": "#007A5A",
}  # each 4.5:1 on white, told apart by the sign too


@dataclass(frozen=True)
class Result:
    """What `check` says of one answer.

    Parameters
    ----------
    name : the exercise.
    status : `"open"` (not done yet), `"tried"` (not right yet) or `"passed"`.
    message : what to tell the reader.
    """

    name: str
    status: Status
    message: str = ""

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == "passed"

    @property
    def text(self) -> str:
        """The whole verdict as one paragraph."""
        return f"right. {self.message}".strip() if self.passed else self.message

    def __repr__(self) -> str:
        return f"{self.name}: {self.text}"

    def _repr_html_(self) -> str:
        return _line(self.status, f"<strong>{escape(self.name)}</strong>: {inline(self.text)}")


@dataclass(frozen=True, repr=False)
class Hints:
    """The hints of one exercise.

    Parameters
    ----------
    name : the exercise.
    hints : all of them.
    shown : how many the text shows; the HTML holds all, folded.
    """

    name: str
    hints: tuple[str, ...]
    shown: int

    def __repr__(self) -> str:
        lines = [f"{self.name}, hint {k} of {len(self.hints)}: {text}" for k, text in enumerate(self.hints, 1)]
        return "\n".join(lines[: self.shown]) or f"{self.name} has no hints."

    def _repr_html_(self) -> str:
        html = ""
        for number, text in reversed(list(enumerate(self.hints, 1))):
            label = f"Hint {number} of {len(self.hints)}"
            html = f"<details><summary>{label}</summary><p>{inline(text)}</p>{html}</details>"
        return f'<div class="cxr-hints">{html or repr(self)}</div>'


@dataclass(frozen=True, repr=False)
class Progress:
    """How far a reader is with a chapter's exercises.

    Parameters
    ----------
    rows : for each exercise its best result and what it is about.
    """

    rows: tuple[tuple[Result, str], ...]

    @property
    def passed(self) -> int:
        """How many exercises pass."""
        return sum(result.passed for result, _ in self.rows)

    def __repr__(self) -> str:
        lines = [f"{_SIGN[r.status]} {r.name:14} {r.status:7} {about}" for r, about in self.rows]
        return "\n".join([*lines, f"{self.passed} of {len(self.rows)} exercises pass."])

    def _repr_html_(self) -> str:
        lines = [
            _line(r.status, f"<strong>{escape(r.name)}</strong> {r.status}: {escape(about)}") for r, about in self.rows
        ]
        return f"{''.join(lines)}<p>{self.passed} of {len(self.rows)} exercises pass.</p>"


def _line(status: Status, html: str) -> str:
    """One line with a coloured edge; text and background are the page's own, so that it reads in the dark too."""
    edge = f"border-left:4px solid {_COLOUR[status]};padding:.2em .8em;margin:.3em 0"
    return f'<div class="cxr-check cxr-{status}" role="status" style="{edge}">{_SIGN[status]} {html}</div>'


def inline(text: str) -> str:
    """Escaped text in which `code` is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
