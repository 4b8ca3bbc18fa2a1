"""From a cached data set to batches: augmentation on the device, two-stream sampling.

Every draw depends on the seed and the step alone, never on what was drawn before. A run that resumes
at step k therefore sees exactly what an undisturbed run would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.data.cached import CachedSet, check_cached
from cxr_tutorial.data.images import standardize
from cxr_tutorial.errors import InputError

RESIDENT_BYTES = 4 << 30  # of pictures and masks that may lie on a GPU: 32 000 of 256 x 256


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
