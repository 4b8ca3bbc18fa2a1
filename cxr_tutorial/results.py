"""Records of runs: what was run, where, on which data, and what came out (floor 1).

A record is a folder with `run.json` (the configuration and its provenance), `metrics.json` (the figures) and
`per_image.csv`. The records of the book's own runs ship with the package under `results/`.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cxr_tutorial.errors import InputError
from cxr_tutorial.files import whole_file
from cxr_tutorial.shipped import shipped

SCHEMA = 1
CLASSES = "classes.csv"
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name may be no UTF-8


@dataclass(frozen=True)
class Provenance:
    """Where a run's figures come from.

    Attributes
    ----------
    commit : of the code, with `-dirty` behind it if files were changed; outside a checkout what `$CXR_COMMIT` says, or
        None.
    device : in words, with the number of threads on a CPU.
    versions : of Python and the packages that matter for figures.
    data : fingerprint of everything that the training could see.
    date : of the start, UTC.
    wall_seconds : of the whole run, reading and evaluation included. If it was interrupted, of the last call and of the
        training before it; records made before 2026-11-27 then have the last call only.
    processor : what its vector units can do, on which the last bits depend; None in older records.
    """

    commit: str | None
    device: str
    versions: dict[str, str]
    data: str
    date: str
    wall_seconds: float
    processor: str | None = None


@dataclass(frozen=True)
class Record:
    """One run: its configuration, provenance and figures by part (`"test"`, `"validation"`, a set)."""

    id: str
    config: dict[str, Any]
    provenance: Provenance
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema: int = SCHEMA
    folder: Path | None = field(default=None, compare=False)

    @property
    def group(self) -> str | None:
        """The name of the folder that it lies in beside others, which says what the runs were made for."""
        return self.folder.parent.name if self.folder else None


def provenance(data: str, started: datetime, device: str, earlier: float = 0.0) -> Provenance:
    """What can be said about this machine and this code, now; `earlier` seconds were spent before `started`."""
    packages = ("torch", "numpy", "scipy", "monai", "lightning-fabric", "cxr-tutorial")
    return Provenance(
        commit=_commit(),
        device=device,
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        data=data,
        date=started.isoformat(timespec="seconds"),
        wall_seconds=round(earlier + (datetime.now(UTC) - started).total_seconds(), 1),
        processor=describe_processor(),
    )


def describe_device(kind: str, devices: int = 1) -> str:
    """`"auto"`, `"cuda"` or `"cpu"` in words, such as `"CPU, 2 threads, x86_64"`; several as `"2 x ..."`."""
    import torch

    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = f"{kind.upper()}, {torch.get_num_threads()} threads, {platform.machine()}"
    return f"{devices} x {name}" if devices > 1 else name


def describe_processor() -> str:
    """What the CPU's vector units can do, as far as torch uses them, such as `"AVX512, amx_bf16"`."""
    import torch

    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    units = [name for name in ("avx512_bf16", "amx_bf16") if known.get(name)]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *units])


