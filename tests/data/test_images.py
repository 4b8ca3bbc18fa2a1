"""Every file format becomes the same kind of array; every broken file says what is wrong with it."""

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from cxr_tutorial.data.images import (
    dicom_spacing,
    read_grey,
    read_mask,
    read_size,
    resize_image,
    resize_mask,
    standardize,
)
from cxr_tutorial.errors import InputError

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)


def save(picture, path, **options):
    picture.save(path, **options)
    return path


def palette_picture():
    """Indices that mean nothing without the palette: index i has grey 255 - i."""
    picture = Image.fromarray(255 - GREY).convert("P")
    picture.putdata((255 - GREY).ravel().tolist())
    picture.putpalette([255 - i for i in range(256) for _ in range(3)])
    return picture


def dicom(path, pixels, *, bits=12, kind="MONOCHROME2", signed=0, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation, data.PixelRepresentation = kind, signed
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.itemsize, bits, bits - 1
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey.png", Image.fromarray(GREY)),
        ("rgb.png", Image.fromarray(GREY).convert("RGB")),
        ("rgba.png", Image.fromarray(GREY).convert("RGBA")),
        ("grey_alpha.png", Image.fromarray(GREY).convert("LA")),
        ("palette.png", palette_picture()),
        ("palette.gif", palette_picture()),
        ("grey.tif", Image.fromarray(GREY)),
        ("grey.bmp", Image.fromarray(GREY)),
        ("sixteen.png", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("sixteen.tif", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("thirty_two.tif", Image.fromarray((GREY / 255 * (2**31 - 1)).astype(np.int32))),
        ("float.tif", Image.fromarray((GREY / 255).astype(np.float32))),
    ],
)
def test_every_mode_gives_the_same_grey(tmp_path, name, picture):
    grey = read_grey(save(picture, tmp_path / name))
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, GREY / 255, atol=1e-6)


def test_jpeg_and_its_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture = Image.fromarray(np.repeat(np.repeat(GREY, 16, 0), 16, 1))
    plain = read_grey(save(picture, tmp_path / "plain.jpg", quality=95))
    turned = read_grey(save(picture, tmp_path / "turned.jpg", quality=95, exif=exif))
    assert plain.shape == (32, 48)
    np.testing.assert_allclose(turned, np.rot90(plain, -1), atol=0.02)


def test_tiff_of_16_bits_where_white_is_zero(tmp_path):
    path = save(Image.fromarray(GREY.astype(np.uint16) * 257), tmp_path / "white_is_zero.tif", tiffinfo={262: 0})
    with Image.open(path) as written:
        assert written.tag_v2[262] == 0
    np.testing.assert_allclose(read_grey(path), 1 - GREY / 255, atol=1e-6)


def test_raw_jsrt_is_big_endian_and_inverted(tmp_path):
    values = np.zeros((2048, 2048), ">u2")
    values[0, :4] = 0, 4095, 1, 9000  # light air is stored high; values above 12 bit are clipped
    path = tmp_path / "JPCLN001.IMG"
    values.tofile(path)
    grey = read_grey(path)
    np.testing.assert_allclose(grey[0, :4], [1, 0, 4094 / 4095, 0], atol=1e-7)
    assert grey.shape == read_size(path) == (2048, 2048)


def test_raw_of_the_wrong_length(tmp_path):
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(b"\0" * (2 * 2048 * 2048 - 2))
    assert read_size(path) is None
    with pytest.raises(InputError, match=r"JPCLN001\.IMG has 8,388,606 bytes.*exactly 8,388,608"):
        read_grey(path)


def test_raw_of_the_wrong_byte_order(tmp_path):
    path = tmp_path / "JPCLN001.IMG"
    np.random.default_rng(0).integers(0, 4096, (2048, 2048)).astype("<u2").tofile(path)
    with pytest.raises(InputError, match="big-endian"):
        read_grey(path)


def test_nan_is_refused(tmp_path):
    path = save(Image.fromarray(np.array([[0.1, np.nan, np.inf]], np.float32)), tmp_path / "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif holds 2 pixels that are NaN or infinite"):
        read_grey(path)


@pytest.mark.parametrize("values", [[0.0, 300.0], [-0.5, 1.0]])
def test_float_without_a_known_scale_is_refused(tmp_path, values):
    path = save(Image.fromarray(np.array([values], np.float32)), tmp_path / "hounsfield.tif")
    with pytest.raises(InputError, match="expected 0 to 1"):
        read_grey(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "gif", "dcm"])
