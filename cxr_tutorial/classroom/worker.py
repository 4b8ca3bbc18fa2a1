"""Run the cells of one submission in one kernel and report each as it ends (run by path, by `sandbox.run`).

Standard input: a JSON object with the code `cells`, what `confine` needs, and limits. The descriptor named in the first
argument gets one JSON line for each cell: its outputs; or `{"end": why}`. The kernel is another process, confined; it
cannot reach that descriptor.
"""
# ruff: noqa: E402

from __future__ import annotations

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # a second to import, for addresses no notebook has

import contextlib
import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

SHOWN = ("stream", "display_data", "execute_result", "update_display_data", "error")
FLOOD = 50  # so many times what is kept, and the kernel is stopped


class TooMuchOutput(Exception):
    """The submission prints without end."""


class Client(NotebookClient):
    """A client that keeps no more than so much output."""

    keep_bytes = 0
    shown_bytes = 0

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in SHOWN:
            before = self.shown_bytes
            self.shown_bytes += len(msg["content"].get("text", "")) or len(json.dumps(msg["content"]))
            if self.shown_bytes > FLOOD * self.keep_bytes:
                raise TooMuchOutput
            if self.shown_bytes > self.keep_bytes and msg["msg_type"] != "error":
                if before <= self.keep_bytes:
                    text = f"(the notebook printed more than {self.keep_bytes // 1000} kB: the rest is left out)\n"
                    cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))
                return None
        return super().process_message(msg, cell, cell_index)

    def run_one(self, cell: Any, index: int) -> None:
        """Run one cell; an error or a time-out becomes an output, and the next cell runs."""
        started = time.monotonic()
        self.execute_cell(cell, index, store_history=False)  # else a later cell could print the tests from it
        if time.monotonic() - started > (self.timeout or 0):  # what it raised is our own interrupt
            cell.outputs = [output for output in cell.outputs if output.output_type != "error"]
            cell.outputs.append(nbformat.v4.new_output("error", **self.error_on_timeout))
            return
        reply = self.last_reply["content"]
        if reply["status"] == "error" and not any(output.output_type == "error" for output in cell.outputs):
            told = {key: reply[key] for key in ("ename", "evalue", "traceback")}
            cell.outputs.append(nbformat.v4.new_output("error", **told))

    last_reply: dict[str, Any]


def main() -> None:
    report = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", errors="replace")  # half a character becomes "?"
    os.set_inheritable(report.fileno(), False)
    todo = json.load(sys.stdin)
    cells = [nbformat.v4.new_code_cell(source) for source in todo["cells"]]

    def tell(what: dict[str, Any]) -> None:
        report.write(json.dumps(what, ensure_ascii=False) + "\n")
        report.flush()

    _adopt_orphans()
    launcher = str(Path(__file__).with_name("confine.py"))
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(Path(todo["confine"]["scratch"], "k")))
    spec = manager.kernel_spec
    assert spec is not None
    spec.argv = [sys.executable, "-P", launcher, json.dumps(todo["confine"]), "{connection_file}"]

    def remember(execute_reply: dict[str, Any], **_: Any) -> None:
        client.last_reply = execute_reply

    told = {
        "ename": "TimeLimit",
        "evalue": f"this cell ran longer than {todo['cell_seconds']} s",
        "traceback": [f"TimeLimit: this cell ran longer than {todo['cell_seconds']} s and was stopped"],
    }
    client = Client(
        nbformat.v4.new_notebook(cells=cells),
        km=manager,
        timeout=todo["cell_seconds"],
        startup_timeout=120,
        interrupt_on_timeout=True,
        error_on_timeout=told,
        allow_errors=True,
        on_cell_executed=remember,
    )
    client.keep_bytes = todo["output_kb"] * 1000
    end = "done"
    try:
        with client.setup_kernel():
            for index, cell in enumerate(cells):
                client.run_one(cell, index)
                tell({"cell": index, "outputs": cell.outputs})
    except TooMuchOutput:
        end = "output"
    except DeadKernelError:
        end = "crash"
    except Exception as error:
        end = f"the grader failed: {type(error).__name__}: {error}"
    tell({"end": end})
    report.close()
    _end_children()
    os._exit(0)


def _adopt_orphans() -> None:
    """Whoever leaves its parent becomes a child of this process, not of the system's first one (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _end_children() -> None:
    for _ in range(500):
        living = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
        if not living:
            return
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
