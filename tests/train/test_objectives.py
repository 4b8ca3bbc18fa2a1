"""What the segmentor minimises."""

import pytest
import torch

from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import cross_entropy, get_loss
from cxr_tutorial.nets import SegmentorOutput, build_segmentor
from cxr_tutorial.train import segmentation_terms
from cxr_tutorial.train.objectives import mask_at_level


def example(n: int = 4):
    torch.manual_seed(0)
    output = build_segmentor("pgaunet", "tiny").eval()(torch.randn(n, 1, 32, 32))
    return output, (torch.rand(n, 1, 32, 32) > 0.5).float()


def test_terms_add_up_and_sides_meet_the_shrunken_mask():
    output, mask = example()
    terms = segmentation_terms(output, mask, torch.ones(4, dtype=torch.bool), cross_entropy, side_weight=0.5)
    by_hand = sum(
        cross_entropy(side, torch.nn.functional.interpolate(mask, side.shape[-2:], mode="nearest-exact"))
        for side in output.side_logits
    )
    torch.testing.assert_close(terms["side"], 0.5 * by_hand)
    torch.testing.assert_close(terms["seg"], cross_entropy(output.logits, mask))
    torch.testing.assert_close(terms["total"], terms["seg"] + terms["side"])


@pytest.mark.parametrize("name", ["xe", "dice", "tversky", "kltv", "xe-tversky"])
def test_masks_of_pictures_that_have_none_are_never_read(name):
    output, mask = example()
    known = torch.tensor([True, False, True, False])
    nan = mask.masked_fill(~known.view(-1, 1, 1, 1), torch.nan)
    with_nan = segmentation_terms(output, nan, known, get_loss(name))["total"]
    alone = segmentation_terms(
        SegmentorOutput(output.logits[known], tuple(side[known] for side in output.side_logits)),
        mask[known],
        known[known],
        get_loss(name),
    )["total"]
    torch.testing.assert_close(with_nan, alone)


def test_a_batch_without_a_mask_is_an_error():
    output, mask = example()
    with pytest.raises(InputError, match="without a single mask"):
        segmentation_terms(output, mask, torch.zeros(4, dtype=torch.bool), cross_entropy)


def test_side_outputs_can_be_weighted_one_by_one():
    output, mask = example()
    known = torch.ones(4, dtype=torch.bool)
    alone = [
        cross_entropy(side, torch.nn.functional.interpolate(mask, side.shape[-2:], mode="nearest-exact"))
        for side in output.side_logits
    ]
    terms = segmentation_terms(output, mask, known, cross_entropy, side_weight=(0.5, 0.0))
    torch.testing.assert_close(terms["side"], 0.5 * alone[0])
    assert "side" not in segmentation_terms(output, mask, known, cross_entropy, side_weight=0)


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (255, 193)])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_a_side_mask_lies_on_the_grid_of_its_side_output(size, m):
    """A straight edge stays where it is, to half a coarse pixel, whatever the picture's size."""
    column, side = size[1] // 2, tuple(-(-length // 2**m) for length in size)
    mask = (torch.arange(size[1]) < column).float().expand(1, 1, *size)
    edge = mask_at_level(mask, side, m)[0, 0, 0].sum().item() * 2**m
    assert abs(edge - column) <= 2**m / 2


@pytest.mark.parametrize("bad", [-1.0, float("nan"), (0.5,), (0.5, -0.1), (1.0, 1.0, 1.0)])
def test_weights_that_cannot_be_are_named(bad):
    output, mask = example()
    with pytest.raises(InputError, match="one such number for each of 2 side outputs, got"):
        segmentation_terms(output, mask, torch.ones(4, dtype=torch.bool), cross_entropy, side_weight=bad)
