"""Train a segmentor on pictures with masks (floor 2)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cxr_tutorial.data.batches import Augmentation, Batches, CachedSet
from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import get_loss
from cxr_tutorial.machine import best_precision, keep_freed_memory
from cxr_tutorial.train.checkpoint import load_checkpoint, save_checkpoint
from cxr_tutorial.train.objectives import segmentation_terms

Model = TypeVar("Model", bound=nn.Module)
Tensors = tuple[Tensor, ...] | list[Tensor]
OnLog = Callable[[int, nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """How a segmentor is trained; every default is this project's choice, from a few single runs, not a tuned optimum.

    Attributes
    ----------
    loss : a name in `losses.LOSSES`. loss_options : its keyword arguments.
    side_weight : weight of each side output's loss; or one weight each, fine to coarse.
    batch_size : pictures per step and process.
    learning_rate : AdamW's, reached after `warmup` (part of the budget), then down to 0 on a cosine.
    weight_decay : AdamW's.
    ema : decay of the weights' running mean, which is what is returned; 0 returns the last weights.
    augmentation : see `data.batches.Augmentation`.
    seed : of the draws (the model brings its own initial weights).
    accelerator, devices, precision : as in Lightning Fabric; precision `"auto"` is what `best_precision` finds.
    """

    loss: str = "xe-tversky"
    loss_options: dict[str, Any] = field(default_factory=dict)
    side_weight: float | tuple[float, ...] = 0.3
    batch_size: int = 4
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    ema: float = 0.99
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "auto"

    def resolved(self) -> Recipe:
        """The same recipe with the precision that this machine takes for `"auto"`."""
        return replace(self, precision=best_precision(self.accelerator)) if self.precision == "auto" else self


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
        if len(given) != 1 or not all(value > 0 and math.isfinite(value) for value in given.values()):
            raise InputError(f"give exactly one of steps, epochs, seconds, and more than 0; got {given or 'none'}")

    def progress(self, step: int, seconds: float, steps_per_epoch: int) -> float:
        """The part of the budget that is spent; 1 or more: all of it."""
        if self.seconds:
            return seconds / self.seconds
        return step / (self.steps or max(1, round((self.epochs or 0) * steps_per_epoch)))


@dataclass(frozen=True)
class Fit(Generic[Model]):
    """A finished training.

    Attributes
    ----------
    model : what was trained, on the CPU, in evaluation mode.
    history : one row a step: `step`, `seconds`, `learning_rate` and every term of the objective.
    looks : one row a call of `on_log`: `step`, `seconds` and what it returned.
    """

    model: Model
    history: list[dict[str, float]]
    looks: list[dict[str, float]]


def fit_segmentor(
    model: Model,
    data: CachedSet,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 0,
    on_log: OnLog | None = None,
    progress: bool = True,
) -> Fit[Model]:
    """Train `model` on the pictures of `data` whose mask is visible.

    Parameters
    ----------
    model : a segmentor, or any module that returns a `SegmentorOutput`; changed in place.
    data : what may be seen; pictures without a visible mask are not used.
    steps, epochs, seconds : the budget, exactly one of them. The clock stands still during `on_log`.
    recipe : how to train.
    checkpoint : a file written every `checkpoint_seconds` and at the end; if it is there the training goes on
        from it, and ends with the same weights as one that was never interrupted (bit for bit on a CPU
        with a budget in steps or epochs).
    log_every, on_log : every so many steps, and after the last, `on_log(step, model)` is called with the
        model that would be returned; what it returns becomes a row of `Fit.looks`.
    progress : show a bar.

    Raises
    ------
    InputError : no visible mask, no or several budgets, an unknown loss, a checkpoint of another run.
    FloatingPointError : the objective became NaN or infinite.

    Introduced in chapter 2.

    >>> from cxr_tutorial.data import cache, load_synthetic
    >>> from cxr_tutorial.nets import Segmentor
    >>> data = cache(load_synthetic()[:8], 32)
    >>> fit = fit_segmentor(Segmentor("tiny"), data, steps=2, progress=False)
    >>> [row["step"] for row in fit.history]
    [1, 2]
    """
    from lightning_fabric import Fabric
    from tqdm.auto import tqdm

    recipe = (recipe or Recipe()).resolved()
    keep_freed_memory()
    budget = Budget(steps, epochs, seconds)
    loss = get_loss(recipe.loss, **recipe.loss_options)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would name the precision at every call
    fabric = Fabric(accelerator=recipe.accelerator, devices=recipe.devices, precision=recipe.precision)  # type: ignore[arg-type]
    fabric.launch()
    draws = Batches(
        data,
        recipe.batch_size,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    model = model.to(fabric.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    average = AveragedModel(model, multi_avg_fn=_ramped_mean(recipe.ema), use_buffers=True)
    run = {
        "recipe": repr(recipe),
        "budget": repr(budget),
        "data": data.fingerprint,
        "world_size": fabric.world_size,
    }
    step, spent = 0, 0.0
    history: list[dict[str, float]] = []
    looks: list[dict[str, float]] = []
    file = Path(checkpoint) if checkpoint else None
    if file and file.exists():
        state = load_checkpoint(file, run)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent = state["step"], state["seconds"]
        history, looks = state["history"], state["looks"]
    wrapped, optimizer = fabric.setup(model, optimizer)

    def save() -> None:
        if file and fabric.is_global_zero:
            states = {"model": model, "optimizer": optimizer, "average": average}
            now = {"run": run, "step": step, "seconds": spent, "history": history, "looks": looks}
            save_checkpoint(file, now | {name: part.state_dict() for name, part in states.items()})

    done = budget.progress(step, spent, draws.steps_per_epoch)
    saved = spent
    bar = tqdm(
        total=100,
        initial=round(100 * done),
        bar_format="{l_bar}{bar}| {elapsed}{postfix}",
        disable=not progress or not fabric.is_global_zero,
    )
    while done < 1:
        started = time.perf_counter()
        rate = recipe.learning_rate * _schedule(done, recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = draws.batch(step)
        output = wrapped(batch.image.contiguous(memory_format=torch.channels_last))
        terms = segmentation_terms(output, batch.mask, batch.has_mask, loss, recipe.side_weight)
        optimizer.zero_grad()
        fabric.backward(terms["total"])
        optimizer.step()
        average.update_parameters(model)
        step += 1
        spent += time.perf_counter() - started
        done = budget.progress(step, spent, draws.steps_per_epoch)
        row = {"step": step, "seconds": spent, "learning_rate": rate} | {k: float(v.detach()) for k, v in terms.items()}
        if not math.isfinite(row["total"]):
            raise FloatingPointError(f"the objective is {row['total']} at step {step}: lower the learning rate")
        history.append(row)
        if on_log and log_every and (step % log_every == 0 or done >= 1):
            looks.append({"step": step, "seconds": spent} | on_log(step, average.module.eval()))
        bar.set_postfix_str(f"step {step}, loss {row['total']:.3f}", refresh=False)
        bar.update(round(100 * min(done, 1)) - bar.n)
        if done < 1 and spent - saved > checkpoint_seconds:
            save()
            saved = spent
    bar.close()
    save()
    model.load_state_dict(average.module.state_dict())
    return Fit(model.cpu().eval(), history, looks)


def _schedule(done: float, warmup: float) -> float:
    """Linear up during `warmup`, then down to 0 on a cosine; 1 at the top."""
    if done < warmup:
        return (done + 0.1 * warmup) / (1.1 * warmup)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _ramped_mean(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """A running mean that follows closely at first: decay min(decay, (1 + n) / (10 + n)) after n updates."""

    def update(average: Tensors, current: Tensors, n: Tensor | int) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - min(decay, (1 + float(n)) / (10 + float(n))))
        else:
            torch._foreach_copy_(average, current)

    return update
