"""Slides show what can be seen at a glance, keep the prose as notes, and ask no network."""

import re
from pathlib import Path

import nbformat
import pytest

from cxr_tutorial.classroom.slides import arranged, slides
from cxr_tutorial.errors import InputError

BOOK = Path(__file__).parents[2] / "book"


def test_prose_becomes_notes_and_roles_of_the_book_plain_words():
    text = "## Weights\n\nA {term}`loss` of {cite:p}`salehi2017tversky` [chapter 1](01-chest-xrays).\n\n- one\n- two"
    made = arranged(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]))
    assert [cell.source for cell in made.cells] == ["## Weights\n\n- one\n- two", "A loss of chapter 1."]


def test_nothing_of_the_exercises_is_on_a_slide():
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# A", "## Exercises\n\n- secret", "## B")]
    assert [cell.source for cell in arranged(nbformat.v4.new_notebook(cells=cells)).cells] == ["# A"]


@pytest.mark.slow
def test_the_page_holds_pictures_and_equations_and_asks_no_network(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("# A chapter\n\n$$x^2$$"),
        nbformat.v4.new_code_cell("import plotly.graph_objects as go\n\ngo.Figure(go.Scatter(y=[1, 2]))"),
        nbformat.v4.new_code_cell("print(6 * 7)"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    page = slides(tmp_path / "small.ipynb", tmp_path / "out", BOOK / "vendor")
    text = page.read_text()
    assert ">42" in text
    assert "Plotly.newPlot" in text
    loaded = re.findall(r"(?:<script[^>]* src|<link[^>]* href)=\"([^\"]+)\"", text)
    assert loaded
    assert all((page.parent / name).is_file() for name in loaded), loaded


def test_a_missing_chapter_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.ipynb is not there"):
        slides(tmp_path / "nowhere.ipynb", tmp_path, BOOK / "vendor")
    with pytest.raises(InputError, match="lacks reveal, mathjax, requirejs"):
        slides(BOOK / "02-tversky.ipynb", tmp_path, tmp_path)
