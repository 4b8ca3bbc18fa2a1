"""Grade a folder of submissions: marks in a table and a gradebook, feedback for each student (floor 3)."""

from __future__ import annotations

import contextlib
import copy
import csv
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cxr_tutorial.classroom import feedback, sandbox
from cxr_tutorial.classroom.build import write_config
from cxr_tutorial.classroom.scan import leaks_of, secrets_of, strings
from cxr_tutorial.classroom.sources import Notebook, Task, is_test, read, skeleton, tasks
from cxr_tutorial.classroom.submissions import Submission, assemble, collect
from cxr_tutorial.files import whole_file

Run = Callable[[Notebook], sandbox.Outcome]
#: `_b` Python's own names, `_g` the student's, `_n` what a test sees, `_k` what tests left: name -> (value, what the
#: student meant by the name then); if the student means something else by it since, that counts
ARMED = """import builtins as {own}_b
{own}_g = {own}_b.globals()
{own}_k = {own}_g.get("{own}_k", {{}})
{own}_n = {{**{own}_g, **{{k: v for k, (v, was) in {own}_k.items() if {own}_g.get(k, {own}_b) is was}}}}
try:
    {own}_b.exec({own}_b.compile({test!r}, "<test>", "exec"), {own}_n)
finally:
    {own}_k |= {{k: (v, {own}_g.get(k, {own}_b)) for k, v in {own}_n.items() if {own}_g.get(k, {own}_b) is not v}}
"""


@dataclass(frozen=True)
class Mark:
    """What one task got: `points` of `of`, or None where a person has to read it; and why, in words."""

    task: str
    points: float | None
    of: float
    words: str = ""


@dataclass(frozen=True)
class Graded:
    """One student's result.

    Attributes
    ----------
    words : how the run ended. notes : what a person should look at. notebook : as it ran; None where nothing could run.
    """

    student: str
    file: str
    marks: tuple[Mark, ...]
    words: str
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    notebook: Notebook | None = None

    @property
    def auto(self) -> float:
        """The points that tests gave."""
        return sum(mark.points or 0.0 for mark in self.marks)

    @property
    def to_read(self) -> float:
        """The points that wait for a person."""
        return sum(mark.of for mark in self.marks if mark.points is None)


def grade_one(instructor: Notebook, submission: Submission, run: Run) -> Graded:
    """Put one submission into our notebook, run it, and count what its tests gave.

    Parameters
    ----------
    instructor : from `sources.read`. run : executes a notebook, usually `sandbox.run`.
    """
    file = submission.path.name
    if submission.notebook is None:
        marks = tuple(Mark(task.id, 0.0, task.points, "not graded") for task in tasks(instructor))
        return Graded(submission.student, file, marks, f"0 points: the file {submission.words}")
    blank = skeleton(instructor)
    notebook, notes = assemble(blank, submission.notebook)
    armed, proofs = _armed(notebook)
    outcome = run(armed)
    executed = _disarmed(outcome.notebook, notebook, proofs, outcome)
    cells = {cell.metadata.nbgrader["grade_id"]: cell for cell in executed.cells if cell.metadata.get("nbgrader")}
    marks = tuple(_mark(task, cells[task.id]) for task in tasks(instructor))
    notes = [submission.words] * bool(submission.words) + notes + _without_secrets(executed, instructor)
    return Graded(submission.student, file, marks, outcome.words, outcome.seconds, tuple(notes), executed)


def _armed(notebook: Notebook) -> tuple[Notebook, dict[str, str]]:
    """The notebook with a word in each test that is printed only where the test has run to its end.

    A test runs in a copy of the student's names, with Python's own built-in functions: it finds the answers, and its
    own names overwrite none that they use. What a test leaves, later tests find. The word is printed only where an
    `assert` still stops what is wrong.
    """
    armed, proofs, own = copy.deepcopy(notebook), {}, f"_{secrets.token_hex(8)}"
    for cell in filter(is_test, armed.cells):
        proof = proofs[cell.metadata.nbgrader["grade_id"]] = secrets.token_hex(12)
        proved = f"try:\n    assert False\nexcept AssertionError:\n    print('{proof}')"
        test = f"from builtins import *\n{cell.source}\n{proved}"
        cell.source = ARMED.format(own=own, test=test)
    return armed, proofs


