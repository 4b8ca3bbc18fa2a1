"""A submission that misbehaves costs itself its marks, and nobody else anything."""

import copy
import csv
import json
from pathlib import Path

import nbformat
import psutil
import pytest
from typer.testing import CliRunner

from cxr_tutorial.classroom import sources
from cxr_tutorial.classroom.grade import grade
from cxr_tutorial.classroom.sandbox import Limits
from cxr_tutorial.classroom.scan import secrets_of
from cxr_tutorial.cli import app

SOURCES = Path(__file__).parents[2] / "assignments"
NAME = "01-overlap-losses"
LIMITS = Limits(seconds=40, cell_seconds=12, memory_mb=1500, output_kb=300)

LOOP = "while True:\n    pass"
HOG = "hoard = []\nwhile True:\n    hoard.append(bytearray(50_000_000))"
CRASH = "import os\nos.kill(os.getpid(), 11)"
SPAM = "while True:\n    print('x' * 100_000)"
LOUD = "for _ in range(1000):\n    print('y' * 1_000_000)"
FORK = "import os, time\nwhile True:\n    if not os.fork():\n        time.sleep(60)"
FULL_DISK = "with open('big', 'wb') as f:\n    while True:\n        f.write(bytes(10_000_000))"


def with_code(notebook, code):
    """The solution with a student's code in front of the second task."""
    made = copy.deepcopy(notebook)
    [cell] = [one for one in made.cells if one.metadata.get("nbgrader", {}).get("grade_id") == "counts"]
    cell.source = f"{code}\n{cell.source}"
    return made


def erase(target):
    path = str(target)
    remove = f"os.path.isfile({path!r}) and os.remove({path!r})"
    return f"import os, shutil\nshutil.rmtree({path!r}, ignore_errors=True)\n{remove}"


@pytest.mark.slow
def test_a_hostile_submission_costs_only_itself(tmp_path):
    notebook = sources.read(SOURCES, NAME)
    folder, precious = tmp_path / "submissions", tmp_path / "precious.txt"
    folder.mkdir()
    precious.write_text("do not touch")
    hostile = {
        "loops": LOOP,
        "hogs": HOG,
        "crashes": CRASH,
        "spams": SPAM,
        "shouts": LOUD,
        "forks": FORK,
        "fills": FULL_DISK,
    }
    hostile |= {"erases": erase(folder), "erases-a-file": erase(precious)}
    for who, code in hostile.items():
        nbformat.write(with_code(notebook, code), folder / f"{who}.ipynb")
    nbformat.write(notebook, folder / "honest.ipynb")
    (folder / "renamed").mkdir()
    nbformat.write(notebook, folder / "renamed" / "my homework (final) 2.ipynb")
    (folder / "broken.ipynb").write_text('{"cells": [')
    (folder / "other.ipynb").write_text(json.dumps(nbformat.v4.new_notebook()))
    graded = {one.student: one for one in grade(folder, SOURCES, NAME, tmp_path / "graded", limits=LIMITS, jobs=2)}

    assert graded["honest"].auto == graded["renamed"].auto == 15
    assert precious.read_text() == "do not touch"
    assert (folder / "honest.ipynb").exists()
    assert "longer than" in graded["loops"].words
    assert "MB of memory" in graded["hogs"].words
    assert "kernel crashed" in graded["crashes"].words
    assert "could not be read" in graded["broken"].words
    assert "not this assignment" in graded["other"].words
    for who in ("loops", "hogs", "crashes"):
        assert graded[who].auto == 2, f"{who}: what ran before counts"
    for one in graded.values():
        assert one.words, one.student
        page = tmp_path / "graded" / "feedback" / one.student / NAME / f"{NAME}.html"
        assert page.stat().st_size < 3_000_000
    with (tmp_path / "graded" / f"{NAME}.csv").open() as table:
        assert {row["student"] for row in csv.DictReader(table)} == set(graded)


NO_ASSERTS = """import builtins as b
plain = b.compile
b.compile = lambda *args, **more: plain(*args, **{**more, "optimize": 1})"""
ORPHAN = """import subprocess
subprocess.Popen(["setsid", "-f", "env", "-i", "sleep", "61.25"])"""


def further(notebook, cell):
    made = copy.deepcopy(notebook)
    made.cells.append(cell)
    return made


