"""What the segmentor minimises: a loss on the final prediction and on its side predictions (floor 2)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets.segmentor import SegmentorOutput

Loss = Callable[[Tensor, Tensor], Tensor]


def segmentation_terms(
    output: SegmentorOutput, mask: Tensor, has_mask: Tensor, loss: Loss, side_weight: float = 1.0
) -> dict[str, Tensor]:
    r"""The supervised part of L_S, over the pictures whose mask is known.

    $$L_S = \sum_m w_m\, \ell(y_m, \sigma(\hat a_m)), \qquad w_1 = 1,\; w_{m>1} = \texttt{side\_weight}$$

    `y_m` is the mask at the size of side output m (nearest pixel). The mask of a picture that has none
    may hold anything, NaN included: it is never read.

    Parameters
    ----------
    output : of the segmentor, for N pictures.
    mask : (N, C, H, W). has_mask : (N,) bool.
    loss : of logits and target.
    side_weight : weight of each side output.

    Returns
    -------
    The terms by name, `"seg"` and `"side"` (without side outputs: `"seg"` alone), and their sum `"total"`.

    Source: weights of 1 as in the code of Abraham & Khan 2019; what the paper does is not known.
    """
    if not has_mask.any():
        raise InputError("a batch without a single mask cannot train a segmentor: draw labelled pictures too")
    target = mask[has_mask]
    terms = {"seg": loss(output.logits[has_mask], target)}
    if output.side_logits and side_weight:
        terms["side"] = side_weight * sum(
            (
                loss(side[has_mask], F.interpolate(target, side.shape[-2:], mode="nearest-exact"))
                for side in output.side_logits
            ),
            start=target.new_zeros(()),
        )
    return terms | {"total": sum(terms.values(), start=target.new_zeros(()))}
