"""The command as its user types it: answers on standard output, mistakes in one line with status 2."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cxr_tutorial
from cxr_tutorial.data import load_synthetic
from cxr_tutorial.metrics import dice

TINY = ["--size", "32", "--widths", "4,8,16", "--steps", "2", "--batch-size", "4"]


def test_train_evaluate_and_show(command, tmp_path):
    assert "test                   Dice" in command("train", "--out", "run", *TINY).stdout
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "history.csv", "metrics.json", "per_image.csv", "run.json", "weights.safetensors",
    ]  # fmt: skip
    out = command("evaluate", "run", "--size", "32", "--table", "rows.csv").stdout
    assert out.startswith("synthetic    Dice 0.")
    assert command("evaluate", "run").stdout == out  # the record knows its size
    assert command("evaluate", "run/weights.safetensors").stdout == out
    assert (tmp_path / "rows.csv").read_text().startswith("id,patient,source,unit,dice")
    assert "1 records" in command("results", "list", ".").stdout
    assert '"fingerprint' not in command("results", "show", "run").stderr
    assert "test         dice" in command("results", "show", "run").stdout


def test_the_game_leaves_both_networks_and_what_d_said(command, tmp_path):
    args = ["--method", "appaunet", "--masks", "8", "--labels", "12", "--game", "adversarial=0.1", *TINY]
    out = command("train", "--out", "run", *args).stdout
    assert "test                   Dice" in out
    assert "test/true-mask         AUC" in out
    assert {"classes.csv", "discriminator.safetensors", "weights.safetensors"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
    assert "test         auc" in command("results", "show", "run").stdout


def test_data_show_counts(command):
    out = command("data", "show", "synthetic").stdout
    assert "pictures  64" in out
    assert "masks     64" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--out", "run", "--loss", "hinge", *TINY], "hinge"),
        (["train", "--out", "run", "--fp-weight", "-1", *TINY], "-1"),
        (["train", "--out", "run", "--seconds", "1", *TINY], "exactly one of steps, epochs, seconds"),
        (["train", "--out", "run", "--data", "jsrt", *TINY], "CXR_DATA"),
        (["train", "--out", "run", "--game", "speed=3", *TINY], "no option 'speed' of the game"),
        (["train", "--out", "run", "--game", "cp=much", *TINY], "cp takes a value of type float"),
        (
            ["train", "--out", "run", "--game", "judge_unlabelled=no", *TINY],
            "judge_unlabelled takes a value of type bool",
        ),
        (["train", "--out", "run", "--augmentation", "wild", *TINY], "unknown augmentation 'wild'"),
        (["train", "--out", "run", "--split", "thirds", *TINY], "unknown split 'thirds'"),
        (["train", "--out", "run", "--seed", "-1", *TINY], "seed must be a whole number >= 0"),
        (["train", "--out", "run", "--seed", str(2**64), *TINY], "seed must be below 2**63"),
        (["train", "--out", "run", *TINY, "--widths", "²,3"], "²,3"),
        (["train", "--out", "run", "--views", "4", *TINY], "supervised makes no use of views"),
        (["data", "show", "nowhere"], "'nowhere'"),
        (["evaluate", "absent.safetensors"], "absent.safetensors"),
        (["results", "show", "absent"], "absent"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(command, tmp_path, args, message):
    done = command(*args, status=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def shell(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "cxr_tutorial", *args], capture_output=True, text=True)


def test_version_and_help():
    assert shell("--version").stdout.strip() == cxr_tutorial.__version__
    said = shell("--help").stdout
    for name in ("data", "train", "evaluate", "results"):
        assert name in said


def test_in_a_shell_a_mistake_is_one_line_and_status_2():
    done = shell("evaluate", "absent.safetensors")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cxr-tutorial: absent.safetensors")
    assert "Traceback" not in done.stderr


def test_predict_draws_what_it_can_and_names_the_rest(command, tmp_path):
    for i, example in enumerate(load_synthetic()[:2]):
        file = tmp_path / "xrays" / ("sub" * i) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255 * example.image)).save(file)
    (tmp_path / "xrays" / "cut off.png").write_bytes(b"\x89PNG")
    done = command("predict", "xrays", status=2)
    assert "2 masks drawn in lungs" in done.stdout
    assert "passed over" in done.stderr
    assert "cut off.png cannot be decoded" in done.stderr
    for i, example in enumerate(load_synthetic()[:2]):
        drawn = np.asarray(Image.open(tmp_path / "lungs" / ("sub" * i) / f"{i}.png"))
        assert set(np.unique(drawn)) == {0, 255}
        assert dice(drawn > 127, example.mask) > 0.9
    (tmp_path / "xrays" / "cut off.png").unlink()
    assert "0 masks drawn in lungs, 2 were there already" in command("predict", "xrays").stdout


def test_an_interrupted_training_says_how_it_goes_on(command, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_tutorial.experiment.run", stopped)
    assert "the same command goes on" in command("train", "--out", "run", *TINY, status=130).stderr


def test_where_nothing_can_be_written_is_told_before_the_work(command, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("train", "--out", "file/run", *TINY, status=2)
    assert "file/run cannot be made (Not a directory): choose another" in done.stderr
    (tmp_path / "tables").mkdir()
    assert "name a CSV file" in command("evaluate", "absent", "--table", "tables", status=2).stderr
