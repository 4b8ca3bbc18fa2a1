"""Pictures a second and memory of our segmentor against MONAI's nets of the same widths, in the same run.

    python tests/benchmarks/bench_segmentor.py [--sizes 128 256 512] [--batches 1 8 16] [--threads 2] [--seconds 12]

Every contestant is a process of its own; they step in turn, in a new random order each round, so that whatever
else the machine does falls on all alike: read the ratio. Ours runs as `fit_segmentor` runs it (best memory order and
precision of the machine, freed memory kept), MONAI's as it comes, and MONAI's `AttentionUnet` once more with all of
that done for it too. Ours pays for its side outputs as well. Memory is the peak of resident memory above what the
process held before its net was built. pytest does not collect this file: a time is not a pass or a failure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import AttentionUnet, BasicUNet, UNet
from torch import Tensor, nn
from torch.nn import functional as F

from cxr_tutorial.machine import best_precision, keep_freed_memory
from cxr_tutorial.nets import WIDTHS, build_segmentor
from cxr_tutorial.results import describe_device, write_table

PEER = "MONAI AttentionUnet"


@dataclass(frozen=True)
class Contestant:
    build: Callable[[tuple[int, ...]], nn.Module]
    tuned: bool  # best memory order and precision, freed memory kept


CONTESTANTS = {
    PEER: Contestant(lambda w: AttentionUnet(2, 1, 1, w, (2,) * (len(w) - 1)), False),
    "MONAI AttentionUnet, tuned": Contestant(lambda w: AttentionUnet(2, 1, 1, w, (2,) * (len(w) - 1)), True),
    "MONAI BasicUNet": Contestant(lambda w: BasicUNet(2, 1, 1, (*w, w[0])), False),
    "MONAI UNet": Contestant(lambda w: UNet(2, 1, 1, w, (2,) * (len(w) - 1)), False),
    "unet": Contestant(lambda w: build_segmentor("unet", w), True),
    "pgaunet": Contestant(lambda w: build_segmentor("pgaunet", w), True),
}


def resident(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the most so far) of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def work(channel: Connection, name: str, widths: tuple[int, ...], size: int, batch: int, threads: int) -> None:
    """A contestant: every `"train"` or `"infer"` that comes in is one step, answered with its seconds."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = resident("VmRSS")
    contestant = CONTESTANTS[name]
    model = contestant.build(widths)
    image = torch.randn(batch, 1, size, size)
    mask = (torch.rand_like(image) < 0.3).float()
    precision: Any = nullcontext()
    if contestant.tuned:
        keep_freed_memory()
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = image.contiguous(memory_format=torch.channels_last)
        precision = torch.autocast("cpu", torch.bfloat16, enabled=best_precision("cpu") == "bf16-mixed")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    while (order := channel.recv()) != "stop":
        start = time.perf_counter()
        if order == "train":
            train_step(model.train(), image, mask, optimizer, precision)
        else:
            with torch.inference_mode(), precision:
                model.eval()(image)
        channel.send(time.perf_counter() - start)
    channel.send(resident("VmHWM") - before)


def train_step(model: nn.Module, image: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer, precision: Any) -> None:
    with precision:
        output = model(image)
    logits = [output] if isinstance(output, Tensor) else [output.logits, *output.side_logits]
    losses = [
        F.binary_cross_entropy_with_logits(one.float(), F.interpolate(mask, one.shape[-2:], mode="nearest-exact"))
        for one in logits
    ]
    optimizer.zero_grad()
    torch.stack(losses).sum().backward()
    optimizer.step()


def compete(args: argparse.Namespace, size: int, batch: int) -> list[dict[str, Any]]:
    """A row per contestant and order (training, inference) at one size."""
    spawn = multiprocessing.get_context("spawn")
    channels = {}
    for name in CONTESTANTS:
        channels[name], theirs = spawn.Pipe()
        spawn.Process(
            target=work, args=(theirs, name, WIDTHS[args.widths], size, batch, args.threads), daemon=True
        ).start()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for order in ("train", "infer"):
        times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        started, rounds = time.perf_counter(), 0
        while rounds < 5 or time.perf_counter() - started < args.seconds:
            for name in random.sample(list(times), len(times)):
                channels[name].send(order)
                took = channels[name].recv()
                if rounds >= 2:
                    times[name].append(took)
            rounds += 1
        peer = statistics.median(times[PEER]), min(times[PEER])
        for name, took in times.items():
            median = statistics.median(took)
            rows[name, order] = {"size": size, "batch": batch, "order": order, "net": name, "rounds": len(took)}
            rows[name, order] |= {"images_per_second": batch / median, "ratio": peer[0] / median}
            rows[name, order] |= {"best_ratio": peer[1] / min(took)}
    for name, channel in channels.items():
        channel.send("stop")
        peak = channel.recv()
        for order in ("train", "infer"):
            rows[name, order]["peak_mb"] = peak
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--widths", choices=sorted(WIDTHS), default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12, help="of each comparison, at least five rounds")
    parser.add_argument("--out", type=Path, help="also write the rows to this CSV file")
    args = parser.parse_args()
    print(f"{describe_device('cpu')} ({args.threads} used), torch {torch.__version__}, {best_precision('cpu')}")
    print(f"{'size':>5}{'batch':>6} {'order':7}{'net':28}{'images/s':>10}{'ratio':>8}{'best':>8}{'peak MB':>9}")
    table = []
    for size in args.sizes:
        for batch in args.batches:
            for row in compete(args, size, batch):
                table.append(row)
                print(
                    f"{size:5}{batch:6} {row['order']:7}{row['net']:28}{row['images_per_second']:10.1f}"
                    f"{row['ratio']:8.2f}{row['best_ratio']:8.2f}{row['peak_mb']:9.0f}",
                    flush=True,
                )
    if args.out:
        write_table(args.out, table)


if __name__ == "__main__":
    main()
