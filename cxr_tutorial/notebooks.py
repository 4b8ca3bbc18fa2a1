"""A notebook as a run: one folder with what was asked, the executed notebook, its log and its records (floor 3).

papermill runs the cells and saves the notebook after each. The trainings inside call `experiment.run_once` with
folders below `records_folder`: they go on from their checkpoints, and what is finished is read. So after a kill, a
disconnect or a failed cell, the same command takes up the work where it was.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from cxr_tutorial.errors import InputError
from cxr_tutorial.files import only_process, whole_folder
from cxr_tutorial.profiles import get_profile
from cxr_tutorial.results import describe_device, load_records, provenance

FOLDER = "CXR_RUN"  # the environment variable that tells a kernel the folder of its run
EXECUTED = "notebook.ipynb"


class CellFailed(RuntimeError):
    """A cell raised an error; what ran before it is in the folder that the message names."""


@dataclass(frozen=True)
class NotebookRun:
    """A finished run of a notebook. `again`: it was finished before, nothing was run."""

    folder: Path
    again: bool = False


def records_folder(chosen: str | Path | None = None) -> Path:
    """Where a notebook puts its records: the chosen folder; else that of its run, if `run_notebook` started it.

    A notebook that is run by hand and was given no folder gets a temporary one.

    >>> records_folder("runs/mine").as_posix()
    'runs/mine'
    """
    if chosen:
        return Path(chosen)
    return Path(os.environ[FOLDER], "records") if FOLDER in os.environ else Path(tempfile.mkdtemp())


def read_parameters(notebook: Any) -> dict[str, Any]:
    """Names and defaults in the cell tagged `parameters`: plain assignments of Python literals.

    Raises
    ------
    InputError : no such cell, or a default that is no literal.
    """
    cells = [one for one in notebook.cells if "parameters" in one.metadata.get("tags", [])]
    if not cells:
        raise InputError("the notebook has no cell tagged 'parameters': give one cell this tag")
    try:
        parameters = {}
        for line in ast.parse(cells[0].source).body:
            target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
            if isinstance(line, ast.Assign | ast.AnnAssign) and line.value and isinstance(target, ast.Name):
                parameters[target.id] = ast.literal_eval(line.value)
        json.dumps(parameters)
        return parameters
    except (ValueError, SyntaxError, TypeError) as error:
        raise InputError(
            f"the cell of parameters holds more than plain values ({error}): write name = number, text, list or dict"
        ) from error


def chosen(defaults: Mapping[str, Any], given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The given texts as values of the parameters' own types; text stays text where the default is text.

    >>> chosen({"SEED": 0, "DATASET": "synthetic", "MASKS": None}, [("SEED", "3"), ("DATASET", "jsrt")])
    {'SEED': 3, 'DATASET': 'jsrt'}

    Raises
    ------
    InputError : an unknown name, or a value of another type.
    """
    values = {}
    for name, text in given:
        if name not in defaults:
            raise InputError(f"the notebook has no parameter {name!r}: it has {', '.join(defaults)}")
        values[name] = _value(name, text, defaults[name])
    return values


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    number = isinstance(default, float) and type(value) is int
    if not (default is None or value is None or type(value) is type(default) or number):
        raise InputError(f"{name} must be of type {type(default).__name__}, such as {default!r}; got {text!r}")
    return value


def default_folder(file: str | Path, given: Sequence[tuple[str, str]]) -> Path:
    """The folder of a run that was not given one: named after the notebook and what was asked of it.

    >>> default_folder("book/experiments/segmentation.ipynb", [("PROFILE", "full"), ("SEED", "3")]).as_posix()
    'runs/segmentation-full-SEED=3'
    """
    parts = [value if name == "PROFILE" else f"{name}={value}" for name, value in given]
    words = ("".join(c if c.isalnum() or c in "=._+" else "_" for c in one) for one in parts)
    return Path("runs", "-".join([Path(file).stem, *words]))


