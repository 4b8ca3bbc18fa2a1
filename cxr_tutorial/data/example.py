"""One chest X-ray with what is known about it, and a lazy sequence of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from cxr_tutorial.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One lesion: what it is and where, in pixels of the image it belongs to.

    Introduced in chapter 1.
    """

    kind: str
    row: float
    col: float
    radius: float
    subtlety: int | None = None  # JSRT's grade: 1 extremely subtle ... 5 obvious


@dataclass(frozen=True, eq=False)
class Example:
    """A chest X-ray, decoded.

    Attributes
    ----------
    image : (H, W) float32 in [0, 1]; air is dark and bone is light.
    mask : (H, W) bool, both lungs in one, or None where no mask exists.
    label : 0 = no finding, 1 = finding (TB or nodule), None = unknown. Training takes more classes, 2, 3, ...; the
        figures of `evaluate.summarize_classes` are for two.
    id : the file's own name without its ending.
    patient : examples of one patient share it; splits keep them together.
    source : the data set, such as `"jsrt"`.
    spacing_mm : (row, column) millimetres per pixel of `image`, None where unknown.
    findings : lesions whose place is known.

    Introduced in chapter 1.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    label: int | None
    id: str
    patient: str
    source: str
    spacing_mm: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What is known of an example before a pixel is decoded.

    `version` changes when the pixels behind the entry change (file sizes and times, or a generator's
    parameters): `cached.cache` is keyed by it, and by the pixels themselves where there is neither a version
    nor a file.

    Introduced in chapter 1.
    """

    id: str
    patient: str
    source: str
    label: int | None
    has_mask: bool
    files: tuple[Path, ...] = ()
    version: str = ""


@dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """A sequence of `Example` that decodes one at a time, so memory does not grow with its length.

    Parameters
    ----------
    entries : what is known without decoding, in a fixed order.
    read : decodes the example behind an entry.
    name : the data set's name.
    release : which release of the data set was found, in words.
    read_all : decodes the examples behind several entries, one after the other, where that is faster than one by
        one; iterating uses it.

    Introduced in chapter 1.
    """

    entries: tuple[Entry, ...]
    read: Callable[[Entry], Example] = field(repr=False)
    name: str
    release: str = ""
    read_all: Callable[[Sequence[Entry]], Iterator[Example]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        return self.read(self.entries[index])

    def __iter__(self) -> Iterator[Example]:
        return self.read_all(self.entries) if self.read_all else map(self.read, self.entries)

    def subset(self, indices: Iterable[int]) -> Examples:
        """The examples at these positions, in this order."""
        return replace(self, entries=tuple(self.entries[i] for i in indices))

    def select(self, ids: Iterable[str]) -> Examples:
        """The examples with these ids, in this order."""
        place = {entry.id: i for i, entry in enumerate(self.entries)}
        wanted = list(ids)
        missing = [name for name in wanted if name not in place]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(wanted)} ids are not in {self.name}, the first is {missing[0]!r}: "
                f"expected ids such as {self.entries[0].id!r}"
                if self.entries
                else f"{self.name} is empty"
            )
        return self.subset(place[name] for name in wanted)

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.entries]

    @property
    def patients(self) -> list[str]:
        return [entry.patient for entry in self.entries]

    @property
    def labels(self) -> list[int | None]:
        return [entry.label for entry in self.entries]

    @property
    def has_mask(self) -> list[bool]:
        return [entry.has_mask for entry in self.entries]

    def __add__(self, other: Examples) -> Examples:
        """Both, one after the other (their ids must differ)."""
        shared = set(self.ids) & set(other.ids)
        if shared:
            raise InputError(f"{self.name} and {other.name} share {len(shared)} ids, such as {min(shared)!r}")
        mine = set(self.entries)

        def read(entry: Entry) -> Example:
            return self.read(entry) if entry in mine else other.read(entry)

        def read_all(entries: Sequence[Entry]) -> Iterator[Example]:
            for ours, run in groupby(entries, mine.__contains__):
                yield from replace(self if ours else other, entries=tuple(run))

        release = f"{self.release} + {other.release}"
        return Examples(self.entries + other.entries, read, f"{self.name}+{other.name}", release, read_all)
