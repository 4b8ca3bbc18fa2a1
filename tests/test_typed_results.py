"""No result is typed: a figure in prose is computed, read from a record, quoted, or part of a worked example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("book/*.ipynb"), *ROOT.glob("book/experiments/*.ipynb"), *ROOT.glob("book/*.md")])

CODE = re.compile(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|https?://\S+", re.DOTALL)
PRECISE = re.compile(r"(?<![\w.])0?\.\d{3,}(?!\d)")  # .9731: no setting has so many digits
SHARE = re.compile(r"(?<![\w.])0?\.\d{2,}(?!\d)|\b\d+(?:\.\d+)? ?%")
FIGURE = re.compile(r"\b(?:Dice|AUC|Jaccard|accuracy|sensitivity|precision)\b")
INTERVAL = re.compile(r"\b95 ?%")  # the width of an interval, not a result
SOURCE = re.compile(r"\((?:a|b|c|c\+|d)\)|\{cite")
EXAMPLE = re.compile(
    r"\*\*invented\*\*|\bTake the\b|^\*\*\d\. (?:Predict|Implement|Extend)|\bExercise\b", re.IGNORECASE
)

WORKED = {  # numbers of an exercise or of an example by hand, or a level that is asked for
    "02-tversky": {".459", ".394"},
    "04-kltv": {".85"},
    "08-adversarial-ssl": {".125", ".375"},
    "11-evidence": {".012", ".95", ".97", ".975"},
}


def typed(prose: str, allowed: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
    """The numbers in this prose that look like a result and have no source."""
    for paragraph in re.split(r"\n\s*\n", CODE.sub("", prose)):
        if SOURCE.search(paragraph) or EXAMPLE.search(paragraph.strip()):
            continue
        for sentence in re.split(r"(?<=[.!?:;])\s", INTERVAL.sub("", paragraph)):
            pattern = SHARE if FIGURE.search(sentence) else PRECISE
            for number in pattern.findall(sentence):
                if number.removeprefix("0") not in allowed:
                    yield f"{number} in: {' '.join(sentence.split())}"


def prose_of(page: Path) -> list[str]:
    if page.suffix == ".md":
        return [page.read_text()]
    return [cell.source for cell in nbformat.read(page, as_version=4).cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_result_is_typed(page):
    found = [hit for prose in prose_of(page) for hit in typed(prose, WORKED.get(page.stem, set()))]
    assert found == []


@pytest.mark.parametrize("page", WORKED)
def test_what_is_allowed_is_there(page):
    prose = " ".join(prose_of(ROOT / "book" / f"{page}.ipynb"))
    assert all(number in prose for number in WORKED[page])


@pytest.mark.parametrize(
    ("prose", "is_result"),
    [
        ("The full net reaches .9781 on JSRT.", True),
        ("Our Dice is .97 after a minute.", True),
        ("The AUC rose to 0.89.", True),
        ("An accuracy of 83 % is little.", True),
        ("The Dice comes with its 95 % interval.", False),
        ("A later method reports a Dice of .954 (b).", False),
        ("Take the Dice of an old net as .90.", False),
        ("The rate rises to .01 in the first steps.", False),
        ("`dice = 0.9731` is printed below, with $p = .9731$.", False),
    ],
)
def test_the_lint_sees(prose, is_result):
    assert bool(list(typed(prose))) is is_result
