"""The JSRT set: 247 X-rays, 154 with one lung nodule and 93 without, with the SCR masks of both lungs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cxr_tutorial.data.example import Entry, Example, Examples, Finding
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

NATIVE_SIDE = 2048  # pixels
NATIVE_SPACING = 0.175  # mm

LAYOUT = Layout(
    name="jsrt",
    homes=(".", "JSRT", "jsrt"),
    picture_folders=(
        "All247images",
        "Nodule154images",
        "NonNodule93images",
        ".",
        "images",
        "images/images",
    ),
    picture_name=re.compile(r"(JPC[LN]N\d{3})\.(?i:img|png)"),
    classes=("without nodule", "with nodule"),
    per_class=(93, 154),
    masks=247,
    official=lambda sizes: sizes == {(NATIVE_SIDE, NATIVE_SIDE)},
    tree="""\
jsrt/
    All247images/JPCLN001.IMG                      247 pictures (or images/JPCLN001.png)
    scratch/fold1/masks/left lung/JPCLN001.gif     SCR masks, odd numbers in fold1 and
    scratch/fold2/masks/right lung/JPCLN002.gif    even ones in fold2, each lung apart
    Clinical_Information/CLNDAT_EN.txt             where the nodules are""",
)

_ROW = re.compile(
    r"(?P<id>JPCLN\d{3})\.IMG\s+(?P<subtlety>[1-5])\s+(?P<size>\d+(?:\.\d+)?)\s+(?P<age>\S+)\s+(?P<sex>\w+)\s+"
    r"(?P<x>\d+)\s+(?P<y>\d+)\s",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Nodule:
    """A row of JSRT's own table; x and y are pixels of the 2048 x 2048 original, size is in mm."""

    subtlety: int
    size: float
    x: float
    y: float

    def finding(self, size: Size) -> Finding:
        """The nodule in pixels of a picture of this (height, width)."""
        rows, cols = size[0] / NATIVE_SIDE, size[1] / NATIVE_SIDE
        radius = self.size / 2 / NATIVE_SPACING * cols
        return Finding("nodule", self.y * rows, self.x * cols, radius, self.subtlety)


def load_jsrt(root: str | Path | None = None) -> Examples:
    r"""Read the JSRT set with its SCR masks: 247 X-rays, 154 with one lung nodule and 93 without.

    Parameters
    ----------
    root : the folder that holds `All247images/` (`.IMG`) or `images/` (`.png`), or the folder above it;
        `$CXR_DATA/jsrt` by default. `.IMG` files are preferred where both are there.

    Returns
    -------
    Examples, in the order of their ids, decoded one at a time. `label` 1 is a *nodule*, not tuberculosis;
    `findings` holds its place, size and subtlety in pixels of the decoded image. `release` says what was
    found.

    Raises
    ------
    InputError
        The folder holds no such set; or, on decoding, a damaged file or an `.IMG` of the wrong length.

    Notes
    -----
    **Sides.** `mask` is both lungs in one, without the heart. On disk `left lung` is the *patient's* left
    lung, on the right of the picture: the other way round than Montgomery's folders.

    **Sizes.** SCR masks are 1024 x 1024 and are resized to the picture. Spacing is $0.175 \cdot 2048 / H$ mm.

    **Nodules** have $\text{radius} = \frac{\text{size}}{2 \cdot 0.175}\frac{W}{2048}$ pixels. A missing or
    odd row of the table costs a picture its finding, never its place in the set.

    Every picture counts as a patient of its own. JPCLN016 (bowel below the left diaphragm) has a most
    unusual outline.
    Source: J. Shiraishi et al., Am. J. Roentgenol. 174, 2000; masks: B. van Ginneken et al., Med. Image
    Anal. 10(1), 2006, first observer. Introduced in chapter 1.

    >>> load_jsrt("nowhere")
    Traceback (most recent call last):
    cxr_tutorial.errors.InputError: nowhere is not a folder. Expected
    jsrt/
    ...
    """
    home, pictures = find_pictures(LAYOUT, root)
    left, right = (index_masks(_organ_folders(home, side)) for side in ("left", "right"))
    nodules = read_nodules(home)

    def entry(name: str, picture: Path) -> Entry:
        masks = (left[name], right[name]) if name in left and name in right else ()
        files = (picture, *masks)
        return Entry(name, name, "jsrt", int(name[3] == "L"), bool(masks), files, fingerprint(files))

    entries = tuple(entry(name, picture) for name, picture in pictures.items())
    unplaced = sum(entry.label == 1 and entry.id not in nodules for entry in entries)
    remarks = {f"nodules without a place in Clinical_Information/CLNDAT_EN.txt: {unplaced}": unplaced > 0}
    release = check_release(LAYOUT, home, entries, remarks)
    return Examples(entries, partial(_read, nodules), "jsrt", release)


def read_nodules(home: Path) -> dict[str, Nodule]:
    """id -> nodule, from `CLNDAT_EN.txt`; rows that are not as they should be are left out.

    The table ends its lines with a bare carriage return and breaks long words by tabs, but the first seven
    cells of a row are regular.
    """
    for folder in (home / "Clinical_Information", home):
        for path in sorted(folder.glob("*.[tT][xX][tT]")):
            if path.stem.upper() == "CLNDAT_EN":
                rows = _ROW.finditer(path.read_text(encoding="latin-1"))
                return {
                    row["id"].upper(): Nodule(
                        int(row["subtlety"]), float(row["size"]), float(row["x"]), float(row["y"])
                    )
                    for row in rows
                }
    return {}


def _organ_folders(home: Path, side: str) -> list[Path]:
    tops = [top / fold for top in (home.parent / "scratch", home / "scratch", home) for fold in ("fold1", "fold2")]
    return [top / "masks" / organ for top in tops for organ in (f"{side}_lung", f"{side} lung")]


def _read(nodules: dict[str, Nodule], entry: Entry) -> Example:
    picture, *masks = entry.files
    image = read_grey(picture)
    height, width = image.shape
    mask = read_lungs(masks, picture, (height, width), resize=True)
    spacing = (NATIVE_SPACING * NATIVE_SIDE / height, NATIVE_SPACING * NATIVE_SIDE / width)
    findings = (nodules[entry.id].finding((height, width)),) if entry.id in nodules else ()
    return Example(image, mask, entry.label, entry.id, entry.patient, entry.source, spacing, findings)
