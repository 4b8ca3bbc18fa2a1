"""The scanner finds every kind of secret wherever a student could see it, and nothing where there is none."""

import html
import json
import zipfile
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from cxr_tutorial.classroom import sources
from cxr_tutorial.classroom.build import build
from cxr_tutorial.classroom.scan import scan, secrets_of
from cxr_tutorial.cli import app

SOURCES = Path(__file__).parents[2] / "assignments"
NAME = "02-divergences"
KINDS = ("solution", "hidden test", "private seed")


@pytest.fixture(scope="module")
def secrets():
    return secrets_of(NAME, sources.read(SOURCES, NAME))


def longest(secrets, kind):
    return max((one.text for one in secrets if one.kind == kind), key=len).strip()


def as_notebook(text, path):
    cell = nbformat.v4.new_code_cell(f"a = 1\n{text}\nb = 2")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path / "release.ipynb")


def as_output(text, path):
    output = nbformat.v4.new_output("stream", text=f"debug: {text}\n")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])]), path / "r.ipynb")


def as_page(text, path):
    words = "".join(f'<span class="n">{html.escape(word)}</span> ' for word in text.split(" "))
    (path / "page.html").write_text(f"<pre>{words}</pre>")


def as_search_index(text, path):
    (path / "searchindex.js").write_text(f"Search.setIndex({json.dumps({'alltitles': text})})")


def in_a_zip(text, path):
    with zipfile.ZipFile(path / "release.zip", "w") as archive:
        archive.writestr("a/notes.txt", text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plant", [as_notebook, as_output, as_page, as_search_index, in_a_zip])
def test_a_planted_leak_is_found(kind, plant, secrets, tmp_path):
    assert scan([tmp_path], secrets)[0] == []
    plant(longest(secrets, kind), tmp_path)
    leaks, _ = scan([tmp_path], secrets)
    assert {leak.secret.kind for leak in leaks} == {kind}
    assert kind in str(leaks[0])
    assert NAME in str(leaks[0])


def test_no_release_and_no_page_of_the_book_tells_a_secret(tmp_path):
    made = build(SOURCES, tmp_path)
    hidden = [one for name in made.names for one in secrets_of(name, sources.read(SOURCES, name))]
    assert {one.kind for one in hidden} == set(KINDS)
    root = SOURCES.parent
    assert scan([made.release, made.archive, root / "book", root / "cxr_tutorial"], hidden)[0] == []


def test_a_build_that_leaks_stops(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    notebook = nbformat.read(SOURCES / f"{NAME}.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_raw_cell(f"the seed is {notebook.metadata.classroom.private_seed}"))
    nbformat.write(notebook, folder / f"{NAME}.ipynb")
    done = CliRunner().invoke(app, ["classroom", "build", "--from", str(folder), "--out", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert "the student release leaks" in str(done.exception)
    assert "private seed" in str(done.exception)


def test_a_teachers_seed_changes_every_private_seed_and_nothing_that_students_see():
    for name in sources.names(SOURCES):
        ours, other = sources.read(SOURCES, name), sources.read(SOURCES, name, seed=7)
        assert ours.metadata.classroom.private_seed != other.metadata.classroom.private_seed
        assert sources.release(ours) == sources.release(other)
        variant = sources.release(sources.read(SOURCES, name, variant=5))
        changed = [
            a.source for a, b in zip(variant.cells, sources.release(ours).cells, strict=True) if a.source != b.source
        ]
        assert changed
        assert all("VARIANT = 5" in source for source in changed)
