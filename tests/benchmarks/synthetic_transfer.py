"""Train on synthetic X-rays alone, test on every real mask: is the synthetic X-ray worth learning from?

    CXR_DATA=... python tests/benchmarks/synthetic_transfer.py --seed 1 --out data/results/transfer/synthetic-s1

    CXR_DATA=... python tests/benchmarks/synthetic_transfer.py --net ppaunet --steps 1500 \
        --out data/results/transfer/synthetic-ppaunet-s1 --weights data/weights/synthetic.safetensors

No real picture and no real mask is seen in training; the second line makes the weights that ship with the package. The
first takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from cxr_tutorial.data import cache, load_jsrt, load_montgomery, load_shenzhen, load_synthetic
from cxr_tutorial.data.batches import STRONG_AUGMENTATION
from cxr_tutorial.evaluate import evaluate, summarize
from cxr_tutorial.files import whole_folder
from cxr_tutorial.nets import build_segmentor
from cxr_tutorial.results import Record, describe_device, provenance, write_record, write_table
from cxr_tutorial.train import Recipe, fit_segmentor, save_weights

SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=2400, help="synthetic ones, of all three sites")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--net", default="unet")
    parser.add_argument("--weights", type=Path, help="also write the weights to this .safetensors file")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    started = datetime.now(UTC)
    data = cache(load_synthetic(args.pictures, seed=args.seed), SIZE)
    recipe = Recipe(augmentation=STRONG_AUGMENTATION, seed=args.seed)
    torch.manual_seed(args.seed)
    fit = fit_segmentor(build_segmentor(args.net), data, steps=args.steps, recipe=recipe)
    real = {"jsrt": load_jsrt(), "montgomery": load_montgomery(), "shenzhen": load_shenzhen()}
    rows = {name: evaluate(fit.model, examples, size=SIZE) for name, examples in real.items()}
    config = {
        "data": f"synthetic, {args.pictures} pictures",
        "split": "all real masks are tested",
        "size": SIZE,
        "method": "supervised",
        "net": args.net,
        "steps": args.steps,
        "seed": args.seed,
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }
    made = provenance(data.fingerprint, started, describe_device("cpu"))
    record = Record(args.out.name, config, made, {name: summarize(some) for name, some in rows.items()})
    with whole_folder(args.out) as folder:
        write_record(folder, record, rows)
        write_table(folder / "history.csv", fit.history)
    if args.weights:
        save_weights(args.weights, fit.model)
    for name, summary in record.metrics.items():
        low, high = summary["dice"]["ci95"]
        print(f"{name:12} Dice {summary['dice']['mean']:.4f} [{low:.4f}, {high:.4f}], n = {summary['dice']['n']}")


if __name__ == "__main__":
    main()