def _disarmed(executed: Notebook, notebook: Notebook, proofs: dict[str, str], outcome: sandbox.Outcome) -> Notebook:
    """The executed notebook with the tests' own text, and an error in each test that did not run to its end."""
    import nbformat

    for cell, original in zip(executed.cells, notebook.cells, strict=True):
        if not is_test(cell):
            continue
        proof = proofs[cell.metadata.nbgrader["grade_id"]]
        cell.source = original.source
        proved = False
        for output in cell.outputs:
            if output.output_type == "stream" and proof in output.text:
                proved, output.text = True, output.text.replace(proof, "").rstrip("\n") + "\n"
        failed = [output for output in cell.outputs if output.output_type == "error"]
        cell.outputs = [
            output
            for output in cell.outputs
            if output.output_type == "stream" and output.name == "stdout" and output.text.strip()
        ]
        if failed or not proved:
            why = outcome.words if outcome.end != "done" else "the test did not run to its end"
            told = (failed[0].ename, failed[0].evalue) if failed else ("NotProved", why)
            line = f"{told[0]}: {told[1]}" if told[1] else told[0]
            cell.outputs.append(nbformat.v4.new_output("error", ename=told[0], evalue=told[1], traceback=[line]))
    return executed


def _without_secrets(executed: Notebook, instructor: Notebook) -> list[str]:
    """Leave out what a student's cells print of hidden tests, and say so."""
    import nbformat

    hidden = [one for one in secrets_of("", instructor) if one.kind != "solution"]
    told = False
    for cell in executed.cells:
        if cell.cell_type == "code" and not is_test(cell) and leaks_of("\n".join(strings(cell.outputs)), hidden):
            text, told = "(left out: it holds a hidden test)\n", True
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return ["worth a look: prints a hidden test"] * told


def _mark(task: Task, cell: Notebook) -> Mark:
    from nbgrader.utils import determine_grade

    points, of = determine_grade(cell)
    if task.manual:
        return Mark(task.id, points, of, "no answer" if points == 0 else "to be read by a person")
    [*_, words] = ["", *(output.evalue or output.ename for output in cell.outputs if output.output_type == "error")]
    return Mark(task.id, points, of, " ".join(words.split())[:300])


def grade(
    submissions: Path,
    folder: Path,
    name: str,
    out: Path,
    *,
    limits: sandbox.Limits | None = None,
    jobs: int = 1,
    variant: int | None = None,
    seed: int | None = None,
    tell: Callable[[Graded], None] = lambda graded: None,
) -> list[Graded]:
    """Grade every submission of the assignment `name` and write what came out below `out`.

    `out/NAME.csv` has one row a student; `out/feedback/STUDENT/NAME/NAME.html` is for the student; `out` is also a
    course of nbgrader, with `gradebook.db`, in which a person marks the written answers.

    Parameters
    ----------
    submissions : `alice.ipynb`, or `alice/anything.ipynb`. folder, name, variant, seed : see `sources.read`.
    limits : what each submission may take. jobs : how many run at once. tell : called with each result as it comes.
    """
    instructor = read(folder, name, variant=variant, seed=seed)
    found = collect(submissions, instructor)

    def run(notebook: Notebook) -> sandbox.Outcome:
        return sandbox.run(notebook, limits)

    def one(submission: Submission) -> Graded:
        try:
            graded = grade_one(instructor, submission, run)
        except Exception as error:  # one submission must not end the grading of the others
            words = f"could not be graded ({type(error).__name__}: {error})"
            graded = grade_one(instructor, Submission(submission.student, submission.path, None, words), run)
        tell(graded)
        return graded

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        results = list(pool.map(one, found))
    write(instructor, name, results, out)
    return results


def write(instructor: Notebook, name: str, results: Sequence[Graded], out: Path) -> None:
    """The table, the feedback and the gradebook."""
    import nbformat

    write_config(out)
    results = [replace(one, notes=(*one.notes, *_rewritten(one, name, out))) for one in results]
    places = {(out / "source" / name): instructor} | {
        (out / "autograded" / one.student / name): one.notebook for one in results if one.notebook is not None
    }
    for place, notebook in places.items():
        place.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place / f"{name}.ipynb")
    with warnings.catch_warnings(), _gradebook(out, instructor, name) as gradebook:
        warnings.simplefilter("ignore")  # nbgrader's own use of SQLAlchemy
        for one in results:
            _keep(gradebook, name, one)
            _write_feedback(gradebook, name, one, out)
        _write_table(gradebook, name, results, out / f"{name}.csv")


def _rewritten(one: Graded, name: str, out: Path) -> list[str]:
    """The written answers that have changed since the grading before, which a person may have marked."""
    import nbformat

    earlier = out / "autograded" / one.student / name / f"{name}.ipynb"
    if one.notebook is None or not earlier.exists():
        return []
    before, now = (_sources(notebook) for notebook in (nbformat.read(earlier, 4), one.notebook))
    written = [mark.task for mark in one.marks if mark.points is None and before.get(mark.task) != now.get(mark.task)]
    return [f"worth a look: other answers than in the grading before: {', '.join(written)}"] if written else []


