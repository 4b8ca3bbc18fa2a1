"""From records to a verdict: means, paired differences, steps to a Dice, and where figures are from (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_tutorial.errors import InputError
from cxr_tutorial.results import Record, read_curve

Label = Callable[[Record], Hashable]


@dataclass(frozen=True)
class Difference:
    """A paired difference, new minus old, with a 95 % interval over repetitions.

    Attributes
    ----------
    effect : mean of `by_seed`.
    low, high : Student's interval; infinite for a single repetition.
    by_seed : the mean difference of each repetition (a seed, or a fold).
    pairs : how many pairs of runs stand behind them.
    """

    effect: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    pairs: int

    def __str__(self) -> str:
        span = f"{self.low:+.4f} to {self.high:+.4f}" if math.isfinite(self.low) else "single run"
        return f"{self.effect:+.4f} ({span}; {len(self.by_seed)} repetitions, {self.pairs} pairs)"


def student_half(values: Sequence[float]) -> float:
    r"""Half of Student's 95 % interval of a mean, $t_{n-1}\,s/\sqrt n$; infinite for a single value.

    >>> round(student_half([0.95, 0.96, 0.97]), 4)
    0.0248
    """
    from scipy.stats import t as student

    n = len(values)
    return float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else math.inf


def figure_of(record: Record, part: str = "test", figure: str = "dice") -> float:
    """The mean of one figure on one part of a record; NaN if the record has none."""
    return float(record.metrics.get(part, {}).get(figure, {}).get("mean", math.nan))


def table_of(records: Iterable[Record], label: Label, part: str = "test", figure: str = "dice") -> list[dict[str, Any]]:
    """One row a label, best first: mean and interval over runs, how many runs, seeds and pictures.

    Parameters
    ----------
    records : of any groups; runs without the figure are left out.
    label : names the row that a record belongs to.
    part, figure : which of its figures.

    Introduced in chapter 11.

    >>> from cxr_tutorial.results import load_records
    >>> rows = table_of((r for r in load_records() if r.group == "sizes"), lambda r: r.config["widths"])
    >>> sorted(rows[0])
    ['half', 'label', 'mean', 'pictures', 'runs', 'seeds']
    """
    found: dict[Hashable, list[Record]] = {}
    for record in records:
        if math.isfinite(figure_of(record, part, figure)):
            found.setdefault(label(record), []).append(record)
    rows = []
    for name, some in found.items():
        values = [figure_of(one, part, figure) for one in some]
        row: dict[str, Any] = {
            "label": name,
            "mean": float(np.mean(values)),
            "half": student_half(values),
            "runs": len(some),
        }
        row |= {"seeds": sorted({one.config["seed"] for one in some})}
        rows.append(row | {"pictures": max(one.metrics[part][figure]["n"] for one in some)})
    return sorted(rows, key=lambda row: -row["mean"])


def difference(by_seed: Sequence[float], pairs: int | None = None) -> Difference:
    """What differences seed by seed (or fold by fold) say: their mean and Student's interval.

    Parameters
    ----------
    by_seed : new minus old, one a repetition.
    pairs : how many pairs of runs stand behind them; default one each.

    Raises
    ------
    InputError : no repetition at all.

    Introduced in chapter 11.

    >>> str(difference([0.02, 0.01, 0.02]))
    '+0.0167 (+0.0023 to +0.0310; 3 repetitions, 3 pairs)'
    """
    if not by_seed:
        raise InputError("no differences: the two sides share no seed")
    effect, half = float(np.mean(by_seed)), student_half(by_seed)
    return Difference(effect, effect - half, effect + half, tuple(by_seed), pairs or len(by_seed))


def paired(
    records: Iterable[Record],
    side: Callable[[Record], bool | None],
    alike: Label,
    part: str = "test",
    figure: str = "dice",
) -> Difference:
    r"""The difference between two kinds of runs that are alike in all else.

    $$d_s=\frac1{|P_s|}\sum_{(a,b)\in P_s}\bigl(m_b-m_a\bigr),\qquad \bar d\pm t_{n-1}\frac{\mathrm{sd}(d_s)}{\sqrt n}$$

    The pairs of one seed share their draws and are averaged first; the n seeds are what is repeated.

    Parameters
    ----------
    records : of any groups.
    side : True for the new kind, False for the old one, None for a run that is neither.
    alike : what both runs of a pair must share besides the seed, such as the data set.
    part, figure : which of their figures.

    Raises
    ------
    InputError : there is no pair, or two runs claim the same place in one.

    Introduced in chapter 11.

    >>> from cxr_tutorial.results import load_records
    >>> sizes = [r for r in load_records() if r.group == "sizes"]
    >>> gain = paired(sizes, lambda r: {"small": True, "tiny": False}.get(r.config["widths"]), lambda r: None)
    >>> gain.low < gain.effect < gain.high, gain.pairs
    (True, 3)
    """
    sides: dict[bool, dict[tuple[int, Hashable], float]] = {False: {}, True: {}}
    for record in records:
        value, which = figure_of(record, part, figure), side(record)
        if which is not None and math.isfinite(value):
            place = (record.config["seed"], alike(record))
            if place in sides[which]:
                raise InputError(f"two runs stand for {place}, the second is {record.id}: tell more by `alike`")
            sides[which][place] = value
    both = sides[True].keys() & sides[False].keys()
    if not both:
        raise InputError(
            f"no two records to compare: {len(sides[True])} of the new kind, {len(sides[False])} of the old"
        )
    by_seed: dict[int, list[float]] = {}
    for seed, rest in both:
        by_seed.setdefault(seed, []).append(sides[True][seed, rest] - sides[False][seed, rest])
    return difference([float(np.mean(by_seed[seed])) for seed in sorted(by_seed)], len(both))


def verdict(differences: Sequence[Difference], relevant: float) -> str:
    """What several differences say together about "the new one is better".

    Parameters
    ----------
    differences : for instance one a data set; all must agree.
    relevant : a smaller effect would not matter to a user.

    Returns
    -------
    `"supported"`: every interval lies above 0 and an effect reaches `relevant`; `"supported, but too small to
    matter"`: above 0, every effect below it; `"contradicted"`: every interval lies below 0; `"not supported"`: all
    else.

    Introduced in chapter 11.

    >>> verdict([Difference(0.01, 0.008, 0.012, (0.01,) * 3, 3)], relevant=0.005)
    'supported'
    """
    if not differences:
        raise InputError("no difference to judge: give at least one")
    if all(one.low > 0 for one in differences):
        large = any(one.effect >= relevant for one in differences)
        return "supported" if large else "supported, but too small to matter"
    return "contradicted" if all(one.high < 0 for one in differences) else "not supported"


def reached(record: Record, threshold: float, figure: str = "dice") -> float:
    """The first step at which the validation part was seen at this figure or above; infinite if it never was.

    Introduced in chapter 11.
    """
    rows = read_curve(record.folder) if record.folder else []
    return next((row["step"] for row in rows if row[figure] >= threshold), math.inf)


def still_waiting(steps: Sequence[float], at: Sequence[float]) -> list[float]:
    """The share of runs that are not there yet at each step: a survival curve, in which no run is lost from sight.

    >>> still_waiting([100, 200, float("inf")], [0, 100, 300])
    [1.0, 0.6666666666666666, 0.3333333333333333]
    """
    return [sum(one > now for one in steps) / len(steps) for now in at]


def origin(records: Iterable[Record]) -> str:
    """Where a table is from: runs, seeds, sets, split, size, devices, dates and commits.

    Introduced in chapter 11.
    """
    some = list(records)
    if not some:
        raise InputError("no records: a table without an origin is no evidence")

    def all_of(values: Iterable[Any]) -> str:
        return ", ".join(map(str, sorted(set(values))))

    splits = {one.config["split"] for one in some}
    folds = sum("fold" in split for split in splits)
    dates = sorted(one.provenance.date[:10] for one in some)
    parts = [
        f"{len(some)} runs",
        f"seeds {all_of(one.config['seed'] for one in some)}",
        all_of(one.config["data"] for one in some),
        f"{folds} folds" if folds else f"split {all_of(splits)}",
        f"{all_of(one.config['size'] for one in some)} px",
        all_of(one.provenance.device for one in some),
        dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
        f"commits {all_of((one.provenance.commit or 'unknown')[:7] for one in some)}",
    ]
    return "; ".join(parts)
