"""What each assignment gives for the solution, for nothing, and for answers that are typically handed in."""

from __future__ import annotations

import copy
import csv
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from cxr_tutorial.classroom import self_check, sources
from cxr_tutorial.classroom.build import build
from cxr_tutorial.classroom.grade import Graded, Mark, _write_table, grade, write
from cxr_tutorial.classroom.leaderboard import leaderboard
from cxr_tutorial.classroom.submissions import assemble, collect, suspicious
from cxr_tutorial.errors import InputError

SOURCES = Path(__file__).parents[2] / "assignments"
SEED = 20_261
BLANK = None
QUICK_S, QUICK_D = ("steps=140", "steps=2"), ("steps=260", "steps=2")


@dataclass(frozen=True)
class Answer:
    """`edits`: cell -> the (old, new) replacements in its solution, or `BLANK`; `lost`: test -> points lost."""

    edits: dict[str, list[tuple[str, str]] | None]
    lost: dict[str, float] = field(default_factory=dict)


ANSWERS: dict[str, dict[str, Answer]] = {
    "01-overlap-losses": {
        "half-done": Answer(
            {"focal": BLANK, "batch": BLANK, "shift": BLANK, "essay-smooth": BLANK},
            {"test-focal-values": 1, "test-focal-slope": 1, "test-batch": 2, "test-shift": 3},
        ),
        "weights-swapped": Answer(
            {"tversky": [("fp_weight * wrong + fn_weight * missed", "fn_weight * wrong + fp_weight * missed")]},
            {"test-tversky-values": 2, "test-focal-values": 1, "test-shift": 3},
        ),
        "no-smoothing": Answer(
            {"tversky": [(" + smooth)", ")")]},
            {"test-tversky-extremes": 1, "test-focal-slope": 1},
        ),
        "mean-over-pictures": Answer(
            {"batch": [("return price / (hit + price + smooth)", "return tversky_loss(logits, target).mean(dim=0)")]},
            {"test-batch": 2},
        ),
        "two-axes-only": Answer(
            {
                "counts": [
                    ("target.float().flatten(start_dim=2)", "target.float()"),
                    ("logits.float().sigmoid().flatten(start_dim=2)", "logits.sigmoid()"),
                    ('torch.einsum("ncl,ncl->nc", chance, inside)', "(chance * inside).sum((2, 3))"),
                    ("chance.sum(dim=2)", "chance.sum((2, 3))"),
                    ("inside.sum(dim=2)", "inside.sum((2, 3))"),
                ]
            },
            {"test-counts-types": 1},
        ),
    },
    "02-divergences": {
        "half-done": Answer(
            {"kltv": BLANK, "fused": BLANK, "essay-paper": BLANK},
            {"test-kltv": 1, "test-balance": 2, "test-fused": 2},
        ),
        "directions-swapped": Answer(
            {"paper": [("forward = a", "swapped = a"), ("backward = b", "forward = b"), ("swapped", "backward")]},
            {"test-paper": 2},
        ),
        "cross-entropy-for-kl": Answer({"coins": [("(surprise - own)", "surprise")]}, {"test-coins-values": 2}),
        "log-of-a-zero": Answer(
            {"shape": [("F.logsigmoid(logits.float().flatten(start_dim=2))", "logits.flatten(2).sigmoid().log()")]},
            {"test-shape-blind": 1},
        ),
        "median-reader": Answer(
            {"fused": [("readers.mean(dim=0)", "readers.median(dim=0).values")]}, {"test-fused": 2}
        ),
    },
    "03-attention-pyramid": {
        "half-done": Answer(
            {"pyramid": BLANK, "sees": BLANK, "essay-map": BLANK},
            {"test-pyramid-values": 1, "test-pyramid-odd": 1, "test-pyramid-stripes": 1, "test-sees": 3},
        ),
        "late-is-early": Answer(
            {"late": [(".sigmoid()\n", "\n"), ("align_corners=False)", "align_corners=False).sigmoid()")]},
            {"test-late": 2},
        ),
        "corners-aligned": Answer(
            {"map": [("align_corners=False", "align_corners=True")]}, {"test-map-values": 2, "test-map-odd": 1}
        ),
        "edge-dropped": Answer(
            {"pyramid": [("F.avg_pool2d(even, kernel_size=2)", "F.avg_pool2d(last, kernel_size=2)")]},
            {"test-pyramid-odd": 1},
        ),
        "every-second-pixel": Answer(
            {"pyramid": [("F.avg_pool2d(even, kernel_size=2)", "even[..., ::2, ::2]")]},
            {"test-pyramid-values": 1, "test-pyramid-odd": 1, "test-pyramid-stripes": 1},
        ),
    },
    "04-progressive": {
        "half-done": Answer(
            {"levels": BLANK, "pull": BLANK, "early": BLANK, "essay-side": BLANK},
            {"test-levels": 2, "test-pull": 2, "test-early-mask": 2, "test-early-shares": 1},
        ),
        "nearest-for-bilinear": Answer(
            {"sum": [('mode="bilinear", align_corners=False', 'mode="nearest"')]},
            {"test-sum-values": 2, "test-pull": 2},
        ),
        "half-is-more-than-half": Answer(
            {"coarser": [("part.gt(limit)", "part.ge(limit)")]},
            {"test-coarser-majority": 1, "test-coarser-any": 1},
        ),
        "times-zero": Answer({"levels": [(" if w != 0", "")]}, {"test-levels": 2}),
        "coarse-to-fine": Answer({"early": [("shares.insert(0, ", "shares.append(")]}, {"test-early-shares": 1}),
    },
    "05-adversarial-game": {
        "half-done": Answer(
            {"round": BLANK, "chance": BLANK, "essay-sick": BLANK},
            {"test-round-s": 1, "test-round-d": 1, "test-round-fair": 1, "test-chance": 2},
        ),
        "log-of-softmax": Answer(
            {
                "logs": [
                    ("odds = log_odds(logits)", "q = logits.softmax(1)[:, -1]"),
                    ("F.logsigmoid(odds), F.logsigmoid(-odds)", "(1 - q).log(), q.log()"),
                ]
            },
            {"test-logs-huge": 1},
        ),
        "sign-of-the-saturating-form": Answer(
            {"slope": [('"saturating": drawn', '"saturating": -drawn')]}, {"test-slope": 2}
        ),
        "no-detach": Answer(
            {"round": [("drawn.detach().sigmoid()", "drawn.sigmoid()")]},
            {"test-round-s": 1, "test-round-d": 1, "test-round-fair": 1},
        ),
        "extra-class-left-in": Answer(
            {"chance": [("logits.float().narrow(1, 0, logits.shape[1] - 1)", "logits.float()")]}, {"test-chance": 2}
        ),
    },
    "06-capstone": {
        "no-classes": Answer(
            {"fit": [("return lungs, says[:, 1] - says[:, 0]", "return lungs, 0 * says[:, 1]"), QUICK_D]},
            {"test-auc-1": 2, "test-auc-2": 2},
        ),
        "no-masks": Answer(
            {"fit": [("return lungs, ", "return torch.zeros_like(x), "), QUICK_S], "essay-part": BLANK},
            {"test-dice-1": 2, "test-dice-2": 2, "test-dice-3": 2},
        ),
        "logits-for-probabilities": Answer(
            {"fit": [("drawer(x).logits.sigmoid()", "drawer(x).logits - 0.5")]}, {"test-form": 2}
        ),
        "score-upside-down": Answer(
            {"fit": [("says[:, 1] - says[:, 0]", "says[:, 0] - says[:, 1]"), QUICK_S]},
            {"test-dice-1": 2, "test-dice-2": 2, "test-dice-3": 2, "test-auc-1": 2, "test-auc-2": 2},
        ),
        "barely-trained": Answer(
            {"fit": [("says[:, 1] - says[:, 0]", "0 * says[:, 1]"), QUICK_S, QUICK_D]},
            {"test-dice-1": 2, "test-dice-2": 2, "test-dice-3": 2, "test-auc-1": 2, "test-auc-2": 2},
        ),
    },
}


