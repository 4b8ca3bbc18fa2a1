"""Evaluation: at the picture's own size, with its own spacing, over the pictures that have a mask."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from cxr_tutorial.data import load_synthetic
from cxr_tutorial.data.batches import NO_AUGMENTATION, Augmentation
from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.errors import InputError
from cxr_tutorial.evaluate import evaluate, evaluate_classes, predict_logits, summarize, summarize_classes
from cxr_tutorial.nets import build_segmentor


class Output(NamedTuple):
    logits: torch.Tensor


class BrightIsLung(nn.Module):
    """Calls lung what is brighter than the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, image: torch.Tensor) -> Output:
        return Output(self.scale * image)


def boxes(spacing=(2.0, 0.5), masked=(True, True, False)) -> Examples:
    def read(entry: Entry) -> Example:
        mask = np.zeros((96, 64), bool)
        mask[24:72, 16:48] = True
        image = mask.astype(np.float32)
        return Example(image, mask if entry.has_mask else None, 0, entry.id, entry.id, "boxes", spacing)

    entries = tuple(Entry(str(i), str(i), "boxes", 0, has, version="1") for i, has in enumerate(masked))
    return Examples(entries, read, "boxes")


def test_a_right_answer_scores_full_marks_at_native_size():
    rows = evaluate(BrightIsLung(), boxes(), size=64)
    assert [row["id"] for row in rows] == ["0", "1"]
    assert all(row["dice"] > 0.95 for row in rows)
    assert all(row["unit"] == "mm" for row in rows)


def test_logits_come_back_at_the_size_of_the_picture():
    assert [logits.shape for _, logits in predict_logits(BrightIsLung(), boxes(), 32, batch_size=2)] == [(96, 64)] * 3


def test_distances_use_the_spacing_or_say_pixels():
    class Shifted(BrightIsLung):
        def forward(self, image):
            return Output(super().forward(image).logits.roll(3, dims=-2))  # 3 of 32 rows = 9 of 96 rows

    in_mm = evaluate(Shifted(), boxes(), size=32)[0]
    in_px = evaluate(Shifted(), boxes(spacing=None), size=32)[0]
    assert in_px["unit"] == "px"
    assert in_px["hd"] == pytest.approx(9, abs=1)
    assert in_mm["hd"] == pytest.approx(18, abs=2)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(InputError, match="0 of 1 examples have a mask"):
        evaluate(BrightIsLung(), boxes(masked=(False,)), size=32)
    with pytest.raises(InputError, match=r"threshold 1\.5"):
        evaluate(BrightIsLung(), boxes(), size=32, threshold=1.5)
    with pytest.raises(InputError, match="at least 16 pixels per side, got 0"):
        evaluate(BrightIsLung(), boxes(), size=0)


def test_no_rows_have_no_summary():
    with pytest.raises(InputError, match="no row to summarize"):
        summarize([])


def test_a_summary_names_its_n_and_unit():
    rows = [{"id": str(i), "unit": "mm", "dice": v, "hd95": 10 * v} for i, v in enumerate([0.2, 0.4, 0.9])]
    summary = summarize(rows)
    assert summary["dice"]["mean"] == pytest.approx(0.5)
    assert summary["dice"]["median"] == pytest.approx(0.4)
    assert summary["dice"]["n"] == 3
    assert summary["dice"]["ci95"][0] <= 0.5 <= summary["dice"]["ci95"][1]
    assert summary["hd95"]["unit"] == "mm"
    assert "unit" not in summary["dice"]


