"""`cxr-tutorial results`: read the records of runs, and run one again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Read the records of runs, and run them again.", no_args_is_help=True)


@app.command("list")
def list_records(
    folder: Annotated[Path | None, typer.Argument(help="Default: the records that ship with the package.")] = None,
) -> None:
    """One line per record: GROUP/ID, the method, the Dice or AUC of each part."""
    from cxr_tutorial.results import headline, load_records

    records = load_records(folder)
    for record in sorted(records, key=lambda one: (one.group or "", one.id)):
        name = f"{record.group}/{record.id}"
        typer.echo(f"{name:44} {record.config.get('method', ''):16} {headline(record)}")
    typer.echo(f"{len(records)} records")


@app.command("show")
def show(
    record: Annotated[str, typer.Argument(help="A record's folder, or GROUP/ID of one that ships.")],
) -> None:
    """Everything about one record: configuration, provenance and figures with their intervals."""
    import json
    from dataclasses import asdict

    from cxr_tutorial.reproduce import find_record
    from cxr_tutorial.results import read_record

    found = read_record(find_record(record))
    typer.echo(json.dumps({"config": found.config, "provenance": asdict(found.provenance)}, indent=1))
    for part, summary in found.metrics.items():
        for name, value in summary.items():
            low, high = value["ci95"]
            unit = value.get("unit", "")
            typer.echo(f"{part:12} {name:12} {value['mean']:.4f} [{low:.4f}, {high:.4f}] {unit} (n = {value['n']})")


@app.command("reproduce")
def reproduce(
    record: Annotated[str, typer.Argument(help="A record's folder, or GROUP/ID of one that ships.")],
    out: Annotated[Path | None, typer.Option(help="Keep the new record here; default a temporary folder.")] = None,
) -> None:
    """Run a record's configuration again and say whether it comes out the same. Exit status 1 if it does not."""
    import tempfile

    from cxr_tutorial import reproduce as again

    folder = again.find_record(record)
    with tempfile.TemporaryDirectory() as temporary:
        verdict = again.reproduce(folder, out or Path(temporary) / folder.name)
    made = verdict.record.provenance
    typer.echo(f"{folder}: made {made.date} on {made.device}, commit {made.commit}")
    typer.echo(f"rule: {'bit for bit' if verdict.exact else 'within the spread'}, for {verdict.why}")
    if not verdict.same_data:
        typer.echo("the training saw other data than the record's: the fingerprints differ")
    typer.echo(f"pictures: {verdict.differing} of {verdict.rows} rows differ")
    for one in verdict.figures:
        said = "" if one.holds else "  <- outside"
        typer.echo(
            f"{one.part:22} {one.name:5} {one.recorded:.4f} was recorded, {one.again:.4f} now, "
            f"tolerance {one.tolerance:.4f}{said}"
        )
    if verdict.differing and verdict.changes:
        typer.echo(f"the package was changed in between by {len(verdict.changes)} commits:")
        for change in verdict.changes:
            typer.echo(f"  {change}")
    typer.echo("REPRODUCES" if verdict.holds else "DOES NOT REPRODUCE")
    if not verdict.holds:
        raise typer.Exit(1)
