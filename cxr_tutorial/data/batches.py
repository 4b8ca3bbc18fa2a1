"""From a data set to batches: a memory-mapped cache, augmentation on the device, two-stream sampling.

Every draw depends on the seed and the step alone, never on what was drawn before. A run that resumes
at step k therefore sees exactly what an undisturbed run would have seen.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.data.images import mask_coverage, resize_image, standardize
from cxr_tutorial.errors import InputError

CACHE_FORMAT = 2  # raise when the same entries would be written differently
RESIDENT_BYTES = 4 << 30  # of pictures and masks that may lie on a GPU: 32 000 of 256 x 256


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


class Batch(NamedTuple):
    """What a training step sees.

    Attributes
    ----------
    image : (B, 1, S, S) float32, standardized per image.
    mask : (B, 1, S, S) float32, 0 or 1; NaN where it is unknown.
    label : (B,) int64; -1 where it is unknown.
    has_mask : (B,) bool. index : (B,) positions in the `CachedSet`. Both on the CPU, where a step asks for them
        without waiting for a GPU.
    """

    image: Tensor
    mask: Tensor
    label: Tensor
    has_mask: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for


@dataclass(frozen=True)
class Augmentation:
    """How far a training picture may be changed; every range is symmetric around "unchanged".

    There is no horizontal flip by default: the heart is on the left.

    Attributes
    ----------
    rotate : degrees. shift : part of the side. zoom, stretch : log of the factor, of both axes and of
    one against the other. elastic : part of the side, displacement of a smooth random 4x4 field.
    gamma : log of the exponent. shade : a smooth 4x4 field added to the picture (0 ... 1 grey values).
    noise : standard deviation. flip : probability.

    Introduced in chapter 1.
    """

    rotate: float = 6.0
    shift: float = 0.05
    zoom: float = 0.1
    stretch: float = 0.06
    elastic: float = 0.0
    gamma: float = 0.3
    shade: float = 0.06
    noise: float = 0.02
    flip: float = 0.0


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)
STRONG_AUGMENTATION = Augmentation(  # for few masks, or synthetic pictures alone
    rotate=10, shift=0.1, zoom=0.2, stretch=0.1, elastic=0.02, gamma=0.5, shade=0.15, noise=0.05
)
AUGMENTATIONS = {"usual": Augmentation(), "strong": STRONG_AUGMENTATION, "none": NO_AUGMENTATION}


def augment(images: Tensor, masks: Tensor, how: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Change pictures and masks together in space, and pictures alone in intensity.

    Parameters
    ----------
    images, masks : (B, 1, S, S) float in [0, 1] on the generator's device; a mask may hold coverage, and comes back
        cut at one half. What is turned in from outside is 0: dark air, no lung.

    >>> x = torch.rand(2, 1, 32, 32)
    >>> moved, mask = augment(x, (x > 0.5).float(), Augmentation(), torch.Generator().manual_seed(0))
    >>> moved.shape, sorted(mask.unique().tolist())
    (torch.Size([2, 1, 32, 32]), [0.0, 1.0])
    """
    n, device = len(images), images.device

    def uniform(*shape: int) -> Tensor:  # in [-1, 1]
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1

    angle = np.deg2rad(how.rotate) * uniform(n)
    zoom, stretch = how.zoom * uniform(n), how.stretch * uniform(n)
    mirror = 1 - 2 * (torch.rand(n, generator=generator, device=device) < how.flip).float()
    x_scale, y_scale = torch.exp(zoom + stretch) * mirror, torch.exp(zoom - stretch)
    right, down = (2 * how.shift * uniform(n) for _ in "xy")
    x_row = torch.stack([angle.cos() * x_scale, -angle.sin() * y_scale, right], dim=1)
    y_row = torch.stack([angle.sin() * x_scale, angle.cos() * y_scale, down], dim=1)
    theta = torch.stack([x_row, y_row], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # (B, S, S, 2)
    if how.elastic:
        field = 2 * how.elastic * uniform(n, 2, 4, 4)
        grid = grid + F.interpolate(field, images.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    moved, mask = F.grid_sample(torch.cat([images, masks], 1), grid, align_corners=False).split(1, dim=1)
    moved = moved.clamp(min=1e-6) ** torch.exp(how.gamma * uniform(n, 1, 1, 1))
    if how.shade:
        field = how.shade * uniform(n, 1, 4, 4)
        moved = moved + F.interpolate(field, images.shape[-2:], mode="bicubic", align_corners=True)
    if how.noise:
        moved = moved + how.noise * torch.randn(moved.shape, generator=generator, device=device)
    return moved, (mask > 0.5).float()


def perturb(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Standardized pictures made harder to read, without moving anything: contrast, shade, noise, a hidden square.

    What a student network sees while its teacher sees the picture as it is (the strong view of FixMatch,
    Sohn et al. 2020, arXiv 2001.07685; what is done to the picture is ours, (d)).

    Parameters
    ----------
    images : (B, 1, S, S), mean 0 and deviation 1 each.
    strength : 0 leaves them as they are.

    >>> x = torch.randn(2, 1, 32, 32)
    >>> bool(torch.equal(perturb(x, torch.Generator(), 0.0), x))
    True
    """
    n, side, device = len(images), images.shape[-1], images.device

    def uniform(*shape: int) -> Tensor:  # in [-1, 1]
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1

    contrast = torch.exp(0.4 * strength * uniform(n, 1, 1, 1))
    shade = F.interpolate(0.5 * strength * uniform(n, 1, 4, 4), images.shape[-2:], mode="bicubic", align_corners=True)
    level = 0.15 * strength * (uniform(n, 1, 1, 1) + 1)
    noisy = contrast * images + shade + level * torch.randn(images.shape, generator=generator, device=device)
    place = torch.arange(side, device=device) / side
    row, col = (uniform(n, 1, 1) + 1) / 2, (uniform(n, 1, 1) + 1) / 2
    half = 0.1 * strength * (uniform(n, 1, 1) + 1) / 2
    hidden = ((place.view(1, side, 1) - row).abs() < half) & ((place.view(1, 1, side) - col).abs() < half)
    return noisy.masked_fill(hidden.unsqueeze(1), 0.0)


@dataclass(frozen=True, eq=False)
class Batches:
    """Two streams of training pictures: those with a mask, and those without.

    Parameters
    ----------
    data : what may be seen.
    batch_size : pictures of the first stream in each batch.
    unlabelled_batch_size : pictures of the second stream in each batch, after the others (0: none).
    augmentation : how far pictures may be changed.
    seed : fixes every draw.
    device : where augmentation runs and batches are. A CUDA device also keeps the pictures, if they fill no more than
        `RESIDENT_BYTES`; else each batch is sent to it through pinned memory.
    rank, world_size : this process's share when several train together.
    first_stream : (N,) which pictures make the first stream, the others make the second; None: those with a mask.

    Raises
    ------
    InputError : a stream that is asked for has no picture.

    Introduced in chapter 1.
    """

    data: CachedSet
    batch_size: int = 8
    unlabelled_batch_size: int = 0
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    device: str | torch.device = "cpu"
    rank: int = 0
    world_size: int = 1
    first_stream: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        check_cached(self.data)
        if self.batch_size < 1 or self.seed < 0:
            raise InputError(f"batch_size must be >= 1 and seed >= 0, got {self.batch_size} and {self.seed}")
        what = ("with a mask", "without a mask") if self.first_stream is None else ("in stream 1", "in stream 2")
        for size, stream, which in (
            (self.batch_size, self.labelled, what[0]),
            (self.unlabelled_batch_size, self.unlabelled, what[1]),
        ):
            if size < 0 or (size and not len(stream)):
                raise InputError(f"asked for {size} pictures {which} per batch, but the training set has {len(stream)}")

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.data.has_mask if self.first_stream is None else self.first_stream)

    @cached_property
    def unlabelled(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(len(self.data)), self.labelled)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every picture of the first stream was seen once."""
        return -(-len(self.labelled) // (self.batch_size * self.world_size))

    def batch(self, step: int) -> Batch:
        """The batch of this step: the same for the same seed, whatever was drawn before."""
        index = np.concatenate(
            [
                _stream(self.labelled, self.batch_size, step, (self.seed, 0), self.rank, self.world_size),
                _stream(
                    self.unlabelled,
                    self.unlabelled_batch_size,
                    step,
                    (self.seed, 1),
                    self.rank,
                    self.world_size,
                ),
            ]
        )
        visible = torch.from_numpy(self.data.has_mask[index])
        image, mask = (pixels.unsqueeze(1).float() / 255 for pixels in self._pixels(index))
        generator = torch.Generator(self.device).manual_seed(_mixed(self.seed, step, self.rank))
        image, mask = augment(image, mask, self.augmentation, generator)
        return Batch(
            image=standardize(image),
            mask=mask.masked_fill(~self._sent(visible).view(-1, 1, 1, 1), torch.nan),
            label=self._sent(torch.from_numpy(self.data.labels[index])),
            has_mask=visible,
            index=torch.from_numpy(index),
        )

    @cached_property
    def _resident(self) -> tuple[Tensor, ...] | None:
        """Pictures and coverage of the view on a CUDA device; None: they stay on disk."""
        if torch.device(self.device).type != "cuda" or 2 * len(self.data) * self.data.size**2 > RESIDENT_BYTES:
            return None
        whole = (self.data.images, self.data.coverage)
        return tuple(torch.from_numpy(pixels[self.data.rows]).to(self.device) for pixels in whole)

    def _pixels(self, index: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """(B, S, S) uint8 pictures and coverage, on the device."""
        if self._resident:
            at = self._sent(torch.from_numpy(index))
            return tuple(pixels[at] for pixels in self._resident)
        rows = self.data.rows[index]
        return tuple(self._sent(torch.from_numpy(pixels[rows])) for pixels in (self.data.images, self.data.coverage))

    def _sent(self, values: Tensor) -> Tensor:
        """The same values on the device; a CUDA device is not waited for."""
        if torch.device(self.device).type != "cuda":
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)


def _mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1  # NumPy 1 does not shift it


def _stream(
    pool: NDArray[np.int64], size: int, step: int, seed: Sequence[int], rank: int, world_size: int
) -> NDArray[np.int64]:
    """The places `step * size ...` of an endless row of shuffled passes through the pool."""
    first = (step * world_size + rank) * size
    places = np.arange(first, first + size)
    if not size:
        return places
    passes = {int(e): np.random.default_rng([*seed, int(e)]).permutation(pool) for e in np.unique(places // len(pool))}
    return np.array([passes[int(p // len(pool))][p % len(pool)] for p in places], dtype=np.int64)
