"""How many seconds of training until the lungs are outlined this well? Ours against MONAI's AttentionUnet.

    CXR_DATA=... python tests/benchmarks/speedrun.py --seeds 1 2 3 --out data/results/speedrun

Same data (JSRT, public split, 128 px), recipe, augmentation, loop, memory order and precision for all; MONAI's net has
its DiceLoss (our `dice` is the same function, which a unit test shows), and stands once more in fp32, as it comes. Ours
has XE-Tversky with the weights 1/2, which are Dice's: the default .3 and .7 would rather have lungs too large.
Every `--every` steps the clock stands still and the running mean of the weights is tested, at the pictures' own size
and at 128 px. Each run is a process of its own and needs the machine for itself: a time measures the neighbours too.
Writes one record a run; `--table` prints the records that are there and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
from monai.networks.nets import AttentionUnet
from torch import Tensor, nn

from cxr_tutorial.data import Examples, cache, load_jsrt
from cxr_tutorial.data.images import resize_mask
from cxr_tutorial.data.splits import public_split
from cxr_tutorial.evaluate import evaluate, predict_logits, summarize
from cxr_tutorial.files import whole_folder
from cxr_tutorial.nets import WIDTHS, SegmentorOutput, build_segmentor
from cxr_tutorial.results import (
    Record,
    describe_device,
    load_records,
    provenance,
    read_curve,
    write_record,
    write_table,
)
from cxr_tutorial.train import Recipe, fit_segmentor

SIZE, THRESHOLDS = 128, (0.95, 0.97, 0.975, 0.98)


class Peer(nn.Module):
    """MONAI's net with our output type, so that the same loop can train it."""

    def __init__(self) -> None:
        super().__init__()
        w = WIDTHS["small"]
        self.net = AttentionUnet(2, 1, 1, w, (2,) * (len(w) - 1))

    def forward(self, image: Tensor) -> SegmentorOutput:
        return SegmentorOutput(self.net(image).float())


@dataclass(frozen=True)
class Runner:
    net: str
    recipe: Recipe

    def build(self) -> nn.Module:
        return Peer() if self.net == "monai-attentionunet" else build_segmentor(self.net)


RUNNERS = {
    "ours": Runner("pgaunet", Recipe(loss_options={"fp_weight": 0.5, "fn_weight": 0.5})),
    "monai": Runner("monai-attentionunet", Recipe(loss="dice")),
    "monai-fp32": Runner("monai-attentionunet", Recipe(loss="dice", precision="32-true")),
}


def test_dice(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Mean Dice at the pictures' own size and at the size of training."""
    native, small = [], []
    for example, logits in predict_logits(model, examples, SIZE):
        assert example.mask is not None
        native.append(dice_of((logits > 0).numpy(), example.mask))
        shrunk = nn.functional.interpolate(logits[None, None], (SIZE, SIZE), mode="area")[0, 0] > 0
        small.append(dice_of(shrunk.numpy(), resize_mask(example.mask, (SIZE, SIZE))))
    return {"dice": float(np.mean(native)), "dice_at_128": float(np.mean(small))}


def dice_of(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def race(runner: str, seed: int, seconds: float, every: int, out: Path) -> None:
    """One run and its record."""
    started = datetime.now(UTC)
    examples = load_jsrt()
    split = public_split("jsrt")
    data, test = cache(examples, SIZE).select(split.train), examples.select(split.test)
    chosen = RUNNERS[runner]
    recipe = Recipe(**{**asdict(chosen.recipe), "augmentation": chosen.recipe.augmentation, "seed": seed}).resolved()
    torch.manual_seed(seed)
    fit = fit_segmentor(
        chosen.build(),
        data,
        seconds=seconds,
        recipe=recipe,
        log_every=every,
        on_log=lambda step, model: test_dice(model, test),
    )
    rows = {"test": evaluate(fit.model, test, size=SIZE)}
    config = {"data": "jsrt", "split": "public", "size": SIZE, "method": "supervised", "net": chosen.net}
    config |= {"runner": runner, "seconds": seconds, "seed": seed, "recipe": json.loads(json.dumps(asdict(recipe)))}
    made = provenance(data.fingerprint, started, describe_device("cpu"))
    with whole_folder(out) as folder:
        write_record(folder, Record(out.name, config, made, {"test": summarize(rows["test"])}), rows)
        write_table(folder / "curve.csv", fit.looks)


def first_at(curve: Sequence[dict[str, float]], figure: str, threshold: float) -> float | None:
    """The seconds of training after which `figure` was first at `threshold`."""
    return next((row["seconds"] for row in curve if row[figure] >= threshold), None)


def print_table(folder: Path) -> None:
    records = load_records(folder)
    seconds = sorted({record.config["seconds"] for record in records})
    for budget in seconds:
        print(f"\nbudget {budget:.0f} s, JSRT test; seconds to reach a Dice, median over seeds (how many got there)")
        print(f"{'':12}{'Dice at':14}" + "".join(f"{t:>14}" for t in THRESHOLDS) + f"{'at the end':>14}")
        for runner in RUNNERS:
            mine = [r for r in records if (r.config["runner"], r.config["seconds"]) == (runner, budget)]
            for figure, where in (("dice", "own size"), ("dice_at_128", "128 px")):
                curves = [read_curve(record.folder) for record in mine if record.folder]
                if not curves:
                    continue
                cells = []
                for threshold in THRESHOLDS:
                    times = [t for curve in curves if (t := first_at(curve, figure, threshold)) is not None]
                    share = f"({len(times)}/{len(curves)})"
                    cells.append(f"{median(times):.1f} {share}" if times else f"- {share}")
                end = median(curve[-1][figure] for curve in curves)
                print(f"{runner:12}{where:14}" + "".join(f"{c:>14}" for c in cells) + f"{end:>14.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runners", nargs="+", choices=list(RUNNERS), default=list(RUNNERS))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between looks")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records; those that are there stay")
    parser.add_argument("--table", action="store_true", help="train nothing")
    args = parser.parse_args()
    runs = [(runner, seed) for seed in args.seeds for runner in args.runners]
    folders = {(runner, seed): args.out / f"{runner}-{args.seconds:.0f}s-s{seed}" for runner, seed in runs}
    todo = [] if args.table else [run for run in runs if not folders[run].exists()]
    if len(todo) == 1:
        race(*todo[0], args.seconds, args.every, folders[todo[0]])
    for runner, seed in todo if len(todo) > 1 else []:
        same = ["--seconds", str(args.seconds), "--every", str(args.every), "--out", str(args.out)]
        command = [sys.executable, __file__, "--runners", runner, "--seeds", str(seed), *same]
        subprocess.run(command, check=True)
    if len(runs) > 1 or args.table:
        print_table(args.out)


if __name__ == "__main__":
    main()
