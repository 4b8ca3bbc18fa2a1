"""A run from its configuration to its record: data, training, evaluation, files (floor 3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import chain
from operator import add
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxr_tutorial.config import ALONE, Config, differing, game_of, read_config
from cxr_tutorial.data import load_folder, load_jsrt, load_montgomery, load_shenzhen, load_synthetic
from cxr_tutorial.data.cached import CachedSet, cache
from cxr_tutorial.data.example import Entry, Examples
from cxr_tutorial.data.splits import Split, kfold, label_budget, patient_split, public_folds, public_split
from cxr_tutorial.errors import InputError
from cxr_tutorial.evaluate import evaluate, evaluate_classes, summarize, summarize_classes
from cxr_tutorial.files import only_process, whole_file, whole_folder
from cxr_tutorial.lungs import crop_to_lungs
from cxr_tutorial.nets.discriminator import Discriminator
from cxr_tutorial.nets.segmentor import Segmentor, build_segmentor
from cxr_tutorial.results import (
    CLASSES,
    Record,
    check_record,
    class_part,
    describe_device,
    provenance,
    write_record,
    write_table,
)
from cxr_tutorial.shipped import shipped
from cxr_tutorial.train import (
    MASK_VIEWS,
    fit_appaunet,
    fit_classifier,
    fit_cross_pseudo,
    fit_mean_teacher,
    fit_segmentor,
    load_weights,
    save_weights,
)
from cxr_tutorial.train.checkpoint import trained_seconds
from cxr_tutorial.train.devices import is_first_process, started_as_helper
from cxr_tutorial.train.objectives import side_weights
from cxr_tutorial.train.recipe import Budget

DATA: dict[str, Callable[..., Examples]] = {
    "synthetic": load_synthetic,
    "montgomery": load_montgomery,
    "shenzhen": load_shenzhen,
    "jsrt": load_jsrt,
}
SYNTHETIC_PICTURES = 512  # drawn by the run's seed, for `Config.synthetic`
SYNTHETIC_WEIGHTS = shipped("weights", "synthetic.safetensors")
LEFTOVERS = ("checkpoint.pt", "config.json")  # of a run that is done


def load(data: str, root: str | None = None) -> Examples:
    """The data set of this name, or the folder of pictures.

    >>> len(load("synthetic"))
    64
    """
    if data in DATA:
        if data == "synthetic" and root is not None:
            raise InputError(f"the synthetic set lies in no folder: leave root out, got {root}")
        return DATA[data]() if root is None else DATA[data](root)
    if set(parts := data.split("+")) <= set(DATA):
        if root is not None:
            raise InputError(f"{data!r} are several sets, which are found by $CXR_DATA alone: leave root out")
        return reduce(add, map(load, parts))
    if Path(data).exists():
        if root is not None:
            raise InputError(f"{data!r} is a folder itself: leave root out, got {root}")
        return load_folder(data)
    raise InputError(f"no data set and no folder {data!r}: choose one of {', '.join(DATA)}, or a folder")


def split_of(config: Config, examples: Examples) -> Split:
    """The train, validation and test ids of a run."""
    kind, _, fold = config.split.rpartition("fold-")
    if kind == "patient-":
        return kfold(examples, 10, seed=0)[int(fold)]
    if fold.isdigit() or config.split == "public":
        lists = [
            public_folds(one)[config.split] if fold.isdigit() else public_split(one) for one in config.data.split("+")
        ]
        return Split(*(tuple(chain(*some)) for some in zip(*(one.parts().values() for one in lists), strict=True)))
    return patient_split(examples, seed=config.seed)


def initial_model(config: Config) -> Segmentor:
    """The segmentor that a run trains: with new weights drawn by the seed, or with those of `config.start`."""
    torch.manual_seed(config.seed)
    model = build_segmentor(config.net, config.widths)
    if config.start is None:
        return model
    started = load_weights(SYNTHETIC_WEIGHTS if config.start == "synthetic" else config.start)
    if started.options != model.options:
        raise InputError(f"{config.start} holds a net with {started.options}, the run asks for {model.options}")
    return started


@dataclass(frozen=True)
class Trained:
    """What a method brings back: either network may be missing."""

    segmentor: Segmentor | None
    discriminator: Discriminator | None
    history: list[dict[str, float]]
    looks: list[dict[str, float]]


def train(
    config: Config, data: CachedSet, folder: Path, validation: Examples | None = None, progress: bool = True
) -> Trained:
    """Train by the configuration's method; `folder` holds its checkpoint, `validation` is looked at on the way."""
    game = game_of(config)
    options: dict[str, Any] = {"steps": config.steps, "epochs": config.epochs, "seconds": config.seconds}
    options |= {"recipe": config.recipe, "checkpoint": folder / "checkpoint.pt", "progress": progress}
    model = initial_model(config)

    def look(step: int, model: nn.Module) -> dict[str, float]:
        assert validation is not None
        rows = evaluate(model, validation, size=config.size)
        return {name: summary["mean"] for name, summary in summarize(rows).items()}

    looking: dict[str, Any] = {"log_every": config.validate_every} if config.validate_every and validation else {}
    if config.method == "supervised":
        fit = fit_segmentor(model, data, **options, **looking, on_log=look if looking else None)
        return Trained(fit.model, None, fit.history, fit.looks)
    if config.method == "mean-teacher":
        fit = fit_mean_teacher(model, data, game=game, **options)
        return Trained(fit.model, None, fit.history, fit.looks)
    if config.method == "cross-pseudo":
        twin = initial_model(replace(config, seed=config.seed + 1, start=None))
        fit = fit_cross_pseudo(model, twin, data, game=game, **options)
        return Trained(fit.model, None, fit.history, fit.looks)
    torch.manual_seed(config.seed)
    discriminator = Discriminator(**game.discriminator)
    if config.method in ALONE:
        drawing = model if config.method == "masked-classifier" else None
        alone = fit_classifier(discriminator, data, game=game, segmentor=drawing, own_masks=config.on_lungs, **options)
        return Trained(drawing, alone.model, alone.history, alone.looks)
    synthetic = None
    if config.synthetic:
        made = load_synthetic(SYNTHETIC_PICTURES, seed=config.seed, size=config.size)
        synthetic = cache(made, config.size).reveal(labels=()), config.synthetic
    played = fit_appaunet(
        model,
        discriminator,
        data,
        game=game,
        synthetic=synthetic,
        **options,
        **looking,
        on_log=(lambda step, models: look(step, models["segmentor"])) if looking else None,
    )
    return Trained(played.model, played.discriminator, played.history, played.looks)


