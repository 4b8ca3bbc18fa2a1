"""One step on several processes, in several parts, or with terms that stay on the device: the same training."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cxr_tutorial.data.batches import NO_AUGMENTATION
from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import Discriminator, build_segmentor
from cxr_tutorial.results import read_record
from cxr_tutorial.train import Game, Recipe, fit_appaunet, fit_segmentor, loop
from cxr_tutorial.train.devices import rows_where, started_as_helper

PLAIN = Recipe(batch_size=2, augmentation=NO_AUGMENTATION, precision="32-true", accelerator="cpu", ema=0)
GAME = Game(adversarial=0.1, adversarial_unlabelled=0.1, consistency=0, warmup=0, ramp=0, unlabelled_batch_size=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    whole = cache(load_synthetic()[:24], 32, tmp_path_factory.mktemp("cache"))
    return whole.reveal(masks=whole.ids[:8], labels=whole.ids)


def nets(norm: str):
    torch.manual_seed(0)
    return build_segmentor("ppaunet", (4, 8, 16), norm=norm), Discriminator(widths=(4, 8), norm=norm)


def fit(data, recipe, norm="group", steps=1, **options):
    return fit_segmentor(nets(norm)[0], data, steps=steps, recipe=recipe, progress=False, **options)


def play(data, recipe, norm="group", game=GAME, steps=1):
    return fit_appaunet(*nets(norm), data, steps=steps, recipe=recipe, game=game, progress=False)


def slope(net: torch.nn.Module) -> torch.Tensor:
    """The gradient of the last step, which AdamW has left in place."""
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / a.norm()).item()


NEAR = 1e-4  # relative to the whole gradient; half a batch or other norms are farther apart than 1e-2


@pytest.mark.parametrize(
    ("told", "helper"),
    [
        ({}, False),
        ({"LOCAL_RANK": "1"}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, True),
    ],
)
def test_helpers_know_that_they_are_helpers_before_they_meet(monkeypatch, told, helper):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert started_as_helper(2) == helper
    assert not started_as_helper(1), "side by side, each on a device of its own"


# ---- in parts


def test_two_parts_are_the_double_batch_where_pictures_do_not_meet(data):
    whole, parts = replace(PLAIN, batch_size=4), replace(PLAIN, accumulate=2)

    def gap(one, two, norm="group"):
        return apart(slope(fit(data, one, norm).model), slope(fit(data, two, norm).model))

    assert gap(whole, parts) < NEAR
    assert gap(whole, parts, "instance") < NEAR
    assert gap(whole, PLAIN) > 1e-2, "half the batch has another gradient"
    assert gap(whole, parts, "batch") > 1e-2
    first, second = (fit(data, recipe, steps=3).history[-1]["total"] for recipe in (whole, parts))
    assert first == pytest.approx(second, abs=1e-3)


def test_the_game_in_parts_is_the_game_of_the_double_batch(data):
    one = play(data, replace(PLAIN, batch_size=4), game=replace(GAME, unlabelled_batch_size=4))
    two = play(data, replace(PLAIN, accumulate=2))
    assert apart(slope(one.model), slope(two.model)) < NEAR
    assert apart(slope(one.discriminator), slope(two.discriminator)) < NEAR


def test_parts_count_in_epochs_and_draw_anew(data):
    assert fit(data, replace(PLAIN, accumulate=2), steps=None, epochs=2).history[-1]["step"] == 4  # 8 masks, 4 a step
    seen = []
    made = loop.Loop(
        {"segmentor": loop.Learner(nets("group")[0], 1e-3, 0.0)},
        data,
        replace(PLAIN, accumulate=3),
        loop.Budget(steps=2),
        loop.Watch(progress=False),
    )
    for batch in made:
        seen.append(made.draw)
        made.minimize("segmentor", made.models["segmentor"](batch.image).logits.mean())
    assert seen == [0, 1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="accumulate must be a whole number >= 1, got 0"):
        Recipe(accumulate=0)


# ---- terms that stay on the device


def test_terms_fetched_late_are_the_same_terms(data, monkeypatch, tmp_path):
    def game():
        return play(data, replace(PLAIN, augmentation=Recipe().augmentation), "batch", steps=7)

    at_once = game()
    monkeypatch.setitem(loop.FETCH_EVERY, "cpu", 5)
    late = game()
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in late.history] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in at_once.history
    ]
    assert all(map(torch.equal, at_once.model.parameters(), late.model.parameters()))


def test_divergence_seen_late_names_its_step_and_never_reaches_the_checkpoint(data, monkeypatch, tmp_path):
    monkeypatch.setitem(loop.FETCH_EVERY, "cpu", 50)
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(FloatingPointError, match=r"objective is (nan|inf) at step \d+"):
        fit(data, replace(PLAIN, learning_rate=1e30), steps=40, checkpoint=file)
    assert not file.exists()


def test_rows_where_takes_the_masked_rows():
    x = torch.arange(6.0).view(3, 2)
    assert rows_where(x, torch.tensor([True, False, True])).tolist() == [[0, 1], [4, 5]]
    assert rows_where(x, torch.tensor([False] * 3)).shape == (0, 2)
    assert rows_where(x, torch.tensor([True] * 3)) is x


# ---- in other numbers, by other code


def test_bf16_keeps_weights_in_fp32_and_the_same_course(data):
    plain, half = (fit(data, replace(PLAIN, precision=one), steps=5) for one in ("32-true", "bf16-mixed"))
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    ways = [torch.tensor([row["total"] for row in one.history]) for one in (plain, half)]
    assert not torch.equal(*ways)
    torch.testing.assert_close(*ways, rtol=0.05, atol=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_networks_train_alike_and_are_kept_as_they_were(data, tmp_path):
    def trained(recipe, **options):
        torch.manual_seed(0)
        net = build_segmentor("unet", (4, 8))
        return fit_segmentor(net, data, steps=2, recipe=recipe, progress=False, **options)

    file = tmp_path / "checkpoint.pt"
    plain, rewritten = trained(PLAIN), trained(replace(PLAIN, compile=True), checkpoint=file)
    assert apart(slope(plain.model), slope(rewritten.model)) < 1e-2
    assert plain.model.state_dict().keys() == rewritten.model.state_dict().keys()
    assert torch.load(file, weights_only=True)["models"]["segmentor"].keys() == plain.model.state_dict().keys()


def test_without_a_compiler_compile_says_so_in_one_line(tmp_path):
    nothing = {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    asked = ["--size", "16", "--widths", "tiny", "--steps", "1", "--accelerator", "cpu", "--compile"]
    command = [sys.executable, "-m", "cxr_tutorial", "train", *asked, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | nothing, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torch.compile does not work" in done.stderr
    assert "g++" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_unit_vectors_of_a_spectral_norm_are_not_averaged(data):
    torch.manual_seed(0)
    D = Discriminator(widths=(4, 8), norm="none", spectral_norm=True)
    recipe = replace(PLAIN, ema=0.9, learning_rate=0.05)
    fit_appaunet(nets("group")[0], D, data, steps=8, recipe=recipe, game=GAME, progress=False)
    vectors = [one for name, one in D.named_buffers() if name.endswith(("._u", "._v"))]
    assert vectors
    torch.testing.assert_close(torch.stack([one.norm() for one in vectors]), torch.ones(len(vectors)))


# ---- several processes

SCRIPT = """
import sys
import torch
sys.path.insert(0, {tests!r})
from test_devices import PLAIN, fit, play, slope
from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.train.devices import is_first_process
from dataclasses import replace

