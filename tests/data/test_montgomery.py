"""Montgomery: the official layout and the combined one, patients, sides, spacing and what goes wrong."""

import pickle
import re
import warnings

import numpy as np
import pytest
from PIL import Image

from cxr_tutorial.data import load_montgomery
from cxr_tutorial.data.images import read_mask
from cxr_tutorial.data.montgomery import REPEATED, patient, spacing
from cxr_tutorial.errors import InputError

NAMES = ("MCUCXR_0001_0", "MCUCXR_0113_1", "MCUCXR_0117_1")


@pytest.fixture
def official(tmp_path, darkroom):
    home = tmp_path / "MontgomerySet"
    for name in NAMES:
        darkroom.picture(home / "CXR_png" / f"{name}.png")
        darkroom.mask(home / "ManualMask" / "leftMask" / f"{name}.png", "left")
        darkroom.mask(home / "ManualMask" / "rightMask" / f"{name}.png", "right")
    (home / "ClinicalReadings").mkdir()
    (home / "ClinicalReadings" / "MCUCXR_0001_0.txt").write_bytes(b"Patient's Sex: O \n\xff\xfe")
    (home / "CXR_png" / "Thumbs.db").write_bytes(b"x")
    return home


def load_partial(load, root):
    with pytest.warns(UserWarning, match="is not the whole") as caught:
        examples = load(root)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the warning points at the caller's line
    return examples


@pytest.mark.parametrize("up", [0, 1])
def test_a_partial_copy_loads_with_one_warning(official, up):
    examples = load_partial(load_montgomery, [official, official.parent][up])
    assert examples.ids == list(NAMES)
    assert examples.labels == [0, 1, 1]
    assert examples.patients == ["MCUCXR_0001", "MCUCXR_0113", "MCUCXR_0113"]
    assert examples.release == "partial: 3 of 138, reduced copy 20x24, 3 of 138 masks"
    example = examples[0]
    assert example.image.shape == example.mask.shape == (24, 20)
    assert (example.source, example.spacing_mm) == ("montgomery", None)


def test_both_lungs_are_joined_and_the_left_file_is_on_the_left(official):
    mask = load_partial(load_montgomery, official)[0].mask
    np.testing.assert_array_equal(mask.any(0), [True] * 6 + [False] * 8 + [True] * 6)
    left = read_mask(official / "ManualMask" / "leftMask" / "MCUCXR_0001_0.png")
    np.testing.assert_array_equal(left.any(0), [True] * 6 + [False] * 14)


def test_root_from_the_environment(official, monkeypatch):
    home = official.parent.parent / "data" / "montgomery"
    home.parent.mkdir()
    official.parent.rename(home)
    monkeypatch.setenv("CXR_DATA", str(home.parent))
    assert len(load_partial(lambda _: load_montgomery(), None)) == 3
    monkeypatch.delenv("CXR_DATA")
    with pytest.raises(InputError, match="CXR_DATA"):
        load_montgomery()


def test_the_combined_set(tmp_path, darkroom):
    home = tmp_path / "Lung Segmentation"
    for name in (*NAMES, "CHNCXR_0001_0"):
        darkroom.picture(home / "CXR_png" / f"{name}.png")
    darkroom.mask(home / "masks" / f"{NAMES[0]}.png", "both", mode="L")
    darkroom.mask(home / "masks" / f"{NAMES[1]}_mask.png", "both", mode="L")
    examples = load_partial(load_montgomery, tmp_path)
    assert examples.ids == list(NAMES)
    assert examples.has_mask == [True, True, False]
    assert examples[0].mask.any(0).sum() == 12
    assert examples[2].mask is None


def test_a_picture_with_one_lung_only_has_no_mask(official):
    (official / "ManualMask" / "rightMask" / "MCUCXR_0001_0.png").unlink()
    with pytest.warns(UserWarning, match="masks of one lung only, left out: 1"):
        assert load_montgomery(official)[0].mask is None


def test_a_mask_of_another_size_names_both_files(official, darkroom):
    darkroom.mask(official / "ManualMask" / "leftMask" / "MCUCXR_0113_1.png", "left", (48, 40))
    examples = load_partial(load_montgomery, official)
    words = r"leftMask/MCUCXR_0113_1\.png is 40x48 but its picture .*CXR_png/MCUCXR_0113_1\.png is 20x24"
    with pytest.raises(InputError, match=words):
        examples[1]
    assert examples[0].mask is not None


