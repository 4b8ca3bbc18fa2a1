"""The cells of every experiment behind the book: what is run, under which name (floor 3).

A plan is a function without arguments that yields cells; `PLANS` knows them by the name of their group.

- `tiny`: seconds, on the pictures that ship; to try the command, and for its tests.
- `ablation`: the eight nets on JSRT and Montgomery at 128 px, equal compute: steps x operations per picture is the
  same for all, and the full net takes `STEPS` steps.
- `losses`: eight nets x four losses on JSRT and Montgomery, equal steps: `STEPS` for every net.
- `kltv`: KL-Tversky in three readings and two weightings beside the losses it competes with; a look at the validation
  part every 25 steps says when a Dice is reached.
- `cross-hospital`: trained on one of the three sets, tested on all.
- `full-128`, `full-256`: the full net on all three sets, first at 128 px, then from these weights at 256 px.
- `long-256`: JSRT at 256 px from the first step on: the small net from the synthetic weights, and a wide one from none.
- `even-256`: JSRT in the two stages of `full-256`, a wide net, and a loss that weighs both kinds of error alike.
- `sizes`: the presets tiny, small and base on JSRT at 128 px, equal steps.
- `budget-jsrt`, `budget-shenzhen`: few masks, the other training pictures without; the methods of `CONTESTANTS`.
- `game-options`: what the paper leaves open, one by one.
- `tb`: tuberculosis on Montgomery and on Shenzhen, ten folds; all, a quarter and a tenth of the class labels.
- `task-losses`: S and D without a game as in `tb`, but S with Tversky alone or with KL-Tversky.
- `own-folds`: tuberculosis on Montgomery, nodules on JSRT, in folds of our own that share no patient.
- `tb-options`: the published folds with more steps, also of both sets at once: D with blank masks, inside the masks
  of a fixed S, on pictures cropped to the lungs, and in the game.

Every budget is in steps, so every cell can be repeated; what the losses leave open has the default of `losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch

from cxr_tutorial.config import Config
from cxr_tutorial.data.batches import STRONG_AUGMENTATION, Augmentation
from cxr_tutorial.data.splits import public_folds
from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import NETS, build_segmentor, summarize_segmentor
from cxr_tutorial.train import GAMES, Game, Recipe

SEEDS = (1, 2, 3)
STEPS = 450
TB_STEPS, TB_CHANGES = 600, Augmentation(rotate=10, shift=0.08, zoom=0.15, stretch=0.08, flip=0.5)
EIGHT_NETS = sorted(set(NETS) - {"ppaunet"})  # an alias of pgaunet


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes
    ----------
    name : `GROUP/ID`, which is also where its record lies below the folder of the grid.
    config : what is run.
    after : name of the cell whose weights this one starts from; `config.start` is filled in when it runs.
    """

    name: str
    config: Config
    after: str | None = None

    def __post_init__(self) -> None:
        if (devices := self.config.recipe.devices) != 1:  # its processes would wait for each other's lock
            raise InputError(
                f"{self.name} asks for {devices} devices: a grid runs each cell on one; use `accumulate` for larger "
                "batches, or `cxr-tutorial train --devices`"
            )


def tiny() -> Iterator[Cell]:
    """Two nets, two seeds, a second stage and a game: what a grid can hold, in twelve steps each."""
    few: dict[str, Any] = {"size": 32, "widths": (4, 8, 16), "steps": 12}
    recipe = Recipe(learning_rate=0.02, ema=0.0)
    for seed in (1, 2):
        for net in ("unet", "ppaunet"):
            yield Cell(f"tiny/{net}-s{seed}", Config(net=net, recipe=replace(recipe, seed=seed), seed=seed, **few))
    recipe = replace(recipe, seed=1)
    game = Config(method="appaunet", recipe=replace(recipe, batch_size=2), masks=8, labels=12, seed=1, **few)
    yield Cell("tiny/appaunet-s1", game)
    second = Config(net="unet", recipe=recipe, seed=1, validate_every=6, **few | {"size": 48})
    yield Cell("tiny/unet-48-s1", second, after="tiny/unet-s1")


@cache
def operations(net: str) -> int:
    """Operations of this net on one picture; counted on shapes alone, nothing is computed."""
    with torch.device("meta"):
        return summarize_segmentor(build_segmentor(net)).flops


def equal_compute(net: str) -> int:
    """Steps that cost as many operations with this net as `STEPS` with the full one.

    >>> equal_compute("pgaunet") == STEPS < equal_compute("unet")
    True
    """
    return round(STEPS * operations("pgaunet") / operations(net))


