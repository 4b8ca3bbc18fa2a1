"""The runs on real X-rays behind chapter 7: one command per group, resumable, budgets in steps.

    CXR_DATA=... python tests/benchmarks/segmentor_grid.py ablation --out data/results
    CXR_DATA=... python tests/benchmarks/segmentor_grid.py full-256 --out data/results
    CXR_DATA=... python tests/benchmarks/segmentor_grid.py sizes --out data/results

- `ablation`: the eight nets on JSRT and Montgomery at 128 px, equal compute: steps x operations per picture is the
  same for all, and the full net takes `STEPS` steps.
- `full-256`: the full net on all three sets, first at 128 px (group `full-128`), then from these weights at 256 px.
- `sizes`: the presets tiny, small and base on JSRT at 128 px, equal steps.

A finished record is never run again; weights are kept below `--weights` and are not for committing.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from cxr_tutorial.experiment import Config, run
from cxr_tutorial.nets import NETS, build_segmentor, summarize_segmentor
from cxr_tutorial.train import Recipe

SEEDS = (1, 2, 3)
STEPS = 450


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


GROUPS = {"ablation": ablation, "full-256": full_256, "sizes": sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument("--out", type=Path, required=True, help="folder of the groups, such as data/results")
    parser.add_argument("--weights", type=Path, default=Path("runs/weights"))
    args = parser.parse_args()
    for name, config in GROUPS[args.group](args.weights):
        out, kept = args.out / name, args.weights / f"{name}.safetensors"
        if args.only not in name or out.exists():
            continue
        record = run(config, out, progress=False)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(out / "weights.safetensors", kept)
        print(f"{name:32} test Dice {record.metrics['test']['dice']['mean']:.4f}", flush=True)


if __name__ == "__main__":
    main()
