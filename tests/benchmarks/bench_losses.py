"""How long each loss takes, forward and backward, against MONAI's and torch's in the same run.

    python tests/benchmarks/bench_losses.py [--size 256] [--batch 16] [--threads 2] [--repeats 40]

The losses are called in turn, in a new random order each round, so that whatever else the machine does falls on
all alike; read the ratio. pytest does not collect this file: a time is not a pass or a failure.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor

from cxr_tutorial.losses import cross_entropy, cross_entropy_tversky, dice, kl, kl_tversky, tversky

Loss = Callable[[Tensor, Tensor], Tensor]

MONAI_TVERSKY = "MONAI TverskyLoss"
PEERS: dict[str, Loss] = {
    MONAI_TVERSKY: TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7),
    "MONAI DiceLoss": DiceLoss(sigmoid=True),
    "torch BCE with logits": F.binary_cross_entropy_with_logits,
}
OURS: dict[str, tuple[Loss, str]] = {  # the loss and the peer it is held against
    "tversky": (tversky, MONAI_TVERSKY),
    "dice": (dice, "MONAI DiceLoss"),
    "cross_entropy": (cross_entropy, "torch BCE with logits"),
    "kl foreground_abs": (kl, MONAI_TVERSKY),
    "kl bernoulli": (partial(kl, mode="bernoulli"), MONAI_TVERSKY),
    "kl spatial": (partial(kl, mode="spatial"), MONAI_TVERSKY),
    "kl_tversky": (kl_tversky, MONAI_TVERSKY),
    "kl_tversky bernoulli": (partial(kl_tversky, mode="bernoulli"), MONAI_TVERSKY),
    "cross_entropy_tversky": (cross_entropy_tversky, MONAI_TVERSKY),
}


def milliseconds(loss: Loss, logits: Tensor, target: Tensor) -> float:
    logits = logits.detach().requires_grad_()
    start = time.perf_counter()
    loss(logits, target).backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def measure(losses: dict[str, Loss], logits: Tensor, target: Tensor, repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in losses}
    order = list(losses)
    for round_ in range(repeats + 3):
        random.shuffle(order)
        for name in order:
            took = milliseconds(losses[name], logits, target)
            if round_ >= 3:
                times[name].append(took)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random.seed(0)
    logits = torch.randn(args.batch, 1, args.size, args.size, device=args.device)
    target = (torch.rand_like(logits) < 0.3).float()
    times = measure(PEERS | {name: loss for name, (loss, _) in OURS.items()}, logits, target, args.repeats)

    shape = "x".join(map(str, logits.shape))
    print(f"forward + backward, {shape} on {args.device}, {args.threads} threads, {args.repeats} rounds")
    print(f"torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{'loss':24}{'median ms':>10}{'best ms':>10}{'ratio':>8}{'best':>8}  to")
    for name in times:
        peer = OURS[name][1] if name in OURS else name
        median = statistics.median(times[name]), statistics.median(times[peer])
        best = min(times[name]), min(times[peer])
        ratios = f"{median[0] / median[1]:8.2f}{best[0] / best[1]:8.2f}"
        print(f"{name:24}{median[0]:10.2f}{best[0]:10.2f}{ratios}  {peer}")


if __name__ == "__main__":
    main()
