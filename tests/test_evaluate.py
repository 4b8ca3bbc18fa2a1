"""Evaluation: at the picture's own size, with its own spacing, over the pictures that have a mask."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.errors import InputError
from cxr_tutorial.evaluate import evaluate, predict_logits, summarize


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


def test_a_summary_names_its_n_and_unit():
    rows = [{"id": str(i), "unit": "mm", "dice": v, "hd95": 10 * v} for i, v in enumerate([0.2, 0.4, 0.9])]
    summary = summarize(rows)
    assert summary["dice"]["mean"] == pytest.approx(0.5)
    assert summary["dice"]["median"] == pytest.approx(0.4)
    assert summary["dice"]["n"] == 3
    assert summary["dice"]["ci95"][0] <= 0.5 <= summary["dice"]["ci95"][1]
    assert summary["hd95"]["unit"] == "mm"
    assert "unit" not in summary["dice"]
