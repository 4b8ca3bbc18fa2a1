"""The cache, augmentation and two-stream sampling."""

import errno
import os

import numpy as np
import pytest
import torch

from cxr_tutorial.data.batches import NO_AUGMENTATION, Augmentation, Batches, augment
from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.errors import InputError


def squares(n: int = 6, without_mask: tuple[int, ...] = (), version: str = "1") -> Examples:
    """Pictures with one bright square, at a place of their own; masks hold the square."""

    def read(entry: Entry) -> Example:
        i = int(entry.id)
        mask = np.zeros((40, 60), bool)
        mask[10:30, 5 * i : 5 * i + 20] = True
        image = (0.2 + 0.6 * mask).astype(np.float32)
        return Example(image, mask if entry.has_mask else None, entry.label, entry.id, entry.id, "squares")

    entries = tuple(
        Entry(str(i), str(i), "squares", i % 2 if i else None, i not in without_mask, version=version) for i in range(n)
    )
    return Examples(entries, read, "squares")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    return tmp_path


def test_cache_holds_what_the_examples_hold(folder):
    data = cache(squares(without_mask=(2,)), 16)
    assert data.images.shape == data.masks.shape == (6, 16, 16)
    assert isinstance(data.images, np.memmap)
    assert data.has_mask.tolist() == [True, True, False, True, True, True]
    assert data.labels.tolist() == [-1, 1, 0, 1, 0, 1]
    assert data.masks[0].mean() == pytest.approx(20 * 20 / (40 * 60), abs=0.02)
    assert np.median(data.images[0][data.masks[0] > 0]) == pytest.approx(255 * 0.8, abs=6)


def test_cache_is_found_again_and_renewed_when_files_change(folder):
    def read(entry):
        raise AssertionError("decoded twice")

    first = squares()
    cache(first, 16)
    again = cache(Examples(first.entries, read, first.name), 16)
    assert len(again) == 6
    with pytest.raises(AssertionError, match="decoded twice"):
        cache(Examples(squares(version="2").entries, read, first.name), 16)
    assert not list(folder.glob(".unfinished*"))


def test_an_interrupted_cache_leaves_nothing_behind(folder):
    good = squares()

    def read(entry):
        if entry.id == "3":
            raise InputError("3.png is cut short")
        return good.read(entry)

    with pytest.raises(InputError, match=r"3\.png"):
        cache(Examples(good.entries, read, "broken"), 16)
    assert list(folder.iterdir()) == []


def test_a_disk_without_room_for_a_cache_is_told_with_what_to_do(folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"no room for a cache of 0 MB \(No space left on device\): .* CXR_CACHE"):
        cache(squares(), 16, folder)
    assert not list(folder.iterdir())


