"""README's figures are those of the records, and its Python runs."""

import re
from pathlib import Path
from statistics import mean, median

import numpy as np
import pytest
from PIL import Image

from cxr_tutorial.data import load_synthetic
from cxr_tutorial.metrics import dice
from cxr_tutorial.nets import WIDTHS, build_segmentor, summarize_segmentor
from cxr_tutorial.results import load_records

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def table_row(name: str, runs: str, part: str) -> str:
    """One row of the table "What a minute is worth", from the records of three seeds."""
    records = [r for r in load_records() if re.fullmatch(rf"{runs}-s\d", f"{r.group}/{r.id}")]
    assert sorted(r.config["seed"] for r in records) == [1, 2, 3]
    dice = [r.metrics[part]["dice"] for r in records]
    [n] = {d["n"] for d in dice}
    means = sorted(d["mean"] for d in dice)
    return f"| {name} | {n} | {median(means):.4f} | {means[0]:.4f} to {means[-1]:.4f} |"


@pytest.mark.parametrize(
    ("name", "runs", "part"),
    [
        ("JSRT, 172 masks", "full/jsrt", "test"),
        ("Montgomery, 96 masks", "full/montgomery", "test"),
        ("Shenzhen, 396 masks", "full/shenzhen", "test"),
        ("JSRT, 10 masks", "ten-masks/jsrt-m10", "test"),
        ("the same nets on Montgomery, never seen", "ten-masks/jsrt-m10", "montgomery"),
        ("JSRT, at 128 px", "full-128/jsrt-128", "test"),
        ("Montgomery, at 128 px", "full-128/montgomery-128", "test"),
        ("Shenzhen, at 128 px", "full-128/shenzhen-128", "test"),
        ("JSRT, then at 256 px", "full-256/jsrt-256", "test"),
        ("Montgomery, then at 256 px", "full-256/montgomery-256", "test"),
        ("Shenzhen, then at 256 px", "full-256/shenzhen-256", "test"),
        ("JSRT, then at 256 px, widths `base`, loss with the weights ½ and ½", "even-256/jsrt-base-256", "test"),
        ("JSRT, at 256 px from the first of 4000 steps, widths `base`", "long-256/jsrt-base", "test"),
    ],
)
def test_the_table_is_that_of_the_records(name, runs, part):
    assert table_row(name, runs, part) in README


@pytest.mark.parametrize("preset", WIDTHS)
def test_the_table_of_sizes_is_that_of_the_records(preset):
    dice = [r.metrics["test"]["dice"]["mean"] for r in load_records() if r.group == "sizes" and preset in r.id]
    cost = summarize_segmentor(build_segmentor("pgaunet", preset), 128)
    cells = f"{cost.parameters:,} | {cost.flops / 1e6:.0f} M | {mean(dice):.4f} | {len(dice)} |"
    assert re.search(rf"\| `{preset}`[^|]* \| {re.escape(cells)}", README)


FEW = {
    "supervised": "new weights, masks only",
    "syn-supervised": "synthetic start, masks only",
    "syn-mean-teacher": "synthetic start, mean teacher",
    "syn-appaunet": "synthetic start, APPAU-Net",
}


SEEDS = {1: 10, 2: 10, 5: 5, 10: 5}  # by the number of masks


def few_row(masks: int, contestant: str) -> str:
    """One row of the table of few masks: mean and range over the seeds."""
    records = [r for r in load_records() if re.fullmatch(rf"{contestant}-m{masks}-s\d+", r.id)]
    records = [r for r in records if r.group == "budget-jsrt"]
    assert sorted(r.config["seed"] for r in records) == [*range(1, SEEDS[masks] + 1)]
    cells = []
    for part in ("test", "montgomery"):
        dice = [r.metrics[part]["dice"]["mean"] for r in records]
        cells.append(f"{mean(dice):.4f} ({min(dice):.4f} to {max(dice):.4f})")
    return f"| {masks} | {FEW[contestant]} | {' | '.join(cells)} |"