class SaysTheMean(torch.nn.Module):
    """A discriminator that finds class 1 in bright masks, and calls every pair predicted more than half."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image, mask):
        bright = mask.mean(dim=(1, 2, 3))
        return torch.stack([-5 * bright, 5 * bright, torch.full_like(bright, 9.0)], dim=1)


def labelled(labels=(0, 1, None, 1)):
    from dataclasses import replace

    examples = boxes(masked=(True,) * len(labels))
    entries = tuple(replace(e, label=label) for e, label in zip(examples.entries, labels, strict=True))
    by_id = {entry.id: entry.label for entry in entries}

    def read(entry):
        example = examples.read(entry)
        mask = np.zeros_like(example.mask)
        mask[: 40 if by_id[entry.id] else 10] = True
        return replace(example, label=by_id[entry.id], mask=mask)

    return replace(examples, entries=entries, read=read)


def test_classes_are_named_without_the_extra_class():
    rows = evaluate_classes(SaysTheMean(), labelled(), size=32, mask="true")
    assert [row["label"] for row in rows] == [0, 1, 1]
    assert all(row["raw"] == 2 for row in rows)
    assert all(row["named"] == 1 for row in rows)
    assert all(row["predicted"] > 0.5 for row in rows)
    assert rows[1]["score"] > rows[0]["score"] > 0.5
    assert summarize_classes(rows)["auc"]["mean"] == 1.0


def test_a_class_is_scored_even_where_d_is_sure_that_the_mask_is_predicted():
    class Sure(SaysTheMean):
        def forward(self, image, mask):
            logits = super().forward(image, mask)
            return torch.cat([logits[:, :2], torch.full_like(logits[:, 2:], 500.0)], dim=1)

    usual, sure = (evaluate_classes(D, labelled(), size=32, mask="true") for D in (SaysTheMean(), Sure()))
    assert [row["score"] for row in sure] == [row["score"] for row in usual]
    assert {row["predicted"] for row in sure} == {1.0}


def test_what_d_is_shown_is_what_was_asked_for():
    blank = evaluate_classes(SaysTheMean(), labelled(), size=32, mask="blank")
    assert {round(row["score"], 6) for row in blank} == {0.5}
    drawn = evaluate_classes(SaysTheMean(), labelled(), size=32, segmentor=BrightIsLung())
    assert len({row["score"] for row in drawn}) == 1
    assert drawn[0]["score"] > 0.5


def test_a_picture_seen_several_times_gets_the_mean_of_its_logits():
    class Counts(SaysTheMean):
        """Keeps the masks that it was shown."""

        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, image, mask):
            self.seen.append(mask)
            return super().forward(image, mask)

    D = Counts()
    rows = evaluate_classes(D, labelled(), size=32, mask="true", changed=Augmentation(shift=0.3), times=5)
    assert len(D.seen) == 5
    assert len({float(mask[0].mean()) for mask in D.seen}) > 1
    mean = torch.stack([5 * mask.mean(dim=(1, 2, 3)) for mask in D.seen]).mean(dim=0)
    assert [row["score"] for row in rows] == pytest.approx((2 * mean).sigmoid().tolist(), abs=1e-6)
    assert rows == evaluate_classes(D, labelled(), size=32, mask="true", changed=Augmentation(shift=0.3), times=5)
    assert all(set(mask.unique().tolist()) <= {0.0, 1.0} for mask in D.seen)


def test_a_view_that_changes_nothing_is_the_picture_itself():
    plain, viewed = (
        evaluate_classes(SaysTheMean(), labelled(), size=32, mask="true", changed=how, times=2)
        for how in (None, NO_AUGMENTATION)
    )
    assert [row["score"] for row in viewed] == pytest.approx([row["score"] for row in plain], abs=1e-6)


def test_classes_need_a_mask_source_and_both_classes():
    with pytest.raises(InputError, match="'predicted' needs a segmentor"):
        evaluate_classes(SaysTheMean(), labelled(), size=32)
    with pytest.raises(InputError, match="at least once, got times=0"):
        evaluate_classes(SaysTheMean(), labelled(), size=32, mask="true", changed=Augmentation(), times=0)
    with pytest.raises(InputError, match="choose one of predicted, true, blank"):
        evaluate_classes(SaysTheMean(), labelled(), size=32, mask="none")
    with pytest.raises(InputError, match="none of 2 examples"):
        evaluate_classes(SaysTheMean(), labelled((None, None)), size=32, mask="blank")
    with pytest.raises(InputError, match=r"these are of \[1\]"):
        summarize_classes([{"label": 1, "score": 0.5}])


def test_intervals_of_auc_hold_what_a_peer_computes():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    z = np.arange(60) % 2
    rows = [{"label": int(k), "score": float(s)} for k, s in zip(z, rng.random(60) * 0.5 + 0.25 * z, strict=True)]
    found = summarize_classes(rows)["auc"]
    assert found["mean"] == pytest.approx(roc_auc_score(z, [row["score"] for row in rows]))
    assert found["ci95"][0] < found["mean"] < found["ci95"][1]
    assert found["n"] == 60


def test_what_cannot_be_compared_mask_by_mask_is_refused(tmp_path):
    data = load_synthetic()[:2]
    three = build_segmentor("unet", (4, 8), out_channels=3)
    with pytest.raises(InputError, match="the net draws 3 masks, an example has one"):
        evaluate(three, data, size=32)
    with pytest.raises(InputError, match="evaluate reads Examples, got CachedSet: give what `cache` was made of"):
        evaluate(build_segmentor("unet", (4, 8)), cache(data, 32, tmp_path), size=32)
