"""The command `cxr-tutorial` (floor 4): one room per subcommand; what they do lies on the floors below."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import cxr_tutorial
from cxr_tutorial.cli import classroom, data, grid, results
from cxr_tutorial.cli.run import run
from cxr_tutorial.cli.train import evaluate, predict, train
from cxr_tutorial.errors import InputError

app = typer.Typer(
    help="Semi-supervised multi-task learning with chest X-rays: data, training, evaluation, results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(run)
app.add_typer(grid.app, name="grid")
app.add_typer(results.app, name="results")
app.add_typer(classroom.app, name="classroom")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if show:
        typer.echo(cxr_tutorial.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except (InputError, OSError, FloatingPointError) as error:
        typer.echo(f"cxr-tutorial: {error}", err=True)
        sys.exit(2)
