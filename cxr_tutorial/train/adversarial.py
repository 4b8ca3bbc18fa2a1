"""APPAU-Net's training: the segmentor S against the discriminator D (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.data.batches import Batch, perturb
from cxr_tutorial.data.cached import CachedSet, check_cached
from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import get_loss
from cxr_tutorial.nets.discriminator import Discriminator
from cxr_tutorial.nets.segmentor import SegmentorOutput
from cxr_tutorial.train.devices import rows_where
from cxr_tutorial.train.loop import Fit, Learner, Look, Loop, Model, Watch
from cxr_tutorial.train.objectives import (
    Loss,
    adversarial_loss,
    consistency_loss,
    discriminator_terms,
    segmentation_terms,
)
from cxr_tutorial.train.recipe import Budget, Recipe, is_number

Views = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Game:
    """How S and D play; what the paper leaves open is an option here. `GAMES` holds named settings.

    Attributes
    ----------
    adversarial, adversarial_unlabelled : weight of the adversarial term on pictures with and without a mask.
    form : of that term, see `objectives.adversarial_loss`.
    feature_matching : weight of $|E f(x, y) - E f(x, S(x))|$ on pictures with a mask (Salimans et al. 2016).
    consistency : weight of `objectives.consistency_loss` on pictures without a mask: S sees them made harder
        (`data.batches.perturb`), its own running mean sees them as they are. confidence : see there.
    cls, real, pred, cp : weights in L_D, see `objectives.discriminator_terms`.
    judge_unlabelled : whether D learns that the predicted masks of pictures without a true one are predicted. If it
        does, it can know the pictures instead of looking at masks, for no true pair holds them (chapter 9).
    masks : what D sees, a name in `MASK_VIEWS`.
    unlabelled_batch_size : pictures of the second stream in each step.
    warmup, ramp : parts of the budget before S hears of D, and in which the weights grow to their full size.
    learning_rate, weight_decay, betas : of D's AdamW.
    discriminator : arguments of `nets.Discriminator`, for whoever builds it from the game.
    """

    adversarial: float = 0.01
    adversarial_unlabelled: float = 0.001
    form: str = "non-saturating"
    feature_matching: float = 0.0
    consistency: float = 1.0
    confidence: float = 0.0
    cls: float = 1.0
    real: float = 1.0
    pred: float = 1.0
    cp: float = 1.0
    judge_unlabelled: bool = True
    masks: str = "soft"
    unlabelled_batch_size: int = 4
    warmup: float = 0.1
    ramp: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    discriminator: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.masks not in MASK_VIEWS:
            raise InputError(f"unknown view {self.masks!r} of masks: choose one of {', '.join(MASK_VIEWS)}")
        adversarial_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), self.form)  # refuses an unknown form
        names = (
            "adversarial",
            "adversarial_unlabelled",
            "feature_matching",
            "consistency",
            "cls",
            "real",
            "pred",
            "cp",
        )
        if type(self.unlabelled_batch_size) is not int:
            raise InputError(f"unlabelled_batch_size must be a whole number, got {self.unlabelled_batch_size!r}")
        if len(self.betas) != 2 or not all(is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas are two numbers from 0 to below 1, got {self.betas}")
        if self.confidence >= 1:
            raise InputError(f"confidence is a probability, from 0 to below 1, got {self.confidence}")
        for name in (*names, "unlabelled_batch_size", "warmup", "ramp", "confidence", "learning_rate", "weight_decay"):
            if not (is_number(value := getattr(self, name)) and value >= 0):
                raise InputError(f"{name} must be a number >= 0, got {value!r}")

    def strength(self, done: float) -> float:
        """0 during the warm-up, then up along exp(-5 (1 - t)^2), then 1 (the ramp of SSL4MIS).

        >>> [round(Game(warmup=0.1, ramp=0.2).strength(done), 2) for done in (0.05, 0.2, 0.3)]
        [0.0, 0.29, 1.0]
        """
        if done < self.warmup:
            return 0.0
        t = min(1.0, (done - self.warmup) / self.ramp) if self.ramp else 1.0
        return math.exp(-5 * (1 - t) ** 2)


def _binary(p: Tensor) -> Tensor:
    return p + ((p > 0.5).to(p.dtype) - p).detach()  # hard forward, the soft mask's slope backward


def _blurred(m: Tensor) -> Tensor:
    side = 2 * (m.shape[-1] // 32) + 1
    return F.avg_pool2d(F.avg_pool2d(m, side, 1, side // 2), side, 1, side // 2)


def _as_is(m: Tensor) -> Tensor:
    return m


MASK_VIEWS: dict[str, tuple[Views, Views]] = {  # of the true mask, of the predicted one
    "soft": (_as_is, _as_is),
    "binary": (_as_is, _binary),
    "smoothed": (lambda y: 0.05 + 0.9 * y, _as_is),
    "blurred": (_blurred, _blurred),
}

GAMES: dict[str, Game] = {
    "appaunet": Game(discriminator={"join": "product"}),
    "appaunet-paper": Game(consistency=0.0, cp=0.0, discriminator={"depth": 1, "norm": "none"}),
    "multi-task": Game(
        adversarial=0.0,
        adversarial_unlabelled=0.0,
        consistency=0.0,
        real=0.0,
        pred=0.0,
        discriminator={"join": "product"},
    ),
    "masked-classifier": Game(discriminator={"join": "product"}),
    "lungs-classifier": Game(discriminator={"join": "product"}),
}


@dataclass(frozen=True)
class GameFit(Fit[Model]):
    """A finished game: `model` is S, and beside it D."""

    discriminator: Discriminator


def fit_appaunet(
    segmentor: Model,
    discriminator: Discriminator,
    data: CachedSet,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    game: Game | None = None,
    synthetic: tuple[CachedSet, int] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 0,
    on_log: Look | None = None,
    progress: bool = True,
) -> GameFit[Model]:
    r"""Train S and D in turn on pictures of which any may lack its mask, its class, or both.

    One step, on a batch of the first stream and of the second:

    1. $\hat y = S(\tilde x)$ for all, where $\tilde x$ is a harder view of $x$ if $x$ shows no mask and there is a
       consistency term, else $x$; D stands still; S goes down
       $L_S = L_{seg} + \lambda_{adv} L_{adv} + \lambda_{fm} L_{fm} + \lambda_{con} L_{con}$;
    2. $\hat y$ stands still; D goes down $L_D$ (`objectives.discriminator_terms`) on $(x, y)$ and $(x, \hat y)$.

    Real and predicted pairs go through D as one batch: apart, batch normalisation would take away what they differ in.
    In S's step D stands still with its statistics, as at test time.

    The first stream holds the pictures with mask and class; if there are none, those with a mask.

    Parameters
    ----------
    segmentor, discriminator : S and D, changed in place.
    data : what may be seen: `CachedSet.reveal` says whose mask and whose class.
    steps, epochs, seconds : the budget, exactly one of them; an epoch is one of the first stream.
    recipe : how S is trained, and the draws. game : how they play.
    synthetic : a further set with masks, and how many of its pictures each batch holds, as more real pairs.
    checkpoint, checkpoint_seconds, log_every, on_log, progress : see `loop.Watch`; `on_log(step, models)` gets
        `models["segmentor"]` and `models["discriminator"]`.

    Returns
    -------
    GameFit. Its history holds every term, D's mean q_K on real and on predicted pairs (`q_real`, `q_pred`), the share
    of pairs that D puts on the right side (`d_accuracy`), and how steep the masks' loss and what D says are at S's
    logits (`slope_seg`, `slope_adv`, every 20 steps). `monitor.diagnose` reads it.

    Raises
    ------
    InputError : no visible mask, labels beyond D's classes, a budget or checkpoint that does not fit.
    FloatingPointError : an objective became NaN or infinite.

    Introduced in chapter 9.

    Source: the roles of S and D are the paper's (abstract and schematic); order, ratio, warm-up and ramp are not known
    and follow Hung et al. 2018 (arXiv 1802.07934); the consistency term is ours (d).

    >>> from cxr_tutorial.data import cache, load_synthetic
    >>> from cxr_tutorial.nets import Segmentor
    >>> data = cache(load_synthetic()[:12], 32)
    >>> few = data.reveal(masks=data.ids[:4])
    >>> fit = fit_appaunet(Segmentor("tiny"), Discriminator(widths=(8, 16)), few, steps=2, progress=False)
    >>> sorted({"seg", "pred", "q_real", "q_pred"} & set(fit.history[0]))
    ['pred', 'q_pred', 'q_real', 'seg']
    """
    recipe, game = (recipe or Recipe()).resolved(), game or Game()
    loss = get_loss(recipe.loss, **recipe.loss_options)
    check_classes(data, discriminator)
    if synthetic:
        check_classes(synthetic[0], discriminator)
        if synthetic[0].images.shape[1:] != data.images.shape[1:]:
            raise InputError(
                f"the synthetic pictures are {synthetic[0].images.shape[1:]} and the others {data.images.shape[1:]}: "
                "expected one size"
            )
    first = first_stream(data)
    learning = [weight for weight in discriminator.parameters() if weight.requires_grad]
    loop = Loop(
        {
            "segmentor": Learner(segmentor, recipe.learning_rate, recipe.weight_decay),
            "discriminator": Learner(discriminator, game.learning_rate, game.weight_decay, game.betas),
        },
        data,
        recipe,
        Budget(steps, epochs, seconds),
        Watch(checkpoint, checkpoint_seconds, log_every, on_log, progress),
        unlabelled_batch_size=0 if first.all() else game.unlabelled_batch_size,
        first_stream=first,
        extra=synthetic,
        about={"game": repr(game)},
    )
    S, D = loop.models["segmentor"], loop.models["discriminator"]
    view_true, view_predicted = MASK_VIEWS[game.masks]
    last = loop.history[-1] if loop.history else {}
    slopes = {name: last.get(name, 0.0) for name in ("slope_seg", "slope_adv")}
    for batch in loop:
        strength, x, has_mask = game.strength(loop.done), batch.image, batch.has_mask
        y = view_true(rows_where(batch.mask, has_mask))

        # 1. S: close to the masks there are, called real by D, at one with its own mean
        harder = strong_view(batch, loop) if game.consistency else x
        output: SegmentorOutput = S(harder)
        terms = segmentation_terms(output, batch.mask, has_mask, loss, recipe.side_weight)
        del terms["total"]
        if game.consistency and not has_mask.all():
            terms["con"] = game.consistency * strength * consistency_term(loop, batch, output, game.confidence)
        played: dict[str, Tensor] = {}
        if strength and (game.adversarial or game.adversarial_unlabelled or game.feature_matching):
            # not through D: the wrapper that joins its slopes among processes must not see those of S
            discriminator.requires_grad_(False).eval()
            with loop.fabric.autocast():
                said_of_s = heard(discriminator, batch, output.logits, y, game)
                if loop.step % 20 == 0:
                    slopes = measured_slopes(discriminator, batch, output.logits, y, game, loss)
                    slopes["slope_adv"] *= strength
            played = {name: strength * one for name, one in said_of_s.items()}
            for weight in learning:
                weight.requires_grad_(True)
            discriminator.train()
        terms |= played
        loop.minimize("segmentor", sum_of(terms))

        # 2. D: the class of real pairs, "predicted" for the others
        drawn = view_predicted(output.logits.detach().sigmoid())
        said = D(torch.cat([rows_where(x, has_mask), x]), torch.cat([y, drawn]))
        real, predicted = said.split([len(y), len(x)])
        judged = None if game.judge_unlabelled else has_mask.to(x.device)
        real_label = rows_where(batch.label, has_mask)
        d_terms = discriminator_terms(real, predicted, real_label, batch.label, vars(game), judged)
        loop.minimize("discriminator", d_terms["total"])
        loop.log(terms | {"total": sum_of(terms)} | slopes | seen_by_d(real, predicted))
        loop.log({f"d_{name}" if name == "total" else name: value for name, value in d_terms.items()})
    return GameFit(segmentor, _even(loop.history), loop.looks, discriminator)


def check_classes(data: CachedSet, discriminator: Discriminator) -> None:
    """Refuse classes that D does not know."""
    check_cached(data)
    if data.labels.max(initial=-1) >= discriminator.num_classes:
        raise InputError(
            f"the data has class {data.labels.max()}, but D knows {discriminator.num_classes} classes, from 0"
        )


def first_stream(data: CachedSet) -> NDArray[np.bool_]:
    """(N,) which pictures have mask and class; if none has both, which have a mask."""
    if not data.has_mask.any():
        raise InputError("the training set shows no mask: S needs at least one picture with a mask")
    whole = data.has_mask & (data.labels >= 0)
    return whole if whole.any() else data.has_mask


def strong_view(batch: Batch, loop: Loop) -> Tensor:
    """The batch's pictures, those without a mask made harder to read."""
    generator = torch.Generator(batch.image.device).manual_seed(1 + loop.recipe.seed + 1_000_003 * (loop.draw + 1))
    harder = perturb(batch.image, generator)
    keep = batch.has_mask.to(harder.device).view(-1, 1, 1, 1)
    return torch.where(keep, batch.image, harder)


