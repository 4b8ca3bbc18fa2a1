"""Records to verdicts: worked by hand, and the rules for what is missing or double."""

from __future__ import annotations

import math

import pytest
from scipy.stats import ttest_rel

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.evidence import Difference, origin, paired, reached, still_waiting, table_of, verdict
from cxr_tutorial.results import Provenance, Record, load_records


def run(net: str, seed: int, dice: float | None, data: str = "jsrt", split: str = "public") -> Record:
    metrics = {} if dice is None else {"test": {"dice": {"mean": dice, "n": 50}}}
    config = {"net": net, "seed": seed, "data": data, "split": split, "size": 128}
    made = Provenance(f"{seed}bcdef0123", "CPU, 1 threads", {}, "abc", f"2026-01-0{seed}T00:00:00", 1.0)
    return Record(f"{data}-{net}-s{seed}", config, made, metrics)


OLD, NEW = (0.90, 0.91, 0.93), (0.92, 0.92, 0.95)
RUNS = [run(net, seed, dice) for net, some in (("a", OLD), ("b", NEW)) for seed, dice in enumerate(some, 1)]


def of(old: str, new: str):
    return lambda record: {old: False, new: True}.get(record.config["net"])


def test_the_interval_is_that_of_the_paired_t_test():
    found = paired(RUNS, of("a", "b"), lambda r: None)
    low, high = ttest_rel(NEW, OLD).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.effect == pytest.approx(0.05 / 3)
    assert found.pairs == 3


def test_pairs_of_one_seed_are_averaged_before_seeds_are_counted():
    more = [run("a", 1, 0.80, "montgomery"), run("b", 1, 0.84, "montgomery")]
    found = paired(RUNS + more, of("a", "b"), lambda r: r.config["data"])
    assert found.by_seed == pytest.approx((0.03, 0.01, 0.02))
    assert found.pairs == 4


def test_who_has_no_partner_or_no_figure_is_left_out():
    found = paired([*RUNS, run("a", 4, 0.5), run("a", 5, 0.5), run("b", 5, None)], of("a", "b"), lambda r: None)
    assert len(found.by_seed) == 3


def test_what_cannot_be_compared_is_named():
    with pytest.raises(InputError, match="no two records to compare: 0 of the new kind, 3 of the old"):
        paired(RUNS, of("a", "c"), lambda r: None)
    with pytest.raises(InputError, match=r"two runs stand for .* jsrt-a-s1: tell more by `alike`"):
        paired([*RUNS, RUNS[0]], of("a", "b"), lambda r: None)


def test_a_single_run_has_no_interval_and_supports_nothing():
    alone = paired(RUNS[::3], of("a", "b"), lambda r: None)
    assert (alone.low, alone.high) == (-math.inf, math.inf)
    assert "single run" in str(alone)
    assert verdict([alone], 0.005) == "not supported"


@pytest.mark.parametrize(
    ("spans", "word"),
    [
        ([(0.010, 0.008, 0.012)], "supported"),
        ([(0.010, 0.008, 0.012), (0.001, 0.0005, 0.002)], "supported"),
        ([(0.003, 0.001, 0.005)], "supported, but too small to matter"),
        ([(0.010, 0.008, 0.012), (0.010, -0.001, 0.021)], "not supported"),
        ([(-0.010, -0.012, -0.008)], "contradicted"),
        ([(-0.010, -0.012, -0.008), (0.010, 0.008, 0.012)], "not supported"),
    ],
)
def test_verdicts(spans, word):
    assert verdict([Difference(*span, (0.0,), 1) for span in spans], relevant=0.005) == word


def test_a_table_has_the_best_first_and_counts_what_it_rests_on():
    first, second = table_of([*RUNS, run("c", 1, None)], lambda r: r.config["net"])
    assert (first["label"], second["label"]) == ("b", "a")
    assert first["mean"] == pytest.approx(0.93)
    assert (first["runs"], first["seeds"], first["pictures"]) == (3, [1, 2, 3], 50)


def test_origin_names_all_that_a_table_needs():
    said = origin(RUNS)
    for what in (
        "6 runs",
        "seeds 1, 2, 3",
        "jsrt",
        "split public",
        "128 px",
        "CPU",
        "2026-01-01 to 2026-01-03",
        "1bcdef0",
    ):
        assert what in said
    assert "2 folds" in origin([run("a", 1, 0.9, split="fold-0"), run("a", 2, 0.9, split="fold-1")])
    with pytest.raises(InputError, match="no records"):
        origin([])


def test_how_fast_a_dice_is_reached_is_read_from_the_curve():
    some = [r for r in load_records() if r.group == "kltv"][:3]
    for record in some:
        first = reached(record, 0.95)
        assert first <= reached(record, 0.97)
        assert first % 25 == 0
        assert reached(record, 1.01) == math.inf
    assert still_waiting([reached(r, 0.5) for r in some], [0, 450]) == [1, 0]
