"""The Montgomery County set: 138 X-rays, 80 normal and 58 with tuberculosis, a mask of each lung."""

from __future__ import annotations

import re
from pathlib import Path

from cxr_tutorial.data.example import Entry, Example, Examples
from cxr_tutorial.data.images import read_grey
from cxr_tutorial.data.layout import (
    Layout,
    Size,
    check_release,
    find_pictures,
    fingerprint,
    index_masks,
    read_lungs,
)

NATIVE_SIZES: tuple[Size, Size] = ((4892, 4020), (4020, 4892))  # (height, width), upright both
NATIVE_SPACING = 0.0875  # mm

REPEATED = (("0113", "0117"), ("0162", "0166", "0170"))  # pictures of one patient, says ClinicalReadings

LAYOUT = Layout(
    name="montgomery",
    homes=(
        ".",
        "MontgomerySet",
        "NLM-MontgomeryCXRSet/MontgomerySet",
        "montgomery/MontgomerySet",
        "Lung Segmentation",
        "data/Lung Segmentation",
    ),
    picture_folders=("CXR_png",),
    picture_name=re.compile(r"(MCUCXR_\d{4}_[01])\.(?i:png)"),
    classes=("normal", "TB"),
    per_class=(80, 58),
    masks=138,
    official=lambda sizes: sizes <= set(NATIVE_SIZES),
    tree="""\
MontgomerySet/
    CXR_png/MCUCXR_0001_0.png                 138 pictures; last digit: 0 normal, 1 tuberculosis
    ManualMask/leftMask/MCUCXR_0001_0.png     138 masks, same names
    ManualMask/rightMask/MCUCXR_0001_0.png    138 masks, same names
(or the combined set `Lung Segmentation/` with CXR_png/ and masks/)""",
)


def load_montgomery(root: str | Path | None = None) -> Examples:
    """Read the Montgomery County set: 138 X-rays of 135 patients, 80 normal and 58 with tuberculosis.

    Parameters
    ----------
    root : `MontgomerySet/` or the folder above it; `$CXR_DATA/montgomery` by default. The combined set
        `Lung Segmentation/`, where both lungs are in one file already, is read too.

    Returns
    -------
    Examples, in the order of their ids, decoded one at a time. `release` says what was found, such as
    `"full official size"` or `"reduced copy 256x256"`.

    Raises
    ------
    InputError
        The folder holds no such set; or, on decoding, a damaged file or a mask of another size.

    Notes
    -----
    **Sides.** `mask` is both lungs in one. On disk `leftMask` holds the lung on the *left of the picture*,
    which is the patient's **right** lung: the other way round than JSRT's folders.

    **Patients.** 0113 and 0117 are one patient, and so are 0162, 0166 and 0170: they share `patient`.

    **Spacing.** The originals, 4020 x 4892 or 4892 x 4020 pixels, have 0.0875 mm a pixel; a copy in the same
    proportions has it in proportion. A copy squeezed to a square does not tell which of the two shapes it
    had, so its `spacing_mm` is None.

    The class is read from the file name. Findings mix active and healed tuberculosis.
    Source: S. Jaeger et al., Quant. Imaging Med. Surg. 4(6), 2014. Introduced in chapter 1.

    >>> load_montgomery("nowhere")
    Traceback (most recent call last):
    cxr_tutorial.errors.InputError: nowhere is not a folder. Expected
    MontgomerySet/
    ...
    """
    home, pictures = find_pictures(LAYOUT, root)
    left, right = (index_masks([home / "ManualMask" / side]) for side in ("leftMask", "rightMask"))
    merged = index_masks([home / "masks", home / "mask"])

    def entry(name: str, picture: Path) -> Entry:
        masks: tuple[Path, ...] = ()
        if name in left and name in right:
            masks = (left[name], right[name])
        elif name in merged:
            masks = (merged[name],)
        files = (picture, *masks)
        return Entry(name, patient(name), "montgomery", int(name[-1]), bool(masks), files, fingerprint(files))

    entries = tuple(entry(name, picture) for name, picture in pictures.items())
    one_side = sum((e.id in left) != (e.id in right) for e in entries if not e.has_mask)
    remarks = {f"masks of one lung only, left out: {one_side}": one_side > 0}
    release = check_release(LAYOUT, home, entries, remarks)
    return Examples(entries, _read, "montgomery", release)


def patient(name: str) -> str:
    """The patient behind a picture's id: the first of that patient's numbers.

    >>> patient("MCUCXR_0170_1")
    'MCUCXR_0162'
    """
    prefix, number, _ = name.split("_")
    first = next((group[0] for group in REPEATED if number in group), number)
    return f"{prefix}_{first}"


def spacing(size: Size) -> tuple[float, float] | None:
    """(row, column) mm per pixel of a picture of this (height, width); None for any other proportions.

    >>> spacing((489, 402))
    (0.8753..., 0.875)
    >>> spacing((256, 256)) is None
    True
    """
    for native in NATIVE_SIZES:
        if abs(size[0] / size[1] - native[0] / native[1]) < 0.01:
            return NATIVE_SPACING * native[0] / size[0], NATIVE_SPACING * native[1] / size[1]
    return None


def _read(entry: Entry) -> Example:
    picture, *masks = entry.files
    image = read_grey(picture)
    height, width = image.shape
    mask = read_lungs(masks, picture, (height, width), resize=False)
    return Example(image, mask, entry.label, entry.id, entry.patient, entry.source, spacing((height, width)))
