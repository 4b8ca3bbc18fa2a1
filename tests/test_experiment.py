"""A run from configuration to record, on the shipped pictures and on the real ones."""

import csv
import json
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from cxr_tutorial.config import METHODS, Config
from cxr_tutorial.data import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import load, run, run_once
from cxr_tutorial.files import only_process
from cxr_tutorial.results import load_records, read_curve, read_per_image, read_record
from cxr_tutorial.train import Game, Recipe, load_weights
from cxr_tutorial.train.checkpoint import load_discriminator, save_checkpoint

QUICK = Config(size=32, widths=(4, 8, 16), steps=3, recipe=Recipe(batch_size=4), validate_every=2)


@pytest.fixture(autouse=True)
def _cache_in(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))


def test_a_record_says_what_was_run_on_what_and_what_came_out(tmp_path):
    made = run(QUICK, tmp_path / "run", progress=False)
    read = read_record(tmp_path / "run")
    assert read == made
    assert set(read.metrics) == {"validation", "test"}
    assert read.config["recipe"]["batch_size"] == 4
    assert len(read.provenance.data) == 64
    assert read.metrics["test"]["dice"]["n"] == sum(row["part"] == "test" for row in read_per_image(tmp_path / "run"))
    assert [row["step"] for row in read_curve(tmp_path / "run")] == [2, 3]
    assert load_weights(tmp_path / "run" / "weights.safetensors").widths == (4, 8, 16)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_the_same_configuration_gives_the_same_figures(tmp_path):
    one, two = (run(QUICK, tmp_path / name, progress=False) for name in ("one", "two"))
    assert one.metrics == two.metrics
    assert one.provenance.data == two.provenance.data


