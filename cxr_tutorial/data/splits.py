"""Who trains, who is tested, and what the training may see: by patient, by class and by seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from cxr_tutorial.data.example import Entry, Examples
from cxr_tutorial.errors import InputError
from cxr_tutorial.shipped import shipped


@dataclass(frozen=True)
class Split:
    """The ids of three parts of a data set; no id is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        everyone = [name for part in self.parts().values() for name in part]
        twice = len(everyone) - len(set(everyone))
        if twice:
            raise InputError(f"{twice} ids stand in two parts of a split or twice in one: each may stand in one")

    def parts(self) -> dict[str, tuple[str, ...]]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class LabelBudget:
    """What a training may see: the ids whose mask, and the ids whose class label, it is given."""

    masks: tuple[str, ...]
    labels: tuple[str, ...]


def patient_split(examples: Examples, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0) -> Split:
    """Split at random, by patient, with the same share of every class (and of masks) in each part.

    Parameters
    ----------
    examples : the whole set.
    fractions : of patients in train, validation and test; they sum to 1.
    seed : another seed, another split.

    Returns
    -------
    Split. All pictures of a patient are in one part.

    Raises
    ------
    InputError
        A fraction is negative, or they do not sum to 1.

    Notes
    -----
    Patients are sorted into strata (class, has a mask), shuffled, and each stratum is cut at the cumulated
    fractions. Introduced in chapter 1.

    >>> from cxr_tutorial.data.example import Entry
    >>> people = Examples(tuple(Entry(str(i), str(i // 2), "", i // 10, True) for i in range(20)), None, "")
    >>> [len(part) for part in patient_split(people, (0.6, 0.2, 0.2)).parts().values()]
    [12, 4, 4]
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions of a split must be >= 0 and sum to 1, got {fractions}: try (0.7, 0.1, 0.2)")
    pictures: dict[str, list[Entry]] = defaultdict(list)
    for entry in examples.entries:
        pictures[entry.patient].append(entry)
    strata: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for patient, theirs in sorted(pictures.items()):
        strata[max(_stratum(entry) for entry in theirs)].append(patient)

    rng = np.random.default_rng(_checked(seed))
    part: dict[str, int] = {}
    for _, patients in sorted(strata.items()):
        cuts = np.rint(np.cumsum(fractions[:2]) * len(patients)).astype(int)
        for place, i in enumerate(rng.permutation(len(patients))):
            part[patients[i]] = int(np.searchsorted(cuts, place, side="right"))
    return Split(*(tuple(e.id for e in examples.entries if part[e.patient] == k) for k in range(3)))


def kfold(examples: Examples, k: int = 5, seed: int = 0) -> tuple[Split, ...]:
    """Cut into k folds by patient and class; split i tests on fold i and validates on fold i + 1.

    Every picture is tested exactly once and validated exactly once.

    Raises
    ------
    InputError
        k < 3 (test, validation and training need a fold each), or fewer patients than folds.

    Notes
    -----
    The folds are scikit-learn's `StratifiedGroupKFold`. Introduced in chapter 1.

    >>> from cxr_tutorial.data.example import Entry
    >>> people = Examples(tuple(Entry(str(i), str(i), "", i % 2, True) for i in range(20)), None, "")
    >>> len(kfold(people, 4)), len(kfold(people, 4)[0].test)
    (4, 5)
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = len(set(examples.patients))
    if not 3 <= k <= patients:
        raise InputError(f"k must be from 3 to the number of patients, {patients}; got {k}")
    classes = [-1 if label is None else label for label in examples.labels]
    rarest = min(classes.count(c) for c in set(classes))
    if rarest < k:
        raise InputError(f"k = {k} folds cannot each hold the rarest class, which has {rarest} pictures")
    folds = StratifiedGroupKFold(k, shuffle=True, random_state=_checked(seed))
    fold_of = np.empty(len(examples), dtype=int)
    for fold, (_, test) in enumerate(folds.split(classes, classes, examples.patients)):
        fold_of[test] = fold

    def split(test: int) -> Split:
        validation = (test + 1) % k
        parts: tuple[list[str], list[str], list[str]] = ([], [], [])
        for name, fold in zip(examples.ids, fold_of, strict=True):
            parts[2 if fold == test else 1 if fold == validation else 0].append(name)
        return Split(*map(tuple, parts))

    return tuple(split(fold) for fold in range(k))


