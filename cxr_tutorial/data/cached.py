"""A data set decoded once to one size, on disk, and views of it that say what a training may see."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.data.images import mask_coverage, resize_image
from cxr_tutorial.errors import InputError

CACHE_FORMAT = 2  # raise when the same entries would be written differently


@dataclass(frozen=True, eq=False)
class CachedSet:
    """A data set decoded to one size, on disk; what a training may see of it is chosen by views.

    Attributes
    ----------
    images : (M, S, S) uint8 memory map of the whole set.
    coverage : (M, S, S) uint8 memory map: how much of each pixel is mask, 0 to 255. A border between two pixels
        is kept, so that a moved or turned mask is cut where the full-size one would be.
    rows : (N,) the rows of this view.
    ids, labels, has_mask : of this view; a label of -1 is unknown.

    Introduced in chapter 1.
    """

    images: NDArray[np.uint8]
    coverage: NDArray[np.uint8]
    rows: NDArray[np.int64]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    has_mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        return int(self.images.shape[-1])

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(M, S, S) masks of the whole set, true for the pixels that are covered by more than one half."""
        return self.coverage > 127

    def select(self, ids: Iterable[str]) -> CachedSet:
        """The view that holds these ids only, in this order."""
        keep = self._positions(ids)
        return replace(
            self,
            rows=self.rows[keep],
            ids=tuple(self.ids[i] for i in keep),
            labels=self.labels[keep],
            has_mask=self.has_mask[keep],
        )

    def reveal(self, masks: Iterable[str] | None = None, labels: Iterable[str] | None = None) -> CachedSet:
        """The same pictures, with only these ids' masks and class labels visible (None: all)."""
        has_mask, known = self.has_mask, self.labels
        if masks is not None:
            has_mask = np.zeros_like(self.has_mask)
            has_mask[self._positions(masks)] = True
            has_mask &= self.has_mask
        if labels is not None:
            known = np.full_like(self.labels, -1)
            keep = self._positions(labels)
            known[keep] = self.labels[keep]
        return replace(self, has_mask=has_mask, labels=known)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a training can see, which is ids, labels, pictures and visible masks."""
        digest = hashlib.sha256(json.dumps([self.ids, self.labels.tolist(), self.has_mask.tolist()]).encode())
        for row, visible in zip(self.rows, self.has_mask, strict=True):
            digest.update(self.images[row].tobytes())
            if visible:
                digest.update(self.coverage[row].tobytes())
        return digest.hexdigest()

    def _positions(self, ids: Iterable[str]) -> list[int]:
        place = {name: i for i, name in enumerate(self.ids)}
        wanted = list(ids)
        missing = [name for name in wanted if name not in place]
        if missing:
            raise InputError(f"{missing[0]!r} is not in this set (it holds {len(self)} ids, such as {self.ids[:1]})")
        return [place[name] for name in wanted]


def check_cached(data: CachedSet) -> None:
    """Refuse what is not a `CachedSet`, such as the examples that one is made of."""
    if not isinstance(data, CachedSet):
        raise InputError(f"training reads a CachedSet, got {type(data).__name__}: give cache(examples, size)")


def cache(examples: Examples, size: int, folder: str | Path | None = None) -> CachedSet:
    """Decode `examples` once into a memory-mapped square cache and return it.

    Pictures are squeezed to `size` x `size` whatever their shape and stored as 8-bit grey. The cache is found
    again by the entries' ids, files and versions, so a changed or another file is decoded anew.

    Parameters
    ----------
    examples : the data set.
    size : pixels per side, at least 16.
    folder : where caches are kept; default `$CXR_CACHE`, else `~/.cache/cxr_tutorial`.

    Raises
    ------
    InputError : the set is empty or `size` is below 16; two entries have one id; an example is not what `Example` says
        (grey values in [0, 1], a bool mask of the picture's size).

    Introduced in chapter 1.
    """
    if not len(examples) or size < 16:
        raise InputError(
            f"cannot cache {len(examples)} examples of {examples.name!r} at size {size}: need >= 1 at >= 16"
        )
    root = Path(folder or os.environ.get("CXR_CACHE") or Path.home() / ".cache" / "cxr_tutorial")
    twice = [name for name, count in Counter(examples.ids).items() if count > 1]
    if twice:
        raise InputError(f"{examples.name} has two examples called {twice[0]!r}: ids are names, give each its own")
    versions = [e.version if e.version or e.files else _pixels(examples[i]) for i, e in enumerate(examples.entries)]
    known = [
        [e.source, e.id, version, e.has_mask, *map(str, e.files)]
        for e, version in zip(examples.entries, versions, strict=True)
    ]
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, size, known]).encode()).hexdigest()[:20]
    home = root / f"{examples.name.replace('/', '-')[:40]}-{size}-{key}"
    if not home.is_dir():
        _write_cache(examples, size, home)
    return CachedSet(
        images=np.load(home / "images.npy", mmap_mode="r"),
        coverage=np.load(home / "coverage.npy", mmap_mode="r"),
        rows=np.arange(len(examples)),
        ids=tuple(examples.ids),
        labels=np.array([-1 if label is None else label for label in examples.labels], dtype=np.int64),
        has_mask=np.array(examples.has_mask, dtype=bool),
    )


def _pixels(example: Example) -> str:
    parts = (np.ascontiguousarray(part).tobytes() for part in (example.image, example.mask) if part is not None)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _check(entry: Entry, example: Example) -> None:
    """Refuse an example whose arrays are not what `Example` says."""
    image, mask, name = example.image, example.mask, f"{entry.source} {entry.id}"
    if image.ndim != 2 or not image.size or not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"{name}: the picture is {image.dtype} {image.shape}: expected float32 (H, W)")
    if not (image.min() >= -1e-6 and image.max() <= 1 + 1e-6):  # a NaN is neither
        raise InputError(
            f"{name}: grey values lie in [{image.min():g}, {image.max():g}]: expected [0, 1]; divide by 255?"
        )
    if (mask is not None) != entry.has_mask:
        raise InputError(f"{name}: has_mask is {entry.has_mask}, but its mask is {'None' if mask is None else 'there'}")
    if mask is not None and (mask.shape != image.shape or mask.dtype != bool):
        raise InputError(
            f"{name}: the mask is {mask.dtype} {mask.shape}, its picture {image.shape}: expected a bool mask of the "
            "same size, such as `values > 127`; a set holds one mask a picture (for several, write the loop yourself)"
        )
    if not (example.label is None or (isinstance(example.label, int | np.integer) and example.label >= 0)):
        raise InputError(f"{name}: the label is {example.label!r}: expected 0, 1, ... or None")


def _write_cache(examples: Examples, size: int, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=home.parent))
    unfinished.chmod(0o755)  # else nobody but its maker could read a cache that several share
    try:
        shape = (len(examples), size, size)
        images = _reserve(unfinished / "images.npy", shape)
        coverage = _reserve(unfinished / "coverage.npy", shape)
        for i, (entry, example) in enumerate(zip(examples.entries, examples, strict=True)):
            _check(entry, example)
            images[i] = np.rint(255 * np.clip(resize_image(example.image, (size, size)), 0, 1))
            if example.mask is not None:
                coverage[i] = mask_coverage(example.mask, (size, size))
        images.flush()
        coverage.flush()
        try:
            unfinished.rename(home)
        except OSError:
            if not home.is_dir():  # else another process was faster, and wrote the same
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A mapped array whose place on the disk is taken: else a full disk would kill the process at some later pixel."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return array  # a file system that cannot reserve
            raise InputError(
                f"{path.parent.parent} has no room for a cache of {2 * array.nbytes / 1e6:.0f} MB ({error.strerror}): "
                "make some, or let CXR_CACHE name a folder on another disk"
            ) from error
    return array
