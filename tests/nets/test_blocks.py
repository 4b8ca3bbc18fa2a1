"""Each block alone: against the formula, against torch, against MONAI."""

import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn
from torch.nn import functional as F

from cxr_tutorial.nets import AttentionGate, ProgressiveHead, PyramidInput
from cxr_tutorial.nets.blocks import BatchNorm2d


def pair(channels: int) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    ours, theirs = BatchNorm2d(channels), nn.BatchNorm2d(channels)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(0.5, 2, channels))
            norm.bias.copy_(torch.linspace(-1, 1, channels))
    return ours, theirs


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("shape", [(4, 16, 20), (3, 17, 13), (1, 3, 5)])
def test_batch_norm_is_torchs_in_fp64_in_values_gradients_and_state(channels, shape):
    ours, theirs = pair(channels)
    n, height, width = shape
    x = (2 * torch.randn(n, channels, height, width) + 30).contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(x)
    results = []
    for norm, dtype in ((ours, torch.float32), (theirs.double(), torch.float64)):
        leaf = x.clone(memory_format=torch.channels_last).to(dtype).requires_grad_()
        out = norm(leaf)
        out.backward(grad.to(dtype))
        results.append([out, leaf.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
    assert type(results[0][0].grad_fn).__name__ == "_BatchNormBackward", "the fast path was not taken"
    for our, their in zip(*results, strict=True):
        torch.testing.assert_close(our, their.float(), atol=5e-4, rtol=1e-4)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 1


def test_batch_norm_in_bf16_errs_little_more_than_torchs_own():
    torch.manual_seed(0)
    ours, theirs = pair(8)
    x = torch.randn(4, 8, 32, 32).contiguous(memory_format=torch.channels_last)
    exact = theirs(x)
    torchs = nn.BatchNorm2d(8)
    torchs.load_state_dict(ours.state_dict())
    error = (ours(x.bfloat16()).float() - exact).abs().max()
    assert error <= 4 * (torchs(x.bfloat16()).float() - exact).abs().max()
    torch.testing.assert_close(ours.running_var, theirs.running_var, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("mean", [0.0, 3.0, 10.1])
def test_batch_norm_in_bf16_errs_by_a_few_roundings(mean):
    """Beside torch's own in fp64 on the same bf16 pictures; the mean is not a number that bf16 holds."""
    torch.manual_seed(0)
    ours, theirs = pair(8)
    x = (torch.randn(4, 8, 32, 32) + mean).contiguous(memory_format=torch.channels_last).bfloat16()
    grad = torch.randn(x.shape).contiguous(memory_format=torch.channels_last).bfloat16()
    results = []
    for norm, dtype in ((ours, torch.bfloat16), (theirs.double(), torch.float64)):
        leaf = x.clone(memory_format=torch.channels_last).to(dtype).requires_grad_()
        out = norm(leaf)
        out.backward(grad.to(dtype))
        results.append([one.double() for one in (out, leaf.grad, norm.weight.grad, norm.running_var)])
    (out, slope, of_weight, var), (out_, slope_, of_weight_, var_) = results
    assert (out - out_).abs().max() < 0.08
    assert (slope - slope_).abs().max() < 0.08
    assert (of_weight - of_weight_).abs().max() < 0.6  # sums of 4096 rounded products, of a size of 64
    torch.testing.assert_close(var, var_, atol=1e-3, rtol=1e-2)
    assert (out - out_).mean((0, 2, 3)).abs().max() < 8e-3


@pytest.mark.parametrize("norm", [BatchNorm2d(8, affine=False), BatchNorm2d(8, momentum=None), BatchNorm2d(9)])
def test_batch_norm_leaves_unusual_cases_to_torch(norm):
    x = torch.randn(2, norm.num_features, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert "NativeBatchNorm" in type(norm(x).grad_fn).__name__


def test_gate_meets_monais_where_the_formulas_coincide():
    """Both make q = psi(relu(W_x x + W_g g)); MONAI on the skip grid, with 1x1 kernels and normalisation inside."""
    torch.manual_seed(0)
    ours, theirs = AttentionGate(4, 6, inner_channels=3).eval(), AttentionBlock(2, f_int=3, f_g=6, f_l=4).eval()
    w_x, w_g, psi = theirs.W_x[0].conv, theirs.W_g[0].conv, theirs.psi[0].conv
    with torch.no_grad():
        w_x.weight.copy_(ours.w_x.weight.sum((2, 3), keepdim=True))  # on a flat patch the 2x2 kernel is its sum
        w_x.bias.zero_()
        w_g.weight.copy_(ours.w_g.weight)
        w_g.bias.copy_(ours.w_g.bias)
        psi.weight.copy_(ours.psi.weight)
        psi.bias.copy_(ours.psi.bias)
        for norm in (theirs.W_x[1], theirs.W_g[1], theirs.psi[1]):  # as good as none
            norm.eps = 0.0
    coarse, gate = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 8, 8)
    skip = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)  # flat patches
    q = ours.psi(F.relu(ours.w_x(skip) + ours.w_g(gate)))
    torch.testing.assert_close(theirs(g=gate, x=coarse), coarse * q.sigmoid())


def test_gate_differs_from_monais_where_it_says_so():
    ours, theirs = AttentionGate(4, 6), AttentionBlock(2, f_int=2, f_g=6, f_l=4)
    skip, coarse_gate = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    assert ours(skip, coarse_gate)[0].shape == skip.shape
    with pytest.raises(RuntimeError):
        theirs(g=coarse_gate, x=skip)  # wants the gate enlarged beforehand
    inside = [type(module).__name__ for part in (theirs.W_x, theirs.W_g, theirs.psi) for module in part]
    assert inside.count("BatchNorm2d") == 3
    assert not any("Norm" in type(part).__name__ for part in (ours.w_x, ours.w_g, ours.psi))


def test_gate_that_is_wide_open_passes_the_skip_through_its_output():
    gate = AttentionGate(4, 6).eval()
    with torch.no_grad():
        gate.psi.weight.zero_()
        gate.psi.bias.fill_(100.0)
    skip = torch.randn(1, 4, 8, 8)
    passed, a = gate(skip, torch.randn(1, 6, 4, 4))
    torch.testing.assert_close(a, torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(passed, gate.out(skip))


def test_pyramid_input_by_hand():
    block = PyramidInput(1, 1)
    with torch.no_grad():
        block.conv.weight.copy_(torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 0]])[None, None])
        block.conv.bias.fill_(-1.0)
    x = torch.tensor([[1.0, 2], [3, 4]])[None, None]
    by_hand = torch.tensor([[0.0, 1], [3, 5]])[None, None]  # the pixel and the one above it, minus 1
    torch.testing.assert_close(block(x), by_hand)


def test_progressive_head_by_hand():
    head = ProgressiveHead(1, 1)
    with torch.no_grad():
        head.weight.fill_(2.0)
        head.bias.fill_(1.0)
    feature = torch.zeros(1, 1, 2, 4)
    coarser = torch.tensor([[0.0, 4.0]])[None, None]
    row = torch.tensor([1.0, 2, 4, 5])  # 1 + (0, 1, 3, 4)
    torch.testing.assert_close(head(feature, coarser), row.expand(1, 1, 2, 4))
    torch.testing.assert_close(head(feature), torch.ones(1, 1, 2, 4))


def test_progressive_head_adds_in_fp32_under_autocast():
    head = ProgressiveHead(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(torch.randn(1, 4, 8, 8), torch.full((1, 1, 4, 4), 1000.25))
    assert logits.dtype == torch.float32
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    with torch.autocast("cpu", torch.bfloat16):  # bf16 could not hold this number
        torch.testing.assert_close(
            head(torch.randn(1, 4, 8, 8), torch.full((1, 1, 4, 4), 1000.25)), torch.full((1, 1, 8, 8), 1000.25)
        )
