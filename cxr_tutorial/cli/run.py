"""`cxr-tutorial run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cxr_tutorial.errors import InputError


def run(
    notebook: Annotated[Path, typer.Argument(help="A notebook, such as book/experiments/segmentation.ipynb.")],
    values: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    profile: Annotated[str | None, typer.Option(help="quick or full; default what the notebook says.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME VALUE", help="A parameter of the notebook; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NOTEBOOK-...")] = None,
) -> None:
    """Run a notebook into a folder of its own; one that was stopped goes on if called again.

    `-p NAME=VALUE` is the same as `-p NAME VALUE`. Exit status 1 if a cell fails; everything before it is kept.
    """
    from cxr_tutorial.notebooks import CellFailed, run_notebook

    words = [str(notebook), *(values or [])]
    named = [word for word in words if word.endswith(".ipynb")] or words[:1]  # `-p NAME VALUE` may stand in front
    words.remove(named[0])
    notebook = Path(named[0])
    given = ([("PROFILE", profile)] if profile else []) + _pairs(parameter or [], words)
    try:
        done = run_notebook(notebook, out, given)
    except CellFailed as error:
        typer.echo(f"cxr-tutorial: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{'finished before, in' if done.again else 'run in'} {done.folder}")


def _pairs(names: Sequence[str], values: Sequence[str]) -> list[tuple[str, str]]:
    """Names with their values; Typer sees the value behind `-p NAME` as one more argument."""
    open_names = [name for name in names if "=" not in name]
    if len(open_names) != len(values):
        told = f"{len(open_names)} names without a value ({', '.join(open_names)}) but {len(values)} values"
        raise InputError(f"{told} ({', '.join(values)}): expected -p NAME VALUE")
    rest = iter(values)
    return [(name, value if equals else next(rest)) for name, equals, value in (one.partition("=") for one in names)]
