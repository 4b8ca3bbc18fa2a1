"""What the readers of the three real sets share: where a set lies on disk, and whether all of it is there."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr_tutorial.data.example import Entry
from cxr_tutorial.data.images import PICTURE_SUFFIXES, read_mask, read_size, resize_mask
from cxr_tutorial.errors import InputError

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Layout:
    """How a data set looks when it is whole.

    Attributes
    ----------
    homes : where, below the folder given, the set's own folder may be.
    picture_folders : where, below its own folder, the pictures may be; the first to hold an id wins.
    picture_name : matches a picture's file name, ending included; group 1 is its id.
    classes : names of labels 0 and 1; `per_class`: how many pictures each has.
    official : whether pictures of these sizes are the official ones.
    tree : the layout, drawn for a person.
    """

    name: str
    homes: tuple[str, ...]
    picture_folders: tuple[str, ...]
    picture_name: re.Pattern[str]
    classes: tuple[str, str]
    per_class: tuple[int, int]
    masks: int
    official: Callable[[set[Size]], bool]
    tree: str


def find_pictures(layout: Layout, root: str | Path | None) -> tuple[Path, dict[str, Path]]:
    """The set's own folder, and id -> picture in the order of the ids."""
    root = _root(layout, root)
    tops = [root.parent, root] if root.name in layout.picture_folders else [root]
    for home in (top / below for top in tops for below in layout.homes):
        found: dict[str, Path] = {}
        for folder in layout.picture_folders:
            for path in _files(home / folder):
                match = layout.picture_name.fullmatch(path.name)
                if match:
                    found.setdefault(match[1], path)
        if found:
            return home, dict(sorted(found.items()))
    there = sorted(path.name for path in root.iterdir())
    raise InputError(
        f"{root} holds no {layout.name} pictures (it holds {', '.join(there[:6]) or 'nothing'}). Expected\n"
        f"{layout.tree}\nGive this folder, or the one above it."
    )


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, sorted, also behind links; what is hidden is left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        here = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in here if os.path.realpath(os.path.join(place, name)) not in seen]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def index_masks(folders: Iterable[Path]) -> dict[str, Path]:
    """id -> mask file, over all these folders; a `_mask` at the end of a name is not part of the id.

    A mask in a subfolder has its name in front, as in `tb/0001`. Where folders hold the same id, the last one wins.

    Raises
    ------
    InputError : one folder holds two masks of one id.
    """
    masks: dict[str, Path] = {}
    for folder in folders:
        for path in files_below(folder):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                name = composed(path.relative_to(folder).with_name(path.stem.removesuffix("_mask")).as_posix())
                if name in masks and folder in masks[name].parents:
                    raise InputError(f"{masks[name]} and {path} are both called as masks of {name}: keep one of them")
                masks[name] = path
    return masks


def composed(name: str) -> str:
    """The name with each accent in one character with its letter: archives made on a Mac hold two."""
    return unicodedata.normalize("NFC", name)


def fingerprint(files: Iterable[Path]) -> str:
    """Changes when any of the files changes."""
    return " ".join(f"{stat.st_size}@{stat.st_mtime_ns}" for stat in (path.stat() for path in files))


def read_lungs(files: Sequence[Path], picture: Path, size: Size, *, resize: bool) -> NDArray[np.bool_] | None:
    """All masks in one, at the size of the picture; None without a file.

    Without `resize`, a mask of another size is an error: nothing tells how it lies on the picture.
    """
    lungs: NDArray[np.bool_] | None = None
    for path in files:
        mask = read_mask(path)
        if mask.shape != size and not resize:
            raise InputError(
                f"{path} is {mask.shape[1]}x{mask.shape[0]} but its picture {picture} is "
                f"{size[1]}x{size[0]}: expected one size for both; "
                "resize both alike or take both from one release"
            )
        mask = resize_mask(mask, size)
        lungs = mask if lungs is None else lungs | mask
    return lungs


def check_release(
    layout: Layout, home: Path, entries: Sequence[Entry], remarks: Mapping[str, bool] | None = None
) -> str:
    """Say which release was found; warn once, in the caller's caller's name, if it is not whole.

    `remarks` maps further things to say to whether they hold.
    """
    sizes = {entry.files[0].name: read_size(entry.files[0]) for entry in entries}
    unreadable = [name for name, size in sizes.items() if size is None]
    release = _size_in_words(layout, {size for size in sizes.values() if size})
    pictures, masks = len(entries), sum(entry.has_mask for entry in entries)
    per_class = tuple(sum(entry.label == k for entry in entries) for k in (0, 1))

    lacks = [remark for remark, holds in (remarks or {}).items() if holds]
    if masks != layout.masks:
        lacks.insert(0, f"{masks} of {layout.masks} masks")
        release = f"{release}, {lacks[0]}"
    if per_class != layout.per_class:
        whole = sum(layout.per_class)
        counts = ", ".join(
            f"{n} of {all_} {name}" for n, all_, name in zip(per_class, layout.per_class, layout.classes, strict=True)
        )
        lacks.insert(0, f"{pictures} of {whole} pictures ({counts})")
        release = f"partial: {pictures} of {whole}, {release}"
    if unreadable:
        lacks.append(f"pictures unreadable: {len(unreadable)}, the first is {unreadable[0]}")
    if lacks:
        warnings.warn(
            f"{home} is not the whole {layout.name} set: found {'; '.join(lacks)}. "
            "It loads, but figures made with it do not compare with published ones.",
            UserWarning,
            stacklevel=3,
        )
    return release


def _root(layout: Layout, root: str | Path | None) -> Path:
    if root is None:
        data = os.environ.get("CXR_DATA")
        if not data:
            raise InputError(
                f"no folder given for {layout.name}: pass one, or set the environment variable CXR_DATA to a "
                f"folder that holds {layout.name}/, laid out as\n{layout.tree}"
            )
        root = Path(data) / layout.name
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder. Expected\n{layout.tree}")
    return root.absolute()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _size_in_words(layout: Layout, sizes: set[Size]) -> str:
    if not sizes:
        return "unreadable"
    if layout.official(sizes):
        return "full official size"
    if len(sizes) == 1:
        [(height, width)] = sizes
        return f"reduced copy {width}x{height}"
    return f"copy of {len(sizes)} sizes up to {max(w for _, w in sizes)}x{max(h for h, _ in sizes)}"
