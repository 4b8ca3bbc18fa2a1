"""The losses against MONAI, torch, tables worked out by hand, and what the equations promise."""

from __future__ import annotations

import inspect
import math
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor

from cxr_tutorial import losses
from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import LOSSES, cross_entropy, cross_entropy_tversky, dice, get_loss, kl, kl_tversky, tversky

MODES = ("foreground_abs", "bernoulli", "spatial")
EVERY = {
    **LOSSES,
    **{f"kl-{mode}": partial(kl, mode=mode) for mode in MODES},
    **{f"kltv-{mode}": partial(kl_tversky, mode=mode) for mode in MODES},
}
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY.keys())

# A prediction for the 2 x 3 mask, by hand: p = 4/5 and 1/2 on the lung, 1/4, 1/2, 0 and 1/5 beside it.
MASK = torch.tensor([[[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]])
P = torch.tensor([[[[0.8, 0.5, 0.25], [0.5, 1e-30, 0.2]]]])
# TP = 1.3, FP = .25 + .5 + .2 = .95, FN = .2 + .5 = .7
LOG = math.log
BY_HAND = [
    (partial(tversky, fp_weight=0.3, fn_weight=0.7), 1 - 1.3 / (1.3 + 0.3 * 0.95 + 0.7 * 0.7)),
    (partial(tversky, fp_weight=0.7, fn_weight=0.3), 1 - 1.3 / (1.3 + 0.7 * 0.95 + 0.3 * 0.7)),
    (dice, 1 - 2.6 / 4.25),
    (cross_entropy, -(LOG(0.8) + LOG(0.5) + LOG(0.75) + LOG(0.5) + LOG(0.8)) / 6),
    (partial(kl, eps=1e-12), -(LOG(0.8) + LOG(0.5)) / 6),
    (
        partial(kl, eps=0.1),  # large, to see the background: .1 |log(.1 / p)|
        (LOG(1.25) + LOG(2) + 0.1 * (LOG(2.5) + LOG(5) + LOG(1e29) + LOG(2))) / 6,
    ),
    (partial(kl, mode="spatial"), 0.5 * LOG(0.5 * 2.25 / 0.8) + 0.5 * LOG(0.5 * 2.25 / 0.5)),
    (
        partial(kl_tversky, tversky_weight=2, kl_weight=3, fp_weight=1, fn_weight=0, eps=1e-12),
        2 * (1 - 1.3 / 2.25) - 3 * (LOG(0.8) + LOG(0.5)) / 6,
    ),
    (
        partial(cross_entropy_tversky, tversky_weight=2, xe_weight=3, fp_weight=0, fn_weight=1),
        2 * (1 - 1.3 / 2) - 3 * (LOG(0.8) + LOG(0.5) + LOG(0.75) + LOG(0.5) + LOG(0.8)) / 6,
    ),
]


def draw(*shape: int, soft: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape, generator=generator, dtype=dtype)
    target = torch.rand(*shape, generator=generator, dtype=dtype)
    return logits, target if soft else (target < 0.4).to(dtype)


def gradient(loss, logits: Tensor, target: Tensor, **options) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, target, **options), logits)[0]


@pytest.mark.parametrize(("loss", "expected"), BY_HAND)
def test_table_worked_out_by_hand(loss, expected):
    logits = torch.logit(P.double())
    exact = {"smooth": 1e-12} if "smooth" in inspect.signature(loss).parameters else {}  # paper knows no smoothing
    assert loss(logits, MASK, **exact).item() == pytest.approx(expected, abs=1e-6)
    assert loss(logits.float(), MASK).item() == pytest.approx(loss(logits, MASK).item(), abs=1e-6)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("fp_weight", "fn_weight"), [(0.3, 0.7), (0.9, 0.1), (0.5, 0.5), (1.0, 1.0)])
def test_tversky_is_that_of_monai(batch, reduction, fp_weight, fn_weight):
    logits, target = draw(3, 2, 17, 19)
    ours = partial(tversky, fp_weight=fp_weight, fn_weight=fn_weight, batch=batch, reduction=reduction)
    theirs = TverskyLoss(sigmoid=True, alpha=fp_weight, beta=fn_weight, batch=batch, reduction=reduction)
    torch.testing.assert_close(ours(logits, target).squeeze(), theirs(logits, target), rtol=0, atol=1e-6)
    if reduction != "none":
        torch.testing.assert_close(gradient(ours, logits, target), gradient(theirs, logits, target), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [False, True])
