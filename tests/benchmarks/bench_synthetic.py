"""How many synthetic X-rays are drawn in a second, by size, threads and how many are drawn at once.

    python tests/benchmarks/bench_synthetic.py [--sizes 64 128 256] [--threads 1 2] [--blocks 1 4 16] [--repeats 5]

The settings are measured in turn, in a new random order each round, so that whatever else the machine does falls
on all alike. pytest does not collect this file: a time is not a pass or a failure.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import random
import statistics
import time

import torch

from cxr_tutorial.data import synthetic

Setting = tuple[int, int, int | None]  # size, threads, pictures at once (None: as many as `generate` takes)


def pictures_per_second(setting: Setting, count: int, seed: int, device: str) -> float:
    size, threads, block = setting
    torch.set_num_threads(threads)
    usual = synthetic.BLOCK
    synthetic.BLOCK = block * size**2 if block else usual
    start = time.perf_counter()
    synthetic.generate(count, size=size, seed=seed, device=device)
    if device != "cpu":
        torch.cuda.synchronize()
    took = time.perf_counter() - start
    synthetic.BLOCK = usual
    return count / took


def measure(settings: list[Setting], pictures: int, repeats: int, device: str) -> dict[Setting, list[float]]:
    speeds: dict[Setting, list[float]] = {setting: [] for setting in settings}
    order = list(settings)
    for round_ in range(repeats + 1):
        random.shuffle(order)
        for setting in order:
            count = max(8, pictures * 128**2 // setting[0] ** 2)
            speed = pictures_per_second(setting, count, round_, device)
            if round_ >= 1:
                speeds[setting].append(speed)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--blocks", type=int, nargs="*", default=[1, 4, 16], help="beside the usual one")
    parser.add_argument("--pictures", type=int, default=64, help="a call, of 128 pixels; more of smaller ones")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    random.seed(0)
    settings = list(itertools.product(args.sizes, args.threads, [None, *args.blocks]))
    speeds = measure(settings, args.pictures, args.repeats, args.device)

    print(f"synthetic X-rays on {args.device}, {args.repeats} rounds")
    print(f"torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{'size':>6}{'threads':>9}{'at once':>9}{'median / s':>12}{'best / s':>10}")
    for size, threads, block in settings:
        measured = speeds[size, threads, block]
        print(f"{size:6}{threads:9}{block or 'usual':>9}{statistics.median(measured):12.1f}{max(measured):10.1f}")


if __name__ == "__main__":
    main()
