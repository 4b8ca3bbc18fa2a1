"""What S and D minimise: every term of L_S and L_D, as functions of logits (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets.segmentor import SegmentorOutput
from cxr_tutorial.train.devices import rows_where

Loss = Callable[[Tensor, Tensor], Tensor]


def segmentation_terms(
    output: SegmentorOutput,
    mask: Tensor,
    has_mask: Tensor,
    loss: Loss,
    side_weight: float | Sequence[float] = 1.0,
) -> dict[str, Tensor]:
    r"""The supervised part of L_S, over the pictures whose mask is known.

    $$L_S = \sum_m w_m\, \ell(y_m, \sigma(\hat a_m)), \qquad w_1 = 1$$

    `y_m` is the mask at the size of side output m, counted from 1 at the finest (`mask_at_level` counts from 0). The
    mask of a picture that has none may hold anything, NaN included: it is never read.

    Parameters
    ----------
    output : of the segmentor, for N pictures.
    mask : (N, C, H, W). has_mask : (N,) bool.
    loss : of logits and target.
    side_weight : w_m of the side outputs, >= 0: one number for all, or one each, fine to coarse.

    Returns
    -------
    The terms by name, `"seg"` and `"side"` (without side outputs: `"seg"` alone), and their sum `"total"`.

    Raises
    ------
    InputError : no mask at all, a negative or infinite weight, or another number of weights than of side outputs.

    Introduced in chapter 7.

    Source: weights of 1 as in the code of Abraham & Khan 2019; what the paper does is not known.
    """
    if not has_mask.any():
        raise InputError("a batch without a single mask cannot train a segmentor: draw labelled pictures too")
    target = rows_where(mask, has_mask)
    terms = {"seg": loss(rows_where(output.logits, has_mask), target)}
    weights = side_weights(side_weight, len(output.side_logits))
    if any(weights):
        terms["side"] = sum(
            (
                weight * loss(rows_where(side, has_mask), mask_at_level(target, side.shape[-2:], m))
                for m, (weight, side) in enumerate(zip(weights, output.side_logits, strict=True), start=1)
                if weight
            ),
            start=target.new_zeros(()),
        )
    return terms | {"total": sum(terms.values(), start=target.new_zeros(()))}


def side_weights(side_weight: float | Sequence[float], sides: int) -> tuple[float, ...]:
    """One checked weight for each of `sides` side outputs, fine to coarse.

    >>> side_weights(0.5, 3)
    (0.5, 0.5, 0.5)
    """
    weights = (side_weight,) * sides if isinstance(side_weight, int | float) else tuple(side_weight)
    if len(weights) != sides or not all(math.isfinite(w) and w >= 0 for w in weights):
        raise InputError(
            f"side_weight must be a number >= 0, or one such number for each of {sides} side outputs, got {side_weight}"
        )
    return weights


def mask_at_level(mask: Tensor, size: Sequence[int], m: int) -> Tensor:
    """(N, C, H, W) mask at the `size` of side output m, nearest pixel: one pixel covers 2^m x 2^m of the mask's.

    Where H or W is no multiple of 2^m, the mask's edge is repeated first, as the segmentor repeats the picture's.

    >>> import torch
    >>> mask_at_level(torch.tensor([[[[0.0, 0, 1]]]]), (1, 2), 1).tolist()
    [[[[0.0, 1.0]]]]
    """
    down, right = (max(0, coarse * 2**m - fine) for coarse, fine in zip(size, mask.shape[-2:], strict=True))
    return F.interpolate(F.pad(mask, (0, right, 0, down), mode="replicate"), tuple(size), mode="nearest-exact")


FORMS = ("non-saturating", "saturating", "class")


def log_real(logits: Tensor) -> Tensor:
    r"""$\log(1 - q_K)$, the log-probability that the pair is real, (N,).

    >>> import torch
    >>> log_real(torch.zeros(1, 3)).exp().item()  # two of three classes are real
    0.666...
    """
    return logits[:, :-1].logsumexp(1) - logits.logsumexp(1)


def adversarial_loss(logits: Tensor, label: Tensor, form: str = "non-saturating") -> Tensor:
    r"""What S minimises to make D call its masks real, (N,): one figure a picture.

    Parameters
    ----------
    logits : (N, K + 1), D's of (x, S(x)).
    label : (N,) int64, -1 where unknown; read by form `"class"` only.
    form : `"non-saturating"`, $-\log(1-q_K)$ (Luc et al. 2016, Hung et al. 2018); `"saturating"`, $+\log q_K$ (the form
        in what is evidently the author's thesis, b); `"class"`, $-\log q_z$ where the class is known, else
        non-saturating (d).
        Which one the paper uses is not known.

    Introduced in chapter 8.

    >>> import torch
    >>> adversarial_loss(torch.zeros(1, 3), torch.tensor([0]), "class").exp().item()
    3.0...
    """
    if form not in FORMS:
        raise InputError(f"unknown form {form!r} of the adversarial term: choose one of {', '.join(FORMS)}")
    if form == "saturating":
        return F.log_softmax(logits, dim=1)[:, -1]
    real = -log_real(logits)
    if form == "non-saturating":
        return real
    named = F.cross_entropy(logits, label.clamp(min=0), reduction="none")
    return torch.where(label >= 0, named, real)


def discriminator_terms(
    real: Tensor,
    predicted: Tensor,
    real_label: Tensor,
    label: Tensor,
    weights: Mapping[str, float],
    judged: Tensor | None = None,
) -> dict[str, Tensor]:
    r"""L_D from D's logits of real pairs (x, y) and of predicted pairs (x, sg[S(x)]).

    $$L_D = \lambda_{cls} L_{cls} + \lambda_{real} L_{real} + \lambda_{pred} L_{pred} + \lambda_{cp} L_{cp}$$

    =========  ==========================================  ===================================================
    term       over                                        is
    =========  ==========================================  ===================================================
    `cls`      real pairs, class known                     $-\log q_z(x, y)$ over all K + 1 classes
    `real`     real pairs, class unknown                   $-\log (1 - q_K(x, y))$
    `pred`     predicted pairs that are judged             $-\log q_K(x, \hat y)$
    `cp`       predicted pairs, class known                $-\log \frac{q_z(x, \hat y)}{1 - q_K(x, \hat y)}$
    =========  ==========================================  ===================================================

    Each is a mean over its own pairs, 0 if there are none; labels of -1 and the pictures behind them are not read.

    Parameters
    ----------
    real : (R, K + 1). predicted : (N, K + 1).
    real_label : (R,) int64. label : (N,) int64; -1 where unknown.
    weights : by the names above; a term that is not named weighs 0.
    judged : (N,) bool, which predicted pairs `pred` is over; None: all.

    Returns
    -------
    The weighted terms by name and their sum `"total"`.

    Introduced in chapter 8.

    Source: the meaning of the classes is the paper's (abstract); `real` is the unsupervised term of Salimans et al.
    2016; `cp` is ours (d): it lets pictures without a mask teach the class.
    """
    known, named = real_label >= 0, label >= 0
    of_class = F.cross_entropy(real, real_label.clamp(min=0), reduction="none")
    as_predicted = -F.log_softmax(predicted, dim=1)[:, -1]
    of_real_class = F.cross_entropy(predicted[:, :-1], label.clamp(min=0), reduction="none")
    means = {
        "cls": mean_over(of_class, known),
        "real": mean_over(-log_real(real), ~known),
        "pred": as_predicted.mean() if judged is None else mean_over(as_predicted, judged),
        "cp": mean_over(of_real_class, named),
    }
    terms = {name: weights[name] * value for name, value in means.items() if weights.get(name)}
    return terms | {"total": sum(terms.values(), start=0 * predicted.sum())}


def consistency_loss(student: Tensor, teacher: Tensor, confidence: float = 0.0) -> Tensor:
    r"""How far the student's mask is from the teacher's, on the pixels where the teacher is sure, (N,).

    $$\ell_i = \mathrm{XE}(\sigma(s_i), \sigma(t_i))\,[\max(\sigma(t_i), 1 - \sigma(t_i)) \ge c]$$

    Parameters
    ----------
    student, teacher : (N, C, H, W) logits; no slope goes into the teacher's.
    confidence : c in [0, 1); 0 keeps every pixel.

    Introduced in chapter 8.

    Source: a teacher that is the student's running mean, Tarvainen & Valpola 2017 (arXiv 1703.01780), there with the
    squared difference; sure pixels only, Sohn et al. 2020 (arXiv 2001.07685).

    >>> import torch
    >>> far = consistency_loss(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 9.0))
    >>> round(far.item(), 2)
    0.69
    """
    if not 0 <= confidence < 1:
        raise InputError(f"confidence must be in [0, 1), got {confidence}")
    p = teacher.detach().float().sigmoid()
    loss = F.binary_cross_entropy_with_logits(student.float(), p, reduction="none")
    return (loss * (torch.maximum(p, 1 - p) >= confidence)).flatten(1).mean(1)


def mean_over(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of the values that are kept, 0 if there are none; the others are not read, NaN included."""
    return values.masked_fill(~keep, 0).sum() / keep.sum().clamp(min=1)