def blank_cells(notebook: Any) -> dict[str, str]:
    """By mark the source of each cell of the student release."""
    marked = (cell for cell in sources.release(notebook).cells if cell.metadata.get("nbgrader"))
    return {cell.metadata.nbgrader.grade_id: cell.source for cell in marked}


def hand_in(notebook: Any, answer: Answer) -> Any:
    """The instructor's notebook with these answers; every replacement must find its text."""
    made, blank = copy.deepcopy(notebook), blank_cells(notebook)
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in made.cells if cell.metadata.get("nbgrader")}
    for name, changes in answer.edits.items():
        if changes is BLANK:
            cells[name].source = blank[name]
        for old, new in changes or ():
            assert old in cells[name].source, (name, old)
            cells[name].source = cells[name].source.replace(old, new)
    return made


def test_every_assignment_has_twenty_points_and_parts_for_tests_and_for_people():
    for name in sources.names(SOURCES):
        tasks = sources.tasks(sources.read(SOURCES, name))
        assert sum(task.points for task in tasks) == 20
        assert {task.manual for task in tasks} == {False, True}


def test_two_students_whose_names_would_become_one_are_told(tmp_path):
    notebook = sources.read(SOURCES, "01-overlap-losses")
    for name in ("J Doe", "J+Doe"):
        (tmp_path / name).mkdir()
        nbformat.write(notebook, tmp_path / name / "a.ipynb")
    with pytest.raises(InputError, match=r"J Doe and J\+Doe in .* would both be the student J_Doe"):
        collect(tmp_path, notebook)