def test_the_time_of_an_interrupted_run_is_not_forgotten(tmp_path, monkeypatch):
    config = replace(QUICK, validate_every=0)
    with monkeypatch.context() as broken:
        broken.setattr("cxr_tutorial.experiment.evaluate", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run", progress=False)
    checkpoint = tmp_path / ".run.unfinished" / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    checkpoint.write_text("half")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        run(config, tmp_path / "run", progress=False)
    save_checkpoint(checkpoint, state | {"seconds": 100.0})
    assert 100 < run(config, tmp_path / "run", progress=False).provenance.wall_seconds < 160


def test_fewer_masks_are_another_training_set(tmp_path):
    few = run(replace(QUICK, masks=4, recipe=Recipe(batch_size=2)), tmp_path / "few", progress=False)
    all_ = run(QUICK, tmp_path / "all", progress=False)
    assert few.provenance.data != all_.provenance.data
    assert few.metrics["test"]["dice"]["n"] == all_.metrics["test"]["dice"]["n"]


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="is there already"):
        run(QUICK, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"method": "masked-classifier"}, "name its weights by start"),
        ({"method": "lungs-classifier"}, "name its weights by start"),
        ({"views": -1}, "views must be a whole number >= 0"),
        ({"size": "64"}, "size must be a whole number >= 16"),
        ({"masks": 2.5}, "masks must be a whole number >= 0"),
        ({"data": 5}, "data, split, net, root, start .* are texts"),
        ({"lungs_size": 64}, "supervised makes no use of lungs_size"),
        ({"steps": 2.5}, "steps: a whole one"),
        ({"steps": True}, "steps: a whole one"),
        ({"views": 2}, "supervised makes no use of views"),
        ({"synthetic": 2}, "supervised makes no use of synthetic"),
        ({"method": "mean-teacher"}, "mean-teacher makes no use of validate_every"),
        ({"method": "classifier", "validate_every": 0, "test_data": ("jsrt",)}, "classifier makes no use of test_data"),
        ({"test_data": ("synthetic",)}, "synthetic is the data itself"),
        ({"test_data": ("test",)}, "has the name of a part"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"root": "somewhere"}, "the synthetic set lies in no folder"),
        ({"split": "mine"}, "unknown split 'mine'"),
        ({"epochs": 1.0}, "exactly one of steps, epochs, seconds"),
        ({"recipe": Recipe(side_weight=(1.0, 0.5, 0.2))}, "each of 1 side outputs"),
        ({"method": "appaunet", "game": Game(discriminator={"join": "glue"})}, "unknown join 'glue'"),
        ({"masks": 10_000}, "budget of 10000 masks"),
        ({"net": "resnet"}, "unknown net 'resnet'"),
        ({"data": "jsrt+nowhere"}, "no data set and no folder 'jsrt.nowhere'"),
        ({"split": "fold-3"}, "no published list 'synthetic'"),
        ({"data": "nowhere"}, "no data set and no folder 'nowhere'"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(tmp_path, bad, message):
    with pytest.raises(InputError, match=message):
        run(replace(QUICK, **bad), tmp_path / "run", progress=False)
    assert [one for one in tmp_path.iterdir() if one.name != "cache"] == []


@pytest.mark.parametrize(
    ("method", "changes", "name"),
    [
        ("classifier", {"masks": 2}, "masks"),
        ("classifier", {"net": "unet"}, "net"),
        ("classifier", {"widths": "tiny"}, "widths"),
        ("masked-classifier", {"recipe": Recipe(learning_rate=0.5)}, "learning_rate"),
        ("lungs-classifier", {"recipe": Recipe(loss="xe")}, "loss"),
        ("classifier", {"game": Game(adversarial=9.0)}, "the game's adversarial"),
        ("mean-teacher", {"game": Game(learning_rate=1.0)}, "the game's learning_rate"),
        ("cross-pseudo", {"game": Game(confidence=0.9)}, "the game's confidence"),
    ],
)
def test_what_a_method_makes_no_use_of_is_refused(method, changes, name):
    start = "synthetic" if method in ("masked-classifier", "lungs-classifier") else None
    Config(method=method, start=start, steps=1, game=Game(**{"learning_rate": 0.1} if "classifier" in method else {}))
    with pytest.raises(InputError, match=f"{method} makes no use of {name}: leave it out"):
        Config(method=method, start=start, steps=1, **changes)


def folder_of_pictures(place, pictures=10, masks=10):
    from PIL import Image

    (place / "masks").mkdir(parents=True)
    for i in range(pictures):
        Image.new("L", (32, 32), 20 * i).save(place / f"{i}.png")
    for i in range(masks):
        Image.new("L", (32, 32), 255).save(place / "masks" / f"{i}.png")
    return str(place)


@pytest.mark.parametrize("pictures", [1, 2])
def test_too_few_pictures_for_a_test_part_are_refused(tmp_path, pictures):
    few = folder_of_pictures(tmp_path / "few", pictures, pictures)
    with pytest.raises(InputError, match=f"few has {pictures} pictures, too few"):
        run(replace(QUICK, data=few, validate_every=0), tmp_path / "run", progress=False)
    assert not (tmp_path / ".run.unfinished").exists()


def test_another_set_shares_no_picture_with_the_training_and_has_masks(tmp_path):
    mine = folder_of_pictures(tmp_path / "mine")
    bare = folder_of_pictures(tmp_path / "bare", masks=0)
    config = replace(QUICK, data=mine, validate_every=0)
    (tmp_path / "link").symlink_to(mine)
    for same in (mine + "/", str(tmp_path / "link"), f"{tmp_path}/bare/../mine"):
        with pytest.raises(InputError, match="10 files in common"):
            run(replace(config, test_data=(same,)), tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="has no mask"):
        run(replace(config, test_data=(bare,)), tmp_path / "run", progress=False)


def test_a_look_at_the_validation_part_needs_a_mask_there(tmp_path):
    few = folder_of_pictures(tmp_path / "few", masks=1)
    with pytest.raises(InputError, match="validation part, where none of"):
        run(replace(QUICK, data=few, recipe=Recipe(batch_size=1)), tmp_path / "run", progress=False)
    assert not (tmp_path / ".run.unfinished").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_after_a_mistake_that_shows_late_the_corrected_run_may_have_its_place(tmp_path):
    with pytest.raises(InputError, match="CUDA"):
        run(replace(QUICK, recipe=Recipe(batch_size=4, accelerator="cuda")), tmp_path / "run", progress=False)
    assert run(QUICK, tmp_path / "run", progress=False).metrics["test"]["dice"]["n"] > 0


def test_after_a_batch_that_cannot_be_normalised_the_corrected_run_may_have_its_place(tmp_path):
    config = replace(QUICK, size=16, widths=(4, 8, 16, 16, 16), validate_every=0, recipe=Recipe(batch_size=1))
    with pytest.raises(InputError, match="take a larger batch_size or size, or fewer widths"):
        run(config, tmp_path / "run", progress=False)
    run(replace(config, recipe=Recipe(batch_size=2)), tmp_path / "run", progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_a_record(tmp_path, method):
    drawn = method in ("masked-classifier", "lungs-classifier")  # by a net that is not trained
    start = {"start": "synthetic"} if drawn else {}
    start |= {"net": "ppaunet", "widths": "small"} if "classifier" in method else {}
    config = replace(QUICK, labels=12, recipe=Recipe(batch_size=2), validate_every=0, steps=2)
    config = replace(config, method=method, masks=None if "classifier" in method else 8, **start)
    record = run(config, tmp_path / "run", progress=False)
    with_d = method not in ("supervised", "mean-teacher", "cross-pseudo")
    assert ("dice" in record.metrics.get("test", {})) == (method not in ("classifier", "lungs-classifier"))
    assert (tmp_path / "run" / "discriminator.safetensors").exists() == with_d
    if with_d:
        assert load_discriminator(tmp_path / "run" / "discriminator.safetensors").num_classes == 2
        assert "auc" in record.metrics["test" if method == "lungs-classifier" else "test/blank-mask"]
    if method in ("classifier", "lungs-classifier"):
        assert not (tmp_path / "run" / "per_image.csv").exists()


@pytest.mark.parametrize(("method", "part"), [("appaunet", "test"), ("classifier", "test/blank-mask")])
def test_answers_by_many_views_stand_beside_those_by_one(tmp_path, method, part):
    config = replace(QUICK, widths="small", recipe=Recipe(batch_size=2), validate_every=0, steps=2)
    config = replace(config, method=method, views=2)
    record = run(config, tmp_path / "run", progress=False)
    once = run(replace(config, views=0), tmp_path / "once", progress=False)
    of_class = ("auc", "balanced_accuracy", "calibration_error")
    assert record.metrics["test/one-view"] == {name: once.metrics[part][name] for name in of_class}
    assert record.metrics[part]["calibration_error"] != once.metrics[part]["calibration_error"]
    assert "test/one-view" not in once.metrics


def test_synthetic_pairs_join_a_game_and_show_no_class(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_tutorial.experiment.SYNTHETIC_PICTURES", 4)
    config = replace(QUICK, method="appaunet", recipe=Recipe(batch_size=2), validate_every=0, steps=2)
    config = replace(config, masks=6, labels=6)  # so every real pair of the set itself has a class
    of_pairs = {}
    for synthetic in (0, 2):
        run(replace(config, synthetic=synthetic), tmp_path / str(synthetic), progress=False)
        with (tmp_path / str(synthetic) / "history.csv").open(newline="") as file:
            of_pairs[synthetic] = [float(row["real"]) for row in csv.DictReader(file)]
    assert max(of_pairs[0]) == 0 < min(of_pairs[2])


def test_a_start_from_synthetic_pictures_knows_lungs_already(tmp_path):
    from cxr_tutorial.data import cache
    from cxr_tutorial.data.batches import NO_AUGMENTATION, Batches
    from cxr_tutorial.experiment import initial_model

    config = Config(start="synthetic")
    batch = Batches(cache(load_synthetic()[:4], 128), 4, augmentation=NO_AUGMENTATION).batch(0)
    drawn = initial_model(config).eval()(batch.image).logits > 0
    true = batch.mask > 0
    assert 2 * (drawn & true).sum() / (drawn.sum() + true.sum()) > 0.9
    with pytest.raises(InputError, match="the run asks for"):
        initial_model(replace(config, net="unet"))


def test_two_sets_train_together_on_published_folds_and_are_told_apart(cxr_data, tmp_path):
    config = replace(QUICK, data="montgomery+shenzhen", split="fold-0", widths="small", validate_every=0)
    config = replace(config, method="classifier")
    record = run(config, tmp_path / "run", progress=False)
    parts = {"test/blank-mask", "test-montgomery/blank-mask", "test-shenzhen/blank-mask"}
    assert parts <= set(record.metrics)
    whole, *shares = (record.metrics[part]["auc"]["n"] for part in sorted(parts, key=len))
    assert whole == sum(shares)


@pytest.mark.parametrize("name", ["montgomery", "jsrt", "shenzhen"])
def test_a_run_on_real_pictures_with_the_public_split(cxr_data, tmp_path, name):
    record = run(replace(QUICK, data=name, split="public", validate_every=0), tmp_path / "run", progress=False)
    assert record.metrics["test"]["dice"]["n"] == {"montgomery": 28, "jsrt": 50, "shenzhen": 114}[name]


def test_shipped_records_can_be_traced():
    for record in load_records():
        assert record.provenance.commit
        assert record.provenance.data
        assert record.config["seed"] is not None
        assert json.dumps(record.config)


def test_data_sets_are_found_by_name_or_folder(tmp_path):
    assert load("synthetic").ids == load_synthetic().ids
    with pytest.raises(InputError):
        load("jsrt", str(tmp_path))


def test_an_unfinished_run_goes_on_with_its_own_configuration_only(tmp_path, monkeypatch):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    config = replace(QUICK, validate_every=0)
    with monkeypatch.context() as patch:
        patch.setattr("cxr_tutorial.experiment.evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run", progress=False)
    for other in ({"method": "appaunet"}, {"net": "unet"}, {"widths": (4, 8)}):
        with pytest.raises(InputError, match=f"another configuration .{next(iter(other))}"):
            run(replace(config, **other), tmp_path / "run", progress=False)
    monkeypatch.setattr("cxr_tutorial.experiment.load", lambda data, root=None: load_synthetic())
    run(replace(config, root="moved"), tmp_path / "run", progress=False)  # the same pictures elsewhere
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_second_process_in_the_folder_of_a_run_is_refused_and_spoils_nothing(tmp_path):
    config = replace(QUICK, steps=1, validate_every=0)
    with only_process(tmp_path / ".run.unfinished" / ".lock"), pytest.raises(InputError, match="by another process"):
        run(config, tmp_path / "run", progress=False)
    run(config, tmp_path / "run", progress=False)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_run_is_found_again_whatever_the_order_of_its_options(tmp_path):
    recipe = Recipe(batch_size=4, loss="tversky", loss_options={"fp_weight": 0.3, "fn_weight": 0.7})
    config = replace(QUICK, recipe=recipe, steps=1, validate_every=0)
    first = run_once(config, tmp_path / "run")
    assert run_once(config, tmp_path / "run").provenance.date == first.provenance.date
    with pytest.raises(InputError, match="steps differ"):
        run_once(replace(config, steps=2), tmp_path / "run")


def test_a_game_on_pictures_without_classes_ends_in_a_record(tmp_path):
    pictures = folder_of_pictures(tmp_path / "pictures")
    config = replace(QUICK, data=pictures, method="appaunet", masks=4, steps=1, validate_every=0)
    record = run(replace(config, recipe=Recipe(batch_size=2)), tmp_path / "run", progress=False)
    assert "dice" in record.metrics["test"]
    assert not (tmp_path / "run" / "classes.csv").exists()
    assert (tmp_path / "run" / "discriminator.safetensors").exists()
