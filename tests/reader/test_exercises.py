"""The exercises: what `check` says to stubs, solutions, typical wrong answers and broken functions."""

from __future__ import annotations

import ast
import pkgutil
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader import exercises
from cxr_tutorial.reader.exercises import check, hint, progress, quiz
from cxr_tutorial.reader.exercises.answers import value_and_gradient
from cxr_tutorial.reader.exercises.kinds import Extend, Implement, Misconception, Predict

CHAPTERS = sorted((Path(__file__).parents[2] / "book").glob("[0-9]*.ipynb"))
ROOMS = {
    module.name: import_module(f"{exercises.__name__}.{module.name}")
    for module in pkgutil.iter_modules(exercises.__path__)
    if module.name not in ("answers", "arms", "display", "kinds", "quiz")
}
EXERCISES = {
    f"{room}.{number}": exercise
    for room, module in ROOMS.items()
    for number, exercise in enumerate(module.EXERCISES, 1)
}
each = pytest.mark.parametrize("name", EXERCISES)


@pytest.fixture(autouse=True)
def _fresh_kernel(monkeypatch):
    monkeypatch.setattr(exercises, "_results", {})
    monkeypatch.setattr(exercises, "_calls", {})


# Every exercise


@each
@pytest.mark.parametrize("nothing", [None, ..., lambda *_: None], ids=["None", "dots", "stub"])
def test_what_is_not_there_is_not_done_yet(name, nothing):
    exercise = EXERCISES[name]
    if callable(nothing) and (not isinstance(exercise, Implement) or exercise.run not in (None, value_and_gradient)):
        return  # not how its stub looks
    assert check(name, nothing).status == "open"


@each
def test_each_wrong_answer_gets_its_own_message(name):
    exercise = EXERCISES[name]
    wrong = [m.answer if isinstance(m, Misconception) else m for m in exercise.misconceptions]
    if isinstance(exercise, Predict):  # a dictionary may hold only the part that matters
        wrong = [exercise.solution | w if isinstance(w, dict) else w for w in wrong]
    results = [check(name, answer) for answer in wrong]
    assert [result.status for result in results] == ["tried"] * len(wrong)
    messages = [result.message for result in results]
    assert len(set(messages)) == len(messages) >= 3
    if not isinstance(exercise, Extend):
        assert messages == [m.message for m in exercise.misconceptions]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("runs.5", {"group": "mine", "cells": {"seed": [[1], [2], [3]], "steps": 5}}),
        ("evidence.5", {"old": [torch.ones((), requires_grad=True)] * 3, "new": [0.1, 0.2, 0.3]}),
    ],
)
def test_an_answer_of_a_strange_form_gets_a_message_too(name, answer):
    assert check(name, answer).status == "tried"


@each
def test_solutions_pass(name):
    exercise = EXERCISES[name]
    if not isinstance(exercise, Extend):
        for _ in range(3):  # the examples are random
            assert check(name, exercise.solution).passed, check(name, exercise.solution)


@each
def test_hints_and_praise_read_as_plain_text(name):
    exercise = EXERCISES[name]
    assert exercise.hints
    texts = [exercise.title, exercise.praise, *exercise.hints]
    texts += [m.message for m in exercise.misconceptions if isinstance(m, Misconception)]
    assert not [text for text in texts if "$" in text or "\\" in text or not text.strip()]
    assert all(text[-1] in ".?!:" for text in texts[1:])


