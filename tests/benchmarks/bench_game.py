"""What a step of each semi-supervised training costs beside a step of the segmentor alone, in the same run.

    python tests/benchmarks/bench_game.py [--size 128] [--rounds 5] [--threads 2]

Every training sees eight pictures a step: the supervised one eight with a mask, the others four with and four without.
They take turns, ten steps each, so that whatever else the machine does falls on all alike: read the ratio.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch

from cxr_tutorial.data import CachedSet, cache, load_synthetic
from cxr_tutorial.nets import Discriminator, build_segmentor
from cxr_tutorial.results import describe_device
from cxr_tutorial.train import (
    GAMES,
    Fit,
    Game,
    Recipe,
    fit_appaunet,
    fit_cross_pseudo,
    fit_mean_teacher,
    fit_segmentor,
)

STEPS = 10


def game(name: str, recipe: Recipe, data: CachedSet) -> Fit:
    how = replace(GAMES[name], warmup=0.0)  # the adversarial term from the first step on
    D = Discriminator(**how.discriminator)
    return fit_appaunet(build_segmentor(), D, data, steps=STEPS, recipe=recipe, game=how, progress=False)


CONTESTANTS: dict[str, Callable[[Recipe, CachedSet], Fit]] = {
    "supervised": lambda r, d: fit_segmentor(
        build_segmentor(), d, steps=STEPS, recipe=replace(r, batch_size=8), progress=False
    ),
    "mean-teacher": lambda r, d: fit_mean_teacher(
        build_segmentor(), d, steps=STEPS, recipe=r, game=Game(warmup=0.0), progress=False
    ),
    "cross-pseudo": lambda r, d: fit_cross_pseudo(
        build_segmentor(), build_segmentor(), d, steps=STEPS, recipe=r, game=Game(warmup=0.0), progress=False
    ),
    "appaunet-paper": lambda r, d: game("appaunet-paper", r, d),
    "appaunet": lambda r, d: game("appaunet", r, d),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    whole = cache(load_synthetic(), args.size)
    data = whole.reveal(masks=whole.ids[:16], labels=whole.ids[:32])
    recipe = Recipe(batch_size=4)
    steps: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(args.rounds):
        for name, train in CONTESTANTS.items():
            seconds = [row["seconds"] for row in train(recipe, data).history]
            steps[name] += [after - before for before, after in pairwise(seconds)]
    alone = median(steps["supervised"])
    print(f"{describe_device('cpu')}, {args.size} px, 8 pictures a step, torch {torch.__version__}")
    for name, took in steps.items():
        print(f"{name:16}{1000 * median(took):8.1f} ms a step{median(took) / alone:8.2f} x supervised")


if __name__ == "__main__":
    main()