@pytest.mark.slow
def test_what_a_student_does_to_the_grader_costs_nobody_else(tmp_path):
    instructor = sources.read(SOURCES, NAME)
    blank, code = sources.release(instructor), nbformat.v4.new_code_cell
    seed = str(instructor.metadata["classroom"]["private_seed"])
    folder = tmp_path / "submissions"
    folder.mkdir()
    odd = {
        "honest": instructor,
        "odd-id": further(instructor, code("1", id="x")),
        "deep": further(instructor, code("x = 1" + " + 1" * 5000)),
        "half": further(instructor, nbformat.v4.new_markdown_cell("smile HALF")),
        "history": further(instructor, code("print(*In)\nprint(*_ih)")),
        "seed": further(instructor, code(f"print({seed[:4]!r} + {seed[4:]!r})")),
        "no-asserts": further(with_code(blank, NO_ASSERTS), code("1")),
        "orphan": with_code(instructor, ORPHAN),
        "half-printed": further(instructor, code("raise ValueError(chr(0xd83d))")),
    }
    for who, notebook in odd.items():
        text = nbformat.writes(notebook).replace('"id": "x"', '"id": ["x"]').replace("HALF", "\\ud83d")
        (folder / f"{who}.ipynb").write_text(text)
    out = tmp_path / "graded"
    graded = {one.student: one for one in grade(folder, SOURCES, NAME, out, limits=LIMITS, jobs=2)}
    assert {who for who, one in graded.items() if one.auto == 15} == odd.keys() - {"half", "no-asserts"}
    assert graded["no-asserts"].auto == 0
    assert "nested too deeply" in str(graded["deep"].notes)
    assert "uses In" in str(graded["history"].notes)
    assert "prints a hidden test" in str(graded["seed"].notes)
    hidden = [one.text for one in secrets_of(NAME, instructor) if one.kind == "hidden test"]
    for who in odd:
        page = (out / "feedback" / who / NAME / f"{NAME}.html").read_text()
        assert seed not in page, who
        assert not any(line.strip() in page for line in hidden), who
    assert not [one for one in psutil.process_iter() if one.name() == "sleep" and "61.25" in one.cmdline()]

    (folder / "late").mkdir()
    nbformat.write(instructor, folder / "late" / "zoe.ipynb")
    grade(folder / "late", SOURCES, NAME, out, limits=LIMITS)
    with (out / f"{NAME}.csv").open() as table:
        assert [row["student"] for row in csv.DictReader(table)] == sorted([*odd, "zoe"])


@pytest.mark.slow
def test_a_test_overwrites_no_name_of_an_answer(tmp_path):
    """`entropy` is a name of a hidden test of this assignment, `sum` one of Python's own."""
    notebook = sources.read(SOURCES, "02-divergences")
    [cell] = [one for one in notebook.cells if one.metadata.get("nbgrader", {}).get("grade_id") == "coins"]
    cell.source += "\nsolved = kl_coins\ndef entropy(*x): return solved(*x)\ndef sum(*x): return entropy(*x)\n"
    cell.source += "def kl_coins(*x): return sum(*x)"
    nbformat.write(notebook, tmp_path / "amy.ipynb")
    [graded] = grade(tmp_path, SOURCES, "02-divergences", tmp_path / "graded", limits=LIMITS)
    assert graded.auto == _sum_of_tests(notebook)


def _sum_of_tests(notebook):
    return sum(task.points for task in sources.tasks(notebook) if not task.manual)


@pytest.mark.slow
def test_changed_and_deleted_tests_are_ours_again(tmp_path):
    notebook = sources.release(sources.read(SOURCES, NAME))
    cheat = copy.deepcopy(notebook)
    cheat.cells = [cell for cell in cheat.cells if not sources.is_test(cell)]
    eager = copy.deepcopy(notebook)
    for cell in filter(sources.is_test, eager.cells):
        cell.source = "print('passed')"
    nbformat.write(cheat, tmp_path / "without-tests.ipynb")
    nbformat.write(eager, tmp_path / "own-tests.ipynb")
    graded = grade(tmp_path, SOURCES, NAME, tmp_path / "graded", limits=LIMITS)
    assert [one.auto for one in graded] == [0, 0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["grade", "nowhere", "--assignment", NAME], "nowhere is not a folder"),
        (["grade", ".", "--assignment", NAME], "holds no notebook"),
        (["grade", ".", "--assignment", "07-missing"], "there is no assignment '07-missing'"),
        (["build", "--from", "nowhere"], "nowhere holds no assignment"),
        (["build", "09-none"], "there is no assignment '09-none'"),
        (["leaderboard", "nowhere"], "holds no graded"),
        (["scan", "nowhere"], "nowhere is not there"),
    ],
)
def test_a_teachers_mistake_is_named(args, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if args[0] in ("grade", "scan") or args == ["build", "09-none"]:
        args = [*args, "--from", str(SOURCES)]
    done = CliRunner().invoke(app, ["classroom", *args])
    assert done.exit_code != 0
    assert said in str(done.exception)
