"""From what students hand in to notebooks that can be trusted to hold our tests (floor 3)."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cxr_tutorial.classroom.sources import Notebook, is_test, outside
from cxr_tutorial.errors import InputError

LARGEST_MB = 50
#: ways to what a notebook's cells run in, and to what others have run
HOOKS = frozenset({"input_transformers_post", "input_transformers_cleanup", "ast_transformers", "set_custom_exc"})
HOOKS |= {"In", "_ih", "_getframe", "currentframe", "inspect", "gc", "linecache", "importlib", "__dict__", "modules"}
CALLS = frozenset({"setattr", "delattr", "vars", "globals", "get_ipython", "exec", "eval"})
MODULES = frozenset({"torch", "np", "numpy", "builtins", "cxr_tutorial", "F", "math", "losses", "metrics"})


@dataclass(frozen=True)
class Submission:
    """One student's file, read or not: `notebook` is None where it could not be, and `words` says why."""

    student: str
    path: Path
    notebook: Notebook | None
    words: str = ""


def find(folder: Path) -> list[Path]:
    """The notebooks of a folder of submissions: `alice.ipynb`, or `alice/anything.ipynb`."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: expected alice.ipynb, bob.ipynb or alice/NAME.ipynb in it")
    found = [*folder.glob("*.ipynb"), *folder.glob("*/*.ipynb"), *folder.glob("*/*/*.ipynb")]
    files = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if not files:
        raise InputError(f"{folder} holds no notebook: expected alice.ipynb, bob.ipynb or alice/NAME.ipynb in it")
    return files


def student_of(folder: Path, path: Path) -> str:
    """`alice` for `alice.ipynb` and for `alice/...`; letters that a file name cannot hold become `_`."""
    name = path.relative_to(folder).parts[0]
    return re.sub(r"[^\w.@-]", "_", name.removesuffix(".ipynb")) or "_"


def collect(folder: Path, instructor: Notebook) -> list[Submission]:
    """One submission for each student: of several files the one with the most cells of this assignment.

    A file's own name says nothing; the marks in its cells say which assignment it is.

    Raises
    ------
    InputError : two names that differ only in letters that a file name cannot hold.
    """
    wanted = set(_marked(instructor))
    by_student: dict[str, list[tuple[int, Submission]]] = {}
    handed_in: dict[str, str] = {}  # by student the name of the file or folder
    for path in find(folder):
        student, name = student_of(folder, path), path.relative_to(folder).parts[0].removesuffix(".ipynb")
        if handed_in.setdefault(student, name) != name:
            raise InputError(
                f"{handed_in[student]} and {name} in {folder} would both be the student {student}: call one of them "
                "otherwise, in letters, digits, dots and dashes"
            )
        one = _read(student, path)
        marks = set(_marked(one.notebook)) if one.notebook is not None else set()
        shared = len(wanted & marks) if one.notebook is not None else -1
        if one.notebook is not None and shared <= len(marks - wanted):
            words = f"is not this assignment: of {len(marks)} marked cells {shared} are of it"
            shared, one = 0, Submission(student, path, None, words)
        by_student.setdefault(student, []).append((shared, one))
    return [_best(found) for found in by_student.values()]


def _best(found: list[tuple[int, Submission]]) -> Submission:
    most = max(shared for shared, _ in found)
    equals = [one for shared, one in found if shared == most]
    newest = max(equals, key=lambda one: one.path.stat().st_mtime)
    if len(found) == 1 or newest.notebook is None:
        return newest
    others = ", ".join("/".join(one.path.parts[-2:]) for _, one in found if one is not newest)
    chosen = "/".join(newest.path.parts[-2:])
    return Submission(newest.student, newest.path, newest.notebook, f"graded {chosen}, not {others}")


def _read(student: str, path: Path) -> Submission:
    import nbformat

    try:
        if path.stat().st_size > LARGEST_MB * 2**20:
            return Submission(student, path, None, f"is larger than {LARGEST_MB} MB")
        notebook = nbformat.from_dict(json.loads(path.read_text(encoding="utf-8")))
        if notebook.get("nbformat") != 4:
            notebook = nbformat.convert(notebook, 4)
        for cell in notebook.cells:
            cell.source = "".join(cell.source)
            cell.source.encode()  # half a character cannot be written again
            if not isinstance(cell.get("id", ""), str):
                del cell["id"]
            assert cell.cell_type in ("code", "markdown", "raw")
            assert isinstance(cell.metadata, dict)
    except Exception as error:
        return Submission(student, path, None, f"could not be read as a notebook ({type(error).__name__})")
    return Submission(student, path, notebook)


def _marked(notebook: Notebook) -> Iterator[str]:
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader")
        if isinstance(about, dict) and about.get("grade_id"):
            yield str(about["grade_id"])


def assemble(skeleton: Notebook, submitted: Notebook) -> tuple[Notebook, list[str]]:
    """The skeleton with the student's answers in it, and what is worth a look, in words.

    Every cell that students should not change comes from the skeleton, in its order; their answers are found by the
    marks of the cells, their further cells stay where they were, but never between two tests. So a changed, moved or
    deleted test is our test again.
    """
    notes: list[str] = []
    ours = {about["grade_id"]: cell for cell in skeleton.cells if (about := cell.metadata.get("nbgrader"))}
    prose = {cell.source.strip() for cell in skeleton.cells if "nbgrader" not in cell.metadata}
    ids = {cell.get("id") for cell in skeleton.cells if "nbgrader" not in cell.metadata}
    answers: dict[str, str] = {}
    extra: dict[str | None, list[Notebook]] = {}
    last: str | None = None
    for cell in submitted.cells:
        about = cell.metadata.get("nbgrader")
        name = str(about.get("grade_id")) if isinstance(about, dict) else None
        if name is not None and name in ours and name not in answers:
            answers[name], last = cell.source, name
        elif name is not None or not (cell.source.strip() in prose or cell.get("id") in ids):
            extra.setdefault(last, []).append(_plain(cell))
    made = copy.deepcopy(skeleton)
    not_allowed = skeleton.metadata.get("classroom", {}).get("not_allowed", ())
    cells, changed = list(extra.get(None, [])), []
    held: list[Notebook] = []
    for cell in made.cells:
        if not is_test(cell):
            cells += held
            held = []
        cells.append(cell)
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name is None:
            continue
        if cell.metadata.nbgrader["solution"]:
            cell.source = answers.get(name, cell.source)
        elif name in answers and not _same(answers[name], cell.source):
            changed.append(name)
        (held if is_test(cell) else cells).extend(extra.get(name, []))
    if changed:
        notes.append(f"given cells that were changed, ours were run: {', '.join(changed)}")
    missing = [name for name in ours if name not in answers]
    if missing:
        notes.append(f"missing cells, put back: {', '.join(missing)}")
    made.cells = cells + held
    notes += suspicious(own_code(made), not_allowed)
    return made, notes


def own_code(notebook: Notebook) -> list[str]:
    """The code that the student wrote: answers and further cells."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    given = [bool(about) and not about.get("solution") for about in (cell.metadata.get("nbgrader") for cell in code)]
    return [cell.source for cell, ours in zip(code, given, strict=True) if not ours]


