"""The lungs alone: X-rays cropped to what a segmentor S found, for a reader of the class (floor 2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.errors import InputError
from cxr_tutorial.evaluate import predict_logits
from cxr_tutorial.nets.segmentor import Segmentor
from cxr_tutorial.train.checkpoint import digest


def crop_to_lungs(examples: Examples, segmentor: Segmentor, *, size: int, margin: float = 0.02) -> Examples:
    r"""The same examples, each cut to the box around the lungs that S draws; S's mask takes the place of the true one.

    $$\hat y = [S(x) > \tfrac12], \qquad x' = x[r_0 - a : r_1 + a,\; c_0 - b : c_1 + b]$$

    with $r_0 \dots r_1$ and $c_0 \dots c_1$ the rows and columns that hold any of $\hat y$, $a$ and $b$ the margin.
    It is cut from the picture at its own size, so whoever makes it small afterwards spends every pixel on the lungs.

    Parameters
    ----------
    examples : not decoded before they are asked for.
    segmentor : S; its weights stay as they are, and it is put into evaluation mode.
    size : pixels per side at which S reads a picture, as in its training.
    margin : left around the lungs, part of the picture's height and width, 0 to 0.5.

    Returns
    -------
    Examples with the same ids, patients and labels. All have masks; where S finds no lung, the picture is whole and
    its mask empty. Findings outside of the box are left out.

    Raises
    ------
    InputError : a margin out of range.

    Source: ours (d).

    Introduced in chapter 9.

    >>> from cxr_tutorial.data import load_synthetic
    >>> cropped = crop_to_lungs(load_synthetic()[:1], Segmentor("tiny"), size=64)
    >>> cropped[0].image.shape == cropped[0].mask.shape, cropped.has_mask
    (True, [True])
    """
    if not 0 <= margin <= 0.5:
        raise InputError(f"the margin around the lungs is a part of the picture, 0 to 0.5, got {margin}")
    how = f"lungs of {digest(segmentor)} at {size}, margin {margin}"

    whole_entry = {entry.id: entry for entry in examples.entries}

    def read(entry: Entry) -> Example:
        [(whole, logits)] = predict_logits(segmentor, [examples.read(whole_entry[entry.id])], size)
        return _cut(whole, (logits > 0).numpy(), margin)

    entries = (replace(entry, has_mask=True, version=f"{entry.version}, {how}") for entry in examples.entries)
    return replace(examples, entries=tuple(entries), read=read, read_all=None)


def _cut(whole: Example, mask: NDArray[np.bool_], margin: float) -> Example:
    rows, cols = (_range(np.any(mask, axis=1 - axis), margin) for axis in (0, 1))
    inside = (
        replace(finding, row=finding.row - rows.start, col=finding.col - cols.start)
        for finding in whole.findings
        if rows.start <= finding.row < rows.stop and cols.start <= finding.col < cols.stop
    )
    return replace(whole, image=whole.image[rows, cols], mask=mask[rows, cols], findings=tuple(inside))


def _range(found: NDArray[np.bool_], margin: float) -> slice:
    places, length = np.flatnonzero(found), len(found)
    if not len(places):
        return slice(0, length)
    extra = round(margin * length)
    return slice(max(0, int(places[0]) - extra), min(length, int(places[-1]) + 1 + extra))