def test_a_file_system_that_cannot_reserve_room_is_written_to_all_the_same(folder, monkeypatch):
    def unable(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    assert len(cache(squares(), 16, folder)) == 6


def test_views_hide_masks_and_labels_and_change_the_fingerprint(folder):
    data = cache(squares(), 16)
    view = data.select(["5", "1", "3"]).reveal(masks=["1"], labels=["3"])
    assert view.ids == ("5", "1", "3")
    assert view.has_mask.tolist() == [False, True, False]
    assert view.labels.tolist() == [-1, -1, 1]
    fingerprints = {d.fingerprint for d in (data, view, data.select(view.ids), view.reveal(masks=[]))}
    assert len(fingerprints) == 4
    with pytest.raises(InputError, match="'9' is not in this set"):
        data.select(["9"])


@pytest.mark.parametrize(("n", "size"), [(0, 32), (3, 8)])
def test_nothing_to_cache_is_an_error(folder, n, size):
    with pytest.raises(InputError, match="cannot cache"):
        cache(squares(n), size)


def test_batches_depend_on_seed_and_step_alone(folder):
    data = cache(squares(), 32)
    one, two = Batches(data, 4, seed=7), Batches(data, 4, seed=7)
    late = [one.batch(step) for step in range(4)][3]
    for a, b in zip(late, two.batch(3), strict=True):
        assert torch.equal(a, b)
    other = Batches(data, 4, seed=8).batch(3)
    assert not torch.equal(late.image, other.image)


def test_every_pass_shows_every_picture_once(folder):
    draws = Batches(cache(squares(), 16), 4, seed=1)
    seen = torch.cat([draws.batch(step).index for step in range(6)])
    for chunk in seen.split(6):
        assert sorted(chunk.tolist()) == list(range(6))


def test_two_streams_keep_their_places_and_absent_masks_are_nan(folder):
    data = cache(squares(without_mask=(1, 4)), 16)
    batch = Batches(data, 3, unlabelled_batch_size=2).batch(0)
    assert batch.has_mask.tolist() == [True] * 3 + [False] * 2
    assert set(batch.index[3:].tolist()) == {1, 4}
    assert batch.mask[3:].isnan().all()
    assert not batch.mask[:3].isnan().any()


def test_processes_share_an_epoch_without_overlap(folder):
    data = cache(squares(8), 16)
    shares = [Batches(data, 2, rank=rank, world_size=4).batch(0).index for rank in range(4)]
    assert sorted(torch.cat(shares).tolist()) == list(range(8))


def test_a_stream_without_pictures_is_an_error(folder):
    data = cache(squares(), 16)
    with pytest.raises(InputError, match="3 pictures without a mask per batch, but the training set has 0"):
        Batches(data, 2, unlabelled_batch_size=3)
    with pytest.raises(InputError, match="with a mask per batch"):
        Batches(data.reveal(masks=[]), 2)


def test_no_augmentation_changes_nothing():
    image = torch.rand(3, 1, 24, 24)
    mask = (image > 0.5).float()
    moved, moved_mask = augment(image, mask, NO_AUGMENTATION, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(moved_mask, mask)


def test_picture_and_mask_move_together():
    mask = torch.zeros(8, 1, 64, 64)
    mask[:, :, 20:40, 10:30] = 1
    how = Augmentation(gamma=0, shade=0, noise=0, elastic=0.03, flip=0.5)
    moved, moved_mask = augment(mask.clone(), mask, how, torch.Generator().manual_seed(0))
    assert torch.equal((moved > 0.5).float(), moved_mask)
    assert not torch.equal(moved_mask, mask)


def test_there_is_no_flip_unless_asked_for():
    mask = torch.zeros(64, 1, 32, 32)
    mask[..., :12] = 1  # on the image's left
    still = Augmentation(rotate=0, shift=0, zoom=0, stretch=0)
    _, kept = augment(mask, mask, still, torch.Generator().manual_seed(0))
    assert torch.equal(kept, mask)
    _, flipped = augment(mask, mask, Augmentation(rotate=0, shift=0, zoom=0, stretch=0, flip=1), torch.Generator())
    assert torch.equal(flipped, mask.flip(-1))


def test_another_file_of_the_same_name_size_and_time_is_decoded(tmp_path):
    from PIL import Image

    from cxr_tutorial.data import load_folder

    for place, grey in (("a", 10), ("b", 240)):
        (tmp_path / place).mkdir()
        Image.new("L", (16, 16), grey).save(tmp_path / place / "x.bmp")
        os.utime(tmp_path / place / "x.bmp", (1, 1))
    seen = [cache(load_folder(tmp_path / place), 16, tmp_path / "cache").images.max() for place in ("a", "b")]
    assert seen == [10, 240]


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"seed": -1}])
def test_batches_that_cannot_be_drawn_are_refused(folder, bad):
    with pytest.raises(InputError, match="batch_size must be >= 1 and seed >= 0"):
        Batches(cache(squares(), 16), **bad)


def arrays(image, mask, label=0, known=True, ids=("a",)):
    entries = tuple(Entry(one, one, "mine", label, known) for one in ids)
    return Examples(entries, lambda e: Example(image, mask, e.label, e.id, e.patient, e.source), "mine")


def test_arrays_without_file_or_version_are_known_by_their_pixels(folder):
    grey, mask = np.full((20, 20), 0.2, np.float32), np.eye(20, dtype=bool)
    one, other = cache(arrays(grey, mask), 16), cache(arrays(1 - grey, ~mask), 16)
    assert one.images.max() < 60 < other.images.min()
    assert one.coverage.mean() < other.coverage.mean()
    masked = cache(arrays(grey, ~mask), 16)
    assert not np.array_equal(one.coverage, masked.coverage)


GREY, MASK = np.full((20, 20), 0.2, np.float32), np.eye(20, dtype=bool)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (arrays(255 * GREY, MASK), r"grey values lie in \[51, 51\]: expected \[0, 1\]"),
        (arrays((255 * GREY).astype(np.uint8), MASK), "the picture is uint8"),
        (arrays(np.where(MASK, np.nan, GREY), MASK), r"grey values lie in \[nan, nan\]"),
        (arrays(GREY, MASK.astype(np.uint8) * 255), "expected a bool mask of the same size"),
        (arrays(GREY, MASK[:10]), "expected a bool mask of the same size"),
        (arrays(GREY, np.stack([MASK] * 3)), "a set holds one mask a picture"),
        (arrays(GREY, None), "has_mask is True, but its mask is None"),
        (arrays(GREY, MASK, label=1.7), "the label is 1.7"),
        (arrays(GREY, MASK, ids=("a", "a")), "two examples called 'a'"),
    ],
)
def test_examples_that_are_not_what_they_say_are_refused(folder, examples, message):
    with pytest.raises(InputError, match=message):
        cache(examples, 16)
    assert not list(folder.iterdir())