@pytest.mark.parametrize("masks", SEEDS)
@pytest.mark.parametrize("contestant", FEW)
def test_the_table_of_few_masks_is_that_of_the_records(masks, contestant):
    assert few_row(masks, contestant) in README


def mean_auc(data: str, name: str, part: str) -> str:
    found = [r.metrics[part]["auc"]["mean"] for r in load_records() if re.fullmatch(rf"{data}-{name}-f\d", r.id)]
    return f"{mean(found):.3f}" if len(found) == 10 else "not run"


def test_what_it_says_of_tuberculosis_is_that_of_the_records():
    for trained_on, steps, name, part in (
        ("the picture alone", 600, "classifier-l100", "test/blank-mask"),
        ("the picture alone", 2000, "blank-2000", "test/blank-mask"),
        ("the picture inside the masks of a fixed S", 600, "masked-600", "test"),
        ("the picture inside the masks of a fixed S", 2000, "masked-2000", "test"),
        ("the picture inside the masks of a fixed S", 5000, "masked-5000", "test"),
        ("inside the masks, and asked sixteen times about changed views", 5000, "masked-views-5000", "test"),
        ("the picture cut to the box around them", 600, "lungs-600", "test/one-view"),
        ("the picture cut to the box around them", 5000, "lungs-5000", "test/one-view"),
        ("cut, and asked sixteen times about changed views", 600, "lungs-600", "test"),
        ("cut, and asked sixteen times about changed views", 5000, "lungs-5000", "test"),
        ("S and D together, without a game", 600, "multi-task-l100", "test"),
        ("the game, S and D together", 600, "appaunet-l100", "test"),
        ("the game, S and D together", 2000, "game-2000", "test"),
        ("the same with the terms of true against predicted at a tenth", 2000, "game-weak-2000", "test"),
    ):
        cells = " | ".join(mean_auc(data, name, part) for data in ("montgomery", "shenzhen"))
        assert f"| {trained_on} | {steps} | {cells} |" in README


@pytest.mark.parametrize("share", [25, 10])
@pytest.mark.parametrize(
    ("words", "name", "part"),
    [
        ("the picture alone", "classifier", "test/blank-mask"),
        ("the picture cut to the box around the lungs", "lungs-classifier", "test/one-view"),
        ("S and D together, without a game", "multi-task", "test"),
        ("the game, S and D together", "appaunet", "test"),
        ("the game without the pictures that lack a class", "labelled-appaunet", "test"),
    ],
)
def test_what_it_says_of_few_class_labels_is_that_of_the_records(words, name, part, share):
    cells = [mean_auc(data, f"{name}-l{share}", part) for data in ("montgomery", "shenzhen")]
    assert (f"| {share} % | {words} | {' | '.join(cells)} |" in README) == (cells != ["not run", "not run"])


@pytest.mark.parametrize("run", ["synthetic-s1", "synthetic-ppaunet-s1"])
def test_what_synthetic_pictures_alone_reach_is_that_of_the_record(run):
    [record] = [r for r in load_records() if r.id == run]
    names = {"jsrt": "JSRT", "montgomery": "Montgomery", "shenzhen": "Shenzhen"}
    said = ", ".join(f"{record.metrics[key]['dice']['mean']:.4f} on {name}" for key, name in names.items())
    assert said in README


def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for k, example in enumerate(load_synthetic()[:2]):
        Image.fromarray((255 * example.image).astype("uint8")).save(tmp_path / f"{k}.png")
    first, own = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(first.replace("seconds=30", "seconds=1"), {})
    exec(own.replace('"my_xrays"', repr(str(tmp_path))), {})
    drawn = [np.asarray(Image.open(tmp_path / "lungs" / f"{k}.png")) for k in range(2)]
    assert min(dice(one, example.mask) for one, example in zip(drawn, load_synthetic()[:2], strict=True)) > 0.9
