"""How good S and D are on a data set: one row of figures per picture, and their summary (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from cxr_tutorial.data.batches import Augmentation, augment
from cxr_tutorial.data.example import Example, Examples
from cxr_tutorial.data.images import mask_coverage, resize_image, standardize
from cxr_tutorial.errors import InputError
from cxr_tutorial.metrics import auc, balanced_accuracy, bootstrap_ci, calibration_error, segmentation_metrics

DISTANCES = ("hd", "hd95", "assd")
PAIRED_WITH = ("predicted", "true", "blank")
View = Callable[[torch.Tensor], torch.Tensor]


def _as_is(mask: torch.Tensor) -> torch.Tensor:
    return mask


def predict_logits(
    model: nn.Module, examples: Sequence[Example], size: int, batch_size: int = 16
) -> Iterator[tuple[Example, torch.Tensor]]:
    """Each example with the model's logits at the picture's own size, (H, W).

    The picture is squeezed to `size` x `size` as in training; the logits are stretched back bilinearly.

    Raises
    ------
    InputError : a size below 16, or a net that draws several masks.
    """
    if size < 16:
        raise InputError(f"the size of the training is at least 16 pixels per side, got {size}")
    device = next(model.parameters()).device
    model.eval()
    for start in range(0, len(examples), batch_size):
        some = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
        small = np.stack([resize_image(example.image, (size, size)) for example in some])
        with torch.inference_mode():
            image = standardize(torch.from_numpy(small).unsqueeze(1).to(device))
            logits = model(image).logits.float().cpu()
        if logits.shape[1] != 1:
            raise InputError(
                f"the net draws {logits.shape[1]} masks, an example has one: call the net itself, on pictures that "
                "went through `data.images.standardize`, and compare mask by mask with `metrics`"
            )
        for example, one in zip(some, logits, strict=True):
            native = F.interpolate(one[None], example.image.shape, mode="bilinear", align_corners=False)
            yield example, native[0, 0]


def evaluate(
    model: nn.Module, examples: Examples, *, size: int, batch_size: int = 16, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Compare the model's mask with the true one on every example that has a mask.

    Masks are compared at the picture's own size, which is why it reads the examples and not their cache. Distances
    (`hd`, `hd95`, `assd`) are in millimetres where the example's spacing is known, else in pixels; the row's `unit`
    says which.

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

    Introduced in chapter 6.
    """
    if not isinstance(examples, Examples):
        raise InputError(
            f"masks are compared at the pictures' own size, so evaluate reads Examples, got {type(examples).__name__}: "
            "give what `cache` was made of"
        )
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