whole = cache(load_synthetic()[:24], 32, {cache!r})
data = whole.reveal(masks=whole.ids[:8], labels=whole.ids)
two = replace(PLAIN, devices=2)
"""


def in_two_processes(tmp_path: Path, body: str, *, status: int | None = 0) -> subprocess.CompletedProcess:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), cache=str(tmp_path / "cache")) + body)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert status is None or done.returncode == status, done.stderr
    return done


@pytest.mark.slow
def test_two_processes_are_the_double_batch(data, tmp_path):
    """For norms of one picture; with batch normalisation each process takes its own half's mean and deviation."""
    body = """
fits = {norm: fit(data, two, norm).model for norm in ("group", "instance", "batch")}
fits["parts"] = fit(data, replace(two, batch_size=1, accumulate=2)).model
played = play(data, two)
fits |= {"S": played.model, "D": played.discriminator}
longer = play(data, replace(two, ema=0.9), "batch", steps=4)
trained = [*fits.values(), longer.model, longer.discriminator]
mine = torch.cat([p.flatten() for net in trained for p in net.parameters()])
first = mine.clone()
torch.distributed.broadcast(first, 0)
assert torch.equal(mine, first), "the processes hold different weights"
if is_first_process():
    torch.save({name: slope(net) for name, net in fits.items()}, "slopes.pt")
"""
    in_two_processes(tmp_path, body)
    shared = torch.load(tmp_path / "slopes.pt")
    double = replace(PLAIN, batch_size=4)
    for norm in ("group", "instance"):
        assert apart(slope(fit(data, double, norm).model), shared[norm]) < NEAR
    assert apart(shared["group"], shared["parts"]) < NEAR
    assert apart(slope(fit(data, double, "batch").model), shared["batch"]) > 1e-2
    alone = play(data, double, game=replace(GAME, unlabelled_batch_size=4))
    assert apart(slope(alone.model), shared["S"]) < NEAR
    assert apart(slope(alone.discriminator), shared["D"]) < NEAR


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_if_one_process_fails_the_other_does_not_wait(tmp_path, rank):
    body = f"""
import os
from cxr_tutorial.train.loop import Loop
usual = Loop._batch
def failing(self):
    if self.fabric.global_rank == {rank} and self.step == 2:
        raise RuntimeError("no more")
    return usual(self)
Loop._batch = failing
with open(f"{{os.environ.get('LOCAL_RANK', 0)}}.pid", "w") as file:
    file.write(str(os.getpid()))
fit(data, two, steps=10_000)
"""
    done = in_two_processes(tmp_path, body, status=None)
    assert done.returncode != 0
    assert "no more" in done.stderr
    pids = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_two_processes_go_on_from_their_checkpoint(tmp_path):
    body = """
import os
def killed(step, model):
    if step == 4 and not resumed:
        os.kill(os.getpid(), 9)
    return {"seen": step}
resumed = os.path.exists("checkpoint.pt")
options = {"steps": 6, "checkpoint": "checkpoint.pt", "checkpoint_seconds": 0, "log_every": 2, "on_log": killed}
made = fit(data, two, **options)
if is_first_process():
    print([row["step"] for row in made.history], [row["seen"] for row in made.looks])
"""
    assert in_two_processes(tmp_path, body, status=None).returncode == -signal.SIGKILL
    out = in_two_processes(tmp_path, body).stdout
    assert out.splitlines()[-1] == "[1, 2, 3, 4, 5, 6] [2, 4, 6]"


@pytest.mark.slow
def test_the_command_writes_one_record(tmp_path):
    command = "train --accelerator cpu --devices 2 --size 32 --widths 4,8,16 --steps 3 --method appaunet --masks 8"
    run = [sys.executable, "-m", "cxr_tutorial", *command.split(), "--batch-size", "2", "--out", "run"]
    env = os.environ | {"CXR_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("record in run") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "run"]
    record = read_record(tmp_path / "run")
    assert record.config["recipe"]["devices"] == 2
    assert record.config["recipe"]["precision"] in ("32-true", "bf16-mixed"), "what was used, not 'auto'"
    assert record.provenance.device.startswith("2 x CPU")


def test_devices_that_are_not_there_are_named(data):
    with pytest.raises(InputError, match="devices must be a whole number >= 1, got 0"):
        fit(data, replace(PLAIN, devices=0))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="asked for 1 CUDA devices, this machine has 0"):
            fit(data, replace(PLAIN, accelerator="cuda"))
    with pytest.raises(InputError, match="sync_norm needs CUDA devices, got 'cpu'"):
        fit(data, replace(PLAIN, sync_norm=True))
