"""The lungs alone: what `crop_to_lungs` cuts out, and what becomes of everything that belongs to the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_tutorial.data import cache, load_synthetic
from cxr_tutorial.data.example import Finding
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import SYNTHETIC_WEIGHTS
from cxr_tutorial.lungs import crop_to_lungs
from cxr_tutorial.nets import Segmentor
from cxr_tutorial.nets.segmentor import SegmentorOutput
from cxr_tutorial.train import load_weights


class Draws(Segmentor):
    """Says "lung" in the given rows and columns, as parts of the side, whatever the picture."""

    def __init__(self, top: float, bottom: float, left: float, right: float) -> None:
        super().__init__("tiny")
        self.box = torch.nn.Parameter(torch.tensor([top, bottom, left, right]))

    def forward(self, x: torch.Tensor) -> SegmentorOutput:  # type: ignore[override]
        top, bottom, left, right = (round(part * x.shape[-1]) for part in self.box.tolist())
        logits = torch.full_like(x, -9.0)
        logits[..., top:bottom, left:right] = 9.0
        return SegmentorOutput(logits)


def one_example():
    return load_synthetic()[:1]


def test_the_box_is_cut_from_the_picture_at_its_own_size():
    whole = one_example()[0]
    height, width = whole.image.shape
    cut = crop_to_lungs(one_example(), Draws(0.25, 0.75, 0.5, 1.0), size=64, margin=0.0)[0]
    rows, cols = slice(height // 4, 3 * height // 4), slice(width // 2, width)
    assert np.array_equal(cut.image, whole.image[rows, cols])
    assert cut.mask is not None
    assert cut.mask.shape == cut.image.shape
    assert cut.mask.mean() > 0.9
    assert (cut.id, cut.patient, cut.label) == (whole.id, whole.patient, whole.label)


def test_the_margin_widens_the_box_and_stops_at_the_edge():
    height, width = one_example()[0].image.shape
    cut = crop_to_lungs(one_example(), Draws(0.25, 0.75, 0.5, 1.0), size=64, margin=0.125)[0]
    assert cut.image.shape == (3 * height // 4, 5 * width // 8)


def test_where_no_lung_is_found_the_picture_is_whole_and_its_mask_empty():
    whole = one_example()[0]
    cut = crop_to_lungs(one_example(), Draws(0.0, 0.0, 0.0, 0.0), size=64)[0]
    assert np.array_equal(cut.image, whole.image)
    assert cut.mask is not None
    assert not cut.mask.any()


def test_findings_move_with_the_picture_and_those_outside_are_left_out():
    examples = one_example()
    height, width = examples[0].image.shape
    inside, outside = Finding("nodule", height / 2, 3 * width / 4, 4.0), Finding("nodule", 0.0, 0.0, 4.0)
    read = examples.read
    examples = replace(examples, read=lambda entry: replace(read(entry), findings=(inside, outside)))
    [kept] = crop_to_lungs(examples, Draws(0.25, 0.75, 0.5, 1.0), size=64, margin=0.0)[0].findings
    assert (kept.row, kept.col) == (height / 4, width / 4)


def test_sets_that_were_joined_are_each_read_from_where_they_are():
    one, two = load_synthetic()[:2], load_synthetic()[2:4]
    read = two.read
    two = replace(two, read=lambda entry: replace(read(entry), image=1 - read(entry).image), read_all=None)
    cropped = crop_to_lungs(one + two, Draws(0.0, 1.0, 0.0, 1.0), size=64)
    for whole, cut in zip([*one, *two], cropped, strict=True):
        assert np.array_equal(whole.image, cut.image)


def test_a_picture_without_a_mask_gets_the_one_that_s_draws(cxr_data):
    from cxr_tutorial.data import load_shenzhen

    examples = load_shenzhen()
    unmarked = examples.subset([examples.has_mask.index(False)])
    [cut] = crop_to_lungs(unmarked, Draws(0.25, 0.75, 0.5, 1.0), size=64)
    assert cut.mask is not None
    assert cut.mask.mean() > 0.8


def test_the_cache_tells_crops_of_different_nets_apart(tmp_path):
    boxes = [Draws(0.25, 0.75, 0.5, 1.0), Draws(0.25, 0.75, 0.0, 0.5)]
    left, right = (cache(crop_to_lungs(one_example(), box, size=64), 32, tmp_path) for box in boxes)
    again = cache(crop_to_lungs(one_example(), boxes[0], size=64), 32, tmp_path)
    assert left.fingerprint != right.fingerprint
    assert left.fingerprint == again.fingerprint


def test_it_keeps_the_lungs_of_real_pictures(cxr_data):
    from cxr_tutorial.data import load_montgomery

    examples = load_montgomery()[:12]
    cropped = crop_to_lungs(examples, load_weights(SYNTHETIC_WEIGHTS), size=128)
    for whole, cut in zip(examples, cropped, strict=True):
        assert whole.mask is not None
        assert cut.mask is not None
        assert 0.3 < cut.image.size / whole.image.size < 0.95
        assert cut.mask.mean() > 1.05 * whole.mask.mean()


def test_a_margin_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"0 to 0\.5, got -0\.1"):
        crop_to_lungs(one_example(), Segmentor("tiny"), size=64, margin=-0.1)
