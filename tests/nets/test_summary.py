"""What a segmentor is said to cost."""

import pytest
import torch

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import NETS, Segmentor, build_segmentor, summarize_segmentor

SEVERAL = sorted(set(NETS) - {"ppaunet"})


@pytest.mark.parametrize("net", SEVERAL)
@pytest.mark.parametrize("rule", ["sum", "concat"])
def test_levels_hold_every_parameter_once(net, rule):
    model = build_segmentor(net, "small", rule=rule)
    summary = summarize_segmentor(model, (64, 48))
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert [level.size for level in summary.levels] == [(64, 48), (32, 24), (16, 12), (8, 6), (4, 3)]


def test_operations_of_a_plain_unet_by_hand():
    summary = summarize_segmentor(Segmentor((4, 8), pyramid=False, progressive=False, attention=False), 16)
    conv = 2 * 9  # a 3x3 convolution's operations per pixel and pair of channels
    fine = 256 * (conv * (1 * 4 + 4 * 4 + 8 * 4 + 4 * 4) + 2 * 4 * 1) + 2 * 64 * 8 * 4 * 4
    coarse = 64 * conv * (4 * 8 + 8 * 8)
    assert [level.flops for level in summary.levels] == [fine, coarse]


def test_it_leaves_the_model_as_it_was_and_says_padded_sizes():
    model = Segmentor("tiny").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert summarize_segmentor(model, 17).levels[0].size == (24, 24)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_table_shows_levels_and_sum():
    text = str(summarize_segmentor(Segmentor("tiny"), 32))
    assert len(text.splitlines()) == 6
    assert "MFLOP" in text


def test_a_size_that_is_too_small_is_named():
    with pytest.raises(InputError, match="at least 16 pixels, got 8"):
        summarize_segmentor(Segmentor("tiny"), 8)