def evaluate_classes(
    discriminator: nn.Module,
    examples: Examples,
    *,
    size: int,
    segmentor: nn.Module | None = None,
    mask: str = "predicted",
    mask_views: tuple[View, View] = (_as_is, _as_is),
    changed: Augmentation | None = None,
    times: int = 16,
    batch_size: int = 32,
) -> list[dict[str, Any]]:
    r"""What D says about every example whose class is known.

    $$\hat z = \arg\max_{k < K} q_k(x, m), \qquad \tilde q_k = \frac{q_k}{1 - q_K}$$

    The share of the extra class is taken out before the class is named: the better S draws, the more of it D must give
    to "predicted", whatever the class (chapter 9).

    Parameters
    ----------
    discriminator : returns (N, K + 1) logits of pictures and masks.
    examples : those without a class, and for `mask="true"` those without a mask, are passed over.
    size : pixels per side, as in training.
    segmentor : draws the masks of `mask="predicted"`.
    mask : `"predicted"`, S(x); `"true"`, the oracle's; `"blank"`, all 0.
    mask_views : what is done to a true mask and to a predicted one before D sees it, as in training.
    changed, times : if `changed` is given, each picture is shown so many times, changed anew as in training, and its
        logits are the mean (test-time augmentation); the draws are the same in every call with the same `examples` and
        `batch_size`.

    Returns
    -------
    One dict per image: `id`, `patient`, `source`, `label`, `score` ($\tilde q_1$ of two classes), `predicted` ($q_K$),
    `named` ($\hat z$) and `raw` (argmax over all K + 1).

    Raises
    ------
    InputError : no example has what is needed, an unknown `mask`, no segmentor where one is needed, `times` below 1.

    Introduced in chapter 9.
    """
    if mask not in PAIRED_WITH or (mask == "predicted" and segmentor is None):
        raise InputError(f"mask is {mask!r}: choose one of {', '.join(PAIRED_WITH)}; 'predicted' needs a segmentor")
    if changed is not None and times < 1:
        raise InputError(f"a picture is shown at least once, got times={times}")
    usable = zip(examples.labels, examples.has_mask, strict=True)
    keep = [i for i, (label, known) in enumerate(usable) if label is not None and (known or mask != "true")]
    if not keep:
        raise InputError(f"{examples.name}: none of {len(examples)} examples has what D is tested on")
    device = next(discriminator.parameters()).device
    discriminator.eval()

    def ask(image: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        x = standardize(image)
        if mask == "predicted" and segmentor is not None:
            drawn = segmentor.eval()(x).logits.float().sigmoid()
            m = mask_views[1](drawn)
        else:
            m = mask_views[0](true) if mask == "true" else torch.zeros_like(x)
        return discriminator(x, m).double()

    rows = []
    for start in range(0, len(keep), batch_size):
        some = [examples[i] for i in keep[start : start + batch_size]]
        image = torch.from_numpy(np.stack([resize_image(e.image, (size, size)) for e in some])).unsqueeze(1).to(device)
        covered = torch.zeros_like(image)
        if mask == "true":
            coverage = np.stack([mask_coverage(e.mask, (size, size)) for e in some if e.mask is not None])
            covered = torch.from_numpy(coverage).unsqueeze(1).to(device).float() / 255
        generator = torch.Generator(device).manual_seed(start)
        with torch.inference_mode():
            if changed is None:
                logits = ask(image, (covered > 0.5).float()).cpu()
            else:
                shown = (augment(image, covered, changed, generator) for _ in range(times))
                logits = torch.stack([ask(*pair) for pair in shown]).mean(dim=0).cpu()
        q, real = logits.softmax(1), logits[:, :-1].softmax(1)  # the latter even where q_K is 1 to the last digit
        for example, of_real, of_all in zip(some, real, q, strict=True):
            about = {"id": example.id, "patient": example.patient, "source": example.source, "label": example.label}
            seen = {"score": float(of_real[min(1, len(of_real) - 1)]), "predicted": float(of_all[-1])}
            rows.append(about | seen | {"named": int(of_real.argmax()), "raw": int(of_all.argmax())})
    return rows


def summarize_classes(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """AUC, balanced accuracy and calibration error of the rows of `evaluate_classes`, with 95 % bootstrap intervals.

    Pictures are drawn again within each class, so that both are always there. Set by set figures have no deviation.

    >>> rows = [{"label": 0, "score": 0.2}, {"label": 1, "score": 0.7}, {"label": 1, "score": 0.6}]
    >>> summarize_classes(rows)["auc"]["mean"]
    1.0
    """
    z, score = np.array([row["label"] for row in rows]), np.array([row["score"] for row in rows])
    if set(z.tolist()) != {0, 1}:
        raise InputError(
            f"AUC needs pictures of both classes, 0 and 1, and no others; these are of {sorted(set(z.tolist()))}; "
            "of more classes, compare `label` with `named` in the rows"
        )
    figures: dict[str, Callable[[Sequence[int], NDArray[np.float64]], float]] = {
        "auc": auc,
        "balanced_accuracy": balanced_accuracy,
        "calibration_error": calibration_error,
    }
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(z == k) for k in (0, 1)]
    draws = [np.concatenate([rng.choice(some, len(some)) for some in places]) for _ in range(500)]
    summary: dict[str, dict[str, Any]] = {}
    for name, figure in figures.items():
        again = [figure(z[draw].tolist(), score[draw]) for draw in draws]
        low, high = np.quantile(again, [0.025, 0.975])
        summary[name] = {"mean": figure(z.tolist(), score), "ci95": [float(low), float(high)], "n": len(rows)}
    return summary


def summarize(rows: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation, median, 95 % bootstrap interval and n of every figure.

    >>> round(summarize([{"id": "a", "dice": 0.9}, {"id": "b", "dice": 0.8}])["dice"]["mean"], 4)
    0.85
    """
    if not rows:
        raise InputError("there is no row to summarize: give those of `evaluate`")
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
