"""Who drew and named best on the private hospital: the table of the capstone (floor 3)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cxr_tutorial.classroom.sources import Notebook, is_test
from cxr_tutorial.classroom.submissions import own_code, suspicious
from cxr_tutorial.errors import InputError

SAID = "private hospital: "


@dataclass(frozen=True)
class Row:
    """One student's figures on the private hospital; `score` is the mean of Dice and AUC."""

    student: str
    dice: float
    auc: float
    note: str = ""

    @property
    def score(self) -> float:
        return (self.dice + self.auc) / 2


def leaderboard(graded: Path, name: str) -> list[Row]:
    """The rows of a graded capstone, best first; who drew nothing has no row.

    Parameters
    ----------
    graded : what `grade` wrote. name : the assignment.

    Raises
    ------
    InputError : no graded notebook of this assignment lies there.
    """
    import nbformat

    files = sorted(graded.glob(f"autograded/*/{name}/{name}.ipynb"))
    if not files:
        raise InputError(f"{graded} holds no graded {name}: run `cxr-tutorial classroom grade` first")
    rows = []
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        said = list(_said(notebook))
        if said:
            not_allowed = notebook.metadata.get("classroom", {}).get("not_allowed", ())
            notes = suspicious(own_code(notebook), not_allowed)
            rows.append(Row(file.parts[-3], said[-1]["dice"], said[-1]["auc"], "; ".join(notes)))
    return sorted(rows, key=lambda row: -row.score)


def _said(notebook: Notebook) -> Iterator[dict[str, float]]:
    """What our own tests printed, in order, where it is what they print; a student's prints come earlier."""
    for cell in filter(is_test, notebook.cells):
        for output in cell.outputs:
            for line in output.get("text", "").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    if line.startswith(SAID):
                        said = json.loads(line.removeprefix(SAID))
                        if all(0 <= said[name] <= 1 for name in ("dice", "auc")):
                            yield said