def class_rows(trained: Trained, examples: Examples, config: Config) -> dict[str, list[dict[str, Any]]]:
    """What D says of each picture, by the mask that it is shown, as in training: `"predicted"`, `"true"`, `"blank"`.

    With `config.views` these are means over so many views, and `"one-view"` is the answer without, by the first mask.
    """
    if trained.discriminator is None or len(set(examples.labels) - {None}) < 2:
        return {}
    shown = {"predicted": "predicted", "blank": "blank"}
    if config.on_lungs:
        shown = {"predicted": "true"}  # the examples' own masks are those that S drew
    elif trained.segmentor is None:
        shown = {"blank": "blank"}
    else:
        marked = examples.subset(i for i, known in enumerate(examples.has_mask) if known)
        if len(set(marked.labels) - {None}) == 2:
            shown["true"] = "true"
    if config.views:
        shown["one-view"] = next(iter(shown.values()))
    return {
        kind: evaluate_classes(
            trained.discriminator,
            examples,
            size=config.size,
            segmentor=trained.segmentor,
            mask=mask,
            mask_views=MASK_VIEWS[game_of(config).masks],
            changed=config.recipe.augmentation if config.views and kind != "one-view" else None,
            times=config.views,
        )
        for kind, mask in shown.items()
    }


def by_source(part: str, examples: Examples) -> dict[str, Examples]:
    """The part whole, and each set's share of it as `PART-SET`."""
    sources = sorted({entry.source for entry in examples.entries})
    shares = {
        f"{part}-{name}": examples.subset(i for i, entry in enumerate(examples.entries) if entry.source == name)
        for name in sources
    }
    return {part: examples} | shares