def test_truncated_files(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / f"cut.{ending}"
    if ending == "dcm":
        dicom(path, noise, bits=8)
    else:
        Image.fromarray(noise).save(path)
    for share in (0.6, 0.1, 0):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(InputError, match=rf"cut\.{ending} cannot be decoded"):
            read_grey(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "dcm", "IMG", "txt", ""])
def test_text_is_no_picture(tmp_path, ending):
    path = tmp_path / f"notes.{ending}"
    path.write_text("Patient's Sex: F")
    with pytest.raises(InputError, match="notes"):
        read_grey(path)


@pytest.mark.parametrize("path", ["nowhere.png", "."])
def test_no_file(tmp_path, path):
    with pytest.raises(InputError, match="is not a file"):
        read_grey(tmp_path / path)


def test_no_flipped_bit_in_a_png_gives_another_picture(tmp_path):
    """Pillow alone loads some of these as other pictures, without a word."""
    rows, cols = np.mgrid[:64, :64]
    whole = save(Image.fromarray(((2 * rows + cols) // 2).astype(np.uint8)), tmp_path / "whole.png")
    grey, data = read_grey(whole), whole.read_bytes()
    path = tmp_path / "flipped.png"
    refused = 0
    for place in range(8 * data.index(b"IDAT"), 8 * (data.index(b"IEND") - 4), 3):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(read_grey(path), grey)
        except InputError:
            refused += 1
    assert refused > 100


# DICOM


def test_dicom_of_12_bits(tmp_path):
    pixels = np.array([[0, 2048, 4095]], np.uint16)
    path = dicom(tmp_path / "a.dcm", pixels, PixelSpacing=[0.2, 0.1])
    np.testing.assert_allclose(read_grey(path), pixels / 4095, atol=1e-6)
    assert dicom_spacing(path) == (0.2, 0.1)


def test_dicom_monochrome1_is_inverted(tmp_path):
    pixels = np.array([[0, 65535, 13107]], np.uint16)
    path = dicom(tmp_path / "a.dcm", pixels, bits=16, kind="MONOCHROME1", ImagerPixelSpacing=[0.143, 0.143])
    np.testing.assert_allclose(read_grey(path), 1 - pixels / 65535, atol=1e-6)
    assert dicom_spacing(path) == (0.143, 0.143)


def test_dicom_rescale_moves_the_scale_but_not_the_picture(tmp_path):
    pixels = np.array([[-2048, 0, 2047]], np.int16)
    plain = read_grey(dicom(tmp_path / "a.dcm", pixels, signed=1))
    moved = read_grey(dicom(tmp_path / "b.dcm", pixels, signed=1, RescaleSlope=2, RescaleIntercept=-1024))
    turned = read_grey(dicom(tmp_path / "c.dcm", pixels, signed=1, RescaleSlope=-1, RescaleIntercept=0))
    np.testing.assert_allclose(plain, [[0, 2048 / 4095, 1]], atol=1e-6)
    np.testing.assert_allclose(moved, plain, atol=1e-6)
    np.testing.assert_allclose(turned, 1 - plain, atol=1e-6)


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_dicom_window_agrees_with_pydicom(tmp_path, shape):
    pixels = np.arange(0, 4096, 7, dtype=np.uint16).reshape(2, 293)
    path = dicom(
        tmp_path / "a.dcm",
        pixels,
        RescaleSlope=1,
        RescaleIntercept=-1000,
        WindowCenter=[600, 40],
        WindowWidth=[1500, 400],
        VOILUTFunction=shape,
    )
    data = pydicom.dcmread(path)
    shown = pydicom.pixels.apply_windowing(pydicom.pixels.apply_rescale(pixels, data), data)
    low, high = -1000, 3095  # the ends that pydicom maps a window to
    np.testing.assert_allclose(read_grey(path), (shown - low) / (high - low), atol=1e-6)


def test_dicom_voi_table(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], list(range(65535, -1, -257))
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    pixels = np.array([[0, 128, 255]], np.uint8)
    path = dicom(tmp_path / "a.dcm", pixels, bits=8, VOILUTSequence=[table])
    np.testing.assert_allclose(read_grey(path), 1 - pixels / 255, atol=1e-6)


def test_dicom_in_colour(tmp_path):
    pixels = np.repeat(GREY[..., None], 3, axis=2)
    path = dicom(tmp_path / "screenshot.dcm", pixels, bits=8, kind="RGB")
    np.testing.assert_allclose(read_grey(path), GREY / 255, atol=1e-6)


def test_dicom_without_an_ending_is_known_by_its_content(tmp_path):
    path = dicom(tmp_path / "IM0001", GREY, bits=8)
    np.testing.assert_allclose(read_grey(path), GREY / 255, atol=1e-6)


def test_dicom_of_several_frames_or_another_kind(tmp_path):
    film = dicom(tmp_path / "film.dcm", np.zeros((4, 4), np.uint8), bits=8)
    data = pydicom.dcmread(film)
    data.NumberOfFrames, data.Rows = 2, 2
    data.save_as(film)
    with pytest.raises(InputError, match="2 frames"):
        read_grey(film)
    with pytest.raises(InputError, match="PALETTE COLOR"):
        read_grey(dicom(tmp_path / "palette.dcm", GREY, bits=8, kind="PALETTE COLOR"))


def test_dicom_without_pixels_or_with_a_window_of_no_width(tmp_path):
    report = dicom(tmp_path / "report.dcm", GREY, bits=8)
    data = pydicom.dcmread(report)
    del data.PixelData
    data.save_as(report)
    with pytest.raises(InputError, match=r"report\.dcm cannot be decoded as DICOM"):
        read_grey(report)
    path = dicom(tmp_path / "a.dcm", GREY, bits=8, WindowCenter=100, WindowWidth=0)
    np.testing.assert_allclose(read_grey(path), GREY / 255, atol=1e-6)


# Masks and sizes


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("one_bit.png", Image.fromarray(GREY > 127)),
        ("grey.png", Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8))),
        ("zero_and_one.png", Image.fromarray((GREY > 127).astype(np.uint8))),
        ("colour.png", Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8)).convert("RGB")),
        ("soft.png", Image.fromarray(GREY)),
    ],
)
def test_masks_in_every_mode(tmp_path, name, picture):
    mask = read_mask(save(picture, tmp_path / name))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, GREY > 127)


