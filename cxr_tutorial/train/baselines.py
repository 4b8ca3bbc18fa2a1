"""What the game is measured against: a mean teacher, two nets that teach each other, a classifier (floor 2)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

from cxr_tutorial.data.cached import CachedSet
from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import get_loss
from cxr_tutorial.nets.discriminator import Discriminator
from cxr_tutorial.nets.segmentor import Segmentor
from cxr_tutorial.train.adversarial import MASK_VIEWS, Game, check_classes, consistency_term, strong_view
from cxr_tutorial.train.checkpoint import digest
from cxr_tutorial.train.devices import rows_where
from cxr_tutorial.train.loop import Fit, Learner, Loop, Model, Watch
from cxr_tutorial.train.objectives import consistency_loss, mean_over, segmentation_terms
from cxr_tutorial.train.recipe import Budget, Recipe


def fit_mean_teacher(
    model: Model,
    data: CachedSet,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    game: Game | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit[Model]:
    """Train a segmentor whose teacher is its own running mean: they must agree where no mask is.

    The student sees such pictures made harder (`data.batches.perturb`), the teacher as they are.

    Parameters
    ----------
    model, data, steps, epochs, seconds, recipe, checkpoint, progress : as for `fit_segmentor`.
    game : of it `consistency`, `confidence`, `unlabelled_batch_size`, `warmup` and `ramp` are used.

    Introduced in chapter 8.

    Source: Tarvainen & Valpola 2017 (arXiv 1703.01780); the strong view, Sohn et al. 2020 (arXiv 2001.07685).

    >>> from cxr_tutorial.data import cache, load_synthetic
    >>> from cxr_tutorial.nets import Segmentor
    >>> data = cache(load_synthetic()[:12], 32)
    >>> fit = fit_mean_teacher(Segmentor("tiny"), data.reveal(data.ids[:4]), steps=2, progress=False)
    >>> "con" in fit.history[0]
    True
    """
    recipe, game = (recipe or Recipe()).resolved(), game or Game()
    loss = get_loss(recipe.loss, **recipe.loss_options)
    loop = Loop(
        {"segmentor": Learner(model, recipe.learning_rate, recipe.weight_decay)},
        data,
        recipe,
        Budget(steps, epochs, seconds),
        Watch(checkpoint, progress=progress),
        unlabelled_batch_size=0 if data.has_mask.all() else game.unlabelled_batch_size,
        about={"game": repr(game)},
    )
    S = loop.models["segmentor"]
    for batch in loop:
        output = S(strong_view(batch, loop))
        terms = segmentation_terms(output, batch.mask, batch.has_mask, loss, recipe.side_weight)
        if not batch.has_mask.all():
            weight = game.consistency * game.strength(loop.done)
            terms["con"] = weight * consistency_term(loop, batch, output, game.confidence)
            terms["total"] = terms["total"] + terms["con"]
        loop.minimize("segmentor", terms["total"])
        loop.log(terms)
    return Fit(model, loop.history, loop.looks)


def fit_cross_pseudo(
    model: Model,
    twin: Model,
    data: CachedSet,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    game: Game | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit[Model]:
    """Train two segmentors, each on the other's binary mask where no mask is (cross pseudo supervision).

    Parameters
    ----------
    model, twin : the same kind of net with different first weights; `model` is returned.
    data, steps, epochs, seconds, recipe, game, checkpoint, progress : as for `fit_mean_teacher`, but for
        `confidence`: every pixel of the other net's mask is taught.

    Introduced in chapter 8.

    Source: Chen et al. 2021 (arXiv 2106.01226). A step costs two of `fit_segmentor`'s.

    >>> from cxr_tutorial.data import cache, load_synthetic
    >>> from cxr_tutorial.nets import Segmentor
    >>> data = cache(load_synthetic()[:12], 32)
    >>> fit = fit_cross_pseudo(Segmentor("tiny"), Segmentor("tiny"), data.reveal(data.ids[:4]), steps=2, progress=False)
    >>> "con" in fit.history[0]
    True
    """
    recipe, game = (recipe or Recipe()).resolved(), game or Game()
    loss = get_loss(recipe.loss, **recipe.loss_options)
    pair = {"segmentor": model, "twin": twin}
    loop = Loop(
        {name: Learner(one, recipe.learning_rate, recipe.weight_decay) for name, one in pair.items()},
        data,
        recipe,
        Budget(steps, epochs, seconds),
        Watch(checkpoint, progress=progress),
        unlabelled_batch_size=0 if data.has_mask.all() else game.unlabelled_batch_size,
        about={"game": repr(game)},
    )
    for batch in loop:
        outputs = {name: net(batch.image) for name, net in loop.models.items()}
        unmarked, weight = ~batch.has_mask, game.consistency * game.strength(loop.done)
        for name, other in (("segmentor", "twin"), ("twin", "segmentor")):
            terms = segmentation_terms(outputs[name], batch.mask, batch.has_mask, loss, recipe.side_weight)
            if unmarked.any():
                pseudo = torch.where(rows_where(outputs[other].logits.detach(), unmarked) > 0, 30.0, -30.0)
                terms["con"] = weight * consistency_loss(rows_where(outputs[name].logits, unmarked), pseudo).mean()
                terms["total"] = terms["total"] + terms["con"]
            loop.minimize(name, terms["total"])
            if name == "segmentor":
                loop.log(terms)
    return Fit(model, loop.history, loop.looks)


def fit_classifier(
    discriminator: Discriminator,
    data: CachedSet,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    game: Game | None = None,
    segmentor: Segmentor | None = None,
    own_masks: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit[Discriminator]:
    """Train D alone to name the class of pictures, with blank masks: the baseline that knows no lungs.

    With a `segmentor` that stays as it is, D sees the masks that S draws: what the lungs' outline alone is worth to
    the class, without a game. With `own_masks` it sees those of the data, such as `lungs.crop_to_lungs` puts there.

    Parameters
    ----------
    discriminator : changed in place; its last class is never the answer.
    data : pictures without a visible class are not used.
    segmentor, own_masks : who draws the masks that D is shown, at most one of them; else every mask is 0.
    steps, epochs, seconds, recipe, game, checkpoint, progress : as for `fit_appaunet`; of the game only D's
        `learning_rate`, `weight_decay`, `betas`, and `masks`, the view of them; of the recipe neither learning rate
        nor loss.

    Raises
    ------
    InputError : `own_masks` beside a segmentor, or with a picture that shows no mask; no visible class, or one that D
        does not know.

    >>> from cxr_tutorial.data import cache, load_synthetic
    >>> data = cache(load_synthetic()[:8], 32)
    >>> fit = fit_classifier(Discriminator(widths=(8, 16)), data, steps=2, progress=False)
    >>> sorted(fit.history[0])
    ['cls', 'learning_rate', 'seconds', 'step']
    """
    if own_masks and (segmentor is not None or not data.has_mask.all()):
        raise InputError("own_masks takes pictures that all show their mask, and no segmentor that would draw others")
    recipe, game = (recipe or Recipe()).resolved(), game or Game()
    check_classes(data, discriminator)
    if not (data.labels >= 0).any():
        raise InputError("the training set shows no class label: D needs at least one picture with a class")
    loop = Loop(
        {"discriminator": Learner(discriminator, game.learning_rate, game.weight_decay, game.betas)},
        data,
        recipe,
        Budget(steps, epochs, seconds),
        Watch(checkpoint, progress=progress),
        first_stream=data.labels >= 0,
        about={"masks": game.masks, "shown": f"own {own_masks}, of a segmentor {segmentor and digest(segmentor)}"},
    )
    view_true, view_predicted = MASK_VIEWS[game.masks]
    D, S = loop.models["discriminator"], segmentor and segmentor.to(loop.fabric.device).eval()
    for batch in loop:
        if S is None:
            mask = view_true(batch.mask) if own_masks else torch.zeros_like(batch.image)
        else:
            with torch.no_grad(), loop.fabric.autocast():
                mask = view_predicted(S(batch.image).logits.float().sigmoid())
        logits = D(batch.image, mask)[:, :-1]
        term = mean_over(F.cross_entropy(logits, batch.label, reduction="none"), batch.label >= 0)
        loop.minimize("discriminator", term)
        loop.log({"cls": term})
    if segmentor is not None:
        segmentor.cpu()
    return Fit(discriminator, loop.history, loop.looks)
