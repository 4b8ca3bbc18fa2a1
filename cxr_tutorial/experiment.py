"""A run from its configuration to its record: data, training, evaluation, files (floor 3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from cxr_tutorial.data import load_folder, load_jsrt, load_montgomery, load_shenzhen, load_synthetic
from cxr_tutorial.data.batches import cache
from cxr_tutorial.data.example import Examples
from cxr_tutorial.data.splits import Split, label_budget, patient_split, public_split
from cxr_tutorial.errors import InputError
from cxr_tutorial.evaluate import evaluate, summarize
from cxr_tutorial.nets.segmentor import Segmentor, build_segmentor
from cxr_tutorial.results import Record, describe_device, provenance, whole_folder, write_record, write_table
from cxr_tutorial.train import Recipe, fit_segmentor, load_weights, save_weights

DATA: dict[str, Callable[..., Examples]] = {
    "synthetic": load_synthetic,
    "montgomery": load_montgomery,
    "shenzhen": load_shenzhen,
    "jsrt": load_jsrt,
}
METHODS = ("supervised",)


@dataclass(frozen=True)
class Config:
    """What is run. Exactly one of steps, epochs and seconds is given.

    Attributes
    ----------
    data : a name in `DATA`, or a folder of pictures with masks (see `load_folder`).
    root : where the data lies; default `$CXR_DATA/<data>`.
    split : `"public"` (published lists) or `"patient"` (ours: by patient, drawn by `seed`).
    size : pixels per side in training.
    method, net, widths, recipe : how to train what.
    start : a file of weights to go on from, such as those of a run at a smaller size; None for new ones.
    masks, labels : how many of each the training sees; None for all.
    seed : of the weights, the draws, the label budget and the patient split.
    test_data : more sets, all of whose masks are compared.
    validate_every : steps between looks at the validation part (0: none); writes `curve.csv`.
    """

    data: str = "synthetic"
    root: str | None = None
    split: str = "patient"
    size: int = 128
    method: str = "supervised"
    net: str = "ppaunet"
    widths: str | tuple[int, ...] = "small"
    recipe: Recipe = field(default_factory=Recipe)
    start: str | None = None
    masks: int | None = None
    labels: int | None = None
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    seed: int = 0
    test_data: tuple[str, ...] = ()
    validate_every: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: choose one of {', '.join(METHODS)}")
        if self.split not in ("public", "patient"):
            raise InputError(f"unknown split {self.split!r}: choose public or patient")


def load(data: str, root: str | None = None) -> Examples:
    """The data set of this name, or the folder of pictures.

    >>> len(load("synthetic"))
    64
    """
    if data in DATA:
        return DATA[data]() if root is None or data == "synthetic" else DATA[data](root)
    if Path(data).exists():
        return load_folder(data)
    raise InputError(f"no data set and no folder {data!r}: choose one of {', '.join(DATA)}, or a folder")


def split_of(config: Config, examples: Examples) -> Split:
    """The train, validation and test ids of a run."""
    if config.split == "public":
        return public_split(config.data)
    return patient_split(examples, seed=config.seed)


def initial_model(config: Config) -> Segmentor:
    """The segmentor that a run trains: with new weights drawn by the seed, or with those of `config.start`."""
    torch.manual_seed(config.seed)
    model = build_segmentor(config.net, config.widths)
    if config.start is None:
        return model
    started = load_weights(config.start)
    if started.options != model.options:
        raise InputError(f"{config.start} holds a net with {started.options}, the run asks for {model.options}")
    return started


def run(config: Config, out: str | Path, progress: bool = True) -> Record:
    """Train, evaluate and write the record `out`; an interrupted run goes on where it was.

    `out` then holds `run.json`, `metrics.json`, `per_image.csv`, `weights.safetensors` and `history.csv`.

    Raises
    ------
    InputError : whatever in the configuration or the data cannot be used; `out` is there already.
    """
    started = datetime.now(UTC)
    config = replace(config, recipe=config.recipe.resolved())  # the record names what was used
    examples = load(config.data, config.root)
    others = {name: load(name) for name in config.test_data}
    split = split_of(config, examples)
    training = examples.select(split.train)
    budget = label_budget(training, config.masks, config.labels, config.seed)
    data = cache(examples, config.size).select(split.train).reveal(budget.masks, budget.labels)
    model = initial_model(config)
    validation = examples.select(split.validation)

    def look(step: int, model: nn.Module) -> dict[str, float]:
        rows = evaluate(model, validation, size=config.size)
        return {name: summary["mean"] for name, summary in summarize(rows).items()}

    with whole_folder(out) as folder:
        fit = fit_segmentor(
            model,
            data,
            steps=config.steps,
            epochs=config.epochs,
            seconds=config.seconds,
            recipe=config.recipe,
            checkpoint=folder / "checkpoint.pt",
            log_every=config.validate_every,
            on_log=look if config.validate_every else None,
            progress=progress,
        )
        parts = {"validation": validation, "test": examples.select(split.test)} | others
        rows = {part: evaluate(fit.model, some, size=config.size) for part, some in parts.items()}
        record = Record(
            id=Path(out).name,
            config=json.loads(json.dumps(asdict(config))),
            provenance=provenance(data.fingerprint, started, describe_device(config.recipe.accelerator)),
            metrics={part: summarize(some) for part, some in rows.items()},
        )
        write_record(folder, record, rows)
        write_table(folder / "history.csv", fit.history)
        if fit.looks:
            write_table(folder / "curve.csv", fit.looks)
        save_weights(folder / "weights.safetensors", fit.model)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return record
