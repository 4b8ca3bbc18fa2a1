"""Does a record come out again? Run its own configuration anew and compare (floor 3).

Which of two rules applies is decided before anything is compared, and said:

- **bit for bit**: the record was made on a CPU with a budget in steps or epochs, and the new run had the same kind of
  device, number of threads, vector units, torch and NumPy. Then every row of
  `per_image.csv` and `classes.csv` must be the same text.
- **within the spread**: anything else. Then each part's Dice and AUC must lie within a tolerance of the recorded one:
  $t_{n-1}\\sqrt2\\,s$ with the standard deviation $s$ over the $n$ seeds of the same cell and its Student factor, if
  three or more records of it lie beside this one, and never less than `FLOOR`. Two runs that differ only by chance are
  apart by more than that in about one case of twenty.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from cxr_tutorial.config import Config, read_config
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import run
from cxr_tutorial.results import TEXT, Record, check_record, record_folders
from cxr_tutorial.shipped import shipped

#: the least tolerance of the spread rule; an AUC of 28 pictures moves by .05 when two of them change places
FLOOR = {"dice": 0.005, "auc": 0.05}


@dataclass(frozen=True)
class Figure:
    """A recorded mean and the one of the new run."""

    part: str
    name: str
    recorded: float
    again: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return abs(self.again - self.recorded) <= self.tolerance


@dataclass(frozen=True)
class Verdict:
    """What came of running a record again.

    Attributes
    ----------
    record, again : the two records.
    exact : whether the rule is bit for bit. why : the reason for the rule.
    rows, differing : rows of the tables of single pictures, and how many of them are not the same text.
    figures : Dice and AUC of each part.
    changes : commits between the two that touched the package, newest first; None where that is unknown.
    """

    record: Record
    again: Record
    exact: bool
    why: str
    rows: int
    differing: int
    figures: tuple[Figure, ...]
    changes: tuple[str, ...] | None

    @property
    def same_data(self) -> bool:
        return self.record.provenance.data == self.again.provenance.data

    @property
    def holds(self) -> bool:
        """Whether the record reproduces under its rule; one that holds nothing to compare does not."""
        if self.exact:
            same = self.rows > 0 and self.differing == 0
        else:
            same = bool(self.figures) and all(figure.holds for figure in self.figures)
        return self.same_data and same


def find_record(name: str | Path) -> Path:
    """The folder of a record: a folder, or `GROUP/ID`, or an ID that only one of the shipped records has.

    Raises
    ------
    InputError : there is none, or there are several.

    >>> find_record("ablation/jsrt-unet-s1").name
    'jsrt-unet-s1'
    """
    if Path(name).is_dir():
        return Path(name).resolve()
    text = str(name)
    found = [one for one in record_folders(shipped("results")) if text in (one.name, f"{one.parent.name}/{one.name}")]
    if len(found) != 1:
        several = ", ".join(f"{one.parent.name}/{one.name}" for one in found)
        raise InputError(f"{text!r} is no folder and {several or 'no shipped record'}: `cxr-tutorial results list`")
    return found[0]


def reproduce(folder: str | Path, out: str | Path, progress: bool = True) -> Verdict:
    """Run the configuration of the record in `folder` again, write the new record to `out`, and compare.

    The recorded accelerator, number of threads and precision are taken where this machine has them.

    Raises
    ------
    InputError : no whole record; one that was not made by `experiment.run`; weights to start from that are not here.
    """
    import torch

    record = check_record(folder)
    config = read_config(record.config)
    if config.start not in (None, "synthetic") and not Path(config.start or "").exists():
        raise InputError(f"{record.id} starts from {config.start}, which is not here: make these weights first")
    threads = torch.get_num_threads()
    if on_cpu := re.match(r"CPU, (\d+) threads", record.provenance.device):
        torch.set_num_threads(int(on_cpu[1]))
        config = replace(config, recipe=replace(config.recipe, accelerator="cpu"))
    elif not torch.cuda.is_available():
        config = replace(config, recipe=replace(config.recipe, accelerator="auto"))
    try:
        again = replace(run(config, out, progress=progress), folder=Path(out))
    finally:
        torch.set_num_threads(threads)
    return compare(record, again)


def compare(record: Record, again: Record) -> Verdict:
    """Two records of the same configuration under the rule that fits them."""
    assert record.folder
    assert again.folder
    exact, why = _rule(record, again)
    rows = differing = 0
    for table in ("per_image.csv", "classes.csv"):
        was, now = _rows(record.folder / table), _rows(again.folder / table)
        rows += len(was)
        differing += sum(now.get(key) != row for key, row in was.items()) + len(now.keys() - was.keys())
    siblings = _siblings(record, again)
    figures = tuple(
        Figure(
            part,
            name,
            said["mean"],
            again.metrics.get(part, {}).get(name, {}).get("mean", math.nan),
            _tolerance(part, name, siblings),
        )
        for part, summary in record.metrics.items()
        for name, said in summary.items()
        if name in FLOOR
    )
    changes = _changes(record.provenance.commit, again.provenance.commit)
    return Verdict(record, again, exact, why, rows, differing, figures, changes)


def _rule(record: Record, again: Record) -> tuple[bool, str]:
    was, now = record.provenance, again.provenance
    pairs = {
        "device": (was.device, now.device),
        "vector units": (was.processor, now.processor),
        "precision": (record.config["recipe"].get("precision"), again.config["recipe"]["precision"]),
    } | {name: (was.versions.get(name), now.versions.get(name)) for name in ("torch", "numpy")}
    if record.config.get("seconds"):
        return False, "the budget is in seconds"
    if not was.device.startswith("CPU"):
        return False, f"the record is of {was.device}, where sums have no fixed order"
    for name, (one, other) in pairs.items():
        if one is None:
            return False, f"the record does not name the {name}"
        if one != other:
            return False, f"the {name} is {other!r} here and was {one!r}"
    return True, f"same device ({was.device}; {was.processor}), torch and NumPy, a budget that repeats"


def _rows(file: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    if not file.exists():
        return {}
    with file.open(newline="", **TEXT) as text:
        return {(row["part"], row.get("mask", ""), row["id"]): row for row in csv.DictReader(text)}


def _siblings(record: Record, again: Record) -> list[Record]:
    """One record for each seed of this cell, this one among them and the new run not."""

    def unseeded(one: Record) -> Config:
        config = read_config(one.config)
        return replace(config, seed=0, recipe=replace(config.recipe, seed=0))

    assert record.folder
    assert again.folder
    kin = {read_config(record.config).seed: record}
    for folder in sorted(record.folder.resolve().parent.iterdir()):
        if folder == again.folder.resolve():
            continue
        try:
            other = check_record(folder)
            if unseeded(other) == unseeded(record):
                kin.setdefault(read_config(other.config).seed, other)
        except InputError:
            continue  # a broken neighbour, or no record at all
    return list(kin.values())


def _tolerance(part: str, name: str, siblings: Sequence[Record]) -> float:
    means = [one.metrics[part][name]["mean"] for one in siblings if name in one.metrics.get(part, {})]
    n = len(means)
    spread = float(student.ppf(0.975, n - 1)) * math.sqrt(2) * statistics.stdev(means) if n >= 3 else 0.0
    return max(FLOOR[name], spread)


def _changes(was: str | None, now: str | None) -> tuple[str, ...] | None:
    if not was or not now:
        return None
    package = Path(__file__).parent
    command = ["git", "-C", str(package), "log", "--format=%h %s", f"{was[:40]}..{now[:40]}", "--", str(package)]
    try:
        log = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return None
    return None if log.returncode else tuple(log.stdout.splitlines())
