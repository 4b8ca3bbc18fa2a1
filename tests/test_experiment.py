"""A run from configuration to record, on the shipped pictures and on the real ones."""

import json

import pytest

from cxr_tutorial.data import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.experiment import Config, load, run
from cxr_tutorial.results import load_records, read_curve, read_per_image, read_record
from cxr_tutorial.train import Recipe, load_weights

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


def test_fewer_masks_are_another_training_set(tmp_path):
    from dataclasses import replace

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
        ({"split": "mine"}, "unknown split 'mine'"),
        ({"recipe": Recipe(loss="hinge")}, "hinge"),
        ({"masks": 10_000}, "budget of 10000 masks"),
        ({"net": "resnet"}, "unknown net 'resnet'"),
        ({"data": "nowhere"}, "no data set and no folder 'nowhere'"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(tmp_path, bad, message):
    from dataclasses import replace

    with pytest.raises(InputError, match=message):
        run(replace(QUICK, **bad), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["montgomery", "jsrt", "shenzhen"])
def test_a_run_on_real_pictures_with_the_public_split(cxr_data, tmp_path, name):
    from dataclasses import replace

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
