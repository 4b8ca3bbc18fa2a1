"""JSRT: raw film, masks of another size in two folds, and a table with bare carriage returns."""

import warnings

import numpy as np
import pytest

from cxr_tutorial.data import Finding, load_jsrt
from cxr_tutorial.data.images import read_mask
from cxr_tutorial.errors import InputError

TABLE = (
    "JPCLN001.IMG\t5\t15\t53\tmale\t1634\t692\tmalignant\tl.upper\tlobe\tlung cancer\t\r"
    "JPCLN002.IMG\t5\t30\t?\tfemale\t1024\t512\tbenign\tl.upper\tlobe(S5)\tpulmonary he\tmatoma\r"
    "JPCLN003.IMG\tfive\t\r"
    "JPCLN004.IMG\t1\t8\t75\tfemale\t660\t688\tmalignant\tr.upper\tlobe(S1)\tsusp. lung m\tetastasis"
)


def load(root):
    with pytest.warns(UserWarning, match="is not the whole jsrt set") as caught:
        examples = load_jsrt(root)
    assert len(caught) == 1
    return examples


def masks(darkroom, top, name, size=(1024, 1024)):
    fold = "fold1" if int(name[5:]) % 2 else "fold2"
    darkroom.mask(top / fold / "masks" / "right lung" / f"{name}.gif", "left", size, mode="P")
    darkroom.mask(top / fold / "masks" / "left lung" / f"{name}.gif", "right", size, mode="P")
    darkroom.mask(top / fold / "masks" / "heart" / f"{name}.gif", "both", size, mode="P")


@pytest.fixture
def raw(tmp_path, darkroom):
    """As JSRT and SCR give it: 16-bit raw film, GIF masks of half the size, the table."""
    home = tmp_path / "jsrt"
    (home / "All247images").mkdir(parents=True)
    for k, name in enumerate(("JPCLN001", "JPCLN002", "JPCNN001")):
        film = np.full((2048, 2048), 4095 - k, ">u2")
        film.tofile(home / "All247images" / f"{name}.IMG")
        masks(darkroom, home / "scratch", name)
    (home / "Clinical_Information").mkdir()
    (home / "Clinical_Information" / "CLNDAT_EN.txt").write_bytes(TABLE.encode("latin-1"))
    (home / "Clinical_Information" / "CNNDAT_EN.TXT").write_bytes(b"JPCNN001.IMG 30  female   non-nodule\r")
    return home


@pytest.mark.parametrize("up", [0, 1])
def test_raw_film_with_masks_of_half_the_size(raw, up):
    examples = load([raw, raw.parent][up])
    assert examples.ids == ["JPCLN001", "JPCLN002", "JPCNN001"]
    assert examples.labels == [1, 1, 0]
    assert examples.release == "partial: 3 of 247, full official size, 3 of 247 masks"
    example = examples[1]
    assert example.image.shape == example.mask.shape == (2048, 2048)
    np.testing.assert_allclose(example.image, 1 / 4095, atol=1e-7)  # 4094 on film is almost black here
    assert example.spacing_mm == (0.175, 0.175)
    assert example.findings == (Finding("nodule", 512, 1024, 30 / 2 / 0.175, 5),)
    assert examples[2].findings == ()
    np.testing.assert_array_equal(example.mask.any(0), [True] * 682 + [False] * 684 + [True] * 682)


def test_a_reduced_copy_scales_masks_spacing_and_nodules(tmp_path, darkroom):
    for name in ("JPCLN001", "JPCLN003", "JPCLN004"):
        darkroom.picture(tmp_path / "images" / f"{name}.png", (256, 256))
        masks(darkroom, tmp_path / "scratch", name)
    (tmp_path / "clndat_en.TXT").write_bytes(TABLE.encode("latin-1"))
    with pytest.warns(UserWarning, match="nodules without a place in .*: 1"):
        examples = load_jsrt(tmp_path)
    assert examples.release == "partial: 3 of 247, reduced copy 256x256, 3 of 247 masks"
    example = examples[0]
    assert example.mask.shape == (256, 256)
    assert example.spacing_mm == pytest.approx((1.4, 1.4))
    assert example.findings == (Finding("nodule", 692 / 8, 1634 / 8, pytest.approx(15 / 2 / 1.4), 5),)
    assert examples[1].findings == ()  # its row is broken; the picture stays
    assert examples[2].findings[0].subtlety == 1


@pytest.mark.parametrize(
    "folders",
    [("All247images",) * 2, ("Nodule154images", "NonNodule93images"), (".", "."), ("images", "images")],
)
def test_places_where_pictures_are_found(tmp_path, darkroom, folders):
    for folder, name in zip(folders, ("JPCLN001", "JPCNN093"), strict=True):
        darkroom.picture(tmp_path / folder / f"{name}.png")
    examples = load(tmp_path)
    assert examples.ids == ["JPCLN001", "JPCNN093"]
    assert examples.has_mask == [False, False]
    assert load(tmp_path / folders[0]).ids == examples.ids


def test_raw_film_is_preferred(raw, darkroom):
    darkroom.picture(raw / "images" / "JPCLN001.png")
    assert load(raw).entries[0].files[0].name == "JPCLN001.IMG"


@pytest.mark.parametrize("top", ["scratch", "../scratch", "."])
def test_places_where_masks_are_found(tmp_path, darkroom, top):
    home = tmp_path / "jsrt"
    for name in ("JPCLN001", "JPCLN002"):
        darkroom.picture(home / "images" / f"{name}.png", (64, 64))
        masks(darkroom, home / top, name, (32, 32))
    assert load(home).has_mask == [True, True]


def test_raw_film_of_the_wrong_length(raw):
    path = raw / "All247images" / "JPCLN001.IMG"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"pictures unreadable: 1, the first is JPCLN001\.IMG"):
        examples = load_jsrt(raw)
    with pytest.raises(InputError, match=r"JPCLN001\.IMG has 8,388,607 bytes"):
        examples[0]
    assert examples[1].mask is not None


def test_a_wrong_folder_shows_the_layout(tmp_path):
    with pytest.raises(InputError, match=r"(?s)it holds nothing.*All247images/JPCLN001\.IMG.*left lung"):
        load_jsrt(tmp_path)


# The real copy


def test_the_real_copy_is_whole(cxr_data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examples = load_jsrt(cxr_data / "jsrt")
    assert len(examples) == 247
    assert [examples.labels.count(k) for k in (0, 1)] == [93, 154]
    assert all(examples.has_mask)


def test_real_nodules_and_masks(cxr_data):
    examples = load_jsrt(cxr_data / "jsrt")
    grades, inside = [], []
    for entry in examples.entries:
        example = examples.read(entry)
        height, width = example.mask.shape
        assert len(example.findings) == example.label
        assert example.image[example.mask].mean() < example.image[~example.mask].mean()
        left, right = (read_mask(path) for path in entry.files[1:])
        assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()  # the patient's sides
        for finding in example.findings:
            assert 0 < finding.row < height
            assert 0 < finding.col < width
            grades.append(finding.subtlety)
            inside.append(example.mask[int(finding.row), int(finding.col)])
    assert [grades.count(k) for k in (5, 4, 3, 2, 1)] == [12, 38, 50, 29, 25]
    assert np.mean(inside) > 0.85  # some nodules hide behind the heart or below the diaphragm
