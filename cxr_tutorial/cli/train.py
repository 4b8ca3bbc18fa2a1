"""`cxr-tutorial train`, `evaluate` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxr_tutorial.errors import InputError

if TYPE_CHECKING:
    from cxr_tutorial.nets import Segmentor


def train(
    out: Annotated[Path, typer.Option(help="The folder of the record; must not exist yet.")],
    data: Annotated[
        str, typer.Option(help="synthetic, montgomery, shenzhen, jsrt, several joined by +, or a folder.")
    ] = "synthetic",
    root: Annotated[str | None, typer.Option(help="Where the data lies; default $CXR_DATA/DATA.")] = None,
    split: Annotated[
        str, typer.Option(help="public (published lists), patient (ours), fold-0 ..., patient-fold-0 ...")
    ] = "patient",
    size: Annotated[int, typer.Option(help="Pixels per side.")] = 128,
    method: Annotated[
        str,
        typer.Option(
            help="supervised, mean-teacher, cross-pseudo, appaunet, appaunet-paper, multi-task, classifier, "
            "masked-classifier or lungs-classifier."
        ),
    ] = "supervised",
    game: Annotated[
        list[str] | None,
        typer.Option(help="An option of the game, such as adversarial=0.1 or masks=blurred; may be repeated."),
    ] = None,
    net: Annotated[
        str,
        typer.Option(help="unet, before it p (pyramid), g (progressive), a (attention); ppaunet has all three."),
    ] = "ppaunet",
    widths: Annotated[str, typer.Option(help="tiny, small, base, or numbers such as 8,16,32.")] = "small",
    start: Annotated[
        str | None,
        typer.Option(help="A .safetensors file to go on from, or synthetic, which ships; default new weights."),
    ] = None,
    loss: Annotated[str, typer.Option(help="xe, dice, tversky, kltv or xe-tversky.")] = "xe-tversky",
    fp_weight: Annotated[float | None, typer.Option(help="Tversky's weight of false positives.")] = None,
    fn_weight: Annotated[float | None, typer.Option(help="Tversky's weight of false negatives.")] = None,
    kl_mode: Annotated[str | None, typer.Option(help="Reading of the KL term in kltv.")] = None,
    masks: Annotated[int | None, typer.Option(help="How many masks the training sees; default all.")] = None,
    labels: Annotated[int | None, typer.Option(help="How many class labels it sees; default all.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in epochs.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget in seconds of training.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per draw and device.")] = 4,
    accumulate: Annotated[int, typer.Option(help="Draws per step: their gradients are averaged.")] = 1,
    augmentation: Annotated[
        str, typer.Option(help="How far training pictures are changed: usual, strong (for few masks) or none.")
    ] = "usual",
    learning_rate: Annotated[float, typer.Option(help="AdamW's, at its top.")] = 4e-3,
    seed: Annotated[int, typer.Option(help="Of weights, draws, budget and patient split.")] = 0,
    test_data: Annotated[list[str] | None, typer.Option(help="One more set to test on; may be repeated.")] = None,
    validate_every: Annotated[int, typer.Option(help="Steps between looks at the validation part.")] = 0,
    lungs_size: Annotated[
        int, typer.Option(help="Pixels per side at which the net of --start finds the lungs for lungs-classifier.")
    ] = 128,
    views: Annotated[
        int, typer.Option(help="How many changed views of a test picture D's answer is the mean of; 0: as it is.")
    ] = 0,
    synthetic: Annotated[
        int, typer.Option(help="Synthetic X-rays with exact masks in each step, as more real pairs of a game.")
    ] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="How many of them; each gets a process and its share of a step.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    compile: Annotated[bool, typer.Option(help="Let torch.compile rewrite the networks first.")] = False,
    sync_norm: Annotated[
        bool, typer.Option(help="On several CUDA devices: batch normalisation over all of them.")
    ] = False,
) -> None:
    """Train a network and write the record of the run; an interrupted run goes on from its last checkpoint.

    Without --steps, --epochs or --seconds it trains for 60 seconds.
    """
    from cxr_tutorial.config import Config
    from cxr_tutorial.data.batches import AUGMENTATIONS
    from cxr_tutorial.experiment import run
    from cxr_tutorial.train import Recipe
    from cxr_tutorial.train.loop import Watch

    if augmentation not in AUGMENTATIONS:
        raise InputError(f"unknown augmentation {augmentation!r}: choose one of {', '.join(AUGMENTATIONS)}")
    options = {"fp_weight": fp_weight, "fn_weight": fn_weight, "mode": kl_mode}
    recipe = Recipe(
        loss=loss,
        loss_options={name: value for name, value in options.items() if value is not None},
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        augmentation=AUGMENTATIONS[augmentation],
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        precision=precision,
        compile=compile,
        sync_norm=sync_norm,
    )
    if steps is None and epochs is None and seconds is None:
        seconds = 60.0
    config = Config(
        data=data,
        root=root,
        split=split,
        size=size,
        method=method,
        net=net,
        widths=_widths(widths),
        recipe=recipe,
        game=_game(method, game or []),
        start=start,
        masks=masks,
        labels=labels,
        steps=steps,
        epochs=epochs,
        seconds=seconds,
        seed=seed,
        test_data=tuple(test_data or ()),
        validate_every=validate_every,
        lungs_size=lungs_size,
        views=views,
        synthetic=synthetic,
    )
    try:
        record = run(config, out)
    except KeyboardInterrupt:
        every = Watch.checkpoint_seconds
        typer.echo(f"stopped; the same command goes on from the last checkpoint, one every {every:g} s", err=True)
        raise typer.Exit(130) from None
    for part, summary in record.metrics.items():
        typer.echo(f"{part:22} {_line(summary)}")
    typer.echo(f"record in {out}")


def evaluate(
    weights: Annotated[Path, typer.Argument(help="A .safetensors file of `train`, or the folder of its record.")],
    data: Annotated[str, typer.Option(help="synthetic, montgomery, shenzhen, jsrt, or a folder.")] = "synthetic",
    root: Annotated[str | None, typer.Option(help="Where the data lies; default $CXR_DATA/DATA.")] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels per side the weights were trained at; default what their record says, or 128."),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Also write one row per picture to this CSV file.")] = None,
) -> None:
    """Compare a trained segmentor's masks with the true ones, on every picture that has a mask."""
    from cxr_tutorial import evaluate as compare
    from cxr_tutorial.experiment import load
    from cxr_tutorial.results import write_table

    if table and table.is_dir():
        raise InputError(f"--table {table} is a folder: name a CSV file")
    model, size = _trained(weights, size)
    rows = compare.evaluate(model, load(data, root), size=size)
    typer.echo(f"{data:12} {_line(compare.summarize(rows))}")
    if table:
        write_table(table, rows)


