"""The anatomy of a chapter (CONTRIBUTING.md), checked without running it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from inspect import isclass, isroutine
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

import cxr_tutorial
from cxr_tutorial import __version__
from cxr_tutorial.reader.bookext import introduced

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted([*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book/experiments").glob("*.ipynb")])
NUMBERED = [path for path in CHAPTERS if path.stem[:2].isdigit()]
ASSIGNMENTS = sorted((ROOT / "assignments").glob("*.ipynb"))
LONGEST_CELL = 40
MEDIAN_CELL = 6  # lines with something on them, of the cells that a reader sees unfolded
WORDS_PER_LINE = 8
LARGEST_FILE = 1_000_000
IMPORT_NAMES = {"scikit-learn": "sklearn", "pillow": "PIL", "lightning-fabric": "lightning_fabric"}
CONFIG = (ROOT / "_config.yml").read_text()
SETUP = """\
# a fresh session, such as Colab's: adds what is missing, never PyTorch or NumPy
from importlib.util import find_spec

BOOK = "{address}"
if find_spec("cxr_tutorial") is None:
    %pip install --quiet --no-deps git+{{BOOK}}
from cxr_tutorial.reader import setup

setup.ready(edition="{edition}", source=BOOK)"""
ALWAYS_THERE = {"cxr_tutorial", "IPython", "ipywidgets"}  # wherever a notebook of this book runs


def allowed_imports() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [Requirement(line).name for line in project["dependencies"]]
    return ALWAYS_THERE | {IMPORT_NAMES.get(name, name) for name in names} | sys.stdlib_module_names


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def imports(source: str) -> set[str]:
    """The top-level modules that a code cell imports; lines for IPython (`%`, `!`) are left out."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level or (node.module or "").split(".")[0])
    return found


def problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with a chapter, in words."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not called python3")
    if not notebook.cells or not re.match(r"# [^\d\s]", notebook.cells[0].source):
        found.append("the first cell does not start with '# Title' (no number: _toc.yml numbers chapters)")
    if code and sum("parameters" in tags(cell) for cell in code) != 1:
        found.append("not exactly one cell is tagged 'parameters'")
    for number, cell in enumerate(code, 1):
        where = f"code cell {number}"
        if cell.outputs and "keep_output" not in tags(cell):
            found.append(f"{where} has outputs: strip them, or tag it 'keep_output'")
        if "NBVAL_CHECK_OUTPUT" in cell.source and not cell.outputs:
            found.append(f"{where} compares its output with nothing: tag it 'keep_output' and run it")
        if len(cell.source.splitlines()) > LONGEST_CELL:
            found.append(f"{where} has more than {LONGEST_CELL} lines")
        if strangers := imports(cell.source) - allowed_imports():
            found.append(f"{where} imports {', '.join(sorted(strangers))}, no dependency of the package")
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_the_anatomy(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook) == []
    assert path.stat().st_size <= LARGEST_FILE


