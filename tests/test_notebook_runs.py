"""`cxr-tutorial run`: a notebook's run is whole or goes on, and says which cell failed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from cxr_tutorial.config import Config, read_config
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import run, run_once
from cxr_tutorial.grid import PLANS
from cxr_tutorial.notebooks import CellFailed, chosen, default_folder, read_parameters, records_folder, run_notebook
from cxr_tutorial.results import load_records, read_record
from cxr_tutorial.train import Recipe

BOOK = Path(__file__).parents[1] / "book"
EXPERIMENTS = BOOK / "experiments"
CHAPTERS = sorted([*BOOK.glob("[0-9]*.ipynb"), *EXPERIMENTS.glob("*.ipynb")])


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Writes a notebook of these cells behind its parameters."""
    monkeypatch.chdir(tmp_path)

    def write(
        *cells: str, parameters: str = 'PROFILE = "quick"\nSEED = 0\nNAME = "x"\nRATE = 0.5\nLIST = None'
    ) -> Path:
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        nbformat.write(new_notebook(cells=[first, *map(new_code_cell, cells)]), tmp_path / "some.ipynb")
        return tmp_path / "some.ipynb"

    return write


def in_a_shell(*args: str, status: int | None = 0, **environment: str) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "cxr_tutorial", "run", *args]
    done = subprocess.run(call, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert status is None or done.returncode == status, done.stderr
    return done


# ---- what was asked


def test_values_get_the_type_of_the_parameter():
    defaults = {"PROFILE": "quick", "SEED": 0, "RATE": 0.5, "LIST": None, "FLAG": False, "RECIPE": {}}
    given = [("SEED", "3"), ("RATE", "1"), ("LIST", "[1, 2]"), ("FLAG", "True"), ("RECIPE", "{'ema': 0}")]
    assert chosen(defaults, given) == {"SEED": 3, "RATE": 1, "LIST": [1, 2], "FLAG": True, "RECIPE": {"ema": 0}}
    assert chosen(defaults, [("PROFILE", "7"), ("LIST", "jsrt")]) == {"PROFILE": "7", "LIST": "jsrt"}
    with pytest.raises(InputError, match=r"SEED must be of type int, such as 0; got 'x'"):
        chosen(defaults, [("SEED", "x")])
    with pytest.raises(InputError, match=r"no parameter 'LEED': it has PROFILE, SEED"):
        chosen(defaults, [("LEED", "1")])


@pytest.mark.parametrize("cell", ["%matplotlib inline\nSEED = 0", "NAMES = {1, 2}", "B = b'a'", "SEED = load()"])
def test_a_parameter_that_is_no_plain_value_is_told(notebook, cell):
    with pytest.raises(InputError, match="more than plain values"):
        run_notebook(notebook("1", parameters=cell), "there", progress=False)
    assert not Path("there").exists()


def test_a_parameter_may_say_its_type(notebook):
    file = notebook("1", parameters="SEED: int = 0\nRATE = 0.5")
    assert read_parameters(nbformat.read(file, as_version=4)) == {"SEED": 0, "RATE": 0.5}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_can_be_run_by_profile(path):
    assert read_parameters(nbformat.read(path, as_version=4))["PROFILE"] == "quick"


def test_a_folder_is_named_after_what_was_asked():
    assert default_folder("a/b.ipynb", []) == Path("runs/b")
    assert default_folder("b.ipynb", [("PROFILE", "full"), ("OUT", "../x")]) == Path("runs/b-full-OUT=.._x")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent.ipynb"], "absent.ipynb is no notebook that can be read"),
        (["some.ipynb", "--profile", "slow"], "unknown profile 'slow': choose one of quick, full"),
        (["some.ipynb", "-p", "SPEED", "3"], "no parameter 'SPEED'"),
        (["-p", "SPEED", "3", "some.ipynb"], "no parameter 'SPEED'"),
        (["some.ipynb", "-p", "SEED", "three"], "SEED must be of type int"),
        (["some.ipynb", "-p", "SEED"], "1 names without a value (SEED) but 0 values"),
    ],
)
def test_mistakes_are_one_line_with_status_2(notebook, command, args, message):
    notebook()
    done = command("run", *args, status=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("runs").exists()


# ---- a whole run


def test_a_run_leaves_one_folder_with_all_that_was_asked_and_came_out(notebook):
    file = notebook("print('the seed is', SEED, NAME)\nRATE")
    done = in_a_shell(str(file), "--profile", "full", "-p", "SEED", "3", "-p", "RATE=2", "--out", "there")
    assert "the seed is 3 x" in done.stdout
    assert done.stdout.endswith("run in there\n")
    assert sorted(one.name for one in Path("there").iterdir()) == ["log.txt", "notebook.ipynb", "run.json"]
    assert not list(Path().glob(".there*"))
    said = json.loads(Path("there/run.json").read_text())
    assert said["parameters"] == {"PROFILE": "full", "SEED": 3, "NAME": "x", "RATE": 2, "LIST": None}
    assert said["provenance"]["wall_seconds"] > 0
    assert {"commit", "device", "versions", "date"} <= said["provenance"].keys()
    assert "the seed is 3 x" in Path("there/log.txt").read_text()
    executed = nbformat.read("there/notebook.ipynb", as_version=4)
    assert executed.cells[-1].outputs[-1].data["text/plain"] == "2"


def test_a_finished_run_is_left_alone_and_never_mistaken_for_another(notebook):
    file = notebook("open('count', 'a').write('+')")
    assert not run_notebook(file, "there", progress=False).again
    assert run_notebook(file, "there", progress=False).again
    assert Path("count").read_text() == "+"
    with pytest.raises(InputError, match=r"there is of another run \(parameters differ\)"):
        run_notebook(file, "there", [("SEED", "4")], progress=False)
    notebook("open('count', 'a').write('-')")
    with pytest.raises(InputError, match=r"\(source differ\)"):
        run_notebook(file, "there", progress=False)
    assert load_records(".") == [], "a notebook's run is no record"


def test_a_failed_cell_is_named_and_what_ran_before_it_is_kept(notebook):
    file = notebook("print('so far')", "1 / 0", "print('never')")
    with pytest.raises(CellFailed, match=r"cell 3 failed: ZeroDivisionError: division by zero"):
        run_notebook(file, "there", progress=False)
    assert not Path("there").exists()
    kept = Path(".there.unfinished")
    assert "so far" in (kept / "notebook.ipynb").read_text()
    assert (kept / "log.txt").read_text() == "so far\ncell 3 failed: ZeroDivisionError: division by zero\n"
    notebook("print('so far')", "1 / 1")
    run_notebook(file, "there", progress=False)
    assert json.loads(Path("there/run.json").read_text())["calls"] == 2


def test_the_command_says_so_with_status_1(notebook):
    done = in_a_shell(str(notebook("undefined")), status=1)
    assert "cxr-tutorial: cell 2 failed: NameError" in done.stderr
    assert "Traceback" not in done.stderr
    assert Path("runs/.some.unfinished/notebook.ipynb").exists()


def test_two_processes_do_not_share_a_folder(notebook):
    file = notebook("import time; open('begun', 'w').close(); time.sleep(60)")
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    first = subprocess.Popen([sys.executable, "-m", "cxr_tutorial", "run", str(file), "--out", "there"])
    signal.signal(signal.SIGINT, inherited)
    try:
        wait_for(Path("begun"))
        with pytest.raises(InputError, match="being run by another process"):
            run_notebook(file, "there", progress=False)
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130


def test_records_go_to_the_run_or_to_the_chosen_folder(notebook, tmp_path):
    file = notebook("from cxr_tutorial.notebooks import records_folder\nrecords_folder().mkdir()")
    run_notebook(file, "there", progress=False)
    assert Path("there/records").is_dir()
    assert records_folder("mine") == Path("mine")
    assert records_folder() != records_folder(), "by hand: a temporary one each time"


# ---- trainings inside

QUICK = Config(size=32, widths=(4, 8), steps=4, recipe=Recipe(batch_size=2, accelerator="cpu"))


def test_a_training_is_run_once_and_only_its_own_record_is_read(tmp_path, monkeypatch):
    made = run_once(QUICK, tmp_path / "one")
    monkeypatch.setattr("cxr_tutorial.experiment.run", lambda *_: pytest.fail("run twice"))
    assert run_once(QUICK, tmp_path / "one").metrics == made.metrics
    with pytest.raises(InputError, match=r"another run \(seed differ\)"):
        run_once(Config(**vars(QUICK) | {"seed": 5}), tmp_path / "one")


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_experiment_goes_on_and_ends_as_if_undisturbed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ["-p", "SIZE=32", "-p", "WIDTHS=[4, 8]", "-p", "STEPS=40", "-p", "SEEDS=[1, 2]", "-p", "VALIDATE_EVERY=0"]
    tiny += ["-p", "RECIPE={'batch_size': 2, 'accelerator': 'cpu'}"]
    call = [sys.executable, "-m", "cxr_tutorial", "run", str(EXPERIMENTS / "segmentation.ipynb"), *tiny, "--out", "run"]
    killed = subprocess.Popen(call, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = Path(".run.unfinished/records/synthetic-ppaunet-xe-tversky-s1/run.json")
    wait_for(first)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    written = first.stat().st_mtime_ns
    time.sleep(2)  # the kernel sees that its parent is gone
    assert subprocess.run(call, capture_output=True).returncode == 0
    record = Path("run/records/synthetic-ppaunet-xe-tversky-s1")
    assert (record / "run.json").stat().st_mtime_ns == written, "the finished seed was run again"
    other = read_record("run/records/synthetic-ppaunet-xe-tversky-s2")
    assert run(read_config(other.config), "undisturbed", progress=False).metrics == other.metrics


@pytest.mark.slow
def test_a_grid_cell_and_the_experiment_notebook_make_the_same_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = next(one for one in PLANS["tiny"]() if one.name == "tiny/ppaunet-s2")
    config = cell.config
    given = {"SIZE": config.size, "WIDTHS": list(config.widths), "STEPS": config.steps, "SEEDS": [config.seed]}
    given |= {"VALIDATE_EVERY": 0, "RECIPE": {"learning_rate": 0.02, "ema": 0.0}}
    texts = [(name, repr(value)) for name, value in given.items()]
    run_notebook(EXPERIMENTS / "segmentation.ipynb", "run", texts, progress=False)
    [made] = load_records("run")
    assert made.metrics == run(config, "cell", progress=False).metrics
    assert made.config == read_record("cell").config
