"""Run a stranger's notebook so that it can harm nothing but itself (floor 3).

Each runs in its own process, in a scratch folder that goes afterwards; home, caches and temporary files are there too.
A watcher stops it when it takes too much time, memory, disk or too many processes, and ends whatever it started. On
Linux the notebook's kernel is confined (`confine`): it reads the installed packages and its scratch folder, writes only
there, opens no TCP connection and signals no other process. Elsewhere it is a plain process: use a container there.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cxr_tutorial
from cxr_tutorial.classroom.sources import Notebook
from cxr_tutorial.shipped import shipped

MARK = "CXR_SUBMISSION"
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/dev")
KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Limits:
    """What one submission may take: seconds in all and in one cell, memory, output kept, disk, processes."""

    seconds: float = 300
    cell_seconds: int = 120
    memory_mb: int = 3000
    output_kb: int = 1000
    disk_mb: int = 500
    processes: int = 64
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """A notebook with the outputs of the cells that ran.

    Attributes
    ----------
    end : `"done"`, `"time"`, `"memory"`, `"disk"`, `"processes"`, `"output"`, `"crash"` or what failed in the grader.
    words : the same as a sentence. seconds : wall time. ran : how many code cells ran to their end, `of` how many.
    """

    notebook: Notebook
    end: str
    words: str
    seconds: float
    ran: int
    of: int


def run(notebook: Notebook, limits: Limits | None = None) -> Outcome:
    """Run every code cell of `notebook`; cells that have run when a limit is passed keep their outputs."""
    limits = limits or Limits()
    executed = copy.deepcopy(notebook)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    with (
        tempfile.TemporaryDirectory(prefix="cxr-", ignore_cleanup_errors=True) as made,
        tempfile.TemporaryFile() as report,
    ):
        scratch = Path(made).resolve()
        mark = secrets.token_hex(8)
        started = time.monotonic()
        worker = _start(scratch, mark, [cell.source for cell in code], report, limits)
        try:
            stopped = _watch(worker, scratch, limits, started)
        finally:
            _end_all(worker, mark)
        seconds = time.monotonic() - started
        report.seek(0)
        lines = [json.loads(line) for line in report.read().decode(errors="replace").split("\n") if line.endswith("}")]
    results = [line for line in lines if "cell" in line]
    import nbformat

    for line in results:
        code[line["cell"]].outputs = [nbformat.from_dict(output) for output in line["outputs"]]
    end = stopped or next((line["end"] for line in lines if "end" in line), "crash")
    words = _in_words(end, limits, len(results), len(code)) + _remarks(code, limits)
    return Outcome(executed, end, words, seconds, len(results), len(code))


def _start(scratch: Path, mark: str, cells: list[str], report: IO[bytes], limits: Limits) -> subprocess.Popen[bytes]:
    home = scratch / "home"
    for folder in (home / ".cache" / "matplotlib", scratch / "tmp", scratch / "work"):
        folder.mkdir(parents=True)
    _share_font_list(home / ".cache" / "matplotlib")
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
        MARK: mark,
        "HOME": str(home),
        "TMPDIR": str(scratch / "tmp"),
        "CXR_CACHE": str(home / ".cache" / "cxr"),
        "MPLCONFIGDIR": str(home / ".cache" / "matplotlib"),
        "IPYTHONDIR": str(home / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "tmp"),
        "JUPYTER_DATA_DIR": str(home / ".local"),
        "NBGRADER_EXECUTION": "autograde",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(limits.threads))
    readable, listable = _what_python_reads()
    todo = {
        "cells": cells,
        "confine": {"scratch": str(scratch), "readable": readable, "listable": listable, "file_mb": limits.disk_mb},
        "cell_seconds": limits.cell_seconds,
        "output_kb": limits.output_kb,
    }
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(todo).encode())
        stdin.seek(0)
        return subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(report.fileno())],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=scratch / "work",
            env=environment,
            pass_fds=[report.fileno()],
            start_new_session=True,
        )


def _what_python_reads() -> tuple[list[str], list[str]]:
    """The folders that a kernel must read, and those whose names alone it must see (a checkout on the path)."""
    package = Path(cxr_tutorial.__file__).resolve().parent
    readable = [*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, str(package), str(shipped().resolve())]
    within = [Path(path) for path in (sys.prefix, sys.base_prefix)]
    others = [Path(path) for path in (*sys.path, str(package.parent)) if path]
    listable = [str(path) for path in others if not any(path.is_relative_to(one) for one in within)]
    return readable, listable


def _share_font_list(folder: Path) -> None:
    import matplotlib

    for path in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        shutil.copy(path, folder)


def _watch(worker: subprocess.Popen[bytes], scratch: Path, limits: Limits, started: float) -> str | None:
    """Wait until the worker ends (None), or say which limit was passed first."""
    looks = 0
    while worker.poll() is None:
        if time.monotonic() - started > limits.seconds:
            return "time"
        family = _family(worker.pid)
        if len(family) > limits.processes:
            return "processes"
        if sum(map(_memory, family)) > limits.memory_mb * 2**20:
            return "memory"
        looks += 1
        if looks % 20 == 0 and _disk(scratch) > limits.disk_mb * 2**20:
            return "disk"
        time.sleep(0.1)
    return None


def _family(pid: int) -> Sequence[Any]:
    import psutil

    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def _memory(process: Any) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _disk(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total


def _end_all(worker: subprocess.Popen[bytes], mark: str) -> None:
    """End all that the worker started, and it last: while it lives, whoever leaves a parent becomes its child.

    Where the system has no such adoption, those that carry the worker's mark are found by it.
    """
    import psutil

    if worker.poll() is None:
        with contextlib.suppress(psutil.Error):
            psutil.Process(worker.pid).suspend()
    for _ in range(500):
        left = [process for process in _family(worker.pid)[1:] if _lives(process)]
        for process in psutil.process_iter():
            try:
                if process.pid != worker.pid and process.environ().get(MARK) == mark and _lives(process):
                    left.append(process)
            except (psutil.Error, OSError):
                continue
        if not left:
            break
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.02)
    worker.kill()
    worker.wait()


def _lives(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _in_words(end: str, limits: Limits, ran: int, of: int) -> str:
    words = {
        "done": "ran to its end",
        "time": f"stopped: it ran longer than {limits.seconds:g} s",
        "memory": f"stopped: it took more than {limits.memory_mb} MB of memory",
        "disk": f"stopped: it wrote more than {limits.disk_mb} MB",
        "processes": f"stopped: it started more than {limits.processes} processes",
        "output": "stopped: it printed without end",
        "crash": "its kernel crashed",
    }.get(end, end)
    return words if end == "done" else f"{words}; {ran} of {of} code cells had run and count"


def _remarks(code: Sequence[Any], limits: Limits) -> str:
    """The first error of a notebook that went on, and whether some of its output is gone."""
    outputs = [output for cell in code for output in cell.outputs]
    errors = [f"{one.ename}: {one.evalue}".removesuffix(": ") for one in outputs if one.output_type == "error"]
    first = f"; first error: {' '.join(errors[0].split())[:150]}" if errors else ""
    cut = any("the rest is left out" in one.get("text", "") for one in outputs)
    return first + (f"; of what it printed {limits.output_kb} kB are kept" if cut else "")
