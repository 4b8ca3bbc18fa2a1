"""Shenzhen: palette and RGB pictures, masks in every place they are found in, and 96 pictures without."""

import warnings

import numpy as np
import pytest

from cxr_tutorial.data import load_shenzhen
from cxr_tutorial.errors import InputError

NAMES = ("CHNCXR_0001_0", "CHNCXR_0327_1", "CHNCXR_0662_1")
MODES = ("P", "RGB", "L")


@pytest.fixture
def pictures(tmp_path, darkroom):
    home = tmp_path / "set" / "ChinaSet_AllFiles"
    grey = {
        name: darkroom.picture(home / "CXR_png" / f"{name}.png", (24 + 2 * i, 20 + i), mode)
        for i, (name, mode) in enumerate(zip(NAMES, MODES, strict=True))
    }
    (home / "ClinicalReadings").mkdir()
    (home / "ClinicalReadings" / "CHNCXR_0327_1.txt").write_bytes(b"femal \x00 yrs")
    return home, grey


def load(root):
    with pytest.warns(UserWarning, match="is not the whole shenzhen set") as caught:
        examples = load_shenzhen(root)
    assert len(caught) == 1
    return examples


def test_palette_rgb_and_grey_pictures_of_unequal_size(pictures):
    home, grey = pictures
    examples = load(home)
    assert examples.ids == list(NAMES)
    assert examples.labels == [0, 1, 1]
    assert len(set(examples.patients)) == 3
    assert examples.release == "partial: 3 of 662, copy of 3 sizes up to 22x28, 0 of 566 masks"
    for example in examples:
        np.testing.assert_allclose(example.image, grey[example.id] / 255, atol=1e-6)
        assert example.mask is None
        assert example.spacing_mm is None


@pytest.mark.parametrize("suffix", ["_mask", ""])
@pytest.mark.parametrize(
    "folder", ["mask", "mask/mask", "masks", "../mask", "../mask/mask", "../shcxr-lung-mask/mask/mask"]
)
def test_masks_are_found_inside_and_next_to_the_set(pictures, darkroom, folder, suffix):
    home, _ = pictures
    for name, size in zip(NAMES[:2], [(24, 20), (26, 21)], strict=True):
        darkroom.mask(home / folder / f"{name}{suffix}.png", "both", size, mode="L")
    for root in (home, home.parent):
        examples = load(root)
        assert examples.has_mask == [True, True, False]
        assert "2 of 566 masks" in examples.release
        assert examples[0].mask.any(0).sum() == 12
        assert examples[2].mask is None


def test_the_combined_set_leaves_montgomery_out(tmp_path, darkroom):
    home = tmp_path / "Lung Segmentation"
    for name in (NAMES[0], "MCUCXR_0001_0"):
        darkroom.picture(home / "CXR_png" / f"{name}.png")
        darkroom.mask(home / "masks" / f"{name}_mask.png", "both")
    assert load(home).ids == [NAMES[0]]


def test_a_mask_of_another_size(pictures, darkroom):
    home, _ = pictures
    darkroom.mask(home / "mask" / f"{NAMES[0]}_mask.png", "both", (12, 10))
    with pytest.raises(InputError, match=rf"{NAMES[0]}_mask\.png is 10x12 but its picture .*{NAMES[0]}\.png is 20x24"):
        load(home)[0]


def test_copies_and_other_files_are_passed_over(pictures, darkroom):
    home, _ = pictures
    darkroom.picture(home / "CXR_png" / f"{NAMES[0]} (1).png")
    darkroom.picture(home / "CXR_png" / f"._{NAMES[0]}.png")
    assert load(home).ids == list(NAMES)


def test_montgomery_is_the_wrong_folder(tmp_path, darkroom):
    darkroom.picture(tmp_path / "MontgomerySet" / "CXR_png" / "MCUCXR_0001_0.png")
    with pytest.raises(InputError, match=r"holds no shenzhen pictures \(it holds MontgomerySet\)") as error:
        load_shenzhen(tmp_path)
    assert "mask/CHNCXR_0001_0_mask.png" in str(error.value)


# The real copy


def test_the_real_copy_is_whole(cxr_data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = load_shenzhen(cxr_data / "shenzhen")
    assert len(examples) == 662
    assert [examples.labels.count(k) for k in (0, 1)] == [326, 336]
    without = [label for label, has in zip(examples.labels, examples.has_mask, strict=True) if not has]
    assert [without.count(k) for k in (0, 1)] == [47, 49]
    first = next(i for i, has in enumerate(examples.has_mask) if not has)
    assert examples[first].mask is None
    assert examples[first].label is not None


def test_real_masks_lie_on_dark_lungs(cxr_data):
    examples = load_shenzhen(cxr_data / "shenzhen")
    sample = examples.subset(i for i in range(0, 662, 7) if examples.has_mask[i])
    darker = []
    for example in sample:
        middle = np.zeros_like(example.mask)
        middle[64:192, 96:160] = True  # spine and heart
        darker.append(example.image[example.mask].mean() < example.image[middle & ~example.mask].mean())
    assert np.mean(darker) > 0.98
