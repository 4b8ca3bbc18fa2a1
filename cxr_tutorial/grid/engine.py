"""The plain engine: a few processes side by side, no scheduler needed (floor 3)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from cxr_tutorial.grid.cells import Grid, note_failure, run_cell, set_aside, state_of
from cxr_tutorial.grid.plans import Cell
from cxr_tutorial.results import headline


def pending(cells: Sequence[Cell], grid: Grid, retry: bool = False, dry: bool = False) -> list[Cell]:
    """The cells that are to be run, in order; with `retry` also those that failed, and broken records are set aside.

    `dry` only asks, and moves no file.
    """
    todo = []
    for cell in cells:
        state = state_of(cell, grid)
        if state.kind == "broken" and retry and not dry:
            set_aside(cell, grid)
            state = state_of(cell, grid)
        if state.kind == "stopped" and (grid.record(cell) / "run.json").exists():
            if not dry:
                run_cell(cell, grid)  # killed between the record and the tidying: nothing is run
            continue
        if state.kind in ("open", "stopped") or (state.kind in ("failed", "broken") and retry):
            todo.append(cell)
    return todo


def run_plain(
    cells: Sequence[Cell], grid: Grid, *, jobs: int = 1, threads: int = 1, report: Callable[[str], None] = print
) -> None:
    """Run cells in `jobs` processes; what fails is noted and the others go on.

    A second stage begins when the weights of its first stage are there. A process that dies takes only its cell with
    it. If this process is killed, its workers see it and end; next time the cells go on from their checkpoints.

    Parameters
    ----------
    cells : what to run, as `pending` says; how they ended can be read with `state_of`.
    grid : where, and on what.
    jobs : how many at a time. threads : of each of them.
    report : is called with a line for each cell that ended.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the libraries that a worker loads
    todo, ended = list(cells), 0
    idle: list[Worker] = []
    busy: list[Worker] = []
    try:
        while True:
            under_way = {one.name for one in todo} | {worker.cell.name for worker in busy if worker.cell}
            while len(busy) < jobs and (cell := next((one for one in todo if is_ready(one, grid, under_way)), None)):
                todo.remove(cell)
                busy.append(idle.pop() if idle else _start(grid, threads))
                busy[-1].begin(cell)
            if not busy:
                break
            answering = wait([worker.connection for worker in busy])
            for worker in [one for one in busy if one.connection in answering]:
                busy.remove(worker)
                line, usable = worker.end(grid)
                if usable:
                    idle.append(worker)
                ended += 1
                report(f"[{ended}/{len(cells)}] {line}")
    finally:
        for worker in busy:
            worker.process.terminate()
        for worker in idle:
            worker.connection.send(None)
        for worker in busy + idle:
            worker.process.join()
    for cell in todo:
        report(f"[-/{len(cells)}] {cell.name} waits for the weights of {cell.after} in {grid.weights}")


@dataclass
class Worker:
    """A process that runs one cell after the other."""

    process: BaseProcess
    connection: Connection
    cell: Cell | None = None
    began: float = 0.0

    def begin(self, cell: Cell) -> None:
        self.cell, self.began = cell, time.monotonic()
        self.connection.send(cell)

    def end(self, grid: Grid) -> tuple[str, bool]:
        """A line about the cell that ended, and whether the process can take another."""
        assert self.cell
        try:
            said, usable = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            said, usable = f"its process ended with exit code {code} (-9: killed, perhaps for want of memory)", False
            note_failure(self.cell, grid, said)
            said = f"FAILED: {said}"
        return f"{self.cell.name:36} {time.monotonic() - self.began:4.0f} s  {said}", usable


def _start(grid: Grid, threads: int) -> Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, grid, threads))
    process.start()
    theirs.close()
    return Worker(process, mine)


def _work(connection: Connection, grid: Grid, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while cell := connection.recv():
        try:
            connection.send((headline(run_cell(cell, grid)), True))
        except Exception as error:
            connection.send((f"FAILED: {type(error).__name__}: {error}", False))
            return  # an accelerator is not to be trusted after an error: the next cell gets a new process


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def is_ready(cell: Cell, grid: Grid, under_way: Container[str]) -> bool:
    """Whether its first stage has left weights, and not such as are just being made anew."""
    return not cell.after or (cell.after not in under_way and grid.kept_weights(cell.after).exists())