def ablation() -> Iterator[Cell]:
    for seed in SEEDS:
        for data in ("jsrt", "montgomery"):
            for net in EIGHT_NETS:
                recipe = Recipe(seed=seed)
                name = f"ablation/{data}-{net}-s{seed}"
                config = Config(data, split="public", net=net, recipe=recipe, steps=equal_compute(net), seed=seed)
                yield Cell(name, config)


WEIGHTS = {"30": {"fp_weight": 0.3, "fn_weight": 0.7}, "50": {"fp_weight": 0.5, "fn_weight": 0.5}}
#: name -> loss and its options; Tversky with equal weights is Dice, and KL-Tversky read as coins is XE-Tversky
READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    f"kltv-{mode}-{name}": ("kltv", {"mode": mode} | weights)
    for mode in ("foreground_abs", "bernoulli", "spatial")
    for name, weights in WEIGHTS.items()
}
READINGS |= {f"xe-tversky-{name}": ("xe-tversky", weights) for name, weights in WEIGHTS.items()}
READINGS |= {"tversky-30": ("tversky", WEIGHTS["30"]), "dice": ("dice", {}), "xe": ("xe", {})}


def losses() -> Iterator[Cell]:
    """Experiment E1: does any of the three ideas beat the plain U-Net, under any of the paper's losses?"""
    for seed in SEEDS:
        for data in ("jsrt", "montgomery"):
            for net in EIGHT_NETS:
                for loss in ("xe", "tversky", "kltv", "xe-tversky"):
                    recipe = Recipe(seed=seed, loss=loss)
                    config = Config(data, split="public", net=net, recipe=recipe, steps=STEPS, seed=seed)
                    yield Cell(f"losses/{data}-{net}-{loss}-s{seed}", config)


def kltv() -> Iterator[Cell]:
    """Experiment E2: which reading and weights of KL-Tversky converge, and faster than what?"""
    for seed in SEEDS:
        for data in ("jsrt", "montgomery"):
            for name, (loss, options) in READINGS.items():
                recipe = Recipe(seed=seed, loss=loss, loss_options=options)
                config = Config(data, split="public", recipe=recipe, steps=STEPS, seed=seed, validate_every=25)
                yield Cell(f"kltv/{data}-{name}-s{seed}", config)


def cross_hospital() -> Iterator[Cell]:
    """Experiment E5: what does a net that saw one hospital draw in another?"""
    hospitals = ("montgomery", "shenzhen", "jsrt")
    for seed in SEEDS:
        for data in hospitals:
            others = tuple(other for other in hospitals if other != data)
            recipe = Recipe(seed=seed)
            config = Config(data, split="public", recipe=recipe, steps=STEPS, seed=seed, test_data=others)
            yield Cell(f"cross-hospital/{data}-s{seed}", config)


def full_128() -> Iterator[Cell]:
    for seed in SEEDS:
        for data in ("jsrt", "montgomery", "shenzhen"):
            config = Config(data, split="public", net="pgaunet", recipe=Recipe(seed=seed), steps=1200, seed=seed)
            yield Cell(f"full-128/{data}-128-s{seed}", config)


def full_256() -> Iterator[Cell]:
    for first in full_128():
        yield first
        config, recipe = first.config, replace(first.config.recipe, learning_rate=2e-3)
        second = replace(config, size=256, recipe=recipe, steps=1000)
        yield Cell(f"full-256/{config.data}-256-s{config.seed}", second, after=first.name)


def long_256() -> Iterator[Cell]:
    for seed in SEEDS:
        starts: dict[str, dict[str, Any]] = {"small": {"start": "synthetic"}, "base": {"widths": "base"}}
        for name, changes in starts.items():
            recipe = Recipe(seed=seed, learning_rate=2e-3)
            config = Config("jsrt", split="public", size=256, recipe=recipe, steps=4000, seed=seed, **changes)
            yield Cell(f"long-256/jsrt-{name}-s{seed}", config)


def even_256() -> Iterator[Cell]:
    """The default loss would rather have lungs too large than too small, which costs Dice where it is high."""
    for seed in SEEDS:
        recipe = Recipe(seed=seed, loss_options=WEIGHTS["50"])
        config = Config("jsrt", split="public", net="pgaunet", widths="base", recipe=recipe, steps=1200, seed=seed)
        first = Cell(f"even-256/jsrt-base-128-s{seed}", config)
        yield first
        second = replace(config, size=256, recipe=replace(recipe, learning_rate=2e-3), steps=1000)
        yield Cell(f"even-256/jsrt-base-256-s{seed}", second, after=first.name)


