"""A grid that is killed, that has a failing cell or a spoilt record: nothing is lost, nothing runs twice."""

import csv
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from cxr_tutorial import cli
from cxr_tutorial.errors import InputError
from cxr_tutorial.grid import Grid, engine, find_cell, plan_cells, run_cell, state_of
from cxr_tutorial.grid import cells as rooms
from cxr_tutorial.grid.engine import pending, run_plain
from cxr_tutorial.results import record_folders

ONLY = "unet-.*s1"  # two nets, a second stage, a game
VARIES = {"date", "wall_seconds", "start"}  # the second stage starts from a file of the grid's own folder


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def start(folder: Path, *args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cxr_tutorial", "grid", *args]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def call(folder: Path, *args: str, status: int = 0) -> str:
    """The command in this process, which has torch loaded already."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["cxr-tutorial", "grid", *args])
        with pytest.raises(SystemExit) as ended:
            sys.exit(cli.main())
    assert (ended.value.code or 0) == status, said.getvalue()
    return said.getvalue()


def table(folder: Path) -> list[dict[str, str]]:
    call(folder, "collect", "tiny", "--only", ONLY, "--out", "runs/grid", "--table", "t.csv")
    with (folder / "t.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in VARIES} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert "4 cells: 4 done" in call(folder, "run", "tiny", "--only", ONLY)
    return folder


@pytest.mark.slow
def test_a_grid_killed_in_the_middle_goes_on_and_ends_as_one_that_was_not(undisturbed, tmp_path):
    records = tmp_path / "runs" / "grid" / "tiny"
    process = start(tmp_path, "run", "tiny", "--only", ONLY, "--jobs", "2")
    while not (before := record_folders(records)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.wait()
    written = {folder / "run.json": (folder / "run.json").read_bytes() for folder in before}
    assert len(written) < 4
    out = call(tmp_path, "run", "tiny", "--only", ONLY)
    assert "4 cells: 4 done" in out
    assert {file: file.read_bytes() for file in written} == written  # their dates would tell a second run
    assert not [path for path in records.iterdir() if path.name.startswith(".")]
    assert table(tmp_path) == table(undisturbed)
    for file in (undisturbed / "runs" / "weights").rglob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / file.relative_to(undisturbed)).read_bytes()
    assert "[1/" not in call(tmp_path, "run", "tiny", "--only", ONLY)


def test_a_grid_keeps_what_chapters_read_and_puts_weights_away(undisturbed):
    folder = undisturbed / "runs" / "grid" / "tiny"
    assert {p.name for p in (folder / "unet-48-s1").iterdir()} == {
        "run.json", "metrics.json", "per_image.csv", "curve.csv",
    }  # fmt: skip
    weights = {p.stem for p in (undisturbed / "runs" / "weights" / "tiny").iterdir()}
    cells = {"unet-s1", "ppaunet-s1", "appaunet-s1", "unet-48-s1"}
    assert weights == cells | {"appaunet-s1.discriminator"}
    rows = table(undisturbed)
    assert {row["id"] for row in rows} == cells
    assert {row["fingerprint"] for row in rows if row["id"] == "unet-s1"} != {""}


def test_a_spoilt_record_is_named_and_spoils_no_table(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    spoilt = tmp_path / "runs" / "grid" / "tiny" / "unet-s1" / "per_image.csv"
    spoilt.write_text("".join(spoilt.read_text().splitlines(keepends=True)[:-3]))
    args = ("tiny", "--only", ONLY, "--out", "runs/grid")
    out = call(tmp_path, "collect", *args, "--table", "t.csv", status=1)
    assert "unet-s1: the dice of test" in out
    assert "3 records, 1 broken" in out
    with (tmp_path / "t.csv").open() as file:
        assert len({row["id"] for row in csv.DictReader(file)}) == 3
    assert "broken   tiny/unet-s1" in call(tmp_path, "status", *args)
    assert "3 done" in call(tmp_path, "run", *args, status=1)  # not overwritten without being asked
    assert "4 done" in call(tmp_path, "run", *args, "--retry")
    assert list((tmp_path / "runs" / "grid" / "tiny").glob(".unet-s1.broken-*/run.json"))


def test_a_failing_cell_is_told_with_its_reason_and_runs_again_when_asked(tmp_path, monkeypatch):
    cell, grid = find_cell("tiny/unet-s1"), Grid(tmp_path / "out", tmp_path / "weights")
    honest = rooms.run

    def failing(*args, **options):
        raise FloatingPointError("the objective is nan at step 2")

    monkeypatch.setattr(rooms, "run", failing)
    with pytest.raises(FloatingPointError):
        run_cell(cell, grid)
    assert state_of(cell, grid).kind == "failed"
    assert "the objective is nan at step 2" in state_of(cell, grid).reason
    assert pending([cell], grid) == []
    assert pending([cell], grid, retry=True) == [cell]
    monkeypatch.setattr(rooms, "run", honest)
    run_cell(cell, grid)
    assert state_of(cell, grid).kind == "done"
    assert [p.name for p in (tmp_path / "out" / "tiny").iterdir()] == ["unet-s1"]

    def twice(*args, **options):
        raise AssertionError("run twice")

    monkeypatch.setattr(rooms, "run", twice)
    run_cell(cell, grid)
    (grid.record(cell) / "weights.safetensors").write_bytes(grid.kept_weights(cell.name).read_bytes())  # killed here
    assert state_of(cell, grid).kind == "stopped"
    assert pending([cell], grid) == []
    assert state_of(cell, grid).kind == "done"


@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_cell_with_it(tmp_path):
    grid = Grid(tmp_path / "out", tmp_path / "weights", accelerator="cpu")
    cells, lines = plan_cells(["tiny"], only="unet-(48-)?s1$"), []
    first = threading.Thread(target=run_plain, args=(cells, grid), kwargs={"report": lines.append})
    first.start()
    while not (workers := multiprocessing.active_children()):
        time.sleep(0.01)
    os.kill(workers[0].pid, signal.SIGKILL)
    first.join()
    states = {cell.name: state_of(cell, grid).kind for cell in cells}
    assert states["tiny/unet-s1"] == "failed"
    assert "exit code -9" in state_of(cells[0], grid).reason
    assert states["tiny/ppaunet-s1"] == "done"
    assert states["tiny/unet-48-s1"] == "open"
    assert "waits for the weights of tiny/unet-s1" in lines[-1]
    run_plain(pending(cells, grid, retry=True), grid, report=lines.append)
    assert {state_of(cell, grid).kind for cell in cells} == {"done"}
    assert '"accelerator": "cpu"' in (grid.record(cells[0]) / "run.json").read_text()


def test_two_processes_at_one_cell_run_it_once(tmp_path):
    args = ("cell", "tiny/unet-s1", "--out", "o", "--weights", "w")
    both = [start(tmp_path, *args) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0] == said[1]
    assert [p.name for p in (tmp_path / "o" / "tiny").iterdir()] == ["unet-s1"]


def test_a_cell_for_several_devices_is_refused_and_not_waited_for():
    cell = find_cell("tiny/unet-s1")
    with pytest.raises(InputError, match="asks for 2 devices: a grid runs each cell on one"):
        replace(cell, config=replace(cell.config, recipe=replace(cell.config.recipe, devices=2)))


def test_a_second_stage_without_its_first_says_what_to_do(tmp_path):
    grid = Grid(tmp_path / "out", tmp_path / "weights")
    with pytest.raises(InputError, match="run tiny/unet-s1"):
        run_cell(find_cell("tiny/unet-48-s1"), grid)


def test_a_second_stage_waits_while_its_first_is_made_anew(tmp_path):
    grid, first, second = (
        Grid(tmp_path / "out", tmp_path / "w"),
        find_cell("tiny/unet-s1"),
        find_cell("tiny/unet-48-s1"),
    )
    stale = grid.kept_weights(first.name)
    stale.parent.mkdir(parents=True)
    stale.write_text("of a run that is gone")
    assert engine.is_ready(second, grid, under_way=set())
    assert not engine.is_ready(second, grid, under_way={first.name})


def test_a_record_of_another_configuration_is_left_out_and_asking_moves_nothing(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "grid" / "tiny" / "unet-s1" / "run.json"
    run.write_text(run.read_text().replace('"steps": 12', '"steps": 13'))
    (run.parent / "history.csv").write_text("killed before the tidying")
    args = ("tiny", "--only", ONLY, "--out", "runs/grid")
    out = call(tmp_path, "collect", *args, "--table", "t.csv", status=1)
    assert "unet-s1 was made with another configuration: steps" in out
    assert "3 records, 1 broken" in out
    before = sorted(tmp_path.rglob("*"))
    assert "tiny/unet-s1\n1 cells to run" in call(tmp_path, "run", *args, "--retry", "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(find_spec("snakemake") is None, reason="pip install 'cxr-tutorial[sweep]'")
class TestSnakemake:
    def test_on_slurm_a_dry_run_names_every_job_and_what_it_waits_for(self, tmp_path):
        out, _ = start(tmp_path, "run", "tiny", "--profile", "slurm", "-n").communicate()
        assert "cell         6" in out
        assert out.count("Missing output files") == 6
        assert f"input: {tmp_path}/runs/grid/tiny/unet-s1/run.json" in out
        assert not (tmp_path / "runs" / "grid").exists()

    @pytest.mark.slow
    def test_here_it_runs_what_is_left(self, undisturbed, tmp_path):
        shutil.copytree(undisturbed / "runs", tmp_path / "runs")
        for name in ("unet-s1", "unet-48-s1"):
            shutil.rmtree(tmp_path / "runs" / "grid" / "tiny" / name)
            (tmp_path / "runs" / "weights" / "tiny" / f"{name}.safetensors").unlink()
        out, _ = start(tmp_path, "run", "tiny", "--only", ONLY, "--engine", "snakemake").communicate()
        assert "4 cells: 4 done" in out
        assert table(tmp_path) == table(undisturbed)

    @pytest.mark.slow
    def test_a_record_stays_when_its_weights_cannot_be_put_away(self, tmp_path):
        (tmp_path / "runs" / "weights").mkdir(parents=True)
        (tmp_path / "runs" / "weights" / "tiny").write_text("in the way")
        out, _ = start(tmp_path, "run", "tiny", "--only", "^tiny/unet-s1$", "--engine", "snakemake").communicate()
        assert "1 failed" in out or "1 stopped" in out, out
        assert (tmp_path / "runs" / "grid" / "tiny" / "unet-s1" / "run.json").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "tiny", "--engine", "make"], "unknown engine 'make'"),
        (["run", "tiny", "--profile", "nowhere"], "nowhere"),
        (["status", "tyni"], "no group tyni"),
        (["collect", "tiny", "--out", "absent"], "no whole record below absent"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, args, message):
    out = call(tmp_path, *args, status=2)
    assert message in out
    assert "Traceback" not in out


def test_a_plan_is_listed_before_anything_is_run(tmp_path):
    assert "losses            192 cells" in call(tmp_path, "plan")
    out = call(tmp_path, "plan", "tiny")
    assert "tiny/unet-48-s1" in out
    assert "after tiny/unet-s1" in out
    assert out.endswith("6 cells\n")
    assert "6 cells to run" in call(tmp_path, "run", "tiny", "-n")
