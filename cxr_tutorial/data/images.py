"""Pictures in, arrays out: every file format of the data sets becomes one kind of grey or mask array.

Air is dark and bone is light in everything that leaves this room, and 0 and 1 are the ends of the scale
that the *file* can hold, not of the values that happen to be in it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxr_tutorial.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from pydicom import Dataset

RAW_SIDE = 2048  # pixels; a JSRT .IMG file is a bare RAW_SIDE x RAW_SIDE array
RAW_BYTES = 2 * RAW_SIDE**2
RAW_TOP = 4095  # 12 bit

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom")

_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    AttributeError,
    KeyError,
    struct.error,
    TypeError,
    IndexError,
)


def read_grey(path: str | Path) -> NDArray[np.float32]:
    r"""Read one X-ray as grey values in [0, 1], air dark and bone light.

    $$ x = \frac{v - v_{min}}{v_{max} - v_{min}}, \qquad x_\text{JSRT} = \frac{4095 - \min(v, 4095)}{4095} $$

    with $v_{min}, v_{max}$ the ends of the scale that the file's bit depth (or a DICOM window) allows.
    Nothing is stretched to the values found, so pictures of one source stay comparable; `standardize`
    evens out the rest.

    - PNG, JPEG, GIF, BMP, TIFF in palette, RGB(A), grey or 1 bit: converted to 8-bit grey, alpha dropped;
    - PNG, TIFF of 12, 16 or 32 bits: divided by $2^{bits} - 1$; white-is-zero TIFFs are inverted; 16 or 32 bits that
      hold nothing above 255, 4095 or 65535 are taken for 8, 12 or 16 bits, in a DICOM without a window as well;
    - float TIFF: must already lie in [0, 1];
    - `.IMG` (JSRT): big-endian 16-bit, 2048 x 2048, 12 bit, stored inverted;
    - DICOM: modality rescale, window or VOI table, `MONOCHROME1` inverted; one frame only.

    Pictures of several pages give their first one.

    Parameters
    ----------
    path : the file; `.IMG` is known by its ending, DICOM by its content, the rest by Pillow.

    Returns
    -------
    (H, W) float32 in [0, 1], finite.

    Raises
    ------
    InputError
        The file is missing, cut off, not a picture, holds NaN, or is an `.IMG` of the wrong length or
        byte order.

    Notes
    -----
    The JSRT format is that of db.jsrt.or.jp; the inversion is also what Idiap's `mednet` 2.1.0 does.
    Introduced in chapter 1.

    >>> from cxr_tutorial.shipped import shipped
    >>> read_grey(shipped("splits"))
    Traceback (most recent call last):
    cxr_tutorial.errors.InputError: ...splits is not a file: expected a PNG, JPEG, TIFF, ...
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file: expected a PNG, JPEG, TIFF, GIF, DICOM or JSRT .IMG picture")
    if path.suffix.lower() == ".img":
        grey = _read_raw(path)
    elif is_dicom(path):
        grey = _read_dicom(path)
    else:
        grey = _read_picture(path)
    if grey.ndim != 2 or grey.size == 0:
        raise InputError(f"{path} holds an array of shape {grey.shape}: expected one picture, (height, width)")
    if not np.isfinite(grey).all():
        bad = int(np.size(grey) - np.isfinite(grey).sum())
        raise InputError(f"{path} holds {bad} pixels that are NaN or infinite: expected finite grey values")
    return np.ascontiguousarray(grey, dtype=np.float32)


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read one mask: True where the file is lighter than middle grey (> 127 of 255).

    A file that holds nothing but the grey values 0 and 1 of 255 was written without scaling; its 1 is True.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    InputError
        As for `read_grey`; the file holds grey values, but none above the middle: a map of labels, or a dark colour;
        or one colour alone under a transparency that varies.

    >>> from tempfile import NamedTemporaryFile; from PIL import Image
    >>> with NamedTemporaryFile(suffix=".png") as file:
    ...     Image.fromarray(np.array([[0, 255, 200]], np.uint8)).save(file.name)
    ...     read_mask(file.name)
    array([[False,  True,  True]])
    """
    grey = read_grey(path)
    top = grey.max()
    if grey.min() == top and _varies_in_transparency(Path(path)):
        raise InputError(
            f"{path} is of one colour, and its transparency varies: expected a mask of 0 and 255; save the "
            "transparency as grey values"
        )
    if top <= 1.5 / 255:
        return grey > 0
    if top <= 0.5:
        raise InputError(
            f"{path} holds no value above middle grey, its lightest is {255 * top:.0f} of 255: expected a mask of 0 "
            "and 255; if it numbers several regions, save those that count as 255 and all else as 0"
        )
    return grey > 0.5


def _varies_in_transparency(path: Path) -> bool:
    from PIL import Image

    if is_dicom(path) or path.suffix.lower() == ".img":
        return False
    with Image.open(path) as picture:
        return "A" in picture.getbands() and len(set(picture.getchannel("A").getextrema())) > 1


def read_size(path: str | Path) -> tuple[int, int] | None:
    """(height, width) from the file's header alone; None where the header cannot be read."""
    from PIL import Image

    path = Path(path)
    try:
        if path.suffix.lower() == ".img":
            return (RAW_SIDE, RAW_SIDE) if path.stat().st_size == RAW_BYTES else None
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (*_UNREADABLE, Image.DecompressionBombError):
        return None