def sizes() -> Iterator[Cell]:
    for widths, seeds in (("tiny", SEEDS), ("small", SEEDS), ("base", SEEDS[:1])):
        for seed in seeds:
            recipe, name = Recipe(seed=seed), f"sizes/jsrt-{widths}-s{seed}"
            config = Config("jsrt", split="public", widths=widths, recipe=recipe, steps=STEPS, seed=seed)
            yield Cell(name, config)


BUDGET_STEPS, FEW = 400, Recipe(batch_size=4, augmentation=STRONG_AUGMENTATION)


def few(seed: int, method: str, masks: int | None, data: str = "jsrt", **changes: Any) -> Config:
    """A run with few masks: 400 steps of eight pictures, four of them without a mask where the method takes such.

    Where there is no second stream the eight are pictures with a mask, so every method sees as many.
    """
    alone = method == "supervised" or masks is None
    recipe = replace(FEW, seed=seed, batch_size=8 if alone else 4)
    unseen = ("montgomery",) if data == "jsrt" else ("montgomery", "jsrt")
    config = Config(data, split="public", net="ppaunet", method=method, recipe=recipe, masks=masks, labels=masks)
    return replace(config, steps=BUDGET_STEPS, seed=seed, test_data=unseen, **changes)


#: name -> method and what it starts from; the same net, augmentation, steps and pictures a step for all
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "mean-teacher": ("mean-teacher", {}),
    "cross-pseudo": ("cross-pseudo", {}),
    "appaunet-paper": ("appaunet-paper", {}),
    "appaunet": ("appaunet", {}),
    "syn-supervised": ("supervised", {"start": "synthetic"}),
    "syn-mean-teacher": ("mean-teacher", {"start": "synthetic"}),
    "syn-appaunet": ("appaunet", {"start": "synthetic"}),
}


def budget(data: str = "jsrt") -> Iterator[Cell]:
    plan = {1: 10, 5: 5, 10: 5, 2: 10, 25: 5, None: 5} if data == "jsrt" else {5: 3, 25: 3, None: 3}
    for rank in range(max(plan.values())):
        for masks, seeds in plan.items():
            for name, (method, changes) in CONTESTANTS.items():
                if rank >= seeds or (masks is None and method in ("mean-teacher", "cross-pseudo")):
                    continue
                seed = rank + 1
                label = f"budget-{data}/{name}-m{masks or 'all'}-s{seed}"
                yield Cell(label, few(seed, method, masks, data, **changes))


#: name -> what is changed in the game and in D; the weights are ten times the default's, so that S hears D
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "loud": ({}, {}),
    "judge-masked-only": ({"judge_unlabelled": False}, {}),
    "concat": ({}, {"join": "concat"}),
    "mask-alone": ({}, {"join": "mask"}),
    "binary": ({"masks": "binary"}, {}),
    "blurred": ({"masks": "blurred"}, {}),
    "smoothed": ({"masks": "smoothed"}, {}),
    "saturating": ({"form": "saturating"}, {}),
    "by-class": ({"form": "class"}, {}),
    "feature-matching": ({"feature_matching": 0.1}, {}),
    "no-cp": ({"cp": 0.0}, {}),
    "sum": ({}, {"join": "sum"}),
    "spectral-norm": ({}, {"spectral_norm": True, "norm": "none"}),
    "group-norm": ({}, {"norm": "group"}),
    "no-consistency": ({"consistency": 0.0}, {}),
    "confident": ({"confidence": 0.9}, {}),
    "late": ({"warmup": 0.5}, {}),
    "synthetic-pairs": ({}, {}),  # four of them more a step
}


def game_options() -> Iterator[Cell]:
    """Each option of the game alone, five masks of JSRT, from the synthetic start, a game that S hears."""
    for seed in SEEDS:
        for name, (changes, of_d) in OPTIONS.items():
            of_d = GAMES["appaunet"].discriminator | of_d
            game = Game(adversarial=0.1, adversarial_unlabelled=0.1, discriminator=of_d, **changes)
            more = 4 if name == "synthetic-pairs" else 0
            config = few(seed, "appaunet", 5, start="synthetic", game=game, synthetic=more)
            yield Cell(f"game-options/{name}-s{seed}", config)


