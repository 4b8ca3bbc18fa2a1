"""Any folder: what counts as a picture, how it is called, where its mask is."""

import unicodedata

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from cxr_tutorial.data import load_folder
from cxr_tutorial.errors import InputError


def write_dicom(path, pixels):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.Rows, data.Columns, data.SamplesPerPixel = *pixels.shape, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME1", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelSpacing = [0.5, 0.25]
    data.PixelData = pixels.astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def test_all_formats_and_subfolders(tmp_path, darkroom):
    for name in ("b.png", "a.jpg", "c.TIF", "sub/a.png"):
        darkroom.picture(tmp_path / name)
    write_dicom(tmp_path / "study/series/IM0001", np.array([[0, 4095]]))
    for name in ("notes.txt", "table.csv", "IM0002", ".hidden.png", ".thumbs/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    examples = load_folder(tmp_path)
    assert examples.ids == ["a", "b", "c", "study/series/IM0001", "sub/a"]
    assert examples.labels == [None] * 5
    assert examples.has_mask == [False] * 5
    assert [example.image.shape for example in examples] == [(24, 20)] * 3 + [(1, 2), (24, 20)]
    scan = examples[3]
    np.testing.assert_allclose(scan.image, [[1, 0]])
    assert scan.spacing_mm == (0.5, 0.25)
    assert scan.mask is None
    assert examples[0].spacing_mm is None


def test_one_file(tmp_path, darkroom):
    grey = darkroom.picture(tmp_path / "me.png")
    darkroom.picture(tmp_path / "you.png")
    [example] = load_folder(tmp_path / "me.png")
    assert (example.id, example.source, example.label) == ("me", "folder", None)
    np.testing.assert_allclose(example.image, grey / 255, atol=1e-6)


def test_names_that_would_be_alike_keep_their_ending(tmp_path, darkroom):
    for name in ("a.png", "a.jpg", "b.png"):
        darkroom.picture(tmp_path / name)
    assert load_folder(tmp_path).ids == ["a.jpg", "a.png", "b"]


@pytest.mark.parametrize("masks", ["masks", "images/masks"])
def test_masks_next_to_or_inside_the_folder(tmp_path, darkroom, masks):
    for name in ("a", "b", "c"):
        darkroom.picture(tmp_path / "images" / f"{name}.png")
    darkroom.mask(tmp_path / masks / "a.png", "both")
    darkroom.mask(tmp_path / masks / "b_mask.gif", "left", mode="P")
    examples = load_folder(tmp_path / "images")
    assert examples.ids == ["a", "b", "c"]
    assert examples.has_mask == [True, True, False]
    assert [example.mask.any(0).sum() if example.mask is not None else None for example in examples] == [
        12,
        6,
        None,
    ]


def test_a_folder_called_masks_is_read_as_pictures_if_it_is_the_one_asked_for(tmp_path, darkroom):
    darkroom.mask(tmp_path / "masks" / "a.png", "both")
    [example] = load_folder(tmp_path / "masks")
    assert example.mask is None


def test_a_mask_of_another_size(tmp_path, darkroom):
    darkroom.picture(tmp_path / "a.png")
    darkroom.mask(tmp_path / "masks" / "a.png", "both", (10, 10))
    with pytest.raises(InputError, match=r"masks/a\.png is 10x10 but its picture .*a\.png is 20x24"):
        load_folder(tmp_path)[0]


def test_a_damaged_file_harms_only_itself(tmp_path, darkroom):
    darkroom.picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(tmp_path / "nan.tif")
    examples = load_folder(tmp_path)
    assert examples[1].image.shape == (24, 20)
    with pytest.raises(InputError, match=r"bad\.png cannot be decoded"):
        examples[0]
    with pytest.raises(InputError, match=r"nan\.tif holds 9 pixels that are NaN"):
        examples[2]


def test_nothing_to_read(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds no X-ray among 1 files: expected files ending in \.png"):
        load_folder(tmp_path)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        load_folder(tmp_path / "nowhere")


def with_parent(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_masks_lie_in_the_subfolders_of_their_pictures(tmp_path, darkroom):
    for name in ("normal/001.png", "tb/001.png", "tb/002.png"):
        darkroom.picture(tmp_path / name)
    Image.new("L", (20, 24), 255).save(with_parent(tmp_path / "masks/tb/001_mask.png"))
    Image.new("L", (20, 24), 0).save(tmp_path / "masks/002.png")
    examples = load_folder(tmp_path)
    assert dict(zip(examples.ids, examples.has_mask, strict=True)) == {
        "normal/001": False, "tb/001": True, "tb/002": True,
    }  # fmt: skip
    assert examples[1].mask.all()
    Image.new("L", (20, 24), 255).save(tmp_path / "masks/001.png")
    with pytest.raises(InputError, match=r"masks/001\.png could be the mask of 2 pictures called 001"):
        load_folder(tmp_path)


def test_a_dicom_called_by_its_number_is_found_by_its_whole_name(tmp_path, darkroom):
    for name in ("1.3.6.1.4.1.5962.1", "1.3.6.1.4.1.5962.2"):
        write_dicom(tmp_path / name, np.array([[0, 4095]]))
    (tmp_path / "1.3.6.3").write_text("no picture")
    assert load_folder(tmp_path).ids == ["1.3.6.1.4.1.5962.1", "1.3.6.1.4.1.5962.2"]


def test_a_folder_named_by_a_dot_finds_the_masks_beside_it(tmp_path, darkroom, monkeypatch):
    darkroom.picture(tmp_path / "pictures/a.png")
    Image.new("L", (20, 24), 255).save(with_parent(tmp_path / "masks/a.png"))
    monkeypatch.chdir(tmp_path / "pictures")
    assert load_folder(".").has_mask == [True]


def test_what_lies_behind_a_link_is_found_once(tmp_path, darkroom):
    darkroom.picture(tmp_path / "elsewhere/2.png")
    darkroom.picture(tmp_path / "set/1.png")
    (tmp_path / "set/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "set")
    assert load_folder(tmp_path / "set").ids == ["1", "more/2"]


def test_a_dicomdir_is_no_picture(tmp_path):
    write_dicom(tmp_path / "PT0/IM0", np.array([[0, 4095]]))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert load_folder(tmp_path).ids == ["PT0/IM0"]


def test_masks_beside_the_pictures_of_a_subfolder(tmp_path, darkroom):
    for name in ("h1/1.png", "h2/1.png"):
        darkroom.picture(tmp_path / name)
    darkroom.mask(tmp_path / "h1" / "Masks" / "1.png", "both")
    examples = load_folder(tmp_path)
    assert dict(zip(examples.ids, examples.has_mask, strict=True)) == {"h1/1": True, "h2/1": False}


@pytest.mark.parametrize(
    ("names", "masks", "message"),
    [
        (["1.png", "1.jpg"], ["1.png"], r"masks/1\.png could be the mask of 2 pictures called 1 "),
        (["1.png"], ["1.png", "1.gif"], r"1\.gif and .*1\.png are both called as masks of 1"),
        (["1.png"], ["1.png", "1_mask.png"], "are both called as masks of 1"),
        (["a.png", "a.jpg", "a.png.png"], [], r"two pictures called a\.png"),
    ],
)
def test_what_could_mean_several_things_is_refused(tmp_path, darkroom, names, masks, message):
    for name in names:
        darkroom.picture(tmp_path / name)
    for name in masks:
        darkroom.mask(tmp_path / "masks" / name, "both", mode="L")
    with pytest.raises(InputError, match=message):
        load_folder(tmp_path)


def test_masks_of_no_picture_are_told(tmp_path, darkroom):
    for k in range(3):
        darkroom.picture(tmp_path / f"Case{k}.png")
        darkroom.mask(tmp_path / "masks" / ("Case0.png" if k == 0 else f"case{k}.png"), "both")
    with pytest.warns(UserWarning, match=r"2 of 3 masks are of no picture in .*case1\.png: .* capital letters"):
        examples = load_folder(tmp_path)
    assert examples.has_mask == [True, False, False]


def test_an_accent_in_one_character_or_in_two_is_the_same_name(tmp_path, darkroom):
    darkroom.picture(tmp_path / unicodedata.normalize("NFD", "Müller.png"))
    darkroom.mask(tmp_path / "masks" / unicodedata.normalize("NFC", "Müller.png"), "left")
    assert load_folder(tmp_path)[0].mask is not None


def test_masks_in_a_folder_of_another_name_are_asked_about(tmp_path, darkroom):
    for place in ("a.png", "mask/a.png"):
        darkroom.picture(tmp_path / place)
    with pytest.warns(UserWarning, match="if they are masks, call their folder masks"):
        assert len(load_folder(tmp_path)) == 2
