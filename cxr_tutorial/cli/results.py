"""`cxr-tutorial results`: read the records of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Read the records of runs.", no_args_is_help=True)


@app.command("list")
def list_records(
    folder: Annotated[Path | None, typer.Argument(help="Default: the records that ship with the package.")] = None,
) -> None:
    """One line per record: what was run and the Dice of each part."""
    from cxr_tutorial.results import load_records

    records = load_records(folder)
    for record in records:
        about = record.config
        dice = ", ".join(f"{part} {m['dice']['mean']:.4f}" for part, m in record.metrics.items() if "dice" in m)
        typer.echo(f"{record.id:24} {about['data']:10} {about['net']:8} {about['recipe']['loss']:10} {dice}")
    typer.echo(f"{len(records)} records")


@app.command("show")
def show(folder: Annotated[Path, typer.Argument(help="The folder of one record.")]) -> None:
    """Everything about one record: configuration, provenance and figures with their intervals."""
    import json
    from dataclasses import asdict

    from cxr_tutorial.results import read_record

    record = read_record(folder)
    typer.echo(json.dumps({"config": record.config, "provenance": asdict(record.provenance)}, indent=1))
    for part, summary in record.metrics.items():
        for name, value in summary.items():
            low, high = value["ci95"]
            unit = value.get("unit", "")
            typer.echo(f"{part:12} {name:12} {value['mean']:.4f} [{low:.4f}, {high:.4f}] {unit} (n = {value['n']})")
