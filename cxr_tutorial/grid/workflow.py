"""The Snakemake engine: the same cells as jobs of one machine or of a Slurm cluster (floor 3).

Each job is `cxr-tutorial grid cell NAME`, not a notebook run by papermill: a cell is a configuration and a record, a
kernel would start for nothing, and a log of text is easier to read on a cluster than five hundred executed notebooks.
The notebooks of `book/experiments/` show one cell with its pictures; they call the same `experiment.run`.

What is done is known from the records, not from Snakemake's own book-keeping, so the two engines can take turns.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cxr_tutorial.errors import InputError
from cxr_tutorial.grid.cells import Grid
from cxr_tutorial.grid.plans import Cell

HERE = Path(__file__).parent


def run_snakemake(
    cells: Sequence[Cell],
    grid: Grid,
    *,
    jobs: int | None = None,
    threads: int = 1,
    profile: str | None = None,
    plan: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Hand the cells to Snakemake and return its exit status; what fails does not stop the others.

    Parameters
    ----------
    cells : what to run, as `engine.pending` says.
    grid : where, and on what; on a cluster a folder that every node sees.
    jobs : how many at a time; default what the profile says, else 1. threads : of each of them.
    profile : `"slurm"`, which ships, or the folder of a Snakemake profile of one's own.
    plan : the user's plan that the cells are of, if any.
    dry_run : only say what would be run.

    Raises
    ------
    InputError : Snakemake, or the plugin for Slurm, is not installed; the profile is no folder.
    """
    needed = ["snakemake"] + ["snakemake_executor_plugin_slurm"] * (profile == "slurm")
    if absent := [name for name in needed if find_spec(name) is None]:
        raise InputError(f"{', '.join(absent)} is not installed: pip install 'cxr-tutorial[sweep]', or --engine plain")
    if profile and not (folder := HERE / profile if profile == "slurm" else Path(profile)).is_dir():
        raise InputError(f"{profile!r} is not the folder of a Snakemake profile; slurm ships")
    if not cells:
        return 0
    command = [sys.executable, "-m", "cxr_tutorial", "grid", "cell"]
    command += ["--out", str(grid.out.resolve()), "--weights", str(grid.weights.resolve()), "--threads", str(threads)]
    command += ["--plan", str(plan.resolve())] if plan else []
    command += ["--accelerator", grid.accelerator] if grid.accelerator else []
    names = {cell.name for cell in cells}
    content = {
        "cells": [{"name": cell.name, "after": cell.after if cell.after in names else None} for cell in cells],
        "out": str(grid.out.resolve()),
        "threads": threads,
        "command": shlex.join(command),
    }
    home = grid.weights.resolve() / ".snakemake-grid"
    home.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1)
    configuration = home / f"cells-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"  # its own for each grid here
    configuration.write_text(text)
    asked = ["--snakefile", str(HERE / "Snakefile"), "--configfile", str(configuration), "--directory", str(home)]
    asked += ["--keep-going", "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime"]
    asked += ["--keep-incomplete"]  # a record is whole or not there; one whose weights were not put away must stay
    asked += ["--workflow-profile", "none", "--profile", str(folder.resolve()) if profile else "none"]
    asked += ["--jobs", str(jobs)] if jobs else [] if profile else ["--jobs", "1"]
    asked += ["--dry-run"] if dry_run else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.run([sys.executable, "-m", "snakemake", *asked], env=environment, check=False).returncode
