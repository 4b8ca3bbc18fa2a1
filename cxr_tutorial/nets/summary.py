"""What a segmentor costs: parameters and operations, level by level (floor 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets.segmentor import Segmentor


@dataclass(frozen=True)
class Level:
    """One level of a U-Net: 1 is the finest.

    Attributes
    ----------
    level : 1 is the picture's own size, every further one half of it.
    size : (height, width) of its features.
    width : its channels.
    parameters : numbers that training changes.
    flops : of one picture's forward pass; a multiplication and an addition are two.
    """

    level: int
    size: tuple[int, int]
    width: int
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """All levels of a segmentor; printing it shows a table."""

    levels: tuple[Level, ...]

    @property
    def parameters(self) -> int:
        return sum(level.parameters for level in self.levels)

    @property
    def flops(self) -> int:
        return sum(level.flops for level in self.levels)

    def __str__(self) -> str:
        rows = [
            f"{one.level:>5} {one.size[0]:>6} x {one.size[1]:<5}{one.width:>6}"
            f"{one.parameters:>12,}{one.flops / 1e6:>12.1f}"
            for one in self.levels
        ]
        head = f"{'level':>5} {'pixels':>11}   {'width':>6}{'parameters':>12}{'MFLOP':>12}"
        total = f"{'all':>5} {'':>14}{'':>6}{self.parameters:>12,}{self.flops / 1e6:>12.1f}"
        return "\n".join([head, *rows, total])


def summarize_segmentor(model: Segmentor, size: int | tuple[int, int] = 128) -> Summary:
    """Parameters and operations of every level, for one picture of `size` pixels.

    A part belongs to the level at whose resolution it writes: encoder block, pyramid input, transposed
    convolution, gate, decoder block and head. Only convolutions are counted, in their forward pass; training
    costs about three times as much.

    Parameters
    ----------
    model : any of the eight segmentors.
    size : side, or (height, width), in pixels, >= 16.

    Introduced in chapter 5.

    >>> summary = summarize_segmentor(Segmentor("tiny", pyramid=False, progressive=False, attention=False), 64)
    >>> [level.width for level in summary.levels], summary.parameters
    ([8, 16, 32, 64], 121033)
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 16:
        raise InputError(f"size must be at least 16 pixels, got {size}")
    parameter = next(model.parameters())
    image = torch.zeros(1, model.in_channels, height, width, device=parameter.device, dtype=parameter.dtype)
    training = model.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(image)
    model.train(training)
    flops = {name.partition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    multiple = 2 ** (len(model.widths) - 1)
    padded = (height + -height % multiple, width + -width % multiple)
    levels = []
    for k, channels in enumerate(model.widths):
        parts = _parts(model, k)
        levels.append(
            Level(
                level=k + 1,
                size=(padded[0] >> k, padded[1] >> k),
                width=channels,
                parameters=sum(p.numel() for part in parts.values() for p in part.parameters()),
                flops=sum(flops.get(name, 0) for name in parts),
            )
        )
    return Summary(tuple(levels))


def _parts(model: Segmentor, k: int) -> dict[str, nn.Module]:
    """The modules that write at level k (0: finest), by name."""
    lists = {"encoder": k, "inputs": k - 1, "up": k, "gates": k - 1, "decoder": k, "heads": k}
    return {f"{name}.{i}": getattr(model, name)[i] for name, i in lists.items() if 0 <= i < len(getattr(model, name))}