def test_mask_in_a_palette_gif(tmp_path):
    picture = Image.fromarray((GREY > 127).astype(np.uint8), "L").convert("P")
    picture.putdata((GREY > 127).astype(np.uint8).ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    path = save(picture, tmp_path / "mask.gif")
    with Image.open(path) as written:
        assert written.mode == "P"
    np.testing.assert_array_equal(read_mask(path), GREY > 127)


def test_empty_mask(tmp_path):
    assert not read_mask(save(Image.new("L", (5, 4)), tmp_path / "empty.png")).any()


def test_resizing_averages_areas():
    rng = np.random.default_rng(0)
    image, mask = rng.random((64, 48), np.float32), rng.random((64, 48)) > 0.5
    blocks = mask.reshape(8, 8, 8, 6).mean((1, 3))
    np.testing.assert_array_equal(resize_mask(mask, (8, 8)), blocks >= 0.5)
    small = resize_image(image, (8, 8))
    assert small.std() < 0.2 * image.std()  # antialiased: noise is averaged away, not sampled
    assert small.dtype == np.float32


def test_resizing_keeps_range_and_the_same_size_is_untouched():
    edge = np.zeros((40, 40), np.float32)
    edge[:, 20:] = 1
    for size in ((15, 15), (77, 91)):
        resized = resize_image(edge, size)
        assert resized.shape == size
        assert resized.min() >= 0
        assert resized.max() <= 1  # Lanczos would overshoot at the edge
        assert abs(resize_mask(edge > 0.5, size).mean() - 0.5) < 0.04
    assert resize_image(edge, (40, 40)) is edge


def test_a_mask_survives_enlarging_and_shrinking():
    rows, cols = np.mgrid[:64, :64]
    disc = (rows - 30) ** 2 + (cols - 35) ** 2 < 400
    np.testing.assert_array_equal(resize_mask(resize_mask(disc, (256, 256)), (64, 64)), disc)


@settings(deadline=None)
@given(
    arrays(np.float32, (2, 1, 5, 4), elements=st.floats(0, 1, width=32)),
    st.floats(0.5, 100),
    st.floats(-5, 5),
)
def test_standardized_pictures_forget_exposure(images, gain, offset):
    images = torch.from_numpy(images).double()
    z = standardize(images)
    spread = images.std(dim=(1, 2, 3), correction=0) > 1e-3
    torch.testing.assert_close(z.mean(dim=(1, 2, 3))[spread], torch.zeros(int(spread.sum())).double())
    torch.testing.assert_close(z.std(dim=(1, 2, 3), correction=0)[spread], torch.ones(int(spread.sum())).double())
    torch.testing.assert_close(standardize(images * gain + offset)[spread], z[spread], rtol=1e-6, atol=1e-8)


def test_a_constant_picture_becomes_zero():
    z = standardize(torch.full((2, 1, 8, 8), 7, dtype=torch.uint8))
    assert z.dtype == torch.float32
    assert not z.any()


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8)),
        Image.new("RGB", (3, 2), (255, 0, 0)),
    ],
    ids=["numbered regions", "pure red"],
)
def test_a_map_of_labels_is_not_taken_for_an_empty_mask(tmp_path, picture):
    with pytest.raises(InputError, match=r"labels\.png holds no value above middle grey"):
        read_mask(save(picture, tmp_path / "labels.png"))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_fewer_bits_in_a_container_of_sixteen_keep_their_range(tmp_path, bits):
    pixels = np.linspace(0, 2**bits - 1, 64).round().astype(np.uint16).reshape(8, 8)
    grey = read_grey(save(Image.fromarray(pixels), tmp_path / "stored.png"))
    np.testing.assert_allclose(grey, pixels / (2**bits - 1), atol=1e-6)
    if bits < 16:
        mask = read_mask(save(Image.fromarray((pixels > 99).astype(np.uint16) * (2**bits - 1)), tmp_path / "mask.png"))
        np.testing.assert_array_equal(mask, pixels > 99)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_fewer_bits_in_a_tiff_of_thirty_two_keep_their_range(tmp_path, bits):
    pixels = np.linspace(0, 2**bits - 1, 64).round().astype(np.int32).reshape(8, 8)
    grey = read_grey(save(Image.fromarray(pixels), tmp_path / "stored.tif"))
    np.testing.assert_allclose(grey, pixels / (2**bits - 1), atol=1e-6)
    regions = Image.fromarray(np.array([[0, 1], [2, 3]], np.int32))
    with pytest.raises(InputError, match=r"regions\.tif holds no value above middle grey"):
        read_mask(save(regions, tmp_path / "regions.tif"))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_fewer_bits_in_a_dicom_of_sixteen_keep_their_range(tmp_path, kind):
    pixels = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    narrow, wide = (read_grey(dicom(tmp_path / f"{bits}.dcm", pixels, bits=bits, kind=kind)) for bits in (12, 16))
    np.testing.assert_array_equal(wide, narrow)
    of_fourteen = read_grey(dicom(tmp_path / "14.dcm", pixels, bits=14, kind=kind))  # a detector's own scale stays
    assert np.ptp(of_fourteen) == pytest.approx(4095 / (2**14 - 1))
    moved = dicom(tmp_path / "moved.dcm", pixels, bits=16, kind=kind, RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_allclose(read_grey(moved), narrow, atol=1e-6)


@pytest.mark.parametrize("spacing", [[0, 0], [0.2, -0.2], [0.2, 0]])
def test_a_spacing_that_is_no_size_is_unknown(tmp_path, spacing):
    assert dicom_spacing(dicom(tmp_path / "a.dcm", GREY, bits=8, PixelSpacing=spacing)) is None


@pytest.mark.parametrize(
    ("read", "header"),
    [(read_grey, b"\x28\x00\x10\x00US\x02\x00"), (dicom_spacing, b"\x02\x00\x00\x00UL\x04\x00")],
    ids=["rows", "length of the header"],
)
def test_a_number_of_the_wrong_length_in_a_dicom_is_told(tmp_path, read, header):
    path = dicom(tmp_path / "a.dcm", GREY, bits=8)
    content = path.read_bytes()
    assert content.count(header) == 1
    path.write_bytes(content.replace(header, header[:6] + bytes([header[6] + 1, 0])))  # a byte too many
    with pytest.raises(InputError, match=r"a\.dcm cannot be (read|decoded) as DICOM"):
        read(path)


def test_a_spacing_of_one_number_is_refused(tmp_path):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.PixelSpacing = 0.5
    pydicom.dcmwrite(tmp_path / "one.dcm", data, enforce_file_format=True)
    with pytest.raises(InputError, match=r"one\.dcm cannot be read as DICOM"):
        dicom_spacing(tmp_path / "one.dcm")


def test_a_mask_in_the_transparency_is_not_taken_for_lung_everywhere(tmp_path):
    alpha = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    white = Image.merge("LA", (Image.new("L", (2, 2), 255), alpha))
    white.save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png is of one colour, and its transparency varies"):
        read_mask(tmp_path / "mask.png")
    Image.merge("LA", (Image.new("L", (2, 2), 255), Image.new("L", (2, 2), 255))).save(tmp_path / "full.png")
    assert read_mask(tmp_path / "full.png").all()
