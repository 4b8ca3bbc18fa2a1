"""The runs on real X-rays behind chapters 7 to 9: one command per group, resumable, budgets in steps.

    CXR_DATA=... python tests/benchmarks/grid.py ablation --out data/results

- `ablation`: the eight nets on JSRT and Montgomery at 128 px, equal compute: steps x operations per picture is the
  same for all, and the full net takes `STEPS` steps.
- `full-256`: the full net on all three sets, first at 128 px (group `full-128`), then from these weights at 256 px.
- `sizes`: the presets tiny, small and base on JSRT at 128 px, equal steps.
- `budget-jsrt`, `budget-shenzhen`: few masks, the other training pictures without; the methods of `CONTESTANTS`.
- `game-options`: what the paper leaves open, one by one.
- `tb`: tuberculosis on Montgomery and on Shenzhen, ten folds; all, a quarter and a tenth of the class labels.

A finished record is never run again; weights are kept below `--weights` and are not for committing.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cxr_tutorial.data.batches import STRONG_AUGMENTATION, Augmentation
from cxr_tutorial.data.splits import public_folds
from cxr_tutorial.experiment import Config, run
from cxr_tutorial.nets import NETS, build_segmentor, summarize_segmentor
from cxr_tutorial.train import GAMES, Game, Recipe

SEEDS = (1, 2, 3)
STEPS = 450
TB_STEPS, TB_CHANGES = 600, Augmentation(rotate=10, shift=0.08, zoom=0.15, stretch=0.08, flip=0.5)


def equal_compute(net: str) -> int:
    """Steps that cost as many operations with this net as `STEPS` with the full one."""
    full, mine = (summarize_segmentor(build_segmentor(name)).flops for name in ("pgaunet", net))
    return round(STEPS * full / mine)


def ablation(weights: Path) -> Iterator[tuple[str, Config]]:
    for seed in SEEDS:
        for data in ("jsrt", "montgomery"):
            for net in sorted(set(NETS) - {"ppaunet"}):
                recipe = Recipe(seed=seed)
                name = f"ablation/{data}-{net}-s{seed}"
                yield name, Config(data, split="public", net=net, recipe=recipe, steps=equal_compute(net), seed=seed)


def full_256(weights: Path) -> Iterator[tuple[str, Config]]:
    for seed in SEEDS:
        for data in ("jsrt", "montgomery", "shenzhen"):
            first, recipe = f"full-128/{data}-128-s{seed}", Recipe(seed=seed)
            yield first, Config(data, split="public", net="pgaunet", recipe=recipe, steps=1200, seed=seed)
            start, recipe = str(weights / f"{first}.safetensors"), Recipe(seed=seed, learning_rate=2e-3)
            config = Config(
                data, split="public", size=256, net="pgaunet", recipe=recipe, start=start, steps=1000, seed=seed
            )
            yield f"full-256/{data}-256-s{seed}", config


def sizes(weights: Path) -> Iterator[tuple[str, Config]]:
    for widths, seeds in (("tiny", SEEDS), ("small", SEEDS), ("base", SEEDS[:1])):
        for seed in seeds:
            recipe, name = Recipe(seed=seed), f"sizes/jsrt-{widths}-s{seed}"
            yield name, Config("jsrt", split="public", widths=widths, recipe=recipe, steps=STEPS, seed=seed)


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


def budget(weights: Path, data: str = "jsrt") -> Iterator[tuple[str, Config]]:
    plan = {1: 10, 5: 5, 10: 5, 2: 10, 25: 5, None: 5} if data == "jsrt" else {5: 3, 25: 3, None: 3}
    for rank in range(max(plan.values())):
        for masks, seeds in plan.items():
            for name, (method, changes) in CONTESTANTS.items():
                if rank >= seeds or (masks is None and method in ("mean-teacher", "cross-pseudo")):
                    continue
                seed = rank + 1
                label = f"budget-{data}/{name}-m{masks or 'all'}-s{seed}"
                yield label, few(seed, method, masks, data, **changes)


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
}


def game_options(weights: Path) -> Iterator[tuple[str, Config]]:
    """Each option of the game alone, five masks of JSRT, from the synthetic start, a game that S hears."""
    for seed in SEEDS:
        for name, (changes, of_d) in OPTIONS.items():
            of_d = GAMES["appaunet"].discriminator | of_d
            game = Game(adversarial=0.1, adversarial_unlabelled=0.1, discriminator=of_d, **changes)
            yield f"game-options/{name}-s{seed}", few(seed, "appaunet", 5, start="synthetic", game=game)


def tb(weights: Path) -> Iterator[tuple[str, Config]]:
    """Tuberculosis, set by set, ten published folds: D alone, S and D without a game, the game.

    D sees sixteen pairs a step in each: sixteen pictures with a blank mask, or eight with the true and the drawn one.
    """
    for data in ("montgomery", "shenzhen"):
        for share in (1.0, 0.25, 0.1):
            for fold in range(10):
                for method in ("classifier", "appaunet", "multi-task"):
                    alone = method == "classifier"
                    recipe = Recipe(seed=fold, batch_size=16 if alone else 8, augmentation=TB_CHANGES)
                    game = replace(GAMES.get(method, Game()), learning_rate=5e-3)
                    labels = None if share == 1 else round(share * len(public_folds(data)[f"fold-{fold}"].train))
                    config = Config(data, split=f"fold-{fold}", method=method, recipe=recipe, game=game, labels=labels)
                    config = replace(config, steps=TB_STEPS, seed=fold, start=None if alone else "synthetic")
                    yield f"tb/{data}-{method}-l{round(100 * share)}-f{fold}", config


GROUPS = {
    "ablation": ablation,
    "full-256": full_256,
    "sizes": sizes,
    "budget-jsrt": budget,
    "budget-shenzhen": partial(budget, data="shenzhen"),
    "game-options": game_options,
    "tb": tb,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--only", default="", help="runs whose name this regular expression is found in")
    parser.add_argument("--out", type=Path, required=True, help="folder of the groups, such as data/results")
    parser.add_argument("--weights", type=Path, default=Path("runs/weights"))
    args = parser.parse_args()
    for name, config in GROUPS[args.group](args.weights):
        out, kept = args.out / name, args.weights / f"{name}.safetensors"
        if not re.search(args.only, name) or out.exists():
            continue
        record = run(config, out, progress=False)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if (out / "weights.safetensors").exists():
            shutil.move(out / "weights.safetensors", kept)
        for left in ("discriminator.safetensors", "history.csv"):
            (out / left).unlink(missing_ok=True)
        figures = [
            f"{part} {k} {m[k]['mean']:.4f}" for part, m in record.metrics.items() for k in ("dice", "auc") if k in m
        ]
        print(f"{name:36}", *figures, flush=True)


if __name__ == "__main__":
    main()