def test_of_two_files_of_one_student_the_places_are_told(tmp_path):
    notebook = sources.read(SOURCES, "01-overlap-losses")
    for place in ("one", "two"):
        (tmp_path / "amy" / place).mkdir(parents=True)
        nbformat.write(notebook, tmp_path / "amy" / place / "a.ipynb")
    [amy] = collect(tmp_path, notebook)
    assert {"one/a.ipynb", "two/a.ipynb"} <= set(amy.words.replace(",", "").split())


def test_a_table_keeps_the_students_of_an_earlier_assignment_with_other_tasks(tmp_path):
    def graded(student: str, *tasks: str) -> Graded:
        marks = tuple(Mark(task, 1.0, 1.0) for task in tasks)
        return Graded(student, f"{student}.ipynb", marks, "ran to its end")

    class Nobody:
        def find_grade(self, *_: str) -> SimpleNamespace:
            return SimpleNamespace(manual_score=None, extra_credit=None)

    path = tmp_path / "x.csv"
    _write_table(Nobody(), "x", [graded("alice", "t1"), graded("bob", "t1")], path)
    _write_table(Nobody(), "x", [graded("carol", "t1", "t2")], path)
    with path.open() as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["alice", "bob", "carol"]
    assert [rows[who]["t2"] for who in rows] == ["", "", "1.0"]


def test_a_helper_below_an_answer_stays_before_the_tests():
    instructor = sources.read(SOURCES, "01-overlap-losses")
    handed = copy.deepcopy(instructor)
    place = next(
        i for i, cell in enumerate(handed.cells) if cell.metadata.get("nbgrader", {}).get("grade_id") == "counts"
    )
    split = nbformat.v4.new_code_cell("second_half = 2", metadata=copy.deepcopy(handed.cells[place].metadata))
    handed.cells[place + 1 : place + 1] = [nbformat.v4.new_code_cell("helper = 1"), split]
    handed.cells.insert(place + 4, nbformat.v4.new_code_cell("between_two_tests = 3"))
    made, _ = assemble(sources.skeleton(instructor), handed)
    order = [cell.metadata.get("nbgrader", {}).get("grade_id", cell.source) for cell in made.cells]
    at = order.index("counts")
    assert order[at + 1 : at + 5] == ["helper = 1", "second_half = 2", "test-counts-sums", "test-counts-types"]
    assert order.index("between_two_tests = 3") > at + 4


