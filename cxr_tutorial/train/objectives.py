"""What the segmentor minimises: a loss on the final prediction and on its side predictions (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets.segmentor import SegmentorOutput

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

    `y_m` is the mask at the size of side output m (`mask_at_level`). The mask of a picture that has none
    may hold anything, NaN included: it is never read.

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
    target = mask[has_mask]
    terms = {"seg": loss(output.logits[has_mask], target)}
    weights = side_weights(side_weight, len(output.side_logits))
    if any(weights):
        terms["side"] = sum(
            (
                weight * loss(side[has_mask], mask_at_level(target, side.shape[-2:], m))
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
