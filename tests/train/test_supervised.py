"""The training loop: it learns, repeats, resumes and refuses."""

import json

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import save_file

from cxr_tutorial.data.batches import NO_AUGMENTATION
from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import Segmentor, build_segmentor
from cxr_tutorial.train import Budget, Recipe, fit_segmentor, load_weights, save_weights
from cxr_tutorial.train.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return cache(load_synthetic()[:16], 32, tmp_path_factory.mktemp("cache"))


def tiny(seed: int = 0) -> Segmentor:
    torch.manual_seed(seed)
    return build_segmentor("ppaunet", (4, 8, 16))


def fit(data, **options):
    return fit_segmentor(tiny(), data, progress=False, **options)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_four_pictures_are_learnt_by_heart(tmp_path):
    four = cache(load_synthetic()[:4], 32, tmp_path)
    recipe = Recipe(batch_size=4, augmentation=NO_AUGMENTATION, learning_rate=1e-2, ema=0)
    model = fit_segmentor(build_segmentor("unet", "tiny"), four, steps=150, recipe=recipe, progress=False).model
    from cxr_tutorial.data.batches import Batches

    batch = Batches(four, 4, augmentation=NO_AUGMENTATION).batch(0)
    with torch.inference_mode():
        predicted = model(batch.image).logits > 0
    true = batch.mask > 0
    assert 2 * (predicted & true).sum() / (predicted.sum() + true.sum()) > 0.99


def test_same_seed_same_weights_and_another_seed_others(data):
    assert same(fit(data, steps=3).model, fit(data, steps=3).model)
    assert not same(fit(data, steps=3).model, fit(data, steps=3, recipe=Recipe(seed=1)).model)


def test_a_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(data, tmp_path):
    whole = fit(data, steps=6)

    class Killed(Exception):
        pass

    def kill(step, model):
        if step == 4:
            raise Killed
        return {"seen": step}

    file = tmp_path / "checkpoint.pt"
    options = {"steps": 6, "checkpoint": file, "checkpoint_seconds": 0, "log_every": 2}
    with pytest.raises(Killed):
        fit(data, on_log=kill, **options)
    resumed = fit(data, on_log=lambda step, model: {"seen": step}, **options)
    assert same(whole.model, resumed.model)
    terms = ("step", "seg", "side", "total", "learning_rate")
    assert [[row[t] for t in terms] for row in whole.history] == [[row[t] for t in terms] for row in resumed.history]
    assert [row["seen"] for row in resumed.looks] == [2, 4, 6]


def test_a_resumed_fp16_training_goes_on_with_the_scale_of_its_loss(data, tmp_path, monkeypatch):
    scales = []

    def fp16(*_: object) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=8, growth_interval=2)
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
        fabric.launch()
        scales.append(scaler)
        return fabric

    def kill(step, model):
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_tutorial.train.loop.start_fabric", fp16)
    options = {"steps": 6, "checkpoint": tmp_path / "checkpoint.pt", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        fit(data, log_every=4, on_log=kill, **options)  # step 3 is the last that was kept
    fit(data, **options)
    assert scales[-1].get_scale() == 8 * 2 ** (6 // 2)


def test_numbers_of_numpy_in_a_look_can_be_read_back(data, tmp_path):
    options = {"checkpoint": tmp_path / "checkpoint.pt", "log_every": 2, "checkpoint_seconds": 0}
    looking = lambda step, model: {"dice": np.mean([0.5, 0.6])}  # noqa: E731
    fit(data, steps=2, on_log=looking, **options)
    assert fit(data, steps=2, on_log=looking, **options).looks[0]["dice"] == 0.55


@pytest.mark.parametrize("write", ["weights", "checkpoint"])
def test_what_cannot_be_written_is_told_and_the_file_before_it_stays(tmp_path, monkeypatch, write):
    def full(*_: object, **__: object) -> None:
        (tmp_path / "file.unfinished").write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    (tmp_path / "file").write_bytes(b"whole")
    monkeypatch.setattr("torch.save", full)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(InputError, match=r"file could not be written \(unexpected pos.*is the disk full"):
        save_weights(tmp_path / "file", tiny()) if write == "weights" else save_checkpoint(tmp_path / "file", {})
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"whole")]


def test_a_checkpoint_of_another_run_is_refused(data, tmp_path):
    file = tmp_path / "checkpoint.pt"
    fit(data, steps=1, checkpoint=file)
    with pytest.raises(InputError, match=r"belongs to another run: budget was .*steps=1"):
        fit(data, steps=2, checkpoint=file)
    with pytest.raises(InputError, match="another run: data"):
        fit(data.select(data.ids[:9]), steps=1, checkpoint=file)
    file.write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        fit(data, steps=1, checkpoint=file)