def test_a_notebook_of_another_assignment_is_not_graded_as_this_one(tmp_path):
    nbformat.write(sources.read(SOURCES, "02-divergences"), tmp_path / "amy.ipynb")
    [amy] = collect(tmp_path, sources.read(SOURCES, "01-overlap-losses"))
    assert amy.notebook is None
    assert "is not this assignment: of" in amy.words


def test_an_import_of_what_is_to_be_written_is_noted():
    assert suspicious(["from cxr_tutorial.losses import kl"], ["cxr_tutorial"]) == [
        "worth a look: imports from cxr_tutorial, which this assignment does not allow"
    ]
    assert suspicious(["from torch import nn"], ["cxr_tutorial"]) == []


@pytest.mark.parametrize("variant", range(1, 40))
def test_in_every_variant_the_numbers_on_paper_tell_right_from_wrong(variant):
    def drawn(name: str) -> dict[str, Any]:
        notebook, names = sources.read(SOURCES, name, variant=variant), {}
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") in ("setup", "variant", "paper-numbers", "paper"):
                exec(cell.source, names)
        return names

    divergences, decoder = drawn("02-divergences"), drawn("04-progressive")
    assert abs(divergences["forward"] - divergences["backward"]) > 1e-3
    assert decoder["hat_1"] not in (decoder["a1"], decoder["hat_2"])


def test_what_a_person_gave_and_said_comes_back_and_a_new_answer_is_told(tmp_path):
    from nbgrader.api import Gradebook

    name = "01-overlap-losses"
    instructor = sources.read(SOURCES, name)
    skeleton = sources.skeleton(instructor)

    def graded(answer: str) -> Graded:
        notebook = copy.deepcopy(skeleton)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "essay-weights":
                cell.source = answer
        marks = tuple(Mark(t.id, None if t.manual else t.points, t.points) for t in sources.tasks(instructor))
        return Graded("amy", "amy.ipynb", marks, "ran to its end", notebook=notebook)

    def row() -> dict[str, str]:
        with (tmp_path / f"{name}.csv").open() as file:
            [amy] = csv.DictReader(file)
        return amy

    write(instructor, name, [graded("High.")], tmp_path)
    assert float(row()["to_read"]) == 5
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}", "chest-x-rays") as gradebook:
        gradebook.find_grade("essay-weights", name, name, "amy").manual_score = 2
        gradebook.find_grade("essay-weights", name, name, "amy").extra_credit = 0.5
        gradebook.find_comment("essay-weights", name, name, "amy").manual_comment = "see <chapter> 2"
        gradebook.db.commit()
    write(instructor, name, [graded("High.")], tmp_path)
    assert (row()["by_hand"], row()["essay-weights"], row()["to_read"], row()["notes"]) == ("2.5", "2.5", "2.0", "")
    page = (tmp_path / "feedback" / "amy" / name / f"{name}.html").read_text()
    assert "2.5 of 3" in page
    assert "marked by your teacher; see &lt;chapter&gt; 2" in page
    write(instructor, name, [graded("Low, because ...")], tmp_path)
    assert "other answers than in the grading before: essay-weights" in row()["notes"]


def test_a_self_check_without_words_shows_what_failed(capsys):
    @self_check
    def the_sum():
        raise AssertionError  # as an assert without a message does, were it not rewritten here

    assert "the sum: not right yet (raise AssertionError" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", sources.names(SOURCES))