def test_dice_is_that_of_monai(batch):
    logits, target = draw(3, 2, 17, 19)
    theirs = DiceLoss(sigmoid=True, batch=batch, reduction="none")(logits, target).squeeze()
    torch.testing.assert_close(dice(logits, target, batch=batch, reduction="none").squeeze(), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [1, 1000])
def test_cross_entropy_is_that_of_torch(soft, scale):
    logits, target = draw(3, 2, 17, 19, soft=soft)
    logits = logits * scale
    expected = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(cross_entropy(logits, target), expected, rtol=1e-6, atol=1e-6)
    expected = gradient(F.binary_cross_entropy_with_logits, logits, target)
    torch.testing.assert_close(gradient(cross_entropy, logits, target), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["foreground_abs", "bernoulli"])
def test_kl_is_the_textbook_formula_on_probabilities(mode):
    logits, y = draw(2, 1, 9, 7, soft=True, dtype=torch.float64)
    p, eps = logits.sigmoid(), 1e-7
    textbook = {
        "foreground_abs": (y.clamp(eps, 1) * (y.clamp(eps, 1) / p.clamp(eps, 1)).log()).abs().mean(),
        "bernoulli": (y * (y / p).log() + (1 - y) * ((1 - y) / (1 - p)).log()).mean(),
    }
    torch.testing.assert_close(kl(logits, y, mode=mode), textbook[mode])


