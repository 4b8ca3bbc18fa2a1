r"""The losses that compare a predicted mask with a drawn one: pure functions of logits and target (floor 1).

Notation, shared by the equations, the code and the book: logits $s_i$, probabilities
$p_i=\sigma(s_i)$, mask $y_i\in[0,1]$, over the $L$ pixels of one sample and channel, and
the soft counts

$$TP=\sum_i p_i y_i,\qquad FP=\sum_i p_i(1-y_i),\qquad FN=\sum_i(1-p_i)y_i$$

All losses share these parameters:

* `logits`: (N, C, H, W), floating point, **before** the sigmoid; any number of spatial axes works, so (N, H, W) is
  taken for H channels of rows: pictures without a channel axis need one, `logits[:, None]`.
* `target`: (N, C, H, W) in [0, 1], bool, integer or float, soft masks included; one class in each channel.
* `reduction`: every loss is first one value for each sample and channel, (N, C); `"none"` returns these,
  `"mean"` and `"sum"` reduce them to a scalar.
* `batch`: True treats the batch as one large image: the sums run over its samples too and the values are
  (1, C). Structures that are absent from some samples then share one denominator.

They raise `InputError` where the shapes differ, the target leaves [0, 1] or holds NaN, a weight is negative or
a name is unknown. That check of the target waits for an accelerator once per call. Logits are not searched
for NaN: a diverged network gives a NaN loss. All compute in float32 even under autocast, because a float16
sum overflows beyond 65504, which a mask of 256 x 256 pixels reaches.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cxr_tutorial.errors import InputError

Reduction = Literal["mean", "sum", "none"]
KLMode = Literal["foreground_abs", "bernoulli", "spatial"]


def cross_entropy(logits: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Binary cross-entropy (XE): how surprised the prediction is by each pixel of the mask.

    $$L_{XE}=-\frac1L\sum_i y_i\log p_i+(1-y_i)\log(1-p_i)=\frac1L\sum_i\mathrm{softplus}(s_i)-y_i s_i$$

    Parameters
    ----------
    logits, target : (N, C, H, W), see the module.
    reduction : see the module.

    Returns
    -------
    A scalar, or (N, C) values; 0 or more, log 2 at `logits = 0`.

    Notes
    -----
    One of the paper's single-task losses (a). Introduced in chapter 2.

    >>> round(cross_entropy(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3)).item(), 4)
    0.6931
    """
    with _full_precision(logits):
        s, y = _rows(logits, target)
        return _reduce(_cross_entropy(s, y), reduction)


