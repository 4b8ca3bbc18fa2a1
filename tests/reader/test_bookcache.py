"""Notebooks run side by side into the cache that myst-nb reads."""

from __future__ import annotations

from types import SimpleNamespace

import nbformat
import pytest
from docutils import nodes
from docutils.utils import new_document
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_notebook

from cxr_tutorial.reader.bookcache import fill_cache, tell_time


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Two notebooks that work, one that fails, and what was run at first and when nothing had changed."""
    folder = tmp_path_factory.mktemp("book")
    sources = {
        "fine": "import os, ipywidgets\nprint(os.environ['OMP_NUM_THREADS'])\nipywidgets.IntSlider()",
        "where": "from pathlib import Path\nprint(Path.cwd().name)",
        "broken": "1 / 0",
    }
    for name, source in sources.items():
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(new_notebook(cells=[new_code_cell(source)], metadata=kernel), folder / f"{name}.ipynb")
    paths = sorted(folder.glob("*.ipynb"))
    cache = folder / "cache"
    runs = [fill_cache(paths, cache, timeout=60, jobs=2) for _ in range(2)]
    return SimpleNamespace(folder=folder, cache=get_cache(cache), runs=runs)


def merged(book, name):
    return book.cache.merge_match_into_notebook(nbformat.read(book.folder / f"{name}.ipynb", as_version=4))[1]


def printed(book, name):
    return merged(book, name).cells[0].outputs[0].text.strip()


def test_what_works_is_found_with_its_outputs_and_its_time(book):
    assert {path.stem for path in book.runs[0]} == {"fine", "where"}
    assert printed(book, "fine") == "1", "one thread each"
    assert printed(book, "where") == book.folder.name, "in its own folder"
    assert all(record.data["execution_seconds"] > 0 for record in book.cache.list_cache_records())


def test_the_state_of_a_live_figure_is_not_kept(book):
    assert "widgets" not in merged(book, "fine").metadata


def test_what_fails_is_not_kept_and_what_is_kept_is_not_run_again(book):
    with pytest.raises(KeyError):
        printed(book, "broken")
    assert book.runs[1] == []


@pytest.mark.parametrize(("seconds", "said"), [(47.4, "took 47 s"), (0.2, "took 1 s"), (None, None)])
def test_the_page_says_what_its_cells_took(seconds, said):
    page = new_document("chapter")
    page += nodes.paragraph("", "", nodes.strong("", "Time"), nodes.Text(": an hour to read."))
    env = SimpleNamespace(docname="c", nb_metadata={"c": {"exec_data": {"runtime": seconds}}})
    tell_time(SimpleNamespace(env=env), page)
    assert ("took" in page.astext()) is (said is not None)
    assert (said or "") in page.astext()