@pytest.mark.parametrize("room", ROOMS)
def test_a_chapter_has_three_tiers_in_at_least_four_exercises(room):
    tiers = [exercise.tier for exercise in ROOMS[room].EXERCISES]
    assert len(tiers) >= 4
    assert set(tiers) == {"predict", "implement", "extend"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_quiz_has_one_right_answer_each_and_explains_every_wrong_one(room):
    questions = quiz(room).questions
    assert len(questions) >= 3
    for question in questions:
        reasons = [why for _, why in question.answers]
        assert sum(why.startswith("Yes") for why in reasons) == 1
        assert len(set(reasons)) == len(reasons) >= 3
        assert all(len(why.split()) > 3 for why in reasons)
    assert len({[why[:3] for _, why in question.answers].index("Yes") for question in questions}) > 1
    assert all(question.text in repr(quiz(room)) for question in questions)


# The chapters: stubs and solutions as printed


def is_python(cell: nbformat.NotebookNode) -> bool:
    """A code cell without a line for IPython."""
    return cell.cell_type == "code" and not any(line.strip().startswith("%") for line in cell.source.splitlines())


def cells_of(chapter: Path):
    """(names checked by a stub, chapter, index) and (by a solution, ...), with the code above them."""
    for index, cell in enumerate(nbformat.read(chapter, as_version=4).cells):
        if not is_python(cell):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
                yield node.args[0].value, bool(node.keywords), index


PRINTED = [(name, solution, path, index) for path in CHAPTERS for name, solution, index in cells_of(path)]
STUBS = {name: (path, index) for name, solution, path, index in PRINTED if not solution}
SOLUTIONS = {name: (path, index) for name, solution, path, index in PRINTED if solution}


def run_alone(path: Path, index: int, *before: int) -> dict:
    """Run a cell with nothing but the chapter's imports and functions, and the cells `before`."""
    cells = nbformat.read(path, as_version=4).cells
    kept: list[ast.stmt] = []
    for cell in cells[:index]:
        if is_python(cell):
            kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
            kept += [node for node in ast.parse(cell.source).body if isinstance(node, kinds)]
    names: dict = {}
    for node in kept:
        with suppress(NameError):  # a default that the chapter computes
            exec(compile(ast.Module([node], []), str(path), "exec"), names)
    for number in (*before, index):
        exec(compile(cells[number].source, f"{path.name}, cell {number}", "exec"), names)
    return names


@each
def test_the_chapter_has_a_stub_that_runs_and_is_not_done_yet(name):
    run_alone(*STUBS[name])
    assert exercises._results[name].status == "open"


@each
def test_the_solution_that_the_chapter_prints_passes(name):
    path, index = SOLUTIONS[name]
    if isinstance(EXERCISES[name], Extend):  # needs what the chapter trained: nbval runs it, and it raises if it fails
        return
    run_alone(path, index, STUBS[name][1])
    assert exercises._results[name].status == "open", "a solution does not count as the reader's"


@pytest.mark.parametrize("room", ROOMS)
def test_a_chapter_shows_hints_quiz_and_progress(room):
    path, _ = STUBS[f"{room}.1"]
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    wanted = [
        f'quiz("{room}")',
        f'progress("{room}")',
        *(f'hint("{name}")' for name in EXERCISES if name.startswith(f"{room}.")),
    ]
    assert [call for call in wanted if call not in code] == []


def test_every_printed_check_has_its_exercise_and_the_other_way_round():
    assert sorted(STUBS) == sorted(SOLUTIONS) == sorted(EXERCISES)


# The engine, on an exercise of its own


def numbers(generator):
    yield {"x": torch.zeros(1)}
    yield {"x": torch.rand(3, generator=generator) + 1}


DOUBLE = Implement(
    "Double", lambda x: 2 * x, numbers, (Misconception(lambda x: -2 * x, "The sign."),), ("Add.",), "Yes."
)


def stops(x):
    y = x + 1
    return y / missing  # noqa: F821


def changes(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: -2 * x, "The sign."),
        (stops, "stops in line"),
        (stops, "`return y / missing  # noqa: F821`: a name is used that does not exist here (NameError"),
        (changes, "changes its input `x` in place"),
        (lambda x: x * float("nan"), "for x = [0.0]: NaN"),
        (lambda x: x[:0], "expected an array of shape (1,), got an array of shape (0,)"),
        (lambda x: "two", "expected an array of shape (1,), got a word in quotes"),
        (lambda x: x > 0, "expected an array of shape (1,), got an array of shape (1,) of True and False"),
        (lambda x: x + 1, "for x = [0.0]: [1.0] is not right yet. Expected [0.0]."),
        (lambda: 1, "cannot be called as the exercise asks"),
        (2.0, "the function itself"),
    ],
)
def test_what_is_wrong_with_a_function_is_named(answer, said):
    assert said in DOUBLE.judge(answer)


def test_the_smallest_example_that_fails_is_the_one_shown():
    wrong_from_three = lambda x: 2 * x if len(x) < 3 else 3 * x  # noqa: E731
    assert "for x = [1." in DOUBLE.judge(wrong_from_three)


def test_an_array_of_numpy_is_as_good_as_a_tensor():
    assert DOUBLE.judge(lambda x: 2 * x.numpy()) is None
    assert Predict("", (1.0, True), (), (), "").judge((np.float32(1), np.bool_(True))) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"a": 1.5, "b": "no"}, "`a`: 1.5 is not right yet."),
        ({"a": 1, "b": "yes"}, "`b`: 'yes' is not right yet."),
        ({"a": 1}, "expected a dictionary with the keys 'a', 'b'"),
        ({"a": "1", "b": "no"}, "`a`: expected one number, got a word in quotes."),
        ({"a": [1, 2], "b": "no"}, "`a`: expected one number, got 2 values"),
        ({"a": True, "b": "no"}, "`a`: expected one number, got True or False."),
        ({"a": object(), "b": "no"}, "`a`: expected one number, got a object."),
        ([[1], [1, 2]], "expected a dictionary"),
    ],
)
def test_what_is_wrong_with_a_value_is_named_and_the_answer_is_not(answer, said):
    message = Predict("", {"a": 1.0, "b": "no"}, (), (), "").judge(answer)
    assert message.startswith(said)
    assert "no'" not in message.replace("'no'}", "")


def test_words_may_be_written_in_any_case():
    assert Predict("", "Miss", (), (), "").judge(" miss") is None


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(InputError, match=r"this chapter has tversky\.1 to tversky\.4"):
        check("tversky.9", 1)
    for name in ("tverksy.1", "kinds.1", "", "..1"):
        with pytest.raises(InputError, match="no chapter's exercises"):
            check(name, 1)


def test_hints_come_one_by_one_as_text_and_all_folded_in_a_page():
    first, second = repr(hint("tversky.2")), repr(hint("tversky.2"))
    assert second.startswith(first)
    assert second.count("\n") == 1
    page = hint("tversky.2")._repr_html_()
    assert page.count("<details>") == page.count("</details>") == len(EXERCISES["tversky.2"].hints)


def test_progress_keeps_the_best_result():
    assert progress("tversky").passed == 0
    check("tversky.1", {"loss": 3, "worse": "miss"})
    check("tversky.2", EXERCISES["tversky.2"].solution)
    check("tversky.2", lambda loss: "fp")
    text = repr(progress("tversky"))
    assert "→ tversky.1" in text
    assert "✓ tversky.2" in text
    assert "○ tversky.3" in text
    assert "1 of 4 exercises pass." in text


def test_the_books_own_answer_must_be_right():
    with pytest.raises(AssertionError, match=r"the solution of tversky\.2"):
        check("tversky.2", lambda loss: "fp", solution=True)


def test_a_message_in_a_page_is_escaped():
    html = check("tversky.2", lambda loss: "<b>")._repr_html_()
    assert "<b>" not in html
    assert 'class="cxr-check cxr-tried"' in html