def write_record(folder: Path, record: Record, rows: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Write `run.json`, `metrics.json` and `per_image.csv` (a row per part and image, if any) into `folder`."""
    content = asdict(record)
    metrics = content.pop("metrics")
    del content["folder"]
    (folder / "run.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    if rows:
        write_table(folder / "per_image.csv", [{"part": part} | row for part, some in rows.items() for row in some])


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, figures with five significant digits; the file is there whole or as it was before.

    Raises
    ------
    InputError : there is no row.
    """
    if not rows:
        raise InputError(f"there is no row to write to {path}")
    with whole_file(path) as arriving, arriving.open("w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


def read_record(folder: str | Path) -> Record:
    """Read a record that `write_record` wrote.

    Raises
    ------
    InputError : the folder holds no record, a broken one, or one of a newer schema.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "run.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        if content["schema"] > SCHEMA:
            raise InputError(f"{folder} has schema {content['schema']}: update cxr-tutorial to read it")
        content["provenance"] = Provenance(**content["provenance"])
        return Record(**content, metrics={**metrics}, folder=folder)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{folder} holds no readable record ({error!r}): expected run.json and metrics.json "
            "as `cxr-tutorial train` writes them"
        ) from error


def check_record(folder: str | Path) -> Record:
    """Read a record and compare its figures with its rows, one by one, to catch a file that was cut or changed.

    The means of `per_image.csv` are taken again, and the AUC of each part and mask in `classes.csv`.

    Raises
    ------
    InputError : as `read_record`; a part has more, fewer or other rows than its figures say.
    """
    record = read_record(folder)
    try:
        rows = read_per_image(folder) if (Path(folder) / "per_image.csv").exists() else []
        for part, summary in record.metrics.items():
            mine = [row for row in rows if row["part"] == part]
            for name, said in summary.items():
                values = [row[name] for row in mine if name in row]
                if "sd" in said:
                    again = sum(values) / len(values) if values else math.nan
                    slack = 1e-4 * max(1, abs(said["mean"]))
                    _compare(f"{folder}: the {name} of {part}", said, len(values), again - slack, again + slack)
        asked: dict[str, list[dict[str, Any]]] = {}
        for row in _read_table(Path(folder) / CLASSES) if (Path(folder) / CLASSES).exists() else []:
            asked.setdefault(class_part(row["part"], row["mask"]), []).append(row)
        for part, summary in record.metrics.items():
            said, some = summary.get("auc", {"mean": math.nan}), asked.get(part, [])
            if math.isfinite(said["mean"]):
                _compare(f"{folder}: the auc of {part}", said, len(some), *_auc_between(some))
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder} holds no readable record ({error!r})") from error
    return record


def _auc_between(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The least and the largest AUC that these scores can have had: the digits of a table make ties."""
    ill, well = ([row["score"] for row in rows if row["label"] == label] for label in (1, 0))
    pairs = len(ill) * len(well) or math.nan
    above, not_below = sum(a > b for a in ill for b in well), sum(a >= b for a in ill for b in well)
    return above / pairs - 1e-6, not_below / pairs + 1e-6


def _compare(what: str, said: dict[str, Any], rows: int, low: float, high: float) -> None:
    if rows != said["n"] or not low <= said["mean"] <= high:
        raise InputError(
            f"{what} is said to be {said['mean']:.5g} (n = {said['n']}), its {rows} rows say something else"
        )


def class_part(part: str, mask: str) -> str:
    """Under which part a record keeps what D says of the pictures of a part, when it is shown this mask.

    >>> class_part("test", "predicted"), class_part("test", "one-view"), class_part("test", "true")
    ('test', 'test/one-view', 'test/true-mask')
    """
    return part + {"predicted": "", "one-view": "/one-view"}.get(mask, f"/{mask}-mask")


def read_per_image(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of `per_image.csv`, figures as floats."""
    return _read_table(Path(folder) / "per_image.csv")


def read_curve(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of `curve.csv` (step, seconds, validation figures); empty if the run logged none."""
    path = Path(folder) / "curve.csv"
    return _read_table(path) if path.exists() else []


def _read_table(path: Path) -> list[dict[str, Any]]:
    text = {"part", "mask", "id", "patient", "source", "unit"}
    with path.open(newline="", **TEXT) as file:
        return [{k: v if k in text else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def headline(record: Record) -> str:
    """The Dice, or the AUC, of each part of a record in one line."""
    figures = [
        f"{part} {name} {summary[name]['mean']:.4f}"
        for part, summary in record.metrics.items()
        for name in ("dice", "auc")
        if name in summary
    ]
    return ", ".join(figures)


def load_records(folder: str | Path | None = None) -> list[Record]:
    """All records below `folder` (default: those that ship with the package), sorted by id.

    Introduced in chapter 4.

    >>> all(record.provenance.data for record in load_records())
    True
    """
    root = Path(folder) if folder else shipped("results")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: expected one that holds runs of `cxr-tutorial train`")
    return sorted(map(read_record, record_folders(root)), key=lambda record: record.id)


def record_folders(root: str | Path) -> list[Path]:
    """The folders of records below `root`, sorted; unfinished ones and those set aside have a hidden name.

    The folder of a notebook's run holds records, but is none.
    """
    folders = {file.parent for name in ("run.json", "metrics.json") for file in Path(root).rglob(name)}
    return sorted(one for one in folders if not (one.name.startswith(".") or (one / "notebook.ipynb").exists()))


def collect(folders: Iterable[Path]) -> tuple[list[Record], dict[Path, str]]:
    """The records in these folders, and what is wrong with those that are broken: one does not spoil the others.

    >>> records, broken = collect(record_folders(shipped("results")))
    >>> len(records) > 100, broken
    (True, {})
    """
    records, broken = [], {}
    for folder in folders:
        try:
            records.append(check_record(folder))
        except InputError as error:
            broken[folder] = str(error)
    return records, broken


def tidy(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One row for every record, part and figure, with all that a table has to say of its origin.

    >>> rows = tidy(load_records())
    >>> {row["n"] for row in rows if row["part"] == "test" and row["data"] == "jsrt" and row["figure"] == "dice"}
    {50}
    """
    rows = []
    for record in records:
        config, recipe, origin = record.config, record.config["recipe"], record.provenance
        budget = next((f"{config[unit]} {unit}" for unit in ("steps", "epochs", "seconds") if config.get(unit)), "")
        plain = {name: config.get(name) for name in ("data", "split", "size", "method", "net", "widths")}
        chosen = {"loss": recipe["loss"], "loss_options": json.dumps(recipe.get("loss_options", {}), sort_keys=True)}
        few = {name: config.get(name) for name in ("masks", "labels", "start", "seed")}
        about = {"id": record.id, "group": record.group} | plain | chosen | few | {"budget": budget}
        made = {"device": origin.device, "precision": recipe.get("precision"), "commit": origin.commit}
        made |= {"date": origin.date, "wall_seconds": origin.wall_seconds, "fingerprint": origin.data}
        for part, summary in record.metrics.items():
            for name, value in summary.items():
                low, high = value.get("ci95", (None, None))
                figure = {"part": part, "figure": name, "mean": value["mean"], "low": low, "high": high}
                figure |= {"sd": value.get("sd"), "n": value["n"], "unit": value.get("unit")}
                rows.append(about | figure | made)
    return rows


def _commit() -> str | None:
    here, told = Path(__file__).parent, os.environ.get("CXR_COMMIT")
    git = ["git", "-C", str(here)]
    try:
        inside = subprocess.run([*git, "ls-files", __file__], capture_output=True, text=True, check=True)
        if not inside.stdout:
            return told  # installed inside somebody else's checkout
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "--", str(here)]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return told
    return commit.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")
