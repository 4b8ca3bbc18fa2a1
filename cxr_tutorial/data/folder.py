"""Any folder of chest X-rays, or one file: what a user of the trained model has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.data.images import DICOM_SUFFIXES, PICTURE_SUFFIXES, dicom_spacing, is_dicom, read_grey
from cxr_tutorial.data.layout import fingerprint, index_masks, read_lungs
from cxr_tutorial.errors import InputError

SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES, ".img")


def load_folder(path: str | Path) -> Examples:
    """Read any folder of X-rays (PNG, JPEG, TIFF, GIF, BMP, DICOM, JSRT `.IMG`), or one such file.

    Parameters
    ----------
    path : a file, or a folder that is searched with all its subfolders. Files without an ending, or with a number for
        one as in `1.2.840.7`, are taken if their content is DICOM; all other files are passed over. Names that
        start with a dot do not count.

    Returns
    -------
    Examples without class labels, sorted by name. `id` is the file's name without its ending, with the
    subfolder before it if there is one, and with its ending where two would otherwise be alike. Masks are
    taken from a folder `masks/` inside or next to `path` that holds the same names, with or without `_mask`, in the
    same subfolders or, where a name is there once only, in none; else there are none. `spacing_mm` is known for
    DICOM only. Every file counts as a patient of its own.

    Raises
    ------
    InputError
        Nothing is there, or nothing that is a picture; a mask that could belong to several pictures; or, on decoding,
        a damaged file or a mask of another size than its picture.

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
    mask_folders = [top / "masks"] if path.is_file() else [top.parent / "masks", top / "masks"]
    pictures = [path] if path.is_file() else _pictures(path, skip=top / "masks")
    masks = index_masks(folder for folder in mask_folders if folder != top)
    stems = Counter(_stem(picture, top) for picture in pictures)
    names = Counter(stem.name for stem in stems)

    def entry(picture: Path) -> Entry:
        stem = _stem(picture, top)
        name = stem if stems[stem] == 1 else picture.relative_to(top)
        mask = masks.get(stem.as_posix()) or masks.get(stem.name)
        if mask and stem.as_posix() not in masks and names[stem.name] > 1:
            raise InputError(
                f"{mask} could be the mask of {names[stem.name]} pictures called {stem.name} in {top}: put each mask "
                "into a subfolder of masks/ that is called as that of its picture"
            )
        files = (picture, mask) if mask else (picture,)
        return Entry(name.as_posix(), name.as_posix(), "folder", None, len(files) > 1, files, fingerprint(files))

    entries = tuple(entry(picture) for picture in pictures)
    return Examples(entries, _read, "folder", f"{len(entries)} files of {top.name}")


def _stem(picture: Path, top: Path) -> Path:
    short = picture.relative_to(top)
    return short if _numbered(short) else short.with_suffix("")


def _numbered(path: Path) -> bool:
    return path.suffix[1:].isdigit()  # 1.2.840.7 is a name without an ending


def _pictures(folder: Path, skip: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a file nor a folder: give an X-ray or a folder of X-rays")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and skip not in path.parents
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    pictures = [
        path
        for path in files
        if path.suffix.lower() in SUFFIXES or ((not path.suffix or _numbered(path)) and is_dicom(path))
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