@pytest.mark.parametrize("path", ASSIGNMENTS, ids=lambda path: path.stem)
def test_an_assignment_has_no_long_cell(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert max(len(cell.source.splitlines()) for cell in code) <= LONGEST_CELL


def unfolded(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and not {"hide-input", "remove-cell"} & set(tags(cell))


def reading(notebook: NotebookNode) -> list[str]:
    """What would weary a reader of a chapter, in words."""
    lines = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in notebook.cells if unfolded(cell)]
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    found = []
    if (middle := median(lines)) > MEDIAN_CELL:
        found.append(f"half of the code cells have {middle:g} lines or more, above {MEDIAN_CELL}: split some")
    if words < WORDS_PER_LINE * sum(lines):
        found.append(f"{words} words for {sum(lines)} lines of code: say more, or fold what only draws (hide-input)")
    for one, two in pairwise(notebook.cells):
        if unfolded(one) and unfolded(two) and "parameters" not in tags(one) + tags(two):
            found.append(f"two code cells without a sentence between them: {two.source.splitlines()[0]!r}")
    for cell in notebook.cells:
        if "plt.show()" in cell.source and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
            found.append(f"a picture without alt text: {cell.source.splitlines()[0]!r}")
    return found


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_a_chapter_can_be_read(path):
    assert reading(nbformat.read(path, as_version=4)) == []


def public_names() -> dict[str, int]:
    """Functions and classes that `import cxr_tutorial` shows, and all that say so, with their chapter."""
    said = {name.rpartition(".")[2]: number for number, names in introduced().items() for name in names}
    shown = [name for name in cxr_tutorial.__all__ if isroutine(one := getattr(cxr_tutorial, name)) or isclass(one)]
    return {name: said.get(name, 0) for name in shown} | said


@pytest.mark.parametrize(("name", "number"), public_names().items())
def test_a_public_name_stands_in_the_chapter_that_introduces_it(name, number):
    assert number, f"the docstring of {name} does not say in which chapter it is introduced"
    [path] = [path for path in NUMBERED if int(path.stem[:2]) == number]
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert re.search(rf"\b{name}\b", text), f"{path.stem} does not mention {name}"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_its_first_code_cell_makes_a_fresh_session_ready(path):
    """The same cell everywhere: it knows this edition and the one public address."""
    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    assert tags(first) == ["setup", "remove-cell"]
    assert first.source == SETUP.format(address=re.search(r"(?m)^  url: (\S+)$", CONFIG)[1], edition=__version__)


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def chapter(*cells: NotebookNode) -> NotebookNode:
    title = new_markdown_cell("# Tversky loss")
    parameters = new_code_cell('PROFILE = "quick"', metadata={"tags": ["parameters"]})
    return new_notebook(cells=[title, parameters, *cells], metadata={"kernelspec": KERNEL})


def printed(*, tagged: bool) -> NotebookNode:
    output = new_output("stream", name="stdout", text="1")
    return new_code_cell("print(1)", outputs=[output], metadata={"tags": ["keep_output"] * tagged})


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (new_code_cell("import torch, cxr_tutorial.losses\n%matplotlib inline\nfrom PIL import Image"), None),
        (printed(tagged=True), None),
        (printed(tagged=False), "code cell 2 has outputs"),
        (new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(1)"), "compares its output with nothing"),
        (new_code_cell("x = 1\n" * 41), "more than 40 lines"),
        (new_code_cell("import torchvision.transforms"), "imports torchvision"),
        (new_code_cell("from .helpers import f"), "imports ."),
        (new_code_cell("SEED = 1", metadata={"tags": ["parameters"]}), "not exactly one cell"),
    ],
)
def test_the_lint_sees(cell, complaint):
    found = problems(chapter(cell))
    assert (found == []) if complaint is None else (complaint in found[0])


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ([new_code_cell("x = 1"), new_markdown_cell("word " * 20), new_code_cell("y = 2")], None),
        ([new_code_cell("x = 1\n" * 7), new_markdown_cell("word " * 200)], "7 lines or more"),
        ([new_code_cell("x = 1"), new_markdown_cell("too few words")], "words for 1 lines"),
        ([new_code_cell("x = 1"), new_code_cell("y = 2"), new_markdown_cell("word " * 20)], "without a sentence"),
        ([new_code_cell("plt.show()"), new_markdown_cell("word " * 20)], "without alt text"),
        ([new_code_cell("x = 1\n" * 30, metadata={"tags": ["hide-input"]}), new_code_cell("y = 2")], "words for 1"),
    ],
)
def test_the_lint_sees_what_wearies(cells, complaint):
    found = reading(new_notebook(cells=cells))
    assert (found == []) if complaint is None else (complaint in found[0])


def test_the_lint_sees_a_numbered_title_and_a_strange_kernel():
    notebook = chapter()
    notebook.cells[0].source = "# 2. Tversky loss"
    notebook.metadata.kernelspec.name = "venv"
    assert [text.split(" (")[0] for text in problems(notebook)] == [
        "the kernel is not called python3",
        "the first cell does not start with '# Title'",
    ]