def is_dicom(path: str | Path) -> bool:
    """Whether the file says of itself that it is DICOM (`DICM` after 128 bytes) or is named so."""
    path = Path(path)
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_spacing(path: str | Path) -> tuple[float, float] | None:
    """(row, column) millimetres per pixel from `PixelSpacing`, else `ImagerPixelSpacing`, else None.

    The second is measured at the detector, so it is a few per cent larger than the patient. What is no size, such as
    0, counts as unknown.
    """
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True)
        spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
        sizes = (float(spacing[0]), float(spacing[1])) if spacing else (0.0, 0.0)
        return sizes if all(0 < size < np.inf for size in sizes) else None
    except (*_UNREADABLE, InvalidDicomError, BytesLengthException) as problem:
        raise InputError(f"{path} cannot be read as DICOM ({problem})") from problem


def resize_image(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize grey values to (height, width) with an antialiasing Lanczos filter; stays in [0, 1].

    >>> resize_image(np.full((8, 6), 0.5, np.float32), (4, 3)).shape
    (4, 3)
    """
    from PIL import Image

    if image.shape == tuple(size):
        return image
    picture = Image.fromarray(np.asarray(image, dtype=np.float32))
    resized = picture.resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(resized).clip(0, 1)


def mask_coverage(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """How much of each pixel of a (height, width) grid is mask, 0 to 255 (enlarging interpolates).

    >>> mask_coverage(np.array([[True, True, False, False], [True, False, False, True]]), (1, 2))
    array([[192,  64]], dtype=uint8)
    """
    from PIL import Image

    full = np.asarray(mask, dtype=np.uint8) * np.uint8(255)
    if mask.shape == tuple(size):
        return full
    shrinks = size[0] <= mask.shape[0] and size[1] <= mask.shape[1]
    filter_ = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(full).resize(size[::-1], filter_))


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask to (height, width): what is covered by more than one half (see `mask_coverage`).

    >>> resize_mask(np.array([[True, True, False, False], [True, False, False, True]]), (1, 2))
    array([[ True, False]])
    """
    return mask_coverage(mask, size) > 127


def standardize(images: Tensor) -> Tensor:
    r"""Give every picture mean 0 and standard deviation 1.

    $$ z = \frac{x - \mu}{\max(\sigma, 10^{-6})}, \qquad \mu, \sigma \text{ over the pixels of one picture} $$

    It makes pictures of sources with other exposures and bit depths alike; a constant picture becomes 0.

    Parameters
    ----------
    images : (N, C, H, W), any real dtype and range.

    Returns
    -------
    (N, C, H, W) float32 (float64 stays).

    Notes
    -----
    The paper does not say how it scales its input (mark b: its successor MultiMix does the like).
    Introduced in chapter 1.

    >>> standardize(torch.tensor([[[[1.0, 3.0]]]]))
    tensor([[[[-1.,  1.]]]])
    """
    images = images if images.dtype == torch.float64 else images.float()
    every = tuple(range(1, images.ndim))
    std, mean = torch.std_mean(images, dim=every, correction=0, keepdim=True)
    return (images - mean) / std.clamp_min(1e-6)


def _read_raw(path: Path) -> NDArray[np.float32]:
    size = path.stat().st_size
    if size != RAW_BYTES:
        raise InputError(
            f"{path} has {size:,} bytes: a JSRT .IMG has exactly {RAW_BYTES:,} "
            f"({RAW_SIDE} x {RAW_SIDE} pixels of 16 bits, no header); copy or download it again"
        )
    values = np.fromfile(path, dtype=">u2").reshape(RAW_SIDE, RAW_SIDE)
    if np.mean(values > RAW_TOP) > 0.5:  # the two bytes swapped: low bytes stand where the high ones belong
        raise InputError(f"{path} holds more than 12 bits: expected big-endian 16-bit values of at most {RAW_TOP}")
    return ((RAW_TOP - np.minimum(values, RAW_TOP)) / RAW_TOP).astype(np.float32)


def _read_picture(path: Path) -> NDArray[np.float32]:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture.verify()  # the check sums of a PNG, which loading alone passes over
        with Image.open(path) as picture:
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            return _picture_to_grey(picture, path)
    except InputError:
        raise
    except (*_UNREADABLE, Image.DecompressionBombError) as problem:
        raise InputError(
            f"{path} cannot be decoded ({problem}): it is cut off, damaged or no picture; copy or download it again"
        ) from problem


def _picture_to_grey(picture: Picture, path: Path) -> NDArray[np.floating]:
    mode = picture.mode
    if not (mode == "F" or mode.startswith("I")):
        return np.asarray(picture.convert("L"), dtype=np.float32) / 255
    tags: Any = getattr(picture, "tag_v2", {})  # TIFF: 258 bits per sample, 262 what is white, 339 sample format
    values = np.asarray(picture).astype(np.float64)
    signed = tags.get(339, (1,))[0] == 2
    low, high = values.min(), values.max()
    top = 1.0 if mode == "F" else 2.0 ** _bits(tags.get(258, (16,))[0] - signed, high) - 1
    if low < 0 or high > top:
        raise InputError(
            f"{path} holds values from {low:g} to {high:g}: expected 0 to {top:g}; scale it, or save it with 16 bits"
        )
    grey = values / top
    white_is_zero = tags.get(262) == 0
    return (1 - grey if white_is_zero else grey).astype(np.float32)


def _bits(stored: int, high: float) -> int:
    """The bits that values up to `high` fill, if they are stored in 16 or 32, one of them for the sign perhaps."""
    if stored not in (15, 16, 31, 32):
        return stored
    return next((fewer for fewer in (8, 12, 16) if fewer < stored and high < 2**fewer), stored)


def _read_dicom(path: Path) -> NDArray[np.float32]:
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.pixels import pixel_array

    try:
        dataset = dcmread(path)
        pixels = pixel_array(dataset)
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise InputError(f"{path} holds {dataset.NumberOfFrames} frames: expected one X-ray per file")
        return _dicom_to_grey(dataset, pixels, path)
    except InputError:
        raise
    except (*_UNREADABLE, InvalidDicomError, BytesLengthException) as problem:
        raise InputError(
            f"{path} cannot be decoded as DICOM ({problem}): if it is compressed, "
            "`pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg` may help"
        ) from problem


def _dicom_to_grey(dataset: Dataset, pixels: NDArray[Any], path: Path) -> NDArray[np.float32]:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    kind = dataset.PhotometricInterpretation
    if kind == "RGB" or kind.startswith("YBR"):  # pydicom has made RGB of it
        return (pixels @ np.array([0.299, 0.587, 0.114]) / (2.0**dataset.BitsStored - 1)).astype(np.float32)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{path} is a DICOM of kind {kind}: expected MONOCHROME1, MONOCHROME2 or RGB")
    values = apply_modality_lut(pixels, dataset).astype(np.float64)
    if "VOILUTSequence" in dataset:
        table = dataset.VOILUTSequence[0].LUTDescriptor
        grey = apply_voi_lut(values.astype(np.int64), dataset) / (2.0 ** table[2] - 1)
    else:
        grey = _window(values, dataset, int(pixels.max(initial=0)))
    return (1 - grey if kind == "MONOCHROME1" else grey).astype(np.float32)


def _window(values: NDArray[np.float64], dataset: Dataset, high: int) -> NDArray[np.float64]:
    """The first window of a DICOM (PS3.3 C.11.2.1.2 and .3), or its whole range where it has none.

    `high` is the largest value that is stored.
    """
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width <= 0:
        least, most = _dicom_range(dataset, high)
        return ((values - least) / (most - least)).clip(0, 1)
    shape = str(dataset.get("VOILUTFunction", "LINEAR")).upper()
    if shape == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if shape == "LINEAR_EXACT":
        return ((values - center) / width + 0.5).clip(0, 1)
    return ((values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5).clip(0, 1)


def _first(value: Any) -> float | None:
    from pydicom.multival import MultiValue

    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, MultiValue) else value)


def _dicom_range(dataset: Dataset, high: int) -> tuple[float, float]:
    """The smallest and largest value that rescaled pixels can take; `high` is the largest that is stored."""
    if "ModalityLUTSequence" in dataset:
        return 0.0, 2.0 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    signed = dataset.PixelRepresentation == 1
    bits = dataset.BitsStored if signed else _bits(dataset.BitsStored, high)
    ends = np.array([0.0, 2.0**bits - 1]) - (2.0 ** (bits - 1) if signed else 0)
    slope = float(dataset.get("RescaleSlope") or 1)
    low, high = sorted(ends * slope + float(dataset.get("RescaleIntercept") or 0))
    return float(low), float(high)