def run_notebook(
    file: str | Path, out: str | Path | None = None, given: Sequence[tuple[str, str]] = (), progress: bool = True
) -> NotebookRun:
    """Run a notebook with these parameters; a run that was stopped goes on, one that is finished is left alone.

    `out` then holds `run.json` (parameters, commit, versions, device, fingerprints of the data, wall time),
    `notebook.ipynb` with all outputs, `log.txt` and `records/`. Until it is whole it is called `.NAME.unfinished`.

    Parameters
    ----------
    file : a notebook with a cell tagged `parameters`.
    out : default see `default_folder`.
    given : names and values as text; `PROFILE` must be one of `profiles.PROFILES`.
    progress : show a bar, and what the cells print.

    Raises
    ------
    InputError : no notebook, an unknown parameter or profile, no papermill, or `out` holds something else.
    CellFailed : a cell raised an error; the same call goes on after what is finished.
    """
    if find_spec("papermill") is None:
        raise InputError("papermill is not installed: pip install 'cxr-tutorial[book]'")
    import nbformat

    file, folder = Path(file), Path(out) if out else default_folder(file, given)
    try:
        notebook = nbformat.read(file, as_version=4)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file} is no notebook that can be read ({error})") from error
    values = chosen(read_parameters(notebook), given)
    if "PROFILE" in values:
        get_profile(values["PROFILE"])
    asked = {"notebook": file.stem, "parameters": read_parameters(notebook) | values}
    asked = json.loads(json.dumps(asked))
    source = hashlib.sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()[:16]
    if (folder / "run.json").exists():
        _same(folder / "run.json", asked | {"source": source})
        return NotebookRun(folder, again=True)

    started = datetime.now(UTC)
    with whole_folder(folder) as unfinished, only_process(unfinished / ".lock"):
        whole = unfinished / "run.json"
        calls = _same(whole, asked).get("calls", 0) + 1 if whole.exists() else 1
        whole.write_text(json.dumps(asked | {"source": source, "calls": calls}, indent=1) + "\n")
        _execute(file, unfinished, values, progress)
        records = load_records(unfinished / "records") if (unfinished / "records").is_dir() else []
        data = " ".join(sorted({one.provenance.data for one in records}))
        device = ", ".join(sorted({one.provenance.device for one in records})) or describe_device("auto")
        made = {"records": [one.id for one in records], "provenance": asdict(provenance(data, started, device))}
        whole.write_text(json.dumps(asked | {"source": source, "calls": calls} | made, indent=1, sort_keys=True) + "\n")
    return NotebookRun(folder)


def _same(file: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `run.json` if it is of what is asked."""
    try:
        content = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}): remove its folder, or choose another --out") from error
    if other := [name for name in asked if content.get(name) != asked[name]]:
        raise InputError(f"{file.parent} is of another run ({', '.join(other)} differ): choose another --out")
    return content


def _execute(file: Path, folder: Path, values: dict[str, Any], progress: bool) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    with (folder / "log.txt").open("a") as log, _environment(FOLDER, str(folder.resolve())):
        output = _Tee(log, progress)
        try:
            papermill.execute_notebook(
                file,
                folder / EXECUTED,
                values,
                kernel_name="python3",
                language="python",
                progress_bar=progress,
                stdout_file=output,
                stderr_file=output,
            )
        except PapermillExecutionError as error:
            said = f"cell {error.exec_count} failed: {error.ename}: {error.evalue}".rstrip()
            log.write(f"{said}\n")
            kept = f"what ran before it is in {folder / EXECUTED}; once the cause is mended, the same command goes on"
            raise CellFailed(f"{said}\n{kept}") from error
        except DeadKernelError as error:
            said = "the kernel died, perhaps for want of memory"
            log.write(f"{said}\n")
            raise CellFailed(f"{said}; what ran before is in {folder / EXECUTED}") from error


class _Tee:
    """What the cells print goes to the log at once, and above the bar on the screen."""

    def __init__(self, log: TextIO, show: bool) -> None:
        self.log, self.show = log, show

    def write(self, text: str) -> None:
        from tqdm import tqdm

        self.log.write(text)
        self.log.flush()
        if self.show:
            tqdm.write(text, file=sys.stdout, end="")

    def flush(self) -> None:
        self.log.flush()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
