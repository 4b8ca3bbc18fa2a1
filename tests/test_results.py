"""Records: whole or not at all, read back as written, and honest about where they come from."""

import json
from datetime import UTC, datetime

import pytest

from cxr_tutorial.errors import InputError
from cxr_tutorial.files import whole_folder
from cxr_tutorial.results import (
    Record,
    check_record,
    collect,
    describe_device,
    load_records,
    provenance,
    read_curve,
    read_per_image,
    read_record,
    record_folders,
    write_record,
    write_table,
)

ROWS = [{"id": "a", "patient": "p", "source": "jsrt", "unit": "mm", "dice": 0.123456789}]


def record(name: str = "one") -> Record:
    return Record(
        name, {"seed": 1}, provenance("f00d", datetime.now(UTC), "CPU"), {"test": {"dice": {"mean": 0.5, "n": 1}}}
    )


def write(folder, name="one"):
    folder.mkdir(parents=True)
    write_record(folder, record(name), {"test": ROWS})


def test_a_record_is_read_as_it_was_written(tmp_path):
    write(tmp_path / "one")
    again = read_record(tmp_path / "one")
    assert again.metrics == {"test": {"dice": {"mean": 0.5, "n": 1}}}
    assert again.provenance.data == "f00d"
    assert again.folder == tmp_path / "one"
    assert again.provenance.versions["torch"]
    assert read_per_image(tmp_path / "one") == [{"part": "test"} | ROWS[0] | {"dice": 0.12346}]
    assert read_curve(tmp_path / "one") == []


def test_the_device_is_named_whatever_was_asked_for():
    assert "AUTO" not in describe_device("auto")
    assert describe_device("cpu").startswith("CPU, ")


def test_curves_come_back_as_numbers(tmp_path):
    write_table(tmp_path / "curve.csv", [{"step": 1, "dice": 0.5}, {"step": 2, "dice": 0.6}])
    assert read_curve(tmp_path) == [{"step": 1.0, "dice": 0.5}, {"step": 2.0, "dice": 0.6}]


def test_records_are_found_in_order_and_unfinished_ones_passed_over(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / "group" / name, name)
    write(tmp_path / ".c.unfinished", "c")
    assert [one.id for one in load_records(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("spoil", ["absent", "broken", "newer"])
def test_what_cannot_be_read_is_named(tmp_path, spoil):
    folder = tmp_path / "one"
    write(folder)
    run = folder / "run.json"
    if spoil == "absent":
        run.unlink()
    elif spoil == "broken":
        run.write_text(run.read_text()[:40])
    else:
        run.write_text(run.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(InputError, match=str(folder)):
        read_record(folder)
    with pytest.raises(InputError, match="is not a folder"):
        load_records(tmp_path / "none")


def test_a_table_is_written_whole_or_stays_as_it_was(tmp_path):
    table = tmp_path / "table.csv"
    write_table(table, [{"id": "R\udcf6ntgen 0", "dice": 0.5}])  # a name that is no UTF-8, as Python reads it
    with pytest.raises(InputError, match=r"no row to write to .*table\.csv"):
        write_table(table, [])
    with pytest.raises(ValueError, match="fields not in"):
        write_table(table, [{"id": "a"}, {"id": "b", "more": 1}])
    assert table.read_bytes() == b"id,dice\nR\xf6ntgen 0,0.5\n"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_an_empty_folder_or_to_none_is_followed(tmp_path, there):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    if there:
        (tmp_path / "disk" / "run").mkdir(parents=True)
    with whole_folder(tmp_path / "link") as folder:
        (folder / "run.json").write_text("{}")
    assert (tmp_path / "disk" / "run" / "run.json").exists()


def test_a_folder_gets_its_name_only_when_whole(tmp_path):
    place = tmp_path / "run"

    def killed():
        with whole_folder(place) as folder:
            (folder / "checkpoint.pt").write_text("so far")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        killed()
    assert not place.exists()
    with whole_folder(place) as folder:
        assert (folder / "checkpoint.pt").read_text() == "so far"
    assert (place / "checkpoint.pt").exists()
    with pytest.raises(InputError, match="is there already"), whole_folder(place):
        pass


def with_classes(folder, said=0.75):
    """A record of four pictures whose AUC is .75, as its table says."""
    rows = [
        {
            "part": "test",
            "mask": "predicted",
            "id": name,
            "patient": name,
            "label": label,
            "score": score,
        }
        for name, label, score in (("a", 0, 0.1), ("b", 0, 0.4), ("c", 1, 0.35), ("d", 1, 0.8))
    ]
    write(folder)
    write_table(folder / "classes.csv", rows)
    metrics = {"test": {"dice": {"mean": 0.12346, "sd": 0.0, "n": 1}, "auc": {"mean": said, "n": 4}}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_the_class_figures_are_checked_against_their_rows(tmp_path):
    assert check_record(with_classes(tmp_path / "whole")).metrics["test"]["auc"]["mean"] == 0.75
    with pytest.raises(InputError, match=r"auc of test is said to be 0\.999"):
        check_record(with_classes(tmp_path / "changed", said=0.999))
    for lines in (3, 1):
        cut = with_classes(tmp_path / f"cut-{lines}") / "classes.csv"
        cut.write_text("".join(cut.read_text().splitlines(keepends=True)[: lines + 1]))
        with pytest.raises(InputError, match=f"its {lines} rows say something else"):
            check_record(cut.parent)
    (lost := with_classes(tmp_path / "lost") / "classes.csv").unlink()
    with pytest.raises(InputError, match="its 0 rows say something else"):
        check_record(lost.parent)


@pytest.mark.parametrize(("file", "content"), [("run.json", b"\xff\xfe{}"), ("metrics.json", b"[]")])
def test_one_broken_record_does_not_spoil_the_others(tmp_path, file, content):
    for name in ("good", "bad"):
        with_classes(tmp_path / name)
    (tmp_path / "bad" / file).write_bytes(content)
    records, broken = collect(record_folders(tmp_path))
    assert [record.folder.name for record in records] == ["good"]
    assert "holds no readable record" in broken[tmp_path / "bad"]