def run(config: Config, out: str | Path, progress: bool = True) -> Record:
    """Train, evaluate and write the record `out`; an interrupted run goes on from its last checkpoint.

    `out` then holds `run.json`, `metrics.json`, `per_image.csv`, `weights.safetensors` and `history.csv`; after a
    training of D also `classes.csv` (what D says of each picture, by the mask it is shown) and
    `discriminator.safetensors`. On several devices only the first process comes back; the others
    end with the training.

    Raises
    ------
    InputError : whatever in the configuration or the data cannot be used; `out` is there already, or being run.
    """
    started = datetime.now(UTC)
    config = replace(config, recipe=config.recipe.resolved())  # the record names what was used
    Budget(config.steps, config.epochs, config.seconds)  # refuses a wrong one, as the next lines do other mistakes
    examples = load(config.data, config.root)
    others = {name: other_set(name, examples, config.data) for name in config.test_data}
    split = split_of(config, examples)
    start = initial_model(config)
    Discriminator(**game_of(config).discriminator)
    side_weights(config.recipe.side_weight, len(start.widths) - 2 if start.progressive else 0)
    if config.on_lungs:
        examples = crop_to_lungs(examples, start, size=config.lungs_size)
    if not split.train or not split.test:
        raise InputError(
            f"{config.data} has {len(examples)} pictures, too few for a part to train on and one to test on: give more"
        )
    training = examples.select(split.train)
    budget = label_budget(training, config.masks, config.labels, config.seed)
    data = cache(examples, config.size).select(split.train).reveal(budget.masks, budget.labels)
    validation = examples.select(split.validation)
    if config.validate_every and not any(validation.has_mask):
        raise InputError(
            f"validate_every looks at the validation part, where none of {len(validation)} pictures has a mask: leave "
            "it out, or take more data"
        )

    helper = started_as_helper(config.recipe.devices)  # several devices are several processes in one folder
    with whole_folder(out) as folder, nullcontext() if helper else only_process(folder / ".lock"):
        if not helper:
            _claim(folder / "config.json", config)
        earlier = trained_seconds(folder / "checkpoint.pt")
        try:
            with _in_words():
                trained = train(config, data, folder, validation, progress)
        except Exception:  # such as a device that is not there: whoever mends it may have the place
            if is_first_process() and not (folder / "checkpoint.pt").exists():
                (folder / "config.json").unlink(missing_ok=True)
            raise
        if not is_first_process():
            raise SystemExit  # done: the first process evaluates and writes
        test = examples.select(split.test)
        tested = by_source("test", test) if "+" in config.data else {"test": test}
        parts = {"validation": validation} | tested | others
        rows: dict[str, list[dict[str, Any]]] = {}
        metrics: dict[str, dict[str, Any]] = {}
        classes: list[dict[str, Any]] = []
        for part, some in parts.items():
            if trained.segmentor is not None and any(some.has_mask):
                rows[part] = evaluate(trained.segmentor, some, size=config.size)
                metrics[part] = summarize(rows[part])
            another = part in others  # another set, another question
            asked = {} if another else class_rows(trained, some, config)
            for kind, said in asked.items():
                name = class_part(part, kind)
                metrics[name] = metrics.get(name, {}) | summarize_classes(said)
                classes += [{"part": part, "mask": kind} | row for row in said]
        device = describe_device(config.recipe.accelerator, config.recipe.devices)
        record = Record(
            id=Path(out).absolute().name,
            config=json.loads(json.dumps(asdict(config))),
            provenance=provenance(data.fingerprint, started, device, earlier),
            metrics=metrics,
        )
        write_record(folder, record, rows)
        write_table(folder / "history.csv", trained.history)
        if trained.looks:
            write_table(folder / "curve.csv", trained.looks)
        if trained.segmentor is not None:
            save_weights(folder / "weights.safetensors", trained.segmentor)
        if classes:
            write_table(folder / CLASSES, classes)
        if trained.discriminator is not None:
            save_weights(folder / "discriminator.safetensors", trained.discriminator)
    for file in LEFTOVERS:
        (Path(out) / file).unlink(missing_ok=True)
    return record


@contextmanager
def _in_words() -> Iterator[None]:
    """Say of torch's error about a batch that cannot be normalised what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "batch normalisation needs more than one value, and at the deepest level of a net a batch has one: take a "
            "larger batch_size or size, or fewer widths"
        ) from error


def other_set(name: str, examples: Examples, data: str) -> Examples:
    """A further set to test on; it must have masks, and no picture of `examples`, the set called `data`."""
    if name in ("test", "validation"):
        raise InputError(f"test_data {name} has the name of a part: call the folder otherwise")
    other = load(name)
    mine, theirs = (set(map(_picture, some.entries)) for some in (examples, other))
    if (shared := mine & theirs) or name in data.split("+"):  # of a known set there may be two copies
        raise InputError(
            f"test_data {name} is the data itself, at least in part: training pictures would be tested "
            f"({len(shared)} files in common); leave it out"
        )
    if not any(other.has_mask):
        raise InputError(f"test_data {name} has no mask that an outline could be compared with: leave it out")
    return other


def _picture(entry: Entry) -> object:
    """What tells a picture from any other: its file, the first of the entry's, or where there is none its name."""
    return entry.files[0].resolve() if entry.files else (entry.source, entry.id)


def _claim(file: Path, config: Config) -> None:
    """Write the configuration of a run that begins; refuse to go on with one that began with another.

    Where the data lies may change: its fingerprint stands in the checkpoint.
    """
    config = replace(config, root=None)
    if not file.exists():
        with whole_file(file) as arriving:
            arriving.write_text(json.dumps(asdict(config), indent=1) + "\n")
    elif other := differing(read_config(json.loads(file.read_text())), config):
        raise InputError(
            f"{file.parent} holds an unfinished run of another configuration ({', '.join(other)} differ): choose "
            "another folder, or remove it"
        )


def run_once(config: Config, out: str | Path, progress: bool = False) -> Record:
    """`run`, unless `out` holds the record of this configuration already: then that is read.

    Raises
    ------
    InputError : `out` holds the record of another configuration, or a broken one.
    """
    out = Path(out)
    if not (out / "run.json").exists():
        return replace(run(config, out, progress), folder=out)
    record = check_record(out)
    if other := differing(read_config(record.config), replace(config, recipe=config.recipe.resolved())):
        raise InputError(f"{out} is the record of another run ({', '.join(other)} differ): choose another folder")
    return record