def label_budget(examples: Examples, masks: int | None = None, labels: int | None = None, seed: int = 0) -> LabelBudget:
    """Choose whose mask and whose class label a training may see: nested, by class, by seed.

    Parameters
    ----------
    examples : the training part. Pictures outside the budget remain as unlabelled ones.
    masks, labels : how many of each; None for all there are.
    seed : another seed, another choice.

    Returns
    -------
    LabelBudget, in order of choice: for one seed the 5 are the first 5 of the 10, the 10 of the 20, ...

    Raises
    ------
    InputError
        More are asked for than there are, or a negative number.

    Notes
    -----
    One random order serves both, so a picture that brings its mask tends to bring its label too. In every
    beginning of the order the classes have their share of the whole, to one picture.
    The paper reports label budgets but not how they were drawn (unknown there); this way is our own (d).
    Introduced in chapter 1.

    >>> from cxr_tutorial.data.example import Entry
    >>> people = Examples(tuple(Entry(str(i), str(i), "", i % 2, True) for i in range(20)), None, "")
    >>> few, more = label_budget(people, masks=5, labels=4), label_budget(people, masks=10, labels=4)
    >>> few.masks == more.masks[:5], sorted(int(name) % 2 for name in few.labels)
    (True, [0, 0, 1, 1])
    """
    entries = sorted(examples.entries, key=lambda entry: entry.id)
    shuffled = [entries[i] for i in np.random.default_rng(_checked(seed)).permutation(len(entries))]
    with_mask = _interleave([entry for entry in shuffled if entry.has_mask])
    with_label = _interleave([entry for entry in shuffled if entry.label is not None])
    return LabelBudget(_first("masks", masks, with_mask), _first("labels", labels, with_label))


def public_split(name: str) -> Split:
    """The published train, validation and test ids for segmentation: `"jsrt"`, `"montgomery"`, `"shenzhen"`.

    They are those of Idiap's `mednet` 2.1.0 (JSRT 172/25/50, Montgomery 96/14/28, Shenzhen 396/56/114, the
    masked ones), after G. Gaal et al., arXiv:2003.10304; use them beside published numbers. They are by
    picture: `shared_patients` says where that matters.

    Introduced in chapter 1.

    >>> [len(part) for part in public_split("jsrt").parts().values()]
    [172, 25, 50]
    """
    return _split(_shipped(name, "segmentation"))


def public_folds(name: str) -> dict[str, Split]:
    """The published lists for classification: `"fold-0"` ... `"fold-9"` and `"default"`, of `mednet` 2.1.0.

    They exist for `"montgomery"` and `"shenzhen"`, and are by picture like `public_split`.

    Introduced in chapter 11.

    >>> len(public_folds("shenzhen")), len(public_folds("montgomery")["default"].test)
    (11, 28)
    """
    return {fold: _split(parts) for fold, parts in _shipped(name, "classification-folds").items()}


def shared_patients(split: Split, examples: Examples) -> dict[str, dict[str, tuple[str, ...]]]:
    """Patients with pictures in more than one part: patient -> part -> ids. Empty if the split is clean."""
    patient = dict(zip(examples.ids, examples.patients, strict=True))
    seen: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for part, names in split.parts().items():
        for name in names:
            if name in patient:
                seen[patient[name]][part] = (*seen[patient[name]].get(part, ()), name)
    return {who: parts for who, parts in sorted(seen.items()) if len(parts) > 1}


def _stratum(entry: Entry) -> tuple[int, bool]:
    return (-1 if entry.label is None else entry.label, entry.has_mask)


def _interleave(entries: Sequence[Entry]) -> list[str]:
    """Their ids, so ordered that every beginning holds each class in its share."""
    count: dict[int | None, int] = defaultdict(int)
    for entry in entries:
        count[entry.label] += 1
    seen: dict[int | None, int] = defaultdict(int)
    order = []
    for place, entry in enumerate(entries):
        order.append(((seen[entry.label] + 0.5) / count[entry.label], place, entry.id))
        seen[entry.label] += 1
    return [name for _, _, name in sorted(order)]


def _first(kind: str, wanted: int | None, ids: list[str]) -> tuple[str, ...]:
    if wanted is not None and not 0 <= wanted <= len(ids):
        raise InputError(f"a budget of {wanted} {kind} was asked for: choose from 0 to {len(ids)}, all there are")
    return tuple(ids[:wanted])


def _shipped(name: str, kind: str) -> dict:
    path = shipped("splits", f"{name}-{kind}.json")
    if not path.is_file():
        known = sorted(p.name.removesuffix(f"-{kind}.json") for p in shipped("splits").glob(f"*-{kind}.json"))
        raise InputError(f"no published list {name!r} for {kind}: choose one of {', '.join(known)}")
    return json.loads(path.read_text(encoding="utf-8"))


def _split(parts: dict[str, Iterable[str]]) -> Split:
    return Split(**{part: tuple(ids) for part, ids in parts.items()})


def _checked(seed: int) -> int:
    if seed < 0:
        raise InputError(f"a seed must be >= 0, got {seed}")
    return seed