def test_a_truncated_picture_is_told_at_once_and_on_reading(official):
    path = official / "CXR_png" / "MCUCXR_0001_0.png"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.warns(UserWarning, match=r"pictures unreadable: 1, the first is MCUCXR_0001_0\.png"):
        examples = load_montgomery(official)
    with pytest.raises(InputError, match=r"MCUCXR_0001_0\.png cannot be decoded"):
        examples[0]


@pytest.mark.parametrize("inside", [(), ("report.pdf", "notes.txt")])
def test_a_wrong_folder_shows_the_layout(tmp_path, inside):
    for name in inside:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        load_montgomery(tmp_path)
    for words in (str(tmp_path), *inside, "ManualMask/leftMask/MCUCXR_0001_0.png", "CXR_png/"):
        assert words in str(error.value)
    with pytest.raises(InputError, match="is not a folder"):
        load_montgomery(tmp_path / "nowhere")


def test_the_fingerprint_follows_the_files(official, darkroom):
    before = load_partial(load_montgomery, official).entries
    darkroom.mask(official / "ManualMask" / "leftMask" / f"{NAMES[0]}.png", "both")
    after = load_partial(load_montgomery, official).entries
    assert [a.version == b.version for a, b in zip(after, before, strict=True)] == [False, True, True]


def test_examples_can_be_sent_to_another_process(official):
    examples = load_partial(load_montgomery, official)
    again = pickle.loads(pickle.dumps(examples))
    np.testing.assert_array_equal(again[1].image, examples[1].image)


def test_spacing_needs_the_original_proportions():
    assert spacing((4892, 4020)) == spacing((4020, 4892)) == (0.0875, 0.0875)
    assert spacing((2446, 2010)) == (0.175, 0.175)
    assert spacing((512, 512)) is None


def test_the_official_size_is_recognised_from_headers_alone(tmp_path):
    home = tmp_path / "MontgomerySet" / "CXR_png"
    home.mkdir(parents=True)
    for name, size in zip(NAMES, [(4020, 4892), (4892, 4020), (4020, 4892)], strict=True):
        Image.new("L", size).save(home / f"{name}.png", compress_level=1)
    with pytest.warns(UserWarning, match="3 of 138 pictures"):
        assert load_montgomery(tmp_path).release.startswith("partial: 3 of 138, full official size")


# The real copy


def test_the_real_copy_is_whole(cxr_data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = load_montgomery(cxr_data / "montgomery")
    assert len(examples) == 138
    assert [examples.labels.count(k) for k in (0, 1)] == [80, 58]
    assert len(set(examples.patients)) == 135
    assert all(examples.has_mask)
    assert not examples.release.startswith("partial")


def test_real_masks_lie_on_dark_lungs_left_and_right(cxr_data):
    examples = load_montgomery(cxr_data / "montgomery")
    darker = []
    for entry in examples.entries:
        left, right = (read_mask(path) for path in entry.files[1:])
        assert not (left & right).any()
        assert np.nonzero(left)[1].mean() < np.nonzero(right)[1].mean()
        example = examples.read(entry)
        np.testing.assert_array_equal(example.mask, left | right)
        inside = example.mask
        darker.append(example.image[inside].mean() < example.image[~inside & (example.image > 0.05)].mean())
    assert np.mean(darker) > 0.98  # black borders left out


def test_repeated_patients_are_those_that_the_readings_name(cxr_data):
    groups = {}
    for path in (cxr_data / "montgomery" / "MontgomerySet" / "ClinicalReadings").glob("*.txt"):
        others = re.findall(r"MCUCXR_(\d{4})", path.read_text(encoding="latin-1"))
        number = path.stem.split("_")[1]
        for other in others:
            groups.setdefault(min(number, *others), set()).update({number, other})
    assert {tuple(sorted(group)) for group in groups.values()} == set(REPEATED)
    assert len({patient(f"MCUCXR_{number}_1") for group in REPEATED for number in group}) == len(REPEATED)