def test_solution_blank_release_and_typical_answers_get_their_marks(name, tmp_path):
    notebook = sources.read(SOURCES, name, seed=SEED)  # another private seed than the source's
    tasks = sources.tasks(notebook)
    written = {task.id: task.points for task in tasks if task.manual}
    tested = {task.id: task.points for task in tasks if not task.manual}
    folder = tmp_path / "submissions"
    folder.mkdir()
    nbformat.write(notebook, folder / "solution.ipynb")
    nbformat.write(sources.release(notebook), folder / "blank.ipynb")
    for who, answer in ANSWERS[name].items():
        nbformat.write(hand_in(notebook, answer), folder / f"{who}.ipynb")
    assert len(ANSWERS[name]) == 5
    marks = {one.student: one for one in grade(folder, SOURCES, name, tmp_path / "graded", seed=SEED)}
    got = {who: {mark.task: mark.points for mark in one.marks} for who, one in marks.items()}
    assert got["solution"] == tested | dict.fromkeys(written, None)
    assert got["blank"] == dict.fromkeys([*tested, *written], 0)
    for who, answer in ANSWERS[name].items():
        left = {task: 0 if answer.edits.get(task, "") is None else None for task in written}
        assert got[who] == {task: points - answer.lost.get(task, 0) for task, points in tested.items()} | left, who
        assert all(mark.words for mark in marks[who].marks if mark.points == 0), "each lost mark says why"
    with (tmp_path / "graded" / f"{name}.csv").open() as table:
        rows = {row["student"]: row for row in csv.DictReader(table)}
    assert float(rows["solution"]["points"]) + float(rows["solution"]["to_read"]) == 20
    assert float(rows["blank"]["points"]) == float(rows["blank"]["to_read"]) == 0
    if name == "06-capstone":
        board = leaderboard(tmp_path / "graded", name)
        assert board == sorted(board, key=lambda row: -row.score)
        by_student = {row.student: row for row in board}
        assert by_student["solution"].dice >= 0.87 > by_student["no-masks"].dice
        assert by_student["solution"].auc >= 0.62 > by_student["score-upside-down"].auc
        assert "blank" not in by_student, "who drew nothing has no figures"


@pytest.mark.slow
def test_nbgraders_own_command_gives_the_same_marks(tmp_path):
    name = "02-divergences"
    made = build(SOURCES, tmp_path, [name], seed=SEED)
    notebook = sources.read(made.instructor, name)
    for who, handed in {"solution": notebook, "blank": sources.release(notebook)}.items():
        place = made.instructor / "submitted" / who / name
        place.mkdir(parents=True)
        nbformat.write(handed, place / f"{name}.ipynb")
    nbgrader = [sys.executable, "-m", "nbgrader"]
    for step in ("generate_assignment", "autograde"):
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        done = subprocess.run(
            [*nbgrader, step, name],
            cwd=made.instructor,
            capture_output=True,
            text=True,
            env={"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCES.parent)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{made.instructor / 'gradebook.db'}") as gradebook:
        scores = {one.student.id: one.score for one in gradebook.assignment_submissions(name)}
    assert scores == {"solution": 15, "blank": 0}


@pytest.mark.slow
def test_a_student_release_runs_from_top_to_bottom_on_its_own(tmp_path):
    made = build(SOURCES, tmp_path, ["01-overlap-losses", "06-capstone"])
    for name in made.names:
        alone = tmp_path / "student" / f"{name}.ipynb"
        alone.parent.mkdir(exist_ok=True)
        shutil.copy(made.release / name / f"{name}.ipynb", alone)
        run = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", alone.name]
        done = subprocess.run(run, cwd=alone.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        said = [
            o.text for c in nbformat.read(alone, 4).cells for o in c.get("outputs", ()) if o.output_type == "stream"
        ]
        assert any("not done yet" in text for text in said)
