"""Train a segmentor on pictures with masks (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from cxr_tutorial.data.cached import CachedSet
from cxr_tutorial.losses import get_loss
from cxr_tutorial.train.loop import Fit, Learner, Loop, Model, Watch
from cxr_tutorial.train.objectives import segmentation_terms
from cxr_tutorial.train.recipe import Budget, Recipe

OnLog = Callable[[int, nn.Module], dict[str, float]]


def fit_segmentor(
    model: Model,
    data: CachedSet,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 0,
    on_log: OnLog | None = None,
    progress: bool = True,
) -> Fit[Model]:
    """Train `model` on the pictures of `data` whose mask is visible.

    Parameters
    ----------
    model : a segmentor, or any module that returns a `SegmentorOutput`; changed in place.
    data : what may be seen; pictures without a visible mask are not used.
    steps, epochs, seconds : the budget, exactly one of them. The clock stands still during `on_log`.
    recipe : how to train.
    checkpoint, checkpoint_seconds, log_every, progress : see `loop.Watch`.
    on_log : called as `on_log(step, model)`.

    Raises
    ------
    InputError : no visible mask, no or several budgets, an unknown loss, a checkpoint of another run.
    FloatingPointError : the objective became NaN or infinite.

    Introduced in chapter 2.

    >>> from cxr_tutorial.data import cache, load_synthetic
    >>> from cxr_tutorial.nets import Segmentor
    >>> data = cache(load_synthetic()[:8], 32)
    >>> fit = fit_segmentor(Segmentor("tiny"), data, steps=2, progress=False)
    >>> [row["step"] for row in fit.history]
    [1, 2]
    """
    recipe = (recipe or Recipe()).resolved()
    loss = get_loss(recipe.loss, **recipe.loss_options)

    def look(step: int, models: Mapping[str, nn.Module]) -> dict[str, float]:
        return on_log(step, models["segmentor"]) if on_log else {}

    loop = Loop(
        {"segmentor": Learner(model, recipe.learning_rate, recipe.weight_decay)},
        data,
        recipe,
        Budget(steps, epochs, seconds),
        Watch(checkpoint, checkpoint_seconds, log_every, look if on_log else None, progress),
    )
    segmentor = loop.models["segmentor"]
    for batch in loop:
        terms = segmentation_terms(segmentor(batch.image), batch.mask, batch.has_mask, loss, recipe.side_weight)
        loop.minimize("segmentor", terms["total"])
        loop.log(terms)
    return Fit(model, loop.history, loop.looks)