def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    smooth: float = 1e-5,
    batch: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Tversky loss: overlap, with a price for each false positive and another for each false negative.

    $$L_{TV}=1-\frac{TP+\varepsilon}{TP+w_{FP}\,FP+w_{FN}\,FN+\varepsilon}$$

    Both weights 1/2 give the Dice loss, both 1 the Jaccard loss. `fp_weight` is the alpha of Salehi et al. and
    of MONAI, `fn_weight` their beta; other code swaps the two letters, hence the names.

    Parameters
    ----------
    logits, target : (N, C, H, W), see the module.
    fp_weight, fn_weight : 0 or more; what a false positive and a false negative cost.
    smooth : $\varepsilon>0$, in pixels; an empty mask predicted empty then costs 0, not 0/0. Keep it
        small: a large one hides small structures. An empty mask then teaches almost nothing; a batch of
        nothing else warns once.
    batch, reduction : see the module.

    Returns
    -------
    A scalar, or (N, C) values; in [0, 1].

    Notes
    -----
    Salehi, Erdogmus and Gholipour 2017, arXiv 1706.05721 (c), where .3/.7 did best (c+); the weights of the
    multi-task paper are unknown. Introduced in chapter 2.

    >>> y = torch.tensor([[[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]])
    >>> round(tversky(torch.where(y > 0, 20.0, -20.0), y).item(), 4)
    0.0
    """
    _check_not_negative(fp_weight=fp_weight, fn_weight=fn_weight)
    _check_positive(smooth=smooth)
    with _full_precision(logits):
        s, y = _rows(logits, target, batch=batch, blind=True)
        return _reduce(_overlap(s, y, fp_weight, fn_weight, smooth), reduction)


def dice(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    batch: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Dice loss: the Tversky loss with both weights 1/2.

    $$L_{Dice}=1-\frac{2\,TP+\varepsilon}{2\,TP+FP+FN+\varepsilon}
         =1-\frac{2\sum p_iy_i+\varepsilon}{\sum p_i+\sum y_i+\varepsilon}$$

    Parameters
    ----------
    logits, target : (N, C, H, W), see the module.
    smooth : $\varepsilon>0$, in pixels; see `tversky`, whose $\varepsilon$ is half of this one.
    batch, reduction : see the module.

    Returns
    -------
    A scalar, or (N, C) values; in [0, 1].

    Notes
    -----
    One of the paper's single-task losses (a); the form is MONAI's `DiceLoss` (c). Introduced in chapter 2.

    >>> round(dice(torch.zeros(1, 1, 2, 2), torch.tensor([[[[1, 1], [0, 0]]]])).item(), 4)
    0.5
    """
    return tversky(logits, target, fp_weight=0.5, fn_weight=0.5, smooth=smooth / 2, batch=batch, reduction=reduction)


def kl(
    logits: Tensor,
    target: Tensor,
    *,
    mode: KLMode = "foreground_abs",
    eps: float = 1e-7,
    batch: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Kullback-Leibler divergence of the prediction from the mask, in three readings.

    The paper says "absolute KL divergence" and its formula is unknown. The readings:

    `"foreground_abs"` (R2), what `y * log(y / p)` on a one-channel mask computes, made absolute:

    $$\frac1L\sum_i\left|\tilde y_i\log\frac{\tilde y_i}{p_i}\right|,\qquad \tilde y=\max(y,\epsilon)$$

    A lung pixel costs $-\log p_i$, a background pixel next to nothing: less than 2e-6, and that negative
    without the bars. Alone it is least with every pixel called lung.

    `"bernoulli"` (R1) compares two coins at each pixel. On a mask of zeros and ones the entropy
    $H(y)$ is 0 and this *is* the cross-entropy:

    $$\frac1L\sum_i y_i\log\frac{y_i}{p_i}+(1-y_i)\log\frac{1-y_i}{1-p_i}=L_{XE}-\frac1L\sum_i H(y_i)$$

    `"spatial"` (R3) compares two distributions over the image; a prediction that is fainter everywhere by one factor
    costs the same. 0 for an empty mask:

    $$\sum_i P_i\log\frac{P_i}{Q_i},\qquad P=\frac{y}{\sum_j y_j},\quad Q=\frac{p}{\sum_j p_j}$$

    Parameters
    ----------
    logits, target : (N, C, H, W), see the module.
    mode : the reading.
    eps : $\epsilon$ in (0, 1), the floor of the mask in `"foreground_abs"`. $p$ needs no floor: its
        logarithm is taken from the logit.
    batch, reduction : see the module; one distribution for each sample, or for the whole batch.

    Returns
    -------
    A scalar, or (N, C) values; 0 or more, in nats.

    Notes
    -----
    "Absolute KL divergence" is the abstract's word (a); that R2 fits it best is a judgement (d).
    Introduced in chapter 3.

    >>> y = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> for mode in ("foreground_abs", "bernoulli", "spatial"):
    ...     print(round(kl(torch.zeros(1, 1, 2, 2), y, mode=mode).item(), 4))
    0.1733
    0.6931
    1.3863
    """
    _check_kl(mode, eps)
    with _full_precision(logits):
        s, y = _rows(logits, target, batch=batch, blind=mode != "bernoulli")
        return _reduce(_kl(s, y, mode, eps), reduction)


def kl_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    tversky_weight: float = 1.0,
    kl_weight: float = 1.0,
    mode: KLMode = "foreground_abs",
    smooth: float = 1e-5,
    eps: float = 1e-7,
    batch: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL-Tversky loss (KLTV), the paper's own: region overlap plus a price on each missed pixel.

    $$L_{KLTV}=\lambda_{TV}\,L_{TV}+\lambda_{KL}\,L_{KL}$$

    With `mode="bernoulli"` and masks of zeros and ones it equals `cross_entropy_tversky`. In the default reading
    an empty mask gives almost no gradient and nothing is learnt from it. Harmless for whole lungs; for crops or
    organs that may be absent take `mode="bernoulli"`. A batch of nothing but empty masks warns once.

    Parameters
    ----------
    logits, target : (N, C, H, W), see the module.
    fp_weight, fn_weight, smooth : see `tversky`.
    mode, eps : see `kl`.
    tversky_weight, kl_weight : 0 or more; $\lambda_{TV}$ and $\lambda_{KL}$.
    batch, reduction : see the module.

    Returns
    -------
    A scalar, or (N, C) values; 0 or more.

    Notes
    -----
    Imran and Terzopoulos 2019, arXiv 1908.03693: the combination (a). Its weights are unknown; 1 and 1 are
    ours (d). Introduced in chapter 4.

    >>> y = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> round(kl_tversky(torch.zeros(1, 1, 2, 2), y).item(), 4)  # tversky .6154 + kl .1733
    0.7887
    """
    _check_not_negative(fp_weight=fp_weight, fn_weight=fn_weight, tversky_weight=tversky_weight, kl_weight=kl_weight)
    _check_positive(smooth=smooth)
    _check_kl(mode, eps)
    with _full_precision(logits):
        s, y = _rows(logits, target, batch=batch, blind=mode != "bernoulli")
        if mode == "foreground_abs":
            tp, p_sum, kl_sum = _ForegroundSums.apply(s, y, eps)
            overlap = _tversky(tp, p_sum, y.sum(-1), fp_weight, fn_weight, smooth)
            divergence = kl_sum / s.shape[-1]
        else:
            overlap = _overlap(s, y, fp_weight, fn_weight, smooth)
            divergence = _kl(s, y, mode, eps)
        return _reduce(tversky_weight * overlap + kl_weight * divergence, reduction)


def cross_entropy_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    tversky_weight: float = 1.0,
    xe_weight: float = 1.0,
    smooth: float = 1e-5,
    batch: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""XE-Tversky loss: region overlap plus cross-entropy, which also learns from empty masks.

    $$L_{XETV}=\lambda_{TV}\,L_{TV}+\lambda_{XE}\,L_{XE}$$

    Parameters
    ----------
    logits, target : (N, C, H, W), see the module.
    fp_weight, fn_weight, smooth : see `tversky`.
    tversky_weight, xe_weight : 0 or more; $\lambda_{TV}$ and $\lambda_{XE}$.
    batch, reduction : see the module.

    Returns
    -------
    A scalar, or (N, C) values; 0 or more.

    Notes
    -----
    One of the paper's multi-task losses (a). Its weights are unknown; 1 and 1 are ours (d).
    Introduced in chapter 4.

    >>> y = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> round(cross_entropy_tversky(torch.zeros(1, 1, 2, 2), y).item(), 4)  # tversky .6154 + xe .6931
    1.3085
    """
    _check_not_negative(fp_weight=fp_weight, fn_weight=fn_weight, tversky_weight=tversky_weight, xe_weight=xe_weight)
    _check_positive(smooth=smooth)
    with _full_precision(logits):
        s, y = _rows(logits, target, batch=batch)
        overlap = _overlap(s, y, fp_weight, fn_weight, smooth)
        return _reduce(tversky_weight * overlap + xe_weight * _cross_entropy(s, y), reduction)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "xe": cross_entropy,
    "dice": dice,
    "tversky": tversky,
    "kltv": kl_tversky,
    "xe-tversky": cross_entropy_tversky,
}


def get_loss(name: str, **options: Any) -> Callable[..., Tensor]:
    """The loss of this name with these options set, ready to be called with logits and target.

    Parameters
    ----------
    name : a key of `LOSSES`.
    options : keywords of that loss, such as `fp_weight`; checked at once, not at the first training step.

    Raises
    ------
    InputError : an unknown name or option, or a value the loss refuses.

    Introduced in chapter 2.

    >>> loss = get_loss("kltv", mode="bernoulli")
    >>> round(loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item(), 4)  # log 2 + tversky .4118
    1.1049
    """
    if name not in LOSSES:
        raise InputError(f"there is no loss {name!r}: choose one of {', '.join(LOSSES)}")
    function = LOSSES[name]
    known = [key for key in inspect.signature(function).parameters if key not in ("logits", "target")]
    for key in options:
        if key not in known:
            raise InputError(f"the loss {name!r} has no option {key!r}: choose from {', '.join(known)}")
    loss = partial(function, **options)
    loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))  # one pixel is enough to refuse a bad value
    return loss


# The terms: s and y are (N, C, L), sums and results (N, C).


def _cross_entropy(s: Tensor, y: Tensor) -> Tensor:
    return (F.softplus(s) - y * s).mean(-1)


def _overlap(s: Tensor, y: Tensor, fp_weight: float, fn_weight: float, smooth: float) -> Tensor:
    p = s.sigmoid()
    return _tversky((p * y).sum(-1), p.sum(-1), y.sum(-1), fp_weight, fn_weight, smooth)


def _tversky(tp: Tensor, p_sum: Tensor, y_sum: Tensor, fp_weight: float, fn_weight: float, smooth: float) -> Tensor:
    fp, fn = p_sum - tp, y_sum - tp
    return 1 - (tp + smooth) / (tp + fp_weight * fp + fn_weight * fn + smooth)


def _kl(s: Tensor, y: Tensor, mode: KLMode, eps: float) -> Tensor:
    if mode == "foreground_abs":
        y = y.clamp(min=eps)
        return (y * (y.log() - F.logsigmoid(s))).abs().mean(-1)
    if mode == "bernoulli":
        return _cross_entropy(s, y) - (_entropy(y) + _entropy(1 - y)).mean(-1)
    log_q = F.log_softmax(F.logsigmoid(s), -1)  # log(p / sum p), finite where p underflows
    size = y.sum(-1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
    return -(_entropy(y / size) + y / size * log_q).sum(-1)


def _entropy(y: Tensor) -> Tensor:
    return -y * y.clamp(min=torch.finfo(y.dtype).tiny).log()  # 0 log 0 = 0


class _ForegroundSums(torch.autograd.Function):
    r"""The sums that KLTV is made of, in as few visits to each pixel as torch allows.

    They are $TP$, $\sum p_i$ and $\sum|\tilde y_i r_i|$ with $r_i=\log\tilde y_i-\log p_i$. Since
    $d\log p/ds=1-p$ and $dp/ds=p(1-p)$, the gradient of $g_1TP+g_2\sum p_i+g_3\sum|\tilde y_i r_i|$ is

    $$(1-p_i)\left[p_i(g_1y_i+g_2)-g_3q_i\right],\qquad q_i=\tilde y_i\,\mathrm{sign}\,r_i$$

    `tversky` plus `kl` give the same numbers by plain autograd with more memory and time; for second
    derivatives add these two.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        log_p = F.softplus(s, beta=-1)  # log(1 + exp(-s)) / -1, the log of the sigmoid
        q = y.clamp(min=eps)
        r = q.log().sub_(log_p)
        q.mul_(r.sign())
        divergence = r.mul_(q).sum(-1)
        p = log_p.exp_()
        ctx.save_for_backward(p, y, q)
        return torch.mul(p, y, out=r).sum(-1), p.sum(-1), divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        p, y, q = ctx.saved_tensors
        g1, g2, g3 = (g[..., None] for g in gradients)
        bracket = (y * g1).add_(g2).mul_(p).addcmul_(q, g3, value=-1)
        return bracket.addcmul_(bracket, p, value=-1), None, None


# What is done around them.


def _full_precision(logits: Tensor) -> torch.autocast:
    return torch.autocast(logits.device.type, enabled=False)


def _rows(logits: Tensor, target: Tensor, *, batch: bool = False, blind: bool = False) -> tuple[Tensor, Tensor]:
    """Both as (N, C, L), or (1, C, N * L) for a batch seen as one image, in float32 or float64; checked.

    `blind`: the loss learns nothing from empty masks, which is said where a batch holds no other.
    """
    if logits.shape != target.shape or logits.ndim < 3 or 0 in logits.shape:
        advice = "; mask[:, None] adds a channel axis" if target.ndim != logits.ndim or target.ndim < 3 else ""
        raise InputError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)}: expected the same shape "
            f"(N, C, H, W) with at least one pixel, C masks for C outputs of the net{advice}"
        )
    if not logits.is_floating_point():
        raise InputError(f"logits are {logits.dtype}: expected a floating point type, before the sigmoid")
    if target.requires_grad:
        raise InputError("the target requires a gradient: the losses have none for it, give target.detach()")
    s = logits if logits.dtype == torch.float64 else logits.float()
    y = target.to(s.dtype)
    if not torch.compiler.is_compiling():
        least, most = torch.stack(y.aminmax()).tolist()
        if not (least >= -1e-6 and most <= 1 + 1e-6):  # a mask that was resized may be off by a rounding
            raise InputError(
                f"target values lie in [{least:g}, {most:g}]: expected [0, 1]; divide a 0/255 mask by 255, "
                f"and leave out the samples without a mask (NaN)"
            )
        if blind and most == 0:
            _warn_empty()
    if batch:
        s, y = s.transpose(0, 1)[None], y.transpose(0, 1)[None]
    return s.flatten(2), y.flatten(2)


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise InputError(f"reduction is {reduction!r}: choose one of {', '.join(get_args(Reduction))}")


def _check_not_negative(**weights: float) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise InputError(f"{name} must be >= 0, got {weight}: choose a weight such as 0.5")


def _check_positive(**constants: float) -> None:
    for name, value in constants.items():
        if not 0 < value < float("inf"):
            raise InputError(f"{name} must be > 0, got {value}: choose a small number such as 1e-5")


def _check_kl(mode: KLMode, eps: float) -> None:
    if mode not in get_args(KLMode):
        raise InputError(f"mode is {mode!r}: choose one of {', '.join(get_args(KLMode))}")
    if not 0 < eps < 1:
        raise InputError(f"eps must lie in (0, 1), got {eps}: choose a small number such as 1e-7")


@cache
def _warn_empty() -> None:
    warnings.warn(
        "every mask of this batch is empty: Tversky, Dice, and KLTV in the readings 'foreground_abs' and 'spatial' "
        "learn nothing from it. Where the structure may be absent take 'xe-tversky', or KLTV with mode='bernoulli'. "
        "(Said once.)",
        stacklevel=4,
    )
