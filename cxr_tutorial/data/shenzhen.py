"""The Shenzhen set: 662 X-rays, 326 normal and 336 with tuberculosis, 566 of them with a mask."""

from __future__ import annotations

import re
from pathlib import Path

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.data.images import read_grey
from cxr_tutorial.data.layout import (
    Layout,
    check_release,
    find_pictures,
    fingerprint,
    index_masks,
    read_lungs,
)

MASK_FOLDERS = ("mask", "mask/mask", "masks", "shcxr-lung-mask/mask", "shcxr-lung-mask/mask/mask")

LAYOUT = Layout(
    name="shenzhen",
    homes=(
        ".",
        "ChinaSet_AllFiles",
        "ChinaSet_AllFiles/ChinaSet_AllFiles",
        "shenzhen/ChinaSet_AllFiles",
        "Lung Segmentation",
        "data/Lung Segmentation",
    ),
    picture_folders=("CXR_png",),
    picture_name=re.compile(r"(CHNCXR_\d{4}_[01])\.(?i:png)"),
    classes=("normal", "TB"),
    per_class=(326, 336),
    masks=566,
    official=lambda sizes: max(max(size) for size in sizes) >= 2000,  # they vary, up to about 3000 x 3000
    tree="""\
ChinaSet_AllFiles/
    CXR_png/CHNCXR_0001_0.png        662 pictures; last digit: 0 normal, 1 tuberculosis
    mask/CHNCXR_0001_0_mask.png      566 masks (a download of their own; mask/mask/ and a
                                     mask/ next to ChinaSet_AllFiles/ are found too)
(or the combined set `Lung Segmentation/` with CXR_png/ and masks/)""",
)


def load_shenzhen(root: str | Path | None = None) -> Examples:
    """Read the Shenzhen set: 662 X-rays, 326 normal and 336 with tuberculosis, 566 with a mask.

    Parameters
    ----------
    root : `ChinaSet_AllFiles/` or the folder above it; `$CXR_DATA/shenzhen` by default. Masks are looked for
        in `mask/` and `mask/mask/`, inside and next to that folder, named with or without `_mask`.

    Returns
    -------
    Examples, in the order of their ids, decoded one at a time. The 96 pictures without a mask (47 normal, 49
    with tuberculosis) have `mask=None`: they teach the class only. `release` says what was found.

    Raises
    ------
    InputError
        The folder holds no such set; or, on decoding, a damaged file or a mask of another size.

    Notes
    -----
    **Sides.** One mask file holds both lungs; the lung on the left of the picture is the patient's right.

    **Masks are uneven.** Some with tuberculosis leave out lung that is white with disease, others take in
    part of the heart. They are a third party's (S. Stirenko et al., arXiv:1803.01199; not for commercial
    use).

    **Spacing** is not published, so `spacing_mm` is None. Most originals are palette PNGs; they are
    converted. Every picture counts as a patient of its own, as the set says nothing else.
    Source: S. Jaeger et al., Quant. Imaging Med. Surg. 4(6), 2014. Introduced in chapter 1.

    >>> load_shenzhen("nowhere")
    Traceback (most recent call last):
    cxr_tutorial.errors.InputError: nowhere is not a folder. Expected
    ChinaSet_AllFiles/
    ...
    """
    home, pictures = find_pictures(LAYOUT, root)
    masks = index_masks(top / folder for top in (home.parent, home) for folder in MASK_FOLDERS)

    def entry(name: str, picture: Path) -> Entry:
        files = (picture, masks[name]) if name in masks else (picture,)
        return Entry(name, name[:-2], "shenzhen", int(name[-1]), name in masks, files, fingerprint(files))

    entries = tuple(entry(name, picture) for name, picture in pictures.items())
    return Examples(entries, _read, "shenzhen", check_release(LAYOUT, home, entries))


def _read(entry: Entry) -> Example:
    picture, *masks = entry.files
    image = read_grey(picture)
    mask = read_lungs(masks, picture, (image.shape[0], image.shape[1]), resize=False)
    return Example(image, mask, entry.label, entry.id, entry.patient, entry.source)
