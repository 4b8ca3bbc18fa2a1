"""Any folder of chest X-rays, or one file: what a user of the trained model has."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.data.images import DICOM_SUFFIXES, PICTURE_SUFFIXES, dicom_spacing, is_dicom, read_grey
from cxr_tutorial.data.layout import composed, files_below, fingerprint, index_masks, read_lungs
from cxr_tutorial.errors import InputError

NEARLY_MASKS = ("mask", "label", "labels", "segmentation", "segmentations", "ground_truth")
SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES, ".img")


def load_folder(path: str | Path) -> Examples:
    """Read any folder of X-rays (PNG, JPEG, TIFF, GIF, BMP, DICOM, JSRT `.IMG`), or one such file.

    Parameters
    ----------
    path : a file, or a folder that is searched with all its subfolders. Files without an ending, or with a number for
        one as in `1.2.840.7`, are taken if their content is DICOM; all other files are passed over, as are a
        `DICOMDIR`, names that start with a dot, and what lies in a folder `masks/`. Links are followed.

    Returns
    -------
    Examples without class labels, sorted by name. `id` is the file's name without its ending, with the
    subfolder before it if there is one, and with its ending where two would otherwise be alike. Masks are
    taken from folders `masks/` beside the pictures, or inside or next to `path`, that hold the same names, with or
    without `_mask`, in the same subfolders or, where a name is there once only, in none; else there are none, and
    masks that are no picture's are warned of. `spacing_mm` is known for DICOM only. Every file counts as a patient of
    its own.

    Raises
    ------
    InputError
        Nothing is there, or nothing that is a picture; a mask that could belong to several pictures, or two masks of
        one; or, on decoding, a damaged file or a mask of another size than its picture.

    Notes
    -----
    Introduced in chapter 1.

    >>> from tempfile import TemporaryDirectory; from PIL import Image
    >>> with TemporaryDirectory() as folder:
    ...     Image.new("L", (30, 20), 255).save(f"{folder}/me.png")
    ...     load_folder(folder)[0].image.shape
    (20, 30)
    """
    path = Path(path).expanduser().absolute()
    top = path.parent if path.is_file() else path
    pictures = [path] if path.is_file() else _pictures(path)
    masks = index_masks([top / "masks"]) if path.is_file() else _masks(top)
    stems = Counter(_stem(picture, top) for picture in pictures)

    def entry(picture: Path) -> Entry:
        stem = _stem(picture, top)
        name = stem if stems[stem] == 1 else picture.relative_to(top)
        key = composed(stem.as_posix() if composed(stem.as_posix()) in masks else stem.name)
        mask = masks.get(key)
        whole = key == composed(stem.as_posix())
        alike = stems[stem] if whole else sum(stems[one] for one in stems if composed(one.name) == key)
        if mask and alike > 1:
            raise InputError(
                f"{mask} could be the mask of {alike} pictures called {key} in {top}: put each mask into a subfolder "
                "of masks/ that is called as that of its picture, and give pictures other names than one another"
            )
        used.add(mask)
        files = (picture, mask) if mask else (picture,)
        return Entry(name.as_posix(), name.as_posix(), "folder", None, len(files) > 1, files, fingerprint(files))

    used: set[Path | None] = set()
    entries = tuple(entry(picture) for picture in pictures)
    twice = [name for name, count in Counter(one.id for one in entries).items() if count > 1]
    if twice:
        raise InputError(f"{top} holds two pictures called {twice[0]}: give one of them another name")
    left = [mask for mask in masks.values() if mask not in used]
    if left and not path.is_file():
        warnings.warn(
            f"{len(left)} of {len(masks)} masks are of no picture in {top}, the first is {left[0]}: a mask is called "
            "as its picture, capital letters and subfolders included",
            stacklevel=2,
        )
    odd = [picture for picture in pictures if picture.parent != top and picture.parent.name.lower() in NEARLY_MASKS]
    if odd:
        warnings.warn(
            f"{len(odd)} files in {odd[0].parent} are taken for X-rays: if they are masks, call their folder masks",
            stacklevel=2,
        )
    return Examples(entries, _read, "folder", f"{len(entries)} files of {top.name}")


def _stem(picture: Path, top: Path) -> Path:
    short = picture.relative_to(top)
    return short if _numbered(short) else short.with_suffix("")


def _numbered(path: Path) -> bool:
    return path.suffix[1:].isdigit()  # 1.2.840.7 is a name without an ending


def _within_masks(path: Path, top: Path) -> bool:
    return any(part.lower() == "masks" for part in path.relative_to(top).parts[:-1])


def _masks(top: Path) -> dict[str, Path]:
    """Name of a picture, as below `top`, -> its mask, from the folder `masks/` next to `top` and every one below it."""
    masks = {} if top.parent / "masks" == top else index_masks([top.parent / "masks"])
    folders = {
        parent: None
        for path in files_below(top)
        for parent in path.parents
        if parent.name.lower() == "masks" and top in parent.parents
    }
    for folder in folders:
        home = folder.parent.relative_to(top)
        masks |= {composed((home / name).as_posix()): mask for name, mask in index_masks([folder]).items()}
    return masks


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a file nor a folder: give an X-ray or a folder of X-rays")
    files = [path for path in files_below(folder) if not _within_masks(path, folder)]
    pictures = [
        path
        for path in files
        if path.suffix.lower() in SUFFIXES
        or ((not path.suffix or _numbered(path)) and is_dicom(path) and path.name.upper() != "DICOMDIR")
    ]
    if not pictures:
        raise InputError(
            f"{folder} holds no X-ray among {len(files)} files: "
            f"expected files ending in {', '.join(SUFFIXES)}, or DICOM files without an ending"
        )
    return pictures


def _read(entry: Entry) -> Example:
    picture, *masks = entry.files
    image = read_grey(picture)
    mask = read_lungs(masks, picture, (image.shape[0], image.shape[1]), resize=False)
    spacing = dicom_spacing(picture) if is_dicom(picture) else None
    return Example(image, mask, None, entry.id, entry.patient, entry.source, spacing)