def test_every_term_is_logged_and_the_rate_goes_up_and_down(data):
    history = fit(data, steps=20, recipe=Recipe(warmup=0.2)).history
    assert {"step", "seconds", "learning_rate", "seg", "side", "total"} == set(history[0])
    rates = [row["learning_rate"] for row in history]
    assert max(rates) == rates[4] == pytest.approx(4e-3)
    assert rates[0] < rates[2] < rates[4] > rates[10] > rates[-1]


def test_budgets_in_epochs_and_seconds(data):
    assert fit(data, epochs=1.5, recipe=Recipe(batch_size=8)).history[-1]["step"] == 3
    assert 0.5 <= fit(data, seconds=0.5).history[-1]["seconds"] < 5


@pytest.mark.parametrize("bad", [{}, {"steps": 1, "seconds": 1.0}, {"steps": 0}, {"seconds": float("nan")}])
def test_a_budget_is_exactly_one_positive_number(bad):
    with pytest.raises(InputError, match="exactly one of steps, epochs, seconds"):
        Budget(**bad)


def test_pictures_without_a_visible_mask_do_not_count(data):
    few = data.reveal(masks=data.ids[:3])
    hidden = few.coverage.copy()
    hidden[np.flatnonzero(~few.has_mask)] = 255
    from dataclasses import replace

    assert same(fit(few, steps=2).model, fit(replace(few, coverage=hidden), steps=2).model)


def test_divergence_is_said_at_once(data):
    model = tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="objective is nan at step 1"):
        fit_segmentor(model, data, steps=2, progress=False)


def test_weights_come_back_with_their_segmentor(data, tmp_path):
    model = fit(data, steps=1).model
    save_weights(tmp_path / "w.safetensors", model)
    again = load_weights(tmp_path / "w.safetensors")
    assert json.dumps(again.options) == json.dumps(model.options)
    assert same(model, again)


def test_files_that_are_no_weights_are_named(tmp_path):
    (tmp_path / "w.safetensors").write_text("no")
    with pytest.raises(InputError, match=r"w\.safetensors is not a readable safetensors file"):
        load_weights(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"none\.safetensors"):
        load_weights(tmp_path / "none.safetensors")
    for named in ({"in_colour": True}, {"widths": [4, 8]}):
        save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"segmentor": json.dumps(named)})
        with pytest.raises(InputError, match=r"other\.safetensors holds a segmentor that this version"):
            load_weights(tmp_path / "other.safetensors")
    torch.save({"step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt", {})


def test_a_look_that_returns_nothing_is_a_row_and_one_that_cannot_be_read_is_told(data):
    assert [row["step"] for row in fit(data, steps=2, log_every=1, on_log=lambda step, model: None).looks] == [1, 2]
    with pytest.raises(InputError, match=r"on_log returned \{'dice': \{'mean': 0.5\}\}: expected a dict of names and"):
        fit(data, steps=1, log_every=1, on_log=lambda step, model: {"dice": {"mean": 0.5}})
    with pytest.raises(InputError, match="log_every is 0: give a number"):
        fit(data, steps=1, on_log=lambda step, model: {})


def test_the_wrong_object_is_told_with_the_right_one(data, tmp_path):
    with pytest.raises(InputError, match=r"reads a CachedSet, got Examples: give cache\(examples, size\)"):
        fit(load_synthetic()[:4], steps=1)
    done = fit(data, steps=1)
    with pytest.raises(InputError, match=r"got Fit: of a finished training, give `fit\.model`"):
        save_weights(tmp_path / "w.safetensors", done)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="is a folder: a checkpoint is one file"):
        fit(data, steps=1, checkpoint=tmp_path)
    with pytest.raises(InputError, match="cannot train on 1 x 'tpu'"):
        fit(data, steps=1, recipe=Recipe(accelerator="tpu"))


class Mine(Segmentor):
    """A user's own, with the weights of its parent."""


@pytest.mark.parametrize("changed", [Mine, torch.compile])
def test_a_compiled_net_and_one_of_a_class_derived_are_kept_as_segmentors(changed, tmp_path):
    plain = tiny()
    model = Mine(**plain.options) if changed is Mine else changed(plain)
    save_weights(tmp_path / "w.safetensors", model)
    again = load_weights(tmp_path / "w.safetensors")
    assert again.options == plain.options
    assert same(again, getattr(model, "_orig_mod", model))