def disease(
    data: str,
    method: str,
    fold: int,
    split: str = "fold",
    steps: int = TB_STEPS,
    rules: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Config:
    """One training of a D that names a disease; it sees sixteen pairs a step, beside an S of eight pictures."""
    recipe = Recipe(seed=fold, batch_size=8 if method in ("appaunet", "multi-task") else 16, augmentation=TB_CHANGES)
    game = replace(GAMES.get(method, Game()), learning_rate=5e-3, **(rules or {}))
    start = None if method == "classifier" else "synthetic"
    config = Config(data, split=f"{split}-{fold}", method=method, recipe=recipe, game=game, start=start, seed=fold)
    return replace(config, steps=steps, **changes)


def tb() -> Iterator[Cell]:
    """Tuberculosis, set by set, ten published folds: D alone, S and D without a game, the game.

    With few class labels also D alone on pictures cut to the lungs (with all, `tb_options` has it), and the game
    without the pictures that lack a class.
    """
    for data in ("montgomery", "shenzhen"):
        for share in (1.0, 0.25, 0.1):
            for fold in range(10):
                labels = None if share == 1 else round(share * len(public_folds(data)[f"fold-{fold}"].train))
                for method in ("classifier", "appaunet", "multi-task"):
                    config = disease(data, method, fold, labels=labels)
                    yield Cell(f"tb/{data}-{method}-l{round(100 * share)}-f{fold}", config)
                if labels:
                    config = disease(data, "lungs-classifier", fold, labels=labels, views=16)
                    yield Cell(f"tb/{data}-lungs-classifier-l{round(100 * share)}-f{fold}", config)
                    config = disease(data, "appaunet", fold, labels=labels, rules={"unlabelled_batch_size": 0})
                    yield Cell(f"tb/{data}-labelled-appaunet-l{round(100 * share)}-f{fold}", config)


def task_losses() -> Iterator[Cell]:
    """The other two of the paper's losses for S where D names tuberculosis; `tb` has the default, XE-Tversky."""
    for data in ("montgomery", "shenzhen"):
        for fold in range(10):
            for loss in ("tversky", "kltv"):
                config = disease(data, "multi-task", fold)
                config = replace(config, recipe=replace(config.recipe, loss=loss))
                yield Cell(f"task-losses/{data}-{loss}-f{fold}", config)


def own_folds() -> Iterator[Cell]:
    """Tuberculosis on Montgomery, nodules on JSRT, in our ten folds, which share no patient: D alone, whole or cut.

    Two patients of Montgomery have several pictures, which most published folds part; at Shenzhen nobody has.
    """
    for data in ("montgomery", "jsrt"):
        for fold in range(10):
            for method, views in (("classifier", 0), ("lungs-classifier", 16)):
                config = disease(data, method, fold, split="patient-fold", views=views)
                yield Cell(f"own-folds/{data}-{method}-f{fold}", config)


#: name -> method, steps, views of a test picture, what is changed in the game
READERS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "blank-2000": ("classifier", 2000, 0, {}),
    "masked-600": ("masked-classifier", 600, 0, {}),
    "masked-2000": ("masked-classifier", 2000, 0, {}),
    "masked-5000": ("masked-classifier", 5000, 0, {}),
    "masked-views-5000": ("masked-classifier", 5000, 16, {}),
    "lungs-600": ("lungs-classifier", 600, 16, {}),
    "lungs-5000": ("lungs-classifier", 5000, 16, {}),
    "game-2000": ("appaunet", 2000, 0, {}),
    "game-weak-2000": ("appaunet", 2000, 0, {"real": 0.1, "pred": 0.1}),
    "game-binary-2000": ("appaunet", 2000, 0, {"masks": "binary"}),
}


def tb_options() -> Iterator[Cell]:
    """Where does the class get lost: for want of steps, of the outline, or in the game?"""
    for name, (method, steps, views, rules) in READERS.items():
        for data in ("montgomery", "shenzhen", "montgomery+shenzhen"):
            for fold in range(10):
                config = disease(data, method, fold, rules=rules, steps=steps, views=views)
                yield Cell(f"tb-options/{data}-{name}-f{fold}", config)


PLANS: dict[str, Callable[[], Iterator[Cell]]] = {
    "tiny": tiny,
    "ablation": ablation,
    "losses": losses,
    "kltv": kltv,
    "cross-hospital": cross_hospital,
    "full-128": full_128,
    "full-256": full_256,
    "long-256": long_256,
    "even-256": even_256,
    "sizes": sizes,
    "budget-jsrt": budget,
    "budget-shenzhen": partial(budget, data="shenzhen"),
    "game-options": game_options,
    "tb": tb,
    "task-losses": task_losses,
    "tb-options": tb_options,
    "own-folds": own_folds,
}
