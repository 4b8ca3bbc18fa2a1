"""Running a record again: which rule applies, and what is allowed to differ."""

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
from scipy.stats import t

from cxr_tutorial.config import Config
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import run
from cxr_tutorial.reproduce import compare, find_record, reproduce
from cxr_tutorial.results import read_record
from cxr_tutorial.train import Recipe

QUICK = Config(size=32, widths=(4, 8), steps=2, recipe=Recipe(batch_size=2, accelerator="cpu"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Records of three seeds in one folder."""
    home = tmp_path_factory.mktemp("records")
    for seed in (1, 2, 3):
        run(replace(QUICK, seed=seed, recipe=replace(QUICK.recipe, seed=seed)), home / f"s{seed}", progress=False)
    return home


def moved(folder, place, by):
    """A copy of a record in which every Dice is `by` higher; its rows are those of the original."""
    shutil.copytree(folder, place)
    metrics = json.loads((place / "metrics.json").read_text())
    for summary in metrics.values():
        summary["dice"]["mean"] += by
    (place / "metrics.json").write_text(json.dumps(metrics))
    return read_record(place)


def test_on_the_same_machine_it_comes_out_bit_for_bit(three, tmp_path):
    verdict = reproduce(three / "s1", tmp_path / "again", progress=False)
    assert verdict.exact
    assert verdict.rows > 0
    assert verdict.differing == 0
    assert verdict.holds


def test_elsewhere_it_must_lie_within_the_spread_of_the_seeds(three, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_tutorial.reproduce.FLOOR", {"dice": 1e-6})
    record = read_record(three / "s1")
    test = [read_record(three / f"s{seed}").metrics["test"]["dice"]["mean"] for seed in (1, 2, 3)]
    mean = sum(test) / 3
    allowed = t.ppf(0.975, 2) * math.sqrt(2) * math.sqrt(sum((one - mean) ** 2 for one in test) / 2)
    for by, holds in ((0.9 * allowed, True), (1.1 * allowed, False)):
        again = moved(three / "s1", tmp_path / f"{by}", by)
        elsewhere = replace(again, provenance=replace(again.provenance, device="a GPU"))
        verdict = compare(replace(record, provenance=elsewhere.provenance), elsewhere)
        [figure] = [one for one in verdict.figures if one.part == "test"]
        assert not verdict.exact
        assert figure.tolerance == pytest.approx(allowed)
        assert figure.holds == holds


def test_neither_the_new_run_nor_a_second_one_of_a_seed_counts(three, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_tutorial.reproduce.FLOOR", {"dice": 1e-6})

    def tolerances(again):
        return {one.tolerance for one in compare(read_record(again.parent / "s1"), read_record(again)).figures}

    home = tmp_path / "new"
    for name in ("s1", "s2", "s3"):
        shutil.copytree(three / name, home / name)
    assert tolerances(home / "s3") == {1e-6}  # two seeds besides the new one
    for name in ("s2", "s3"):
        run_file = home / name / "run.json"
        run_file.write_text(re.sub(r'"seed": \d', '"seed": 1', run_file.read_text()))
    shutil.copytree(three / "s2", home / "another")
    assert tolerances(home / "another") == {1e-6}  # three of one seed


@pytest.mark.parametrize("exact", [True, False])
def test_a_record_with_nothing_to_compare_does_not_reproduce(three, exact):
    record = read_record(three / "s1")
    assert compare(record, record).holds
    empty = replace(compare(record, record), exact=exact, rows=0, figures=())
    assert not empty.holds


def test_a_record_is_found_from_within_its_folder(three, monkeypatch):
    monkeypatch.chdir(three / "s1")
    assert find_record(".") == three / "s1"
    with pytest.raises(InputError, match="'nowhere' is no folder and no shipped record"):
        find_record("nowhere")
