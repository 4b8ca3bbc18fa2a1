"""What is asked of a training: a recipe and a budget, and their checks (floor 2)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cxr_tutorial.data.batches import Augmentation
from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import get_loss
from cxr_tutorial.machine import best_precision, is_cpu

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; every default is this project's choice, from a few single runs, not a tuned optimum.

    Attributes
    ----------
    loss : a name in `losses.LOSSES`. loss_options : its keyword arguments.
    side_weight : weight of each side output's loss; or one weight each, fine to coarse.
    batch_size : pictures per draw and process. accumulate : draws per step; their gradients are averaged. A step sees
        `batch_size * accumulate * devices` pictures, the same ones however that product is made up.
    learning_rate : AdamW's, reached after `warmup` (part of the budget), then down to 0 on a cosine.
    weight_decay : AdamW's.
    ema : decay of the weights' running mean, which is what is returned; 0 returns the last weights.
    augmentation : see `data.batches.Augmentation`.
    seed : of the draws (the model brings its own initial weights).
    accelerator, devices : as in Lightning Fabric.
    precision : one of `PRECISIONS`, as in Lightning Fabric; `"auto"` is what `best_precision` finds.
    compile : let `torch.compile` rewrite the networks before the first step.
    sync_norm : on several CUDA devices, take batch normalisation's mean and deviation over all of them.

    Notes
    -----
    Averaged gradients of parts are those of the whole batch if the loss is a mean over pictures and no picture's output
    depends on its neighbours. So it is with `norm="group"` and `"instance"`. With `"batch"` every draw of every process
    is normalised by its own pictures: many small parts are another, noisier training than one large batch; process 0's
    running statistics are kept. Terms over some pictures only (known class, hidden mask) are means over a part's own.

    Introduced in chapter 2.
    """

    loss: str = "xe-tversky"
    loss_options: dict[str, Any] = field(default_factory=dict)
    side_weight: float | tuple[float, ...] = 0.3
    batch_size: int = 4
    accumulate: int = 1
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    ema: float = 0.99
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "auto"
    compile: bool = False
    sync_norm: bool = False

    def __post_init__(self) -> None:
        for name, least in {"accumulate": 1, "batch_size": 1, "devices": 1, "seed": 0}.items():
            if not (type(value := getattr(self, name)) is int and value >= least):
                raise InputError(f"{name} must be a whole number >= {least}, got {value!r}")
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2**63, got {self.seed}")
        for name in ("learning_rate", "weight_decay", "warmup", "ema"):
            if not (is_number(value := getattr(self, name)) and value >= 0):
                raise InputError(f"{name} must be a number >= 0, got {value!r}")
        weights = self.side_weight if isinstance(self.side_weight, tuple | list) else (self.side_weight,)
        if not all(is_number(weight) and weight >= 0 for weight in weights):
            raise InputError(f"side_weight is a number >= 0 or several, got {self.side_weight!r}")
        for name in ("compile", "sync_norm"):
            if type(value := getattr(self, name)) is not bool:
                raise InputError(f"{name} is True or False, got {value!r}")
        if self.warmup >= 1 or self.ema >= 1:
            raise InputError(f"warmup and ema must be below 1, got {self.warmup} and {self.ema}")
        if self.precision not in PRECISIONS:
            raise InputError(f"unknown precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if not isinstance(self.loss_options, dict):
            raise InputError(f"loss_options is a table of options and values, got {self.loss_options!r}")
        get_loss(self.loss, **self.loss_options)  # refuses an unknown loss, or options that it has not
        if self.loss_options.get("reduction") == "none":
            raise InputError("a training needs one number for a batch, not one a picture: leave reduction 'none' out")

    def resolved(self) -> Recipe:
        """The same recipe with the precision in which this machine will train: a CPU has no fp16, and takes bf16."""
        if self.precision == "auto":
            return replace(self, precision=best_precision(self.accelerator))
        half_on_cpu = self.precision == "16-mixed" and is_cpu(self.accelerator)
        return replace(self, precision="bf16-mixed") if half_on_cpu else self


def is_number(value: object) -> bool:
    """Whether this is a finite number and no truth value.

    >>> is_number(0.5), is_number(True), is_number(math.inf)
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Budget:
    """How long to train: exactly one of steps, epochs and seconds.

    Steps repeat exactly; seconds compare what methods reach in the same time on the same machine.

    >>> Budget(epochs=2).progress(step=10, seconds=3.0, steps_per_epoch=10)
    0.5
    """

    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        numbers = all(is_number(value) and value > 0 for value in given.values())
        if len(given) != 1 or not numbers or not isinstance(self.steps, int | None):
            raise InputError(
                "give exactly one of steps, epochs, seconds, a number above 0 (steps: a whole one); got "
                f"{given or 'none'}"
            )

    def progress(self, step: int, seconds: float, steps_per_epoch: int) -> float:
        """The part of the budget that is spent; 1 or more: all of it."""
        if self.seconds:
            return seconds / self.seconds
        return step / (self.steps or max(1, round((self.epochs or 0) * steps_per_epoch)))
