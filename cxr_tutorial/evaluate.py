"""How good a segmentor is on a data set: one row of figures per picture, and their summary (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cxr_tutorial.data.example import Example, Examples
from cxr_tutorial.data.images import resize_image, standardize
from cxr_tutorial.errors import InputError
from cxr_tutorial.metrics import bootstrap_ci, segmentation_metrics

DISTANCES = ("hd", "hd95", "assd")


def predict_logits(
    model: nn.Module, examples: Sequence[Example], size: int, batch_size: int = 16
) -> Iterator[tuple[Example, torch.Tensor]]:
    """Each example with the model's logits at the picture's own size, (H, W).

    The picture is squeezed to `size` x `size` as in training; the logits are stretched back bilinearly.
    """
    device = next(model.parameters()).device
    model.eval()
    for start in range(0, len(examples), batch_size):
        some = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
        small = np.stack([resize_image(example.image, (size, size)) for example in some])
        with torch.inference_mode():
            image = standardize(torch.from_numpy(small).unsqueeze(1).to(device))
            logits = model(image.contiguous(memory_format=torch.channels_last)).logits.float().cpu()
        for example, one in zip(some, logits, strict=True):
            native = F.interpolate(one[None], example.image.shape, mode="bilinear", align_corners=False)
            yield example, native[0, 0]


def evaluate(
    model: nn.Module, examples: Examples, *, size: int, batch_size: int = 16, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Compare the model's mask with the true one on every example that has a mask.

    Masks are compared at the picture's own size. Distances (`hd`, `hd95`, `assd`) are in millimetres
    where the example's spacing is known, else in pixels; the row's `unit` says which.

    Parameters
    ----------
    model : returns an object with `.logits`.
    examples : those without a mask are passed over.
    size : the size the model was trained at.
    threshold : of the probability, fixed beforehand.

    Returns
    -------
    One dict per image: `id`, `patient`, `source`, `unit` and the figures of `metrics.segmentation_metrics`.

    Raises
    ------
    InputError : no example has a mask, or the threshold is not inside (0, 1).

    Introduced in chapter 2.
    """
    with_mask = examples.subset(i for i, known in enumerate(examples.has_mask) if known)
    if not len(with_mask) or not 0 < threshold < 1:
        raise InputError(
            f"{examples.name}: {len(with_mask)} of {len(examples)} examples have a mask, threshold "
            f"{threshold}: evaluation needs at least one mask and a threshold in (0, 1)"
        )
    cut = float(np.log(threshold / (1 - threshold)))
    rows = []
    for example, logits in predict_logits(model, with_mask, size, batch_size):
        assert example.mask is not None  # by the choice of examples above
        spacing = example.spacing_mm
        figures = segmentation_metrics((logits > cut).numpy(), example.mask, spacing or (1.0, 1.0))
        about = {"id": example.id, "patient": example.patient, "source": example.source}
        rows.append(about | {"unit": "mm" if spacing else "px"} | figures)
    return rows


def summarize(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation, median, 95 % bootstrap interval and n of every figure.

    >>> round(summarize([{"id": "a", "dice": 0.9}, {"id": "b", "dice": 0.8}])["dice"]["mean"], 4)
    0.85
    """
    figures = [name for name, value in rows[0].items() if isinstance(value, float)]
    summary: dict[str, dict[str, Any]] = {}
    for name in figures:
        values = np.array([row[name] for row in rows], dtype=float)
        low, high = bootstrap_ci(values, seed=seed)
        summary[name] = {
            "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            "median": float(np.median(values)),
            "ci95": [low, high],
            "n": len(values),
        }
        if name in DISTANCES:
            summary[name]["unit"] = "/".join(sorted({row["unit"] for row in rows if "unit" in row}))
    return summary
