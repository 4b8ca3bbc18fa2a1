"""A quiz of a few questions in which every answer explains itself (floor 2).

It is made of folds, so it needs neither a kernel nor JavaScript, and a keyboard opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from cxr_tutorial.reader.exercises.display import inline


@dataclass(frozen=True)
class Question:
    """One question.

    Parameters
    ----------
    text : the question.
    answers : each answer and what is to be said of it. The right one's begins with "Yes", no other's does.
    """

    text: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, repr=False)
class Quiz:
    """The questions of one chapter, which show themselves.

    Parameters
    ----------
    chapter : the room's name.
    questions : in order.
    """

    chapter: str
    questions: tuple[Question, ...]

    def __repr__(self) -> str:
        lines = []
        for number, question in enumerate(self.questions, 1):
            lines.append(f"{number}. {question.text}")
            lines += [f"   {letter}) {text}" for letter, (text, _) in zip("abcdef", question.answers, strict=False)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        html = []
        for number, question in enumerate(self.questions, 1):
            one_open = f'name="quiz-{escape(self.chapter)}-{number}"'  # opening one answer closes the others
            folds = [
                f"<details {one_open}><summary>{inline(text)}</summary>"
                f"<p>{'✓' if why.startswith('Yes') else '✗'} {inline(why)}</p></details>"
                for text, why in question.answers
            ]
            label = f"<p><strong>{number}. {inline(question.text)}</strong></p>"
            html.append(f'<div class="cxr-question" style="margin:1em 0">{label}{"".join(folds)}</div>')
        return f'<div class="cxr-quiz">{"".join(html)}</div>'