def _sources(notebook: Notebook) -> dict[str, str]:
    marked = (cell for cell in notebook.cells if cell.metadata.get("nbgrader"))
    return {cell.metadata.nbgrader["grade_id"]: cell.source for cell in marked}


@contextlib.contextmanager
def _gradebook(out: Path, instructor: Notebook, name: str) -> Iterator[Any]:
    from nbgrader.api import Gradebook
    from nbgrader.preprocessors import SaveCells

    url = f"sqlite:///{out.resolve() / 'gradebook.db'}"
    with _own_commands(), Gradebook(url, "chest-x-rays") as gradebook:
        gradebook.update_or_create_assignment(name)
    about = {"notebook": name, "assignment": name, "student": ".", "db_url": url}
    SaveCells().preprocess(skeleton(instructor), {"nbgrader": about})
    with Gradebook(url, "chest-x-rays") as gradebook:
        yield gradebook


@contextlib.contextmanager
def _own_commands() -> Iterator[None]:
    """nbgrader starts `alembic` by its name: let it be found where this Python's environment is not activated."""
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _keep(gradebook: Any, name: str, one: Graded) -> None:
    """Put one student's marks into the gradebook; what a person has given stays."""
    gradebook.update_or_create_student(one.student)
    gradebook.update_or_create_submission(name, one.student)
    for mark in one.marks:
        grade = gradebook.find_grade(mark.task, name, name, one.student)
        grade.auto_score = mark.points
        grade.needs_manual_grade = mark.points is None and grade.manual_score is None
    gradebook.db.commit()


def _given(gradebook: Any, name: str, one: Graded) -> dict[str, float | None]:
    """By task what a person has given, with what they gave on top; None where nobody has."""
    given: dict[str, float | None] = {}
    for mark in one.marks:
        grade = gradebook.find_grade(mark.task, name, name, one.student)
        points = mark.points if grade.manual_score is None and grade.extra_credit else grade.manual_score
        given[mark.task] = None if points is None else points + (grade.extra_credit or 0)
    return given


def _said(gradebook: Any, name: str, one: Graded) -> dict[str, str]:
    """By task what a person has written about the answer."""
    from nbgrader.api import MissingEntry

    said: dict[str, str] = {}
    for mark in one.marks:
        with contextlib.suppress(MissingEntry):
            if words := gradebook.find_comment(mark.task, name, name, one.student).manual_comment:
                said[mark.task] = words
    return said


def _write_feedback(gradebook: Any, name: str, one: Graded, out: Path) -> None:
    path = out / "feedback" / one.student / name / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        feedback.page(name, one, _given(gradebook, name, one), _said(gradebook, name, one)), encoding="utf-8"
    )


def _write_table(gradebook: Any, name: str, results: Sequence[Graded], path: Path) -> None:
    """A row for each student; those of an earlier call who were not graded now keep theirs, tasks that are gone too."""
    rows = {one.student: _row(one, _given(gradebook, name, one)) for one in results}
    head = list(next(iter(rows.values())))
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            earlier = csv.DictReader(file)
            head += [column for column in earlier.fieldnames or () if column not in head]
            rows = {row["student"]: row for row in earlier if row.get("student")} | rows
    with whole_file(path) as arriving, arriving.open("w", newline="", encoding="utf-8", errors="replace") as file:
        table = csv.DictWriter(file, head)
        table.writeheader()
        table.writerows(rows[student] for student in sorted(rows))


def _row(one: Graded, given: dict[str, float | None]) -> dict[str, Any]:
    by_hand = sum(points for points in given.values() if points is not None)
    to_read = sum(mark.of for mark in one.marks if mark.points is None and given[mark.task] is None)
    auto = sum(mark.points or 0.0 for mark in one.marks if given[mark.task] is None)
    row: dict[str, Any] = {"student": one.student, "file": one.file, "points": auto + by_hand}
    row |= {"of": sum(mark.of for mark in one.marks), "automatic": auto, "by_hand": by_hand, "to_read": to_read}
    row |= {"seconds": round(one.seconds, 1), "how_it_ran": one.words, "notes": "; ".join(one.notes)}
    final = {mark.task: mark.points if given[mark.task] is None else given[mark.task] for mark in one.marks}
    return row | {task: "" if points is None else points for task, points in final.items()}