def _plain(cell: Notebook) -> Notebook:
    import nbformat

    return getattr(nbformat.v4, f"new_{cell.cell_type}_cell")(cell.source)


def _same(submitted: str, ours: str) -> bool:
    """Whether a given cell is as it was handed out: ours without its hidden tests."""

    def squeezed(text: Iterable[str]) -> str:
        return "".join("".join(text).split())

    return squeezed(outside(submitted)) == squeezed(outside(ours))


def suspicious(sources: Iterable[str], not_allowed: Collection[str] = ()) -> list[str]:
    """What a person should look at: code that reaches into the tests' tools, or uses names that the rules forbid.

    It finds the plain ways, not every way: a test runs in the same process as what it tests.

    >>> suspicious(["import torch as t; t.allclose = lambda *a: True"])
    ['worth a look: sets t.allclose']
    """
    found: list[str] = []
    for source in sources:
        try:
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "pass", source, flags=re.MULTILINE))
            found += _reaching(tree, not_allowed)
        except (SyntaxError, ValueError):
            continue
        except (RecursionError, MemoryError):
            found.append("a cell is nested too deeply to be looked through")
    return [f"worth a look: {'; '.join(dict.fromkeys(found))}"] if found else []


def _reaching(tree: ast.AST, not_allowed: Collection[str]) -> Iterator[str]:
    imported = [
        alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    ]
    modules = MODULES | {alias.asname for alias in imported if alias.asname and alias.name.split(".")[0] in MODULES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            owner = ast.unparse(node.value)
            if re.split(r"\W", owner)[0] in modules:
                yield f"sets {owner}.{node.attr}" if isinstance(node, ast.Attribute) else f"sets {ast.unparse(node)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            yield f"calls {ast.unparse(node.func)}"
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        if name in HOOKS:
            yield f"uses {name}"
        if name in not_allowed:
            yield f"uses {name}, which this assignment does not allow"
    modules_used = {
        one.module.split(".")[0] for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and one.module
    }
    modules_used |= {alias.name.split(".")[0] for alias in imported}
    for module in sorted(modules_used & set(not_allowed)):
        yield f"imports from {module}, which this assignment does not allow"
    for alias in imported:
        if alias.name in HOOKS:
            yield f"imports {alias.name}"
        if alias.name.split(".")[-1] in not_allowed:
            yield f"imports {alias.name}, which this assignment does not allow"
