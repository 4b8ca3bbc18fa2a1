"""`cxr-tutorial classroom`: build assignments, grade them, look for leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxr_tutorial.errors import InputError

app = typer.Typer(help="Build assignments, grade submissions, look for leaks.", no_args_is_help=True)

Sources = Annotated[Path, typer.Option("--from", help="Where the sources or the instructor's copies lie.")]
Variant = Annotated[int | None, typer.Option(help="Which variant students see; default: the source's own.")]
Seed = Annotated[
    int | None, typer.Option(envvar="CXR_SEED", help="Your secret number, from which the private seeds are drawn.")
]


def needs_nbgrader() -> None:
    try:
        import nbgrader  # noqa: F401
    except ImportError as error:
        raise InputError("grading needs nbgrader: pip install 'cxr-tutorial[classroom]'") from error


@app.command("build")
def build(
    chosen: Annotated[list[str] | None, typer.Argument(help="Names of assignments; default: all.")] = None,
    sources: Sources = Path("assignments"),
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("_build/assignments"),
    variant: Variant = None,
    seed: Seed = None,
) -> None:
    """Write what is handed out (a folder and a zip) and what the teacher keeps, and look for leaks in the former."""
    needs_nbgrader()
    from cxr_tutorial.classroom.build import build as make
    from cxr_tutorial.classroom.scan import scan, secrets_of
    from cxr_tutorial.classroom.sources import read

    made = make(sources, out, chosen or (), variant=variant, seed=seed)
    hidden = [one for name in made.names for one in secrets_of(name, read(made.instructor, name))]
    leaks, _ = scan([made.release, made.archive], hidden)
    if leaks:
        raise InputError("the student release leaks:\n" + "\n".join(map(str, leaks)))
    typer.echo(f"for students: {made.release} and {made.archive}\nfor you: {made.instructor}, a course of nbgrader")
    typer.echo(f"{len(made.names)} assignments; nothing of {len(hidden)} secrets stands in what students get")


@app.command("grade")
def grade(
    submissions: Annotated[Path, typer.Argument(help="A folder: alice.ipynb, or alice/anything.ipynb.")],
    assignment: Annotated[str, typer.Option(help="Which assignment, such as 01-overlap-losses.")],
    out: Annotated[Path, typer.Option(help="Where marks and feedback go.")] = Path("graded"),
    sources: Sources = Path("_build/assignments/instructor"),
    jobs: Annotated[int, typer.Option(min=1, help="How many submissions run at once.")] = 1,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds for one submission.")] = 300,
    cell_limit: Annotated[int, typer.Option(min=1, help="Seconds for one cell.")] = 120,
    memory: Annotated[int, typer.Option(min=200, help="MB of memory for one submission.")] = 3000,
    variant: Variant = None,
    seed: Seed = None,
) -> None:
    """Grade every submission of a folder: a table, a gradebook and a page of feedback for each student."""
    needs_nbgrader()
    from cxr_tutorial.classroom.confine import gaps
    from cxr_tutorial.classroom.grade import Graded
    from cxr_tutorial.classroom.grade import grade as grade_all
    from cxr_tutorial.classroom.sandbox import Limits

    for gap in gaps():
        typer.echo(f"this system {gap}: grade strangers in a container", err=True)

    def tell(one: Graded) -> None:
        to_read = f", {one.to_read:g} to read" if one.to_read else ""
        typer.echo(f"{one.student}: {one.auto:g} points{to_read}; {one.words}")

    limits = Limits(seconds=time_limit, cell_seconds=cell_limit, memory_mb=memory)
    grade_all(submissions, sources, assignment, out, limits=limits, jobs=jobs, variant=variant, seed=seed, tell=tell)
    typer.echo(f"marks: {out / assignment}.csv, feedback: {out / 'feedback'}, written answers: nbgrader in {out}")


@app.command("leaderboard")
def leaderboard(
    graded: Annotated[Path, typer.Argument(help="What `grade` wrote.")] = Path("graded"),
    assignment: Annotated[str, typer.Option(help="The assignment.")] = "06-capstone",
) -> None:
    """Who was best on the private hospital."""
    from cxr_tutorial.classroom.leaderboard import leaderboard as table

    typer.echo(f"{'':>3} {'student':<24} {'Dice':>6} {'AUC':>6} {'mean':>6}")
    for place, row in enumerate(table(graded, assignment), 1):
        typer.echo(f"{place:>3} {row.student:<24} {row.dice:>6.3f} {row.auc:>6.3f} {row.score:>6.3f}  {row.note}")


@app.command("slides")
def slides(
    chapters: Annotated[list[Path], typer.Argument(help="Notebooks such as book/02-tversky.ipynb.")],
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("_build/slides"),
    vendor: Annotated[Path, typer.Option(help="The book's JavaScript.")] = Path("book/vendor"),
) -> None:
    """Run chapters and write slides of them (reveal.js) that need no network; S shows the speaker's notes."""
    needs_nbgrader()
    from cxr_tutorial.classroom.slides import slides as make

    for chapter in chapters:
        typer.echo(make(chapter, out, vendor))


@app.command("scan")
def scan(
    places: Annotated[list[Path], typer.Argument(help="Folders, wheels, zips or files that students can see.")],
    sources: Sources = Path("assignments"),
    seed: Seed = None,
) -> None:
    """Fail if a solution, a hidden test or a private seed stands in what students can see."""
    needs_nbgrader()
    from cxr_tutorial.classroom.scan import scan as look
    from cxr_tutorial.classroom.scan import secrets_of
    from cxr_tutorial.classroom.sources import names, read

    hidden = [one for name in names(sources) for one in secrets_of(name, read(sources, name, seed=seed))]
    leaks, looked_at = look(places, hidden)
    if leaks:
        raise InputError(f"{len(leaks)} leaks:\n" + "\n".join(map(str, leaks)))
    typer.echo(f"nothing of {len(hidden)} secrets stands in {looked_at} files of {', '.join(map(str, places))}")