def consistency_term(loop: Loop, batch: Batch, output: SegmentorOutput, confidence: float) -> Tensor:
    """The consistency loss of S with its running mean, over the pictures without a mask."""
    unmarked = ~batch.has_mask
    with torch.no_grad(), loop.fabric.autocast():
        teacher = loop.means["segmentor"](rows_where(batch.image, unmarked)).logits
    return consistency_loss(rows_where(output.logits, unmarked), teacher, confidence).mean()


def sum_of(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def heard(D: Discriminator, batch: Batch, logits: Tensor, y: Tensor, game: Game) -> dict[str, Tensor]:
    """What D tells S about its masks: the adversarial term and feature matching, weighted, before the ramp.

    `y` : the true masks as D sees them.
    """
    has_mask = batch.has_mask
    f = D.features(batch.image, MASK_VIEWS[game.masks][1](logits.sigmoid())).float()
    weight = torch.where(has_mask, game.adversarial, game.adversarial_unlabelled).to(f.device)
    terms = {"adv": (weight * adversarial_loss(D.classify(f), batch.label, game.form)).mean()}
    if game.feature_matching:
        apart = D.features(rows_where(batch.image, has_mask), y).float().mean(0) - rows_where(f, has_mask).mean(0)
        terms["fm"] = game.feature_matching * apart.abs().mean()
    return terms


def measured_slopes(
    D: Discriminator, batch: Batch, logits: Tensor, y: Tensor, game: Game, loss: Loss
) -> dict[str, float]:
    """The norms of two gradients at S's logits, of the masks' loss and of what D says, apart from the trained graph."""
    free = logits.detach().float().requires_grad_()
    terms = {
        "slope_seg": loss(rows_where(free, batch.has_mask), rows_where(batch.mask, batch.has_mask)),
        "slope_adv": sum_of(heard(D, batch, free, y, game)),
    }
    return {name: float(torch.autograd.grad(term, free)[0].norm()) for name, term in terms.items()}


@torch.no_grad()
def seen_by_d(real: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """What D says: mean q_K on either kind of pair, and the share that it puts on the right side of one half."""
    q_real, q_pred = (logits.softmax(1)[:, Discriminator.PREDICTED] for logits in (real, predicted))
    right = ((q_real < 0.5).float().mean() + (q_pred > 0.5).float().mean()) / 2
    return {"q_real": q_real.mean(), "q_pred": q_pred.mean(), "d_accuracy": right}


def _even(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Every row with the same columns: a term that was not there yet weighs 0."""
    names = list(dict.fromkeys(name for row in history for name in row))
    return [{name: row.get(name, 0.0) for name in names} for row in history]
