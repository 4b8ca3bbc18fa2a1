"""`cxr-tutorial data`: look at data sets, or download them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at data sets, or download them.", no_args_is_help=True)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="montgomery, shenzhen, jsrt, synthetic, or a folder of pictures.")],
    root: Annotated[str | None, typer.Option(help="Where it lies; default $CXR_DATA/NAME.")] = None,
) -> None:
    """Say what a data set holds: which release, how many pictures, masks, classes and patients."""
    from cxr_tutorial.experiment import load

    examples = load(name, root)
    labels = examples.labels
    typer.echo(f"{examples.name}: {examples.release}")
    typer.echo(f"pictures  {len(examples)}")
    typer.echo(f"masks     {sum(examples.has_mask)}")
    typer.echo(f"patients  {len(set(examples.patients))}")
    typer.echo(f"labels    0: {labels.count(0)}, 1: {labels.count(1)}, unknown: {labels.count(None)}")


@app.command("download")
def fetch(
    name: Annotated[str, typer.Argument(help="montgomery, shenzhen, shenzhen-masks or jsrt.")],
    folder: Annotated[Path, typer.Option("--to", help="The folder that CXR_DATA points to.")] = Path("cxr_data"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Fetch a data set from its official address; size, terms and checksum are shown first."""
    from cxr_tutorial.data.download import download

    typer.echo(download(name, folder, yes=yes))
