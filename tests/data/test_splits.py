"""Splits keep patients together, budgets are nested, and the published lists leak just where we say."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_tutorial.data.example import Entry, Examples
from cxr_tutorial.data.montgomery import REPEATED, patient
from cxr_tutorial.data.splits import (
    Split,
    kfold,
    label_budget,
    patient_split,
    public_folds,
    public_split,
    shared_patients,
)
from cxr_tutorial.errors import InputError


def examples_of(rows):
    """Examples that cannot be decoded, from (patient, label, has_mask) rows."""
    entries = tuple(Entry(f"x{i:03}", p, "test", label, mask) for i, (p, label, mask) in enumerate(rows))
    return Examples(entries, lambda entry: None, "test")


def crowd(normal=80, tb=60, masked=3):
    """One picture in `masked` has no mask; every tenth patient has two pictures."""
    rows = []
    for label, n in ((0, normal), (1, tb)):
        for i in range(n):
            rows.append((f"{label}-{i - (i % 10 == 1)}", label, i % masked > 0))
    return examples_of(rows)


def label_counts(examples, ids):
    return Counter(examples.select(ids).labels)


rows = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from([0, 1, None]), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(rows, st.integers(0, 5), st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]))
def test_every_picture_is_in_one_part_and_every_patient_too(rows, seed, fractions):
    examples = examples_of(rows)
    split = patient_split(examples, fractions, seed)
    assert sorted(split.train + split.validation + split.test) == examples.ids
    assert shared_patients(split, examples) == {}
    assert [bool(part) for part in split.parts().values()] <= [fraction > 0 for fraction in fractions]


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_their_share_of_classes_and_masks(seed):
    examples = crowd()
    split = patient_split(examples, (0.6, 0.15, 0.25), seed)
    for part, share in zip(split.parts().values(), (0.6, 0.15, 0.25), strict=True):
        entries = examples.select(part).entries
        for label, n in ((0, 80), (1, 60)):
            masks = [entry.has_mask for entry in entries if entry.label == label]
            assert len(masks) == pytest.approx(n * share, abs=4)  # some patients have two pictures
            assert sum(masks) == pytest.approx(len(masks) * 2 / 3, abs=3)


def test_the_seed_decides():
    examples = crowd()
    backwards = examples.subset(range(len(examples) - 1, -1, -1))
    assert patient_split(examples, seed=1) == patient_split(examples, seed=1)
    assert set(patient_split(backwards, seed=1).test) == set(patient_split(examples, seed=1).test)
    assert patient_split(examples, seed=1) != patient_split(examples, seed=2)
    assert kfold(examples, seed=1) == kfold(examples, seed=1) != kfold(examples, seed=2)


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_are_none(fractions):
    with pytest.raises(InputError, match="sum to 1"):
        patient_split(crowd(), fractions)


@pytest.mark.parametrize("k", [3, 5, 10])
def test_folds_test_every_picture_once(k):
    examples = crowd()
    folds = kfold(examples, k, seed=4)
    assert len(folds) == k
    for part in ("test", "validation"):
        assert sorted(name for fold in folds for name in getattr(fold, part)) == examples.ids
    for fold in folds:
        assert shared_patients(fold, examples) == {}
        assert sorted(fold.train + fold.validation + fold.test) == examples.ids
        counts = label_counts(examples, fold.test)
        assert counts[0] == pytest.approx(80 / k, abs=2)
        assert counts[1] == pytest.approx(60 / k, abs=2)


@pytest.mark.parametrize(("k", "words"), [(2, "k must be from 3"), (999, "k must be from 3"), (9, "rarest class")])
def test_impossible_folds(k, words):
    with pytest.raises(InputError, match=words):
        kfold(crowd(40, 8), k)


def test_a_split_with_an_id_twice():
    with pytest.raises(InputError, match="1 ids stand in two parts"):
        Split(("a", "b"), ("b",), ("c",))


@settings(deadline=None)
@given(st.integers(0, 20), st.data())
def test_budgets_are_nested_and_balanced(seed, data):
    examples = crowd()
    with_mask = sum(examples.has_mask)
    few = data.draw(st.integers(0, with_mask))
    more = data.draw(st.integers(few, with_mask))
    small = label_budget(examples, masks=few, labels=few, seed=seed)
    large = label_budget(examples, masks=more, labels=more, seed=seed)
    assert small.masks == large.masks[:few]
    assert small.labels == large.labels[:few]
    assert len(set(large.masks)) == len(large.masks) == more
    assert all(examples.select(large.masks).has_mask)
    counts = label_counts(examples, large.labels)
    assert abs(counts[0] - more * 80 / 140) <= 1
    assert abs(counts[1] - more * 60 / 140) <= 1


def test_a_budget_depends_on_the_seed_but_not_on_the_order():
    examples = crowd()
    backwards = examples.subset(range(len(examples) - 1, -1, -1))
    assert label_budget(examples, 5, 10, seed=1) == label_budget(backwards, 5, 10, seed=1)
    assert label_budget(examples, 5, 10, seed=1) != label_budget(examples, 5, 10, seed=2)


def test_no_budget_is_everything_and_two_labels_are_two_classes():
    examples = crowd()
    budget = label_budget(examples)
    assert len(budget.masks) == sum(examples.has_mask)
    assert sorted(budget.labels) == examples.ids
    for seed in range(20):
        assert set(label_counts(examples, label_budget(examples, labels=2, seed=seed).labels)) == {0, 1}


def test_pictures_without_label_or_mask_are_never_in_a_budget():
    examples = examples_of([(str(i), None if i % 2 else 0, i % 3 == 0) for i in range(12)])
    budget = label_budget(examples)
    assert set(budget.labels) == {f"x{i:03}" for i in range(0, 12, 2)}
    assert set(budget.masks) == {f"x{i:03}" for i in range(0, 12, 3)}


@pytest.mark.parametrize("wish", [{"masks": 5}, {"labels": 7}, {"masks": -1}])
def test_a_budget_beyond_what_there_is(wish):
    examples = examples_of([(str(i), 0, i < 4) for i in range(6)])
    with pytest.raises(InputError, match=r"choose from 0 to [46], all there are"):
        label_budget(examples, **wish)


# The published lists


@pytest.mark.parametrize(
    ("name", "sizes"), [("jsrt", [172, 25, 50]), ("montgomery", [96, 14, 28]), ("shenzhen", [396, 56, 114])]
)
def test_published_split_sizes(name, sizes):
    assert [len(part) for part in public_split(name).parts().values()] == sizes


@pytest.mark.parametrize(("name", "n"), [("montgomery", 138), ("shenzhen", 662)])
def test_published_folds_test_every_picture_once(name, n):
    folds = public_folds(name)
    assert set(folds) == {"default", *(f"fold-{i}" for i in range(10))}
    tested = [picture for fold, split in folds.items() if fold != "default" for picture in split.test]
    assert len(tested) == len(set(tested)) == n
    for split in folds.values():
        assert sum(map(len, split.parts().values())) == n


def montgomery_by_name():
    """The 138 pictures, from the published lists alone: no picture is needed to see the leaks."""
    names = sorted(name for part in public_split("montgomery").parts().values() for name in part)
    return Examples(
        tuple(Entry(name, patient(name), "montgomery", int(name[-1]), True) for name in names),
        lambda entry: None,
        "montgomery",
    )


# patient -> part -> numbers of that patient's pictures
LEAKS = {
    "segmentation": {
        "0113": {"train": ("0113",), "validation": ("0117",)},
        "0162": {"train": ("0162", "0170"), "test": ("0166",)},
    },
    "default": {"0113": {"train": ("0113",), "validation": ("0117",)}},
    "fold-0": {"0113": {"train": ("0117",), "validation": ("0113",)}},
    "fold-1": {
        "0113": {"train": ("0117",), "validation": ("0113",)},
        "0162": {"train": ("0162", "0166"), "test": ("0170",)},
    },
    "fold-2": {},
    "fold-3": {
        "0113": {"train": ("0117",), "validation": ("0113",)},
        "0162": {"train": ("0162", "0170"), "test": ("0166",)},
    },
    "fold-4": {"0162": {"train": ("0166", "0170"), "test": ("0162",)}},
    "fold-5": {},
    "fold-6": {"0113": {"train": ("0117",), "test": ("0113",)}},
    "fold-7": {"0113": {"train": ("0113",), "validation": ("0117",)}},
    "fold-8": {"0113": {"train": ("0113",), "validation": ("0117",)}},
    "fold-9": {"0113": {"train": ("0113",), "test": ("0117",)}},
}


@pytest.mark.parametrize("name", LEAKS)
def test_where_the_published_montgomery_lists_leak_a_patient(name):
    """A published figure on a list that leaks into `test` has seen one of its test patients in training."""
    split = public_split("montgomery") if name == "segmentation" else public_folds("montgomery")[name]
    leaks = shared_patients(split, montgomery_by_name())
    found = {
        who.split("_")[1]: {
            part: tuple(sorted(picture.split("_")[1] for picture in pictures)) for part, pictures in parts.items()
        }
        for who, parts in leaks.items()
    }
    assert found == LEAKS[name]


def test_our_own_splits_of_montgomery_do_not_leak():
    examples = montgomery_by_name()
    assert Counter(Counter(examples.patients).values()) == {1: 133, 2: 1, 3: 1}
    assert len(REPEATED) == 2
    for seed in range(10):
        assert shared_patients(patient_split(examples, seed=seed), examples) == {}
        for split in kfold(examples, seed=seed):
            assert shared_patients(split, examples) == {}


@pytest.mark.parametrize("ask", [lambda: public_split("chexpert"), lambda: public_folds("jsrt")])
def test_unknown_lists_name_the_known_ones(ask):
    with pytest.raises(InputError, match=r"choose one of .*montgomery, shenzhen"):
        ask()


@pytest.mark.parametrize("name", ["montgomery", "shenzhen", "jsrt"])
def test_published_ids_are_those_of_the_real_pictures(cxr_data, name):
    from cxr_tutorial import data

    examples = getattr(data, f"load_{name}")(cxr_data / name)
    split = public_split(name)
    for part in split.parts().values():
        assert all(examples.select(part).has_mask)
    assert sum(map(len, split.parts().values())) == sum(examples.has_mask)


@pytest.mark.parametrize(
    "draw",
    [patient_split, lambda some, seed: kfold(some, 4, seed=seed), lambda some, seed: label_budget(some, 2, 2, seed)],
)
def test_a_negative_seed_is_refused(draw):
    with pytest.raises(InputError, match="seed must be >= 0, got -1"):
        draw(crowd(), seed=-1)