def test_spatial_kl_is_that_of_torch():
    logits, y = draw(2, 3, 9, 7, soft=True, dtype=torch.float64)
    p, y_flat = logits.sigmoid().flatten(2), y.flatten(2)
    p, q = y_flat / y_flat.sum(-1, keepdim=True), p / p.sum(-1, keepdim=True)
    expected = F.kl_div(q.log(), p, reduction="none").sum(-1)
    torch.testing.assert_close(kl(logits, y, mode="spatial", reduction="none"), expected)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(("tversky_weight", "kl_weight", "eps"), [(1, 1, 1e-7), (3, 0.2, 1e-3)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_kl_tversky_is_the_sum_of_its_terms(mode, soft, tversky_weight, kl_weight, eps, batch):
    """In value and gradient: the default reading has a gradient written by hand."""
    logits, target = draw(3, 2, 17, 19, soft=soft, dtype=torch.float64)
    logits[0, 0, 0, :2] = torch.tensor([-1000.0, 1000.0])

    def whole(s, y):
        weights = {"tversky_weight": tversky_weight, "kl_weight": kl_weight}
        return kl_tversky(s, y, mode=mode, eps=eps, batch=batch, **weights)

    def terms(s, y):
        return tversky_weight * tversky(s, y, batch=batch) + kl_weight * kl(s, y, mode=mode, eps=eps, batch=batch)

    torch.testing.assert_close(whole(logits, target), terms(logits, target))
    torch.testing.assert_close(gradient(whole, logits, target), gradient(terms, logits, target))


def test_tversky_with_equal_weights_is_dice_and_jaccard():
    logits, target = draw(2, 1, 8, 8)
    p = logits.sigmoid()
    jaccard = 1 - (p * target).sum((2, 3)) / (p + target - p * target).sum((2, 3))
    halves = tversky(logits, target, fp_weight=0.5, fn_weight=0.5)
    torch.testing.assert_close(halves, dice(logits, target), rtol=0, atol=1e-6)
    ones = tversky(logits, target, fp_weight=1, fn_weight=1, reduction="none")
    torch.testing.assert_close(ones, jaccard, rtol=0, atol=1e-6)


def test_fp_weight_prices_false_positives():
    too_much = torch.full((1, 1, 2, 3), 20.0)
    too_little = torch.tensor([[[[20.0, -20.0, -20.0], [-20.0, -20.0, -20.0]]]])
    dear_fp, dear_fn = partial(tversky, fp_weight=0.9, fn_weight=0.1), partial(tversky, fp_weight=0.1, fn_weight=0.9)
    assert dear_fp(too_much, MASK) > dear_fn(too_much, MASK)
    assert dear_fp(too_little, MASK) < dear_fn(too_little, MASK)


def test_bernoulli_kl_is_cross_entropy_on_hard_masks():
    logits, target = draw(2, 1, 33, 21)
    bernoulli = partial(kl, mode="bernoulli")
    torch.testing.assert_close(bernoulli(logits, target), cross_entropy(logits, target), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        gradient(bernoulli, logits, target), gradient(cross_entropy, logits, target), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        kl_tversky(logits, target, mode="bernoulli"), cross_entropy_tversky(logits, target), rtol=0, atol=1e-6
    )


def test_foreground_kl_ignores_the_background_and_is_least_with_all_lung():
    logits, target = draw(2, 1, 33, 21)
    slope = gradient(kl, logits, target) * target[0].numel() * len(target)
    assert (slope[target == 1] < 0).all()
    assert slope[target == 0].abs().max() <= 1e-7
    assert kl(torch.full_like(logits, 50), target) < 2e-6 < kl(logits, target)


@every_loss
def test_batch_order_and_company_change_no_sample(loss):
    logits, target = draw(4, 2, 9, 11)
    order = torch.tensor([2, 0, 3, 1])
    values = loss(logits, target, reduction="none")
    assert values.shape == (4, 2)
    assert torch.equal(loss(logits[order], target[order], reduction="none"), values[order])
    torch.testing.assert_close(loss(logits[1:2], target[1:2], reduction="none"), values[1:2])
    torch.testing.assert_close(loss(logits, target), values.mean())
    torch.testing.assert_close(loss(logits, target, reduction="sum"), values.sum())


@pytest.mark.parametrize("name", [name for name in EVERY if name != "xe"])
def test_batch_sums_over_the_samples(name):
    loss = EVERY[name]
    logits, target = draw(3, 2, 8, 10)
    side_by_side = loss(torch.cat(list(logits), -1)[None], torch.cat(list(target), -1)[None], reduction="none")
    torch.testing.assert_close(loss(logits, target, batch=True, reduction="none"), side_by_side)


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_those_of_the_value(loss, soft):
    logits, target = draw(2, 2, 3, 4, soft=soft, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss(s, target, reduction="none"), logits.requires_grad_())


@pytest.mark.parametrize("loss", [tversky, dice, cross_entropy, kl, cross_entropy_tversky])
def test_second_derivatives(loss):
    logits, target = draw(1, 2, 2, 3, soft=True, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda s: loss(s, target), logits.requires_grad_())


@every_loss
def test_backward_twice_through_a_kept_graph(loss):
    logits, target = draw(2, 1, 4, 4)
    logits.requires_grad_()
    value = loss(logits, target)
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@every_loss
@pytest.mark.filterwarnings("ignore:every mask")
@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_empty_and_full_masks_are_finite(loss, fill, logit):
    logits, target = torch.full((2, 1, 16, 16), logit), torch.full((2, 1, 16, 16), fill)
    assert 0 <= loss(logits, target).item() < 2.1e4
    assert gradient(loss, logits, target).isfinite().all()


def test_an_empty_mask_predicted_empty_costs_nothing():
    logits, target = torch.full((1, 1, 16, 16), -40.0), torch.zeros(1, 1, 16, 16)
    assert tversky(logits, target).item() == pytest.approx(0, abs=1e-4)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(loss, dtype):
    logits, target = draw(2, 1, 256, 256)
    logits = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(value, loss(logits.float(), target))


@pytest.mark.parametrize("name", LOSSES)
def test_large_half_precision_batch_is_finite(name):
    logits = torch.full((16, 1, 1024, 1024), 9.0, dtype=torch.float16)
    target = torch.ones(1, dtype=torch.uint8).expand(logits.shape)
    with torch.autocast("cpu", dtype=torch.float16), torch.no_grad():
        assert LOSSES[name](logits, target).isfinite()


def test_target_types_and_spatial_axes():
    logits, target = draw(2, 1, 4, 6)
    for kind in (torch.bool, torch.uint8, torch.int64, torch.float64):
        assert torch.equal(kl_tversky(logits, target.to(kind)), kl_tversky(logits, target))
    torch.testing.assert_close(dice(logits.unflatten(-1, (2, 3)), target.unflatten(-1, (2, 3))), dice(logits, target))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0, 1),
    scale=st.floats(0.01, 1000),
    soft=st.booleans(),
)
def test_losses_are_finite_and_not_negative(seed, size, share, scale, soft):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(size, generator=generator)
    target = torch.rand(size, generator=generator)
    target = target if soft else (target < share).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for loss in EVERY.values():
            values = loss(logits, target, reduction="none")
            assert values.isfinite().all()
            assert (values >= -2e-6).all()
    for overlap in (tversky, dice):
        assert (overlap(logits, target, reduction="none") <= 1 + 1e-6).all()


