"""One cell of a grid: where it stands, and how it is run so that no kill and no neighbour can spoil it (floor 3).

A cell is done when its record is whole and its weights have been put away. Until then `.ID.unfinished` beside the
record's place holds its checkpoint, and whoever runs the cell has locked `.ID.lock`; the operating system
opens the lock when that process dies. A cell that failed leaves its reason in `.ID.failed.json`.
"""

from __future__ import annotations

import json
import shutil
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cxr_tutorial.config import Config, differing, read_config
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import LEFTOVERS, run
from cxr_tutorial.files import only_process, whole_file
from cxr_tutorial.grid.plans import Cell
from cxr_tutorial.results import Record, check_record, read_record


@dataclass(frozen=True)
class Grid:
    """Where a grid keeps its records and its weights, and on what it runs.

    Attributes
    ----------
    out : folder of the records, a folder for each group.
    weights : folder of the weights, in the same order, those of a discriminator as `NAME.discriminator.safetensors`;
        not for committing.
    accelerator : instead of what the cells say, as in Lightning Fabric; it stands in the records.
    """

    out: Path
    weights: Path
    accelerator: str | None = None

    def record(self, cell: Cell) -> Path:
        return self.out / cell.name

    def kept_weights(self, name: str) -> Path:
        return self.weights / f"{name}.safetensors"

    def _beside(self, cell: Cell, suffix: str) -> Path:
        place = self.record(cell)
        return place.with_name(f".{place.name}{suffix}")

    def unfinished(self, cell: Cell) -> Path:
        return self._beside(cell, ".unfinished")

    def failure(self, cell: Cell) -> Path:
        return self._beside(cell, ".failed.json")

    def lock(self, cell: Cell) -> Path:
        return self._beside(cell, ".lock")

    def aside(self, cell: Cell) -> Path:
        return self._beside(cell, f".broken-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")


@dataclass(frozen=True)
class State:
    """Where a cell stands.

    Attributes
    ----------
    kind : `"done"`; `"open"`, never begun; `"stopped"`, begun and not finished, or running now; `"failed"`; `"broken"`,
        a record that cannot be read or is not of this cell's configuration.
    reason : why it failed or is broken.
    """

    kind: str
    reason: str = ""


def state_of(cell: Cell, grid: Grid) -> State:
    """Where this cell stands, from the files alone."""
    place = grid.record(cell)
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        try:
            record = check_record(place)
        except InputError as error:
            return State("broken", str(error))
        if found := differences(cell, record):
            return State("broken", f"{place} was made with another configuration: {', '.join(found)}")
        if any(file.exists() for file in _weights_of(place)):
            return State("stopped")  # killed between the record and the tidying
        return State("done")
    if grid.failure(cell).exists():
        try:
            return State("failed", json.loads(grid.failure(cell).read_text())["reason"])
        except (ValueError, KeyError):
            return State("failed", f"for a reason that {grid.failure(cell)} does not tell")
    return State("stopped" if grid.unfinished(cell).exists() else "open")


def differences(cell: Cell, record: Record) -> list[str]:
    """Fields of the configuration in which a record differs from the cell; where it ran does not count."""

    def comparable(config: Config) -> Config:
        recipe = replace(config.recipe, accelerator="", precision="auto")
        start = cell.after if cell.after else config.start
        return replace(config, recipe=recipe, root=None, start=start)

    try:
        made = read_config(record.config)
    except InputError as error:
        return [str(error)]
    found = differing(comparable(cell.config), comparable(made))
    if cell.after and not (made.start or "").endswith(f"{cell.after}.safetensors"):
        found.append("start")
    return found


def run_cell(cell: Cell, grid: Grid) -> Record:
    """Run a cell, or go on with it; if another process is at it, wait for that one. A finished cell is only read.

    Raises
    ------
    InputError : whatever cannot be used; a second stage whose first stage left no weights; a broken record.
    Exception : whatever the run raised; the reason is then kept beside the record's place.
    """
    try:
        with only_process(grid.lock(cell), wait=True):
            state = state_of(cell, grid)
            if state.kind == "broken":
                raise InputError(f"{state.reason}; `grid run --retry` sets it aside and runs the cell anew")
            if not (grid.record(cell) / "run.json").exists():
                run(_configured(cell, grid), grid.record(cell), progress=False)
            _tidy(cell, grid)
    except Exception as error:
        if not isinstance(error, InputError) or state_of(cell, grid).kind != "broken":
            note_failure(cell, grid, f"{type(error).__name__}: {error}", traceback.format_exc())
        raise
    grid.failure(cell).unlink(missing_ok=True)
    return read_record(grid.record(cell))


def note_failure(cell: Cell, grid: Grid, reason: str, details: str = "") -> None:
    """Keep the reason why a cell failed beside the place of its record."""
    content = {"reason": reason, "date": datetime.now(UTC).isoformat(timespec="seconds"), "details": details}
    file = grid.failure(cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")


def set_aside(cell: Cell, grid: Grid) -> Path:
    """Move a broken record to a hidden name beside its place; nothing is deleted."""
    return grid.record(cell).rename(grid.aside(cell))


def _configured(cell: Cell, grid: Grid) -> Config:
    config = cell.config
    if grid.accelerator:
        config = replace(config, recipe=replace(config.recipe, accelerator=grid.accelerator))
    if cell.after:
        start = grid.kept_weights(cell.after)
        if not start.exists():
            raise InputError(
                f"{cell.name} starts from {start}, which is not there: run {cell.after} with the same --weights, or "
                "where its record is there without its weights, both of them into another --out"
            )
        config = replace(config, start=str(start))
    return config


def _tidy(cell: Cell, grid: Grid) -> None:
    """Drop what a grid does not keep and put the weights away, last; may be called again after a kill in the middle."""
    place = grid.record(cell)
    for name in ("history.csv", *LEFTOVERS):
        (place / name).unlink(missing_ok=True)
    for file in filter(Path.exists, _weights_of(place)):
        kept = grid.kept_weights(cell.name if file.stem == "weights" else f"{cell.name}.{file.stem}")
        with whole_file(kept) as arriving:
            shutil.copyfile(file, arriving)
        file.unlink()


def _weights_of(place: Path) -> list[Path]:
    """What a run leaves in its record and a grid puts away: the weights of D and of S."""
    return [place / "discriminator.safetensors", place / "weights.safetensors"]
