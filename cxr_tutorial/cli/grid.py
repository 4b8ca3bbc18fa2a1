"""`cxr-tutorial grid`: many runs by one command."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Many runs by one command: plan, run, see how far they are, collect.", no_args_is_help=True)

Groups = Annotated[list[str] | None, typer.Argument(help="Groups of cells; `grid plan` alone lists them.")]
Plan = Annotated[Path | None, typer.Option("--plan", help="A plan of your own, a TOML file.")]
Only = Annotated[str, typer.Option(help="Cells in whose name this regular expression is found.")]
Out = Annotated[Path, typer.Option(help="Folder of the records, a folder for each group.")]
Weights = Annotated[Path, typer.Option(help="Folder of the weights.")]
RECORDS, WEIGHTS = Path("runs/grid"), Path("runs/weights")


@app.command("plan")
def plan(groups: Groups = None, file: Plan = None, only: Only = "") -> None:
    """List the groups; or the cells of some, with what is run in each."""
    from cxr_tutorial.grid import PLANS, plan_cells

    if not (groups or file):
        for name, cells in PLANS.items():
            typer.echo(f"{name:16} {len(list(cells())):4} cells")
        return
    cells_of_groups = plan_cells(groups or [], file, only)
    for cell in cells_of_groups:
        config = cell.config
        budget = next(f"{value} {unit}" for unit in ("steps", "epochs", "seconds") if (value := getattr(config, unit)))
        about = f"{config.data}, {config.size} px, {config.method}, {config.net}, {config.recipe.loss}, {budget}"
        typer.echo(f"{cell.name:40} {about}{f', after {cell.after}' if cell.after else ''}")
    typer.echo(f"{len(cells_of_groups)} cells")


@app.command("run")
def run(
    groups: Groups = None,
    file: Plan = None,
    only: Only = "",
    out: Out = RECORDS,
    weights: Weights = WEIGHTS,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time; default 1, or what the profile says.", min=1)
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of each.", min=1)] = 1,
    accelerator: Annotated[str | None, typer.Option(help="cpu, cuda or mps instead of what the cells say.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also run what failed, and what is broken anew.")] = False,
    engine: Annotated[str, typer.Option(help="plain (processes of this machine) or snakemake.")] = "plain",
    profile: Annotated[
        str | None, typer.Option(help="For snakemake: slurm, which ships, or the folder of a profile of yours.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be run.")] = False,
) -> None:
    """Run what is not done yet; after a kill, the same command goes on. Exit status 1 if a cell is not done."""
    from cxr_tutorial.errors import InputError
    from cxr_tutorial.grid import Grid, plan_cells
    from cxr_tutorial.grid.engine import pending, run_plain
    from cxr_tutorial.grid.workflow import run_snakemake

    if engine not in ("plain", "snakemake"):
        raise InputError(f"unknown engine {engine!r}: choose plain or snakemake")
    cells, grid = plan_cells(groups or [], file, only), Grid(out, weights, accelerator)
    todo = pending(cells, grid, retry, dry_run)
    try:
        if engine == "snakemake" or profile:
            code = run_snakemake(todo, grid, jobs=jobs, threads=threads, profile=profile, plan=file, dry_run=dry_run)
            if dry_run:
                raise typer.Exit(code)
        elif dry_run:
            typer.echo("\n".join([one.name for one in todo] + [f"{len(todo)} cells to run"]))
            return
        else:
            run_plain(todo, grid, jobs=jobs or 1, threads=threads, report=_say)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    if _tell(cells, grid)["done"] < len(cells):
        raise typer.Exit(1)


@app.command("status")
def status(
    groups: Groups = None, file: Plan = None, only: Only = "", out: Out = RECORDS, weights: Weights = WEIGHTS
) -> None:
    """How many cells are done, stopped half-way, failed or broken, and why."""
    from cxr_tutorial.grid import Grid, plan_cells

    _tell(plan_cells(groups or [], file, only), Grid(out, weights))


@app.command("collect")
def collect(
    groups: Groups = None,
    file: Plan = None,
    only: Only = "",
    out: Out = RECORDS,
    table: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("figures.csv"),
) -> None:
    """Write one table of every figure of these groups, or of all records below --out.

    A broken record is named and left out. Exit status 1 if there is one, or if a cell of the groups has no record.
    """
    from cxr_tutorial.errors import InputError
    from cxr_tutorial.grid import Grid, plan_cells, state_of
    from cxr_tutorial.results import collect, read_record, record_folders, tidy, write_table

    absent = 0
    if groups or file:
        grid = Grid(out, WEIGHTS)
        states = {grid.record(one): state_of(one, grid) for one in plan_cells(groups or [], file, only)}
        broken = {place: state.reason for place, state in states.items() if state.kind == "broken"}
        there = [place for place in states if place not in broken and (place / "run.json").exists()]
        records, absent = [read_record(place) for place in there], len(states) - len(there) - len(broken)
    else:
        records, broken = collect(record_folders(out))
    for reason in broken.values():
        typer.echo(f"left out: {reason}", err=True)
    if not records:
        raise InputError(f"no whole record below {out}: run some cells first, or name their folder with --out")
    write_table(table, tidy(sorted(records, key=lambda record: (record.group or "", record.id))))
    typer.echo(f"{table}: {len(records)} records, {len(broken)} broken, {absent} cells without a record")
    if broken or absent:
        raise typer.Exit(1)


@app.command("cell", hidden=True)
def cell(
    name: str,
    out: Out,
    weights: Weights,
    file: Plan = None,
    threads: int = 1,
    accelerator: str | None = None,
) -> None:
    """One cell, for the engine on a cluster."""
    import torch

    from cxr_tutorial.grid import Grid, find_cell, run_cell
    from cxr_tutorial.results import headline

    torch.set_num_threads(threads)
    typer.echo(f"{name} {headline(run_cell(find_cell(name, file), Grid(out, weights, accelerator)))}")


def _say(line: str) -> None:
    typer.echo(line)


def _tell(cells: Any, grid: Any) -> Counter[str]:
    from cxr_tutorial.grid import state_of

    states = {one.name: state_of(one, grid) for one in cells}
    for name, state in states.items():
        if state.reason:
            typer.echo(f"{state.kind:8} {name}: {state.reason}")
    counts = Counter(state.kind for state in states.values())
    typer.echo(f"{len(cells)} cells: {', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))}")
    return counts