@every_loss
def test_a_better_prediction_costs_less(loss):
    _, target = draw(2, 1, 12, 12)
    right = torch.where(target > 0, 1.0, -1.0)
    values = [loss(k * right, target).item() for k in (-4, -1, 0, 1, 4, 12)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-4


def test_get_loss():
    logits, target = draw(2, 1, 5, 5)
    for name, function in LOSSES.items():
        assert torch.equal(get_loss(name)(logits, target), function(logits, target))
    asked = get_loss("tversky", fp_weight=0.1, fn_weight=0.9)(logits, target)
    assert torch.equal(asked, tversky(logits, target, fp_weight=0.1, fn_weight=0.9))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("focal", {}, "xe, dice, tversky, kltv, xe-tversky"),
        ("dice", {"fp_weight": 0.3}, "has no option 'fp_weight'"),
        ("dice", {"target": 0.3}, "has no option 'target'"),
        ("tversky", {"fp_weight": -0.3}, "fp_weight must be >= 0, got -0.3"),
        ("kltv", {"kl_weight": -1}, "kl_weight must be >= 0"),
        ("kltv", {"tversky_weight": float("nan")}, "tversky_weight must be >= 0"),
        ("xe-tversky", {"xe_weight": float("inf")}, "xe_weight must be >= 0"),
        ("tversky", {"smooth": 0}, "smooth must be > 0"),
        ("dice", {"smooth": -1}, "smooth must be > 0"),
        ("kltv", {"mode": "reverse"}, "foreground_abs, bernoulli, spatial"),
        ("kltv", {"eps": 0}, r"eps must lie in \(0, 1\)"),
        ("xe", {"reduction": "median"}, "mean, sum, none"),
    ],
)
def test_bad_options_are_named(name, options, words):
    with pytest.raises(InputError, match=words):
        get_loss(name, **options)


@every_loss
@pytest.mark.parametrize(
    ("logits", "target", "words"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4), "expected the same shape"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 1, 4), "expected the same shape"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), "C masks for C outputs of the net$"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 1.001), r"\[1.001, 1.001\]"),
        (torch.zeros(4, 4), torch.zeros(4, 4), "channel axis"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), "at least one pixel"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 255), "divide a 0/255 mask by 255"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), -0.5), r"\[-0.5, -0.5\]"),
        (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), torch.nan), "without a mask"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), torch.zeros(2, 1, 4, 4), "floating point"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, requires_grad=True), "detach"),
    ],
)
def test_bad_tensors_are_refused(loss, logits, target, words):
    with pytest.raises(InputError, match=words):
        loss(logits, target)


BLIND = {
    "tversky": tversky,
    "kltv": kl_tversky,
    "kltv, spatial": partial(kl_tversky, mode="spatial"),
    "kl": kl,
    "kl, spatial": partial(kl, mode="spatial"),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_loss_that_learns_nothing_from_a_batch_of_empty_masks_says_so_once(name):
    logits, empty, loss = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), BLIND[name]
    losses._warn_empty.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(logits, torch.stack([empty[0], empty[1] + 1]))
        for other in (cross_entropy, cross_entropy_tversky, partial(kl_tversky, mode="bernoulli")):
            other(logits, empty)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(logits, empty)
        loss(logits, empty)
    assert len(caught) == 1
    assert "learn nothing" in str(caught[0].message)
    assert caught[0].filename == __file__
    slope = {one: gradient(one, logits, empty).abs().max().item() for one in (loss, cross_entropy_tversky)}
    assert slope[loss] < 1e-4 * slope[cross_entropy_tversky]


def test_a_diverged_network_gives_nan_not_an_error():
    assert kl_tversky(torch.full((1, 1, 2, 2), torch.nan), torch.ones(1, 1, 2, 2)).isnan()


def test_function_transforms():
    logits, target = draw(2, 1, 4, 4)
    slope = torch.func.grad(lambda s: cross_entropy_tversky(s, target))(logits)
    torch.testing.assert_close(slope, gradient(cross_entropy_tversky, logits, target))


@every_loss
def test_a_mask_that_was_resized_may_leave_the_range_by_a_rounding(loss):
    logits = torch.randn(1, 1, 4, 4)
    whole = torch.ones(1, 1, 4, 4)
    torch.testing.assert_close(loss(logits, whole * (1 + 2.4e-7)), loss(logits, whole), rtol=0, atol=1e-4)