def predict(
    pictures: Annotated[Path, typer.Argument(help="An X-ray or a folder of them: PNG, JPEG, TIFF, DICOM, JSRT .IMG.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")] = Path("lungs"),
    weights: Annotated[
        Path | None,
        typer.Option(help="A .safetensors file of `train`, or the folder of its record; default the net that ships."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels per side the weights were trained at; default what their record says, or 128."),
    ] = None,
) -> None:
    """Draw the lungs: one PNG, 0 and 255, for every X-ray, of its size and called as it.

    Masks that are there already stay. Files that cannot be read are named and passed over; the exit status is 2 then.
    """
    import numpy as np
    from PIL import Image

    from cxr_tutorial.data import load_folder
    from cxr_tutorial.evaluate import predict_logits
    from cxr_tutorial.experiment import SYNTHETIC_WEIGHTS
    from cxr_tutorial.files import whole_file

    model, size = _trained(weights or SYNTHETIC_WEIGHTS, size)
    examples = load_folder(pictures)
    drawn = left = unread = 0
    for i, name in enumerate(examples.ids):
        file = out / f"{name}.png"
        if file.exists():
            left += 1
            continue
        try:
            [(_, logits)] = predict_logits(model, examples.subset([i]), size)
        except InputError as error:
            typer.echo(f"passed over: {error}", err=True)
            unread += 1
            continue
        with whole_file(file) as arriving:
            Image.fromarray(np.uint8(255) * (logits > 0).numpy()).save(arriving, format="png")
        drawn += 1
    typer.echo(f"{drawn} masks drawn in {out}" + (f", {left} were there already" if left else ""))
    if unread:
        raise typer.Exit(2)


def _trained(weights: Path, size: int | None) -> tuple[Segmentor, int]:
    """The net and the size it was trained at: what is said, what its record says, or 128."""
    from cxr_tutorial.results import read_record
    from cxr_tutorial.train import load_weights

    home = weights if weights.is_dir() else weights.parent
    if size is None:
        size = read_record(home).config["size"] if weights.is_dir() or (home / "run.json").exists() else 128
    return load_weights(weights / "weights.safetensors" if weights.is_dir() else weights), size


def _widths(text: str) -> str | tuple[int, ...]:
    parts = text.split(",")
    return tuple(int(part) for part in parts) if all(part.strip().isdecimal() for part in parts) else text


def _game(method: str, options: list[str]) -> Any:
    """The method's game with these `name=value` changed; None if there are none."""
    from dataclasses import fields, replace

    from cxr_tutorial.train import GAMES, Game

    kinds = {field.name: type(field.default) for field in fields(Game) if isinstance(field.default, int | float | str)}
    changes: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in kinds:
            raise InputError(f"no option {name!r} of the game: choose one of {', '.join(kinds)}, as in adversarial=0.1")
        try:
            changes[name] = {"true": True, "false": False}[value] if kinds[name] is bool else kinds[name](value)
        except (ValueError, KeyError) as error:
            raise InputError(f"{option!r}: {name} takes a value of type {kinds[name].__name__}") from error
    return replace(GAMES.get(method, Game()), **changes) if changes else None


def _line(summary: dict[str, Any]) -> str:
    shown = []
    for name, title, digits in (("dice", "Dice", 4), ("hd95", "HD95", 2), ("auc", "AUC", 3)):
        if name in summary:
            low, high = summary[name]["ci95"]
            unit = summary[name].get("unit", "")
            shown.append(
                f"{title} {summary[name]['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] {unit}".rstrip()
            )
    return ", ".join(shown) + f", n = {next(iter(summary.values()))['n']}"
