"""The tagged source of an assignment, and the notebooks that are made of it (floor 3).

One notebook holds everything: prose, solutions between `### BEGIN SOLUTION` and `### END SOLUTION`, hidden tests
between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS`, and nbgrader's marks in the cells' metadata. Two numbers
make a variant: `VARIANT`, which students see and their data are drawn from, and `PRIVATE_SEED`, for hidden tests.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_tutorial.errors import InputError

STUB = "# YOUR CODE HERE\n..."
TEXT_STUB = "*Your answer here.*"
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")

Notebook = Any  # a nbformat.NotebookNode, which has no types


@dataclass(frozen=True)
class Task:
    """One marked cell: its name, what it is worth, and whether a person marks it."""

    id: str
    points: float
    manual: bool


def names(folder: Path) -> list[str]:
    """The assignments that lie in `folder`, in order."""
    found = sorted({path.stem for path in (*folder.glob("*.ipynb"), *folder.glob("source/*/*.ipynb"))})
    if not found:
        raise InputError(f"{folder} holds no assignment: expected NAME.ipynb or source/NAME/NAME.ipynb")
    return found


def read(folder: Path, name: str, *, variant: int | None = None, seed: int | None = None) -> Notebook:
    """The instructor's notebook: the source with its variant and its private seed filled in.

    Parameters
    ----------
    folder : holds `NAME.ipynb` (a source), or `source/NAME/NAME.ipynb` (an instructor's copy).
    variant : what students see as `VARIANT`; default: the source's own.
    seed : a secret number of the teacher; each assignment's private seed is drawn from it. Default: the source's own.

    Raises
    ------
    InputError : there is no such assignment, or an instructor's copy was given and another seed is wanted.
    """
    import nbformat

    places = (folder / f"{name}.ipynb", folder / "source" / name / f"{name}.ipynb")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"there is no assignment {name!r} in {folder}: choose one of {', '.join(names(folder))}")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no notebook that can be read ({error})") from error
    about = notebook.metadata.setdefault("classroom", {})
    if absent := {"private_seed", "variant"} - set(about):
        raise InputError(f"{path} is no assignment: its metadata `classroom` lacks {' and '.join(sorted(absent))}")
    wanted = {"private_seed": None if seed is None else private_seed(seed, name), "variant": variant}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if about.get("filled_in") and any(about[key] != value for key, value in wanted.items()):
        raise InputError(f"{path} is an instructor's copy, its seed and variant are fixed: build anew from the source")
    about |= wanted | {"filled_in": True}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"\bPRIVATE_SEED\b", str(about["private_seed"]), cell.source)
            cell.source = re.sub(r"^VARIANT = \d+", f"VARIANT = {about['variant']}", cell.source, flags=re.MULTILINE)
    return notebook


def private_seed(seed: int, name: str) -> int:
    """Nine digits that follow from the teacher's number and the assignment's name.

    >>> private_seed(1, "01-x") == private_seed(1, "01-x") != private_seed(2, "01-x")
    True
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return 100_000_000 + int.from_bytes(digest[:8], "big") % 900_000_000


def tasks(notebook: Notebook) -> list[Task]:
    """The marked cells, in order."""
    return [
        Task(about["grade_id"], float(about["points"]), bool(about["solution"]))
        for about in (cell.metadata.get("nbgrader", {}) for cell in notebook.cells)
        if about.get("grade")
    ]


def is_test(cell: Notebook) -> bool:
    """Whether the cell holds tests that give marks."""
    about = cell.metadata.get("nbgrader", {})
    return bool(about.get("grade")) and not about.get("solution")


def regions(source: str, marks: tuple[str, str]) -> Iterator[list[str]]:
    """The lines between each pair of marks.

    >>> list(regions("a\\n### BEGIN SOLUTION\\nb\\n### END SOLUTION", SOLUTION))
    [['b']]
    """
    inside: list[str] | None = None
    for line in source.splitlines():
        if marks[0] in line:
            inside = []
        elif marks[1] in line and inside is not None:
            yield inside
            inside = None
        elif inside is not None:
            inside.append(line)


def outside(source: str) -> list[str]:
    """The lines that students see: those outside all marks."""
    seen, hidden = [], False
    for line in source.splitlines():
        if any(begin in line for begin in (SOLUTION[0], HIDDEN[0])):
            hidden = True
        elif any(end in line for end in (SOLUTION[1], HIDDEN[1])):
            hidden = False
        elif not hidden:
            seen.append(line)
    return seen


def skeleton(notebook: Notebook) -> Notebook:
    """The instructor's notebook without its solutions but with its hidden tests: what a submission is put into."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ComputeChecksums, LockCells

    return _through(notebook, LockCells(), _clear_solutions(), ClearOutput(), CheckCellMetadata(), ComputeChecksums())


def release(notebook: Notebook) -> Notebook:
    """What students get: no solution, no hidden test, no private seed; every cell runs as it stands."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ComputeChecksums

    made = _through(skeleton(notebook), ClearHiddenTests(), ComputeChecksums(), CheckCellMetadata())
    made.metadata.pop("classroom", None)
    for cell in made.cells:
        cell.source = cell.source.rstrip()
    return _through(made, ComputeChecksums())


def _clear_solutions() -> Any:
    from nbgrader.preprocessors import ClearSolutions

    return ClearSolutions(code_stub={"python": STUB}, text_stub=TEXT_STUB)


def _through(notebook: Notebook, *preprocessors: Any) -> Notebook:
    made = copy.deepcopy(notebook)
    resources: dict[str, Any] = {"nbgrader": {}}
    for preprocessor in preprocessors:
        made, resources = preprocessor.preprocess(made, resources)
    return made
