"""What every training shares: draws, rate, running mean of the weights, checkpoint, log (floor 2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxr_tutorial.data.batches import Batch, Batches
from cxr_tutorial.data.cached import CachedSet
from cxr_tutorial.errors import InputError
from cxr_tutorial.machine import keep_freed_memory
from cxr_tutorial.train.checkpoint import load_checkpoint, save_checkpoint
from cxr_tutorial.train.devices import compiled, start_fabric, with_shared_norm
from cxr_tutorial.train.recipe import Budget, Recipe

Model = TypeVar("Model", bound=nn.Module)
Look = Callable[[int, Mapping[str, nn.Module]], dict[str, float] | None]
FETCH_EVERY = {"cpu": 1, "cuda": 50, "mps": 50}  # steps; fetching a term waits for the device


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


@dataclass(frozen=True)
class Watch:
    """How a training is kept and looked at.

    Attributes
    ----------
    checkpoint : a file written every `checkpoint_seconds` and at the end; if it is there the training goes on
        from it, and ends with the same weights as one that was never interrupted (bit for bit on a CPU
        with a budget in steps or epochs).
    log_every, on_log : every so many steps, and after the last, `on_log(step, models)` is called with the
        models that would be returned, by name; what it returns, names with a number each or None, becomes a row of
        `Fit.looks`. The clock stands still.
    progress : show a bar.
    """

    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 30.0
    log_every: int = 0
    on_log: Look | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.on_log and self.log_every < 1:
            raise InputError(
                f"on_log is called every log_every steps, and log_every is {self.log_every}: give a number"
            )


@dataclass(frozen=True)
class Learner:
    """A network and how AdamW changes it."""

    model: nn.Module
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)

    def about(self) -> tuple[Any, ...]:
        """What makes two learners the same kind, for the checkpoint."""
        built = getattr(self.model, "options", None)
        return type(self.model).__name__, built, self.learning_rate, self.weight_decay, self.betas


class Loop:
    """Yields the batches of a training, one a step; the body of the `for` says what a step does.

    Between two steps the loop sets the learning rates, moves the running means, writes the checkpoint and the log.
    Every network is trained by its own optimizer, through `minimize`.

    Parameters
    ----------
    learners : by name.
    data : what may be seen.
    recipe, budget, watch : how, how long, and how it is kept.
    unlabelled_batch_size, first_stream : see `data.batches.Batches`.
    extra : a further set and how many of its pictures stand at the end of each batch.
    about : what else makes two trainings the same, for the checkpoint.

    Attributes
    ----------
    models : the networks by name, on the device, in training mode.
    means : their running means, in evaluation mode.
    done : the part of the budget that is spent, 0 to 1.
    """

    def __init__(
        self,
        learners: Mapping[str, Learner],
        data: CachedSet,
        recipe: Recipe,
        budget: Budget,
        watch: Watch,
        *,
        unlabelled_batch_size: int = 0,
        first_stream: NDArray[np.bool_] | None = None,
        extra: tuple[CachedSet, int] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        keep_freed_memory()
        self.recipe, self.budget, self.watch = recipe, budget, watch
        self.fabric = start_fabric(recipe.accelerator, recipe.devices, recipe.precision)
        draws = Batches(
            data,
            recipe.batch_size,
            unlabelled_batch_size,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            device=self.fabric.device,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            first_stream=first_stream,
        )
        self.draws = [draws]
        if extra:
            self.draws.append(
                replace(draws, data=extra[0], batch_size=extra[1], unlabelled_batch_size=0, first_stream=None)
            )
        self.run = {
            "recipe": repr(recipe),
            "budget": repr(budget),
            "data": " ".join(one.data.fingerprint for one in self.draws),
            "world_size": self.fabric.world_size,
            "learners": repr([(name, one.about()) for name, one in learners.items()]),
        } | dict(about or {})
        self.models: dict[str, Any] = {}
        self.means: dict[str, nn.Module] = {}
        self._bare = {name: one.model for name, one in learners.items()}
        self._optimizers: dict[str, Any] = {}
        self._rates = {name: one.learning_rate for name, one in learners.items()}
        for name, one in learners.items():
            model = one.model.to(self.fabric.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
            if recipe.sync_norm:
                model = with_shared_norm(model, self.fabric)
            optimizer = torch.optim.AdamW(
                model.parameters(), lr=one.learning_rate, weight_decay=one.weight_decay, betas=one.betas, fused=True
            )
            run: Any = compiled(model, self.fabric.device) if recipe.compile else model
            self.models[name], self._optimizers[name] = self.fabric.setup(run, optimizer)  # process 0's weights for all
            self.means[name] = deepcopy(model).eval()
        self._moving = list(zip(*map(_by_kind, (self.means.values(), self._bare.values())), strict=True))
        self.step, self.seconds, self._part = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.looks: list[dict[str, float]] = []
        self._file = Path(watch.checkpoint) if watch.checkpoint else None
        if self._file and self._file.exists():
            state = load_checkpoint(self._file, self.run)
            for kind, parts in self._parts().items():
                for name, part in parts.items():
                    part.load_state_dict(state[kind][name])
            self.step, self.seconds = state["step"], state["seconds"]
            self.history, self.looks = state["history"], state["looks"]
            self._set_draws(state["draws"])
        self._terms: dict[str, Any] = {}
        self._objectives: list[tuple[int, Tensor]] = []
        self._fetched = len(self.history)

    @property
    def done(self) -> float:
        steps_per_epoch = -(-self.draws[0].steps_per_epoch // self.recipe.accumulate)
        return self.budget.progress(self.step, self.seconds, steps_per_epoch)

    @property
    def draw(self) -> int:
        """The number of this process's present batch among all batches of the training."""
        return (self.step * self.recipe.accumulate + self._part) * self.fabric.world_size + self.fabric.global_rank

    def __iter__(self) -> Iterator[Batch]:
        from tqdm.auto import tqdm

        bar = tqdm(
            total=100,
            initial=round(100 * min(self.done, 1)),
            bar_format="{l_bar}{bar}| {elapsed}{postfix}",
            disable=not self.watch.progress or not self.fabric.is_global_zero,
        )
        saved = self.seconds
        while (done := self.done) < 1:
            started = time.perf_counter()
            rate = _schedule(done, self.recipe.warmup)
            for name, optimizer in self._optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = self._rates[name] * rate
            self._terms = {"learning_rate": next(iter(self._rates.values())) * rate}
            for part in range(self.recipe.accumulate):
                self._part = part
                with self._gradients_apart():
                    yield self._batch()
            self._move_means()
            self.step += 1
            self._tick(time.perf_counter() - started)
            self.history.append({"step": self.step, "seconds": self.seconds} | self._terms)
            if self.step % FETCH_EVERY.get(self.fabric.device.type, 50) == 0:
                self._fetch()
            self._look()
            last = self.history[self._fetched - 1] if self._fetched else {}
            losses = [f", loss {value:.3f}" for name, value in last.items() if name.endswith("total")]
            bar.set_postfix_str("".join([f"step {self.step}", *losses[:1]]), refresh=False)
            bar.update(round(100 * min(self.done, 1)) - bar.n)
            if self.done < 1 and self.seconds - saved > self.watch.checkpoint_seconds:
                self._save()
                saved = self.seconds
        bar.close()
        self._save()
        for name, model in self._bare.items():
            model.load_state_dict(self.means[name].state_dict())
            model.cpu().eval()

    def minimize(self, name: str, loss: Tensor) -> None:
        """One step of this network's optimizer down the slope of `loss`; other networks stay as they are.

        With `Recipe.accumulate` it is the slope of the mean over the step's batches, and the step is taken at the last.
        """
        self._objectives.append((self.step + 1, loss.detach()))
        optimizer, parts = self._optimizers[name], self.recipe.accumulate
        if self._part == 0:
            optimizer.zero_grad()
        self.fabric.backward(loss / parts if parts > 1 else loss)
        if self._part == parts - 1:
            optimizer.step()

    def log(self, terms: Mapping[str, Tensor | float]) -> None:
        """Terms of this batch, for the history; a step's row holds their mean over its batches."""
        parts = self.recipe.accumulate
        for name, value in terms.items():
            share = value.detach() if isinstance(value, Tensor) else value
            share = share / parts if parts > 1 else share
            self._terms[name] = self._terms[name] + share if name in self._terms else share

    def _batch(self) -> Batch:
        parts = [one.batch(self.step * self.recipe.accumulate + self._part) for one in self.draws]
        return parts[0] if len(parts) == 1 else Batch(*(torch.cat(some) for some in zip(*parts, strict=True)))

    def _gradients_apart(self) -> ExitStack:
        """Lets processes exchange gradients at a step's last batch only."""
        stack = ExitStack()
        if self._part < self.recipe.accumulate - 1:
            for model in self.models.values():
                stack.enter_context(self.fabric.no_backward_sync(model))
        return stack

    def _tick(self, seconds: float) -> None:
        """Move the clock; a budget in seconds is process 0's, so that all stop at the same step."""
        self.seconds += seconds
        if self.budget.seconds and self.fabric.world_size > 1:
            self.seconds = self.fabric.broadcast(self.seconds)

    def _fetch(self) -> None:
        """Bring the last steps' terms from the device, and end the training if an objective went wrong."""
        if self._objectives:
            steps, losses = zip(*self._objectives, strict=True)
            for step, value in zip(steps, torch.stack(losses).float().tolist(), strict=True):
                if not math.isfinite(value):
                    raise FloatingPointError(f"the objective is {value} at step {step}: lower the learning rate")
        rows = self.history[self._fetched :]
        places = [(row, name) for row in rows for name, value in row.items() if isinstance(value, Tensor)]
        if places:
            values = torch.stack([row[name].float() for row, name in places]).tolist()  # type: ignore[attr-defined]
            for (row, name), value in zip(places, values, strict=True):
                row[name] = value
        self._objectives, self._fetched = [], len(self.history)

    @torch.no_grad()
    def _move_means(self) -> None:
        """Running means that follow closely at first: decay min(ema, (1 + n) / (10 + n)) after n steps, at first 0."""
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        (means, weights), (copies, present) = self._moving
        torch._foreach_lerp_(means, weights, 1 - decay)
        if copies:
            torch._foreach_copy_(copies, present)

    def _look(self) -> None:
        watch = self.watch
        due = watch.log_every and (self.step % watch.log_every == 0 or self.done >= 1)
        if watch.on_log and due and self.fabric.is_global_zero:
            self._fetch()
            seen = watch.on_log(self.step, {name: model.eval() for name, model in self.means.items()})
            plain = {int, float}  # NumPy's numbers could not be read back
            try:
                numbers = {k: v if type(v) in plain else float(v) for k, v in (seen or {}).items()}
            except (AttributeError, TypeError, ValueError) as error:
                raise InputError(f"on_log returned {seen!r}: expected a dict of names and numbers, or None") from error
            self.looks.append({"step": self.step, "seconds": self.seconds} | numbers)

    def _parts(self) -> dict[str, Mapping[str, Any]]:
        scaler = {"fp16": self.fabric.strategy.precision}  # the scale of its loss moves; others keep nothing
        return {"models": self._bare, "optimizers": self._optimizers, "averages": self.means, "scaler": scaler}

    def _save(self) -> None:
        self._fetch()
        if self._file and self.fabric.is_global_zero:
            now = {"run": self.run, "step": self.step, "seconds": self.seconds}
            now |= {"history": self.history, "looks": self.looks}
            states = {
                kind: {name: part.state_dict() for name, part in parts.items()} for kind, parts in self._parts().items()
            }
            save_checkpoint(self._file, now | {"draws": self._get_draws()} | states)

    def _get_draws(self) -> dict[str, Tensor]:
        """Where torch's own draws stand, of which dropout takes its own."""
        gpu = {"cuda": torch.cuda.get_rng_state(self.fabric.device)} if self.fabric.device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state()} | gpu

    def _set_draws(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.fabric.device)


def _by_kind(models: Iterable[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """What has a mean, weights and statistics; and what has none: counters, the unit vectors of a spectral norm."""
    averaged: list[Tensor] = []
    copied: list[Tensor] = []
    for model in models:
        averaged += list(model.parameters())
        for name, buffer in model.named_buffers():
            statistic = name.endswith(("running_mean", "running_var"))
            (averaged if statistic else copied).append(buffer)
    return averaged, copied


def _schedule(done: float, warmup: float) -> float:
    """Linear up during `warmup`, then down to 0 on a cosine; 1 at the top."""
    if done < warmup:
        return (done + 0.1 * warmup) / (1.1 * warmup)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
