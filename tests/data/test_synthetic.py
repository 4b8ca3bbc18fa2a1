"""The synthetic X-ray: same seed same picture, exact truth, sites that differ, clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from cxr_tutorial.data import cache, synthetic
from cxr_tutorial.data.anatomy import HILUM_LIFT, Chest, View, draw_chest, together, vessel_tree
from cxr_tutorial.data.exposure import blurred, burn_in, draw_exposure, expose
from cxr_tutorial.data.lesions import KINDS
from cxr_tutorial.data.projection import project, project_all, splat
from cxr_tutorial.data.synthetic import Synthetic, generate, load_synthetic, write_set
from cxr_tutorial.errors import InputError

UPRIGHT = View(field=(358.0, 358.0), apex=(0.5, 0.08), tilt=0.0, bends=((0.0, 0.0, 0.0),) * 3)


@pytest.fixture(scope="module")
def healthy() -> Synthetic:
    return generate(48, size=64, seed=3, finding_rate=0.0)


@pytest.fixture(scope="module")
def ill() -> Synthetic:
    return generate(48, size=64, seed=3, finding_rate=1.0)


def test_a_picture_depends_on_its_seed_and_index_alone() -> None:
    few, many = generate(3, size=64, seed=7), generate(9, size=64, seed=7)
    assert torch.equal(few.images, many.images[:3])
    assert torch.equal(few.masks, many.masks[:3])
    assert few.findings == many.findings[:3]
    assert not torch.equal(few.images, generate(3, size=64, seed=8).images)


def test_reading_one_example_is_drawing_it_in_a_batch() -> None:
    batch, examples = generate(5, size=64, seed=7), load_synthetic(5, size=64, seed=7)
    for i in (4, 0):
        assert np.array_equal(examples[i].image, batch.images[i, 0].numpy())
        assert np.array_equal(examples[i].mask, batch.masks[i, 0].numpy())
        assert examples[i].findings == batch.findings[i]
        assert examples[i].label == examples.labels[i] == int(batch.labels[i])


@pytest.mark.parametrize("size", [50, 64, 128])
def test_a_picture_is_the_same_in_whichever_block_it_is_drawn(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = generate(9, size=size, seed=11)
    for block in (1, 2, 5):
        monkeypatch.setattr(synthetic, "BLOCK", block * size**2)
        other = generate(9, size=size, seed=11)
        off = (usual.images - other.images).abs() * 255
        assert off.max() < 1.5  # the grey level, or a value between two of them rounded the other way
        assert (off > 0.5).float().mean() < 1e-4
        assert (usual.masks != other.masks).sum() <= 2
        assert usual.labels.tolist() == other.labels.tolist()
        for a, b in zip(sum(usual.findings, ()), sum(other.findings, ()), strict=True):
            assert (a.kind, a.subtlety) == (b.kind, b.subtlety)
            assert (a.row, a.col, a.radius) == pytest.approx((b.row, b.col, b.radius), abs=1e-3)


def test_examples_are_the_same_one_by_one_and_in_a_row(tmp_path: Path) -> None:
    ours, theirs = load_synthetic(5, size=64, seed=7), load_synthetic(4, size=64, seed=8)
    mixed = (ours + theirs).subset([8, 0, 3, 6, 1])
    cached = cache(mixed, 64, tmp_path)
    assert cached.ids == tuple(mixed.ids)
    for i, example in enumerate(mixed):
        assert example.id == mixed[i].id == mixed.ids[i]
        assert np.array_equal(example.image, mixed[i].image)
        assert np.array_equal(example.mask, mixed[i].mask)
        assert example.findings == mixed[i].findings
        assert np.array_equal(np.rint(example.image * 255), cached.images[i])


def test_shapes_and_grey_values(healthy: Synthetic) -> None:
    assert healthy.images.shape == healthy.masks.shape == (48, 1, 64, 64)
    assert healthy.images.dtype == torch.float32
    assert healthy.masks.dtype == torch.bool
    assert 0 <= float(healthy.images.min()) < 0.05
    assert 0.95 < float(healthy.images.max()) <= 1
    levels = healthy.images * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert all(2 < mm * 64 / 128 < 5 for spacing in healthy.spacing_mm for mm in spacing)


def test_nothing_is_a_valid_number_of_pictures() -> None:
    none = generate(0, size=32)
    assert none.images.shape == none.masks.shape == (0, 1, 32, 32)
    assert len(none.labels) == len(load_synthetic(0)) == 0


def test_masks_are_two_lungs_of_human_size(healthy: Synthetic) -> None:
    counts, shares = [], []
    for mask, (row_mm, col_mm) in zip(healthy.masks[:, 0].numpy(), healthy.spacing_mm, strict=True):
        parts, count = ndimage.label(mask)
        sizes = np.sort(ndimage.sum_labels(mask, parts, range(1, count + 1)))[::-1]
        counts.append(count)
        shares.append(sizes[:2].sum() / sizes.sum())
        assert 150 < mask.sum() * row_mm * col_mm / 100 < 700  # cm2 of lung field
        columns = np.nonzero(mask.any(0))[0]
        assert mask[:, : columns[len(columns) // 3]].any()
        assert mask[:, columns[2 * len(columns) // 3] :].any()
    assert np.mean(np.array(counts) == 2) > 0.7  # else a corner of one pixel hangs on by its tip
    assert min(shares) > 0.97


def test_air_is_dark_and_the_heart_is_on_the_left(healthy: Synthetic) -> None:
    for image, mask in zip(healthy.images[:, 0], healthy.masks[:, 0], strict=True):
        rows = torch.nonzero(mask.any(1))
        below = image[int(rows[-1]) - 6 : int(rows[-1]) - 2, 24:40]
        assert image[mask].mean() < below.median()
    lungs = healthy.masks[:, 0].float().sum(0)
    lower = lungs[24:44]
    right, left = lower[:, :32].sum(), lower[:, 32:].sum()  # of the patient
    assert left < 0.95 * right


def test_the_truth_does_not_depend_on_the_size() -> None:
    small, large = generate(6, size=64, seed=1), generate(6, size=128, seed=1)
    coarse = torch.nn.functional.avg_pool2d(large.masks.float(), 2) > 0.5
    overlap = (coarse & small.masks).sum((1, 2, 3)) / (coarse | small.masks).sum((1, 2, 3))
    assert float(overlap.min()) > 0.93
    for a, b in zip(small.findings, large.findings, strict=True):
        assert [f.kind for f in a] == [f.kind for f in b]
        assert all(abs(2 * (f.row + 0.5) - (g.row + 0.5)) < 0.1 for f, g in zip(a, b, strict=True))


def test_masks_are_drawn_through_disease(healthy: Synthetic, ill: Synthetic) -> None:
    assert torch.equal(healthy.masks, ill.masks)
    assert healthy.labels.sum() == 0
    assert bool((ill.labels == 1).all())


def test_labels_and_findings_agree() -> None:
    made = generate(40, size=32, seed=2)
    assert 8 < int(made.labels.sum()) < 32
    for label, findings, site in zip(made.labels.tolist(), made.findings, made.sites, strict=True):
        assert bool(findings) == bool(label)
        assert all(f.kind in KINDS[site] and f.subtlety in range(1, 6) for f in findings)


def test_findings_lie_in_the_lung_and_make_it_lighter(healthy: Synthetic, ill: Synthetic) -> None:
    lighter = []
    row, col = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    for i, findings in enumerate(ill.findings):
        change = (ill.images[i] - healthy.images[i])[0]
        lung = ill.masks[i, 0]
        for f in findings:
            if f.kind != "miliary":
                assert bool(lung[round(f.row), round(f.col)])
            spot = ((row - f.row) ** 2 + (col - f.col) ** 2 < max(f.radius, 1.5) ** 2) & lung
            rest = lung & ~spot
            lighter.append(float(change[spot].mean() - (0 if f.kind == "miliary" else change[rest].mean())))
    assert np.mean(np.array(lighter) > 0) > 0.9


def test_a_higher_grade_is_easier_to_see() -> None:
    gain: dict[int, list[float]] = {}
    clear = generate(120, size=48, seed=5, site="a", finding_rate=0.0)
    nodules = generate(120, size=48, seed=5, site="a", finding_rate=1.0)
    for before, after, (f,) in zip(clear.images, nodules.images, nodules.findings, strict=True):
        patch = (0, slice(round(f.row) - 1, round(f.row) + 2), slice(round(f.col) - 1, round(f.col) + 2))
        gain.setdefault(f.subtlety or 0, []).append(float((after - before)[patch].mean()))
    assert np.mean(gain[1] + gain[2]) < np.mean(gain[4] + gain[5])


def test_sites_differ_as_the_real_sets_do() -> None:
    made = {site: generate(40, size=64, seed=4, site=site) for site in "abc"}
    black = {site: float((m.images < 0.02).float().mean()) for site, m in made.items()}
    assert black["b"] > 1.5 * max(black["a"], black["c"])  # wide borders
    width = {site: np.mean([s[1] for s in m.spacing_mm]) for site, m in made.items()}
    assert width["a"] < width["c"]  # a smaller film
    kinds = {site: {f.kind for fs in m.findings for f in fs} for site, m in made.items()}
    assert kinds["a"] == {"nodule"}
    assert "infiltrate" in kinds["b"] & kinds["c"]
    assert set(generate(30, size=32).sites) == {"a", "b", "c"}


def test_some_patients_come_back() -> None:
    examples = load_synthetic(16, size=32, seed=6)
    assert examples.patients[7] == examples.patients[6]
    assert examples.labels[7] == examples.labels[6]
    assert len(set(examples.patients)) == 14
    assert not np.array_equal(examples[6].image, examples[7].image)


def test_entries_name_what_is_behind_them() -> None:
    one, other = load_synthetic(4, size=32, seed=1), load_synthetic(4, size=48, seed=1)
    assert one.ids == other.ids
    assert one.entries[0].version != other.entries[0].version
    assert one.has_mask == [True] * 4
    assert {e.source for e in load_synthetic(4, site="c").entries} == {"synthetic-c"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n": -1}, "n must"),
        ({"n": 2.5}, "n must"),
        ({"size": 8}, "size must"),
        ({"size": "big"}, "size must"),
        ({"seed": -3}, "seed must"),
        ({"site": "d"}, "'mixed', got 'd'"),
        ({"finding_rate": 1.5}, "finding_rate must"),
        ({"finding_rate": float("nan")}, "finding_rate must"),
    ],
)
def test_arguments_that_cannot_be(wrong: dict, says: str) -> None:
    arguments = {"n": 1, **wrong}
    with pytest.raises(InputError, match=says):
        generate(**arguments)
    with pytest.raises(InputError, match=says):
        load_synthetic(**arguments)


def test_the_shipped_set_is_what_the_generator_makes() -> None:
    shipped, fresh = load_synthetic(), load_synthetic(64, seed=2019)
    assert shipped.ids == fresh.ids
    assert shipped.patients == fresh.patients
    assert shipped.labels == fresh.labels
    for i in (0, 7, 21, 40, 63):
        stored, drawn = shipped[i], fresh[i]
        off = np.abs(stored.image - drawn.image) * 255
        assert np.mean(off > 0.5) < 0.01  # another machine may round a pixel the other way
        assert off.max() < 2.5
        assert np.mean(stored.mask != drawn.mask) < 1e-3
        assert stored.spacing_mm == pytest.approx(drawn.spacing_mm, abs=1e-3)
        for a, b in zip(stored.findings, drawn.findings, strict=True):
            assert (a.kind, a.subtlety) == (b.kind, b.subtlety)
            assert (a.row, a.col, a.radius) == pytest.approx((b.row, b.col, b.radius), abs=0.02)


def test_the_shipped_set_can_be_chosen_by_site_only() -> None:
    parts = [load_synthetic(site=site) for site in "abc"]
    assert sum(map(len, parts)) == 64
    assert {e.source for e in parts[1].entries} == {"synthetic-b"}
    with pytest.raises(InputError, match="fixed"):
        load_synthetic(seed=4)


def test_write_set_makes_files_anyone_can_open(tmp_path: Path) -> None:
    write_set(tmp_path, 3, size=32, seed=1)
    assert len(list((tmp_path / "images").glob("*.png"))) == 3
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3
    assert (tmp_path / "cases.json").stat().st_size > 100


def test_more_tissue_and_bone_mean_less_light() -> None:
    rng = np.random.default_rng(0)
    exposure = draw_exposure(rng, "a")
    lung = torch.zeros(32, 32)
    lung[8:24, 8:24] = 1
    thin = torch.full((32, 32), 80.0)
    thick, bony = thin.clone(), torch.zeros(32, 32)
    thick[:, 16:] += 60
    bony[:, 16:] += 10
    for tissue, bone in ((thick, bony * 0), (thin, bony)):
        picture = expose(tissue, bone, lung, exposure, 2.8, np.random.default_rng(1))
        assert picture[:, 20:].mean() > picture[:, :12].mean() + 0.05


def test_shutters_leave_the_lungs_free() -> None:
    for seed in range(40):
        lung = torch.zeros(64, 64, dtype=torch.bool)
        lung[10:54, 12:52] = True
        picture = burn_in(torch.full((64, 64), 0.5), lung, "b", np.random.default_rng(seed))
        inside = picture[24:54, 14:48]
        assert float((inside == 0.5).float().mean()) == 1.0


def test_the_view_has_an_inverse() -> None:
    bends = ((6.0, 0.02, 1.0), (5.0, 0.02, 2.0), (8.0, 0.02, 3.0))
    view = View(field=(362.0, 430.0), apex=(0.48, 0.1), tilt=0.05, bends=bends)
    col, row = torch.rand(2, 100, generator=torch.Generator().manual_seed(0))
    back = view.to_picture(*view.to_patient(col, row))
    assert torch.allclose(torch.stack(back), torch.stack((col, row)), atol=2e-3)


def test_projection_is_physical() -> None:
    chest: Chest = draw_chest(np.random.default_rng(11))
    maps = project(chest, UPRIGHT, 96)
    assert bool((maps.tissue >= 0).all())
    assert bool((maps.bone >= 0).all())
    assert float(maps.tissue.max()) < 500
    assert float(maps.air.max()) <= 2 * chest.depth + 1e-3
    assert float(maps.air[maps.field > 0].mean()) > 50
    assert float(maps.tissue[maps.field > 10].mean()) < float(maps.tissue[-10:, 40:56].mean())


def test_several_are_projected_as_each_one_is() -> None:
    chests = [draw_chest(np.random.default_rng(seed)) for seed in (11, 12, 13)]
    tilted = View(field=(430.0, 362.0), apex=(0.46, 0.15), tilt=0.08, bends=((6.0, 0.02, 1.0),) * 3)
    views = [UPRIGHT, tilted, UPRIGHT]
    together_ = project_all(together(chests), together(views), 64)
    for i, (chest, view) in enumerate(zip(chests, views, strict=True)):
        alone = project(chest, view, 64)
        for name in ("tissue", "bone", "air", "field", "x", "y"):
            assert torch.allclose(getattr(together_[i], name), getattr(alone, name), atol=1e-3), name


def test_vessels_fork_and_thin_out_on_both_sides() -> None:
    chest = draw_chest(np.random.default_rng(5))
    x, y, radius = vessel_tree(together([chest]))
    assert x.shape == y.shape == (1, 2 * 14 * 31, 2)
    right, left = slice(0, 14), slice(14, 28)  # the trunks
    assert torch.allclose(x[0, right, 0], torch.tensor(-chest.hilum[0]))
    assert torch.allclose(x[0, left, 0], torch.tensor(chest.hilum[0]))
    assert torch.allclose(y[0, right, 0] - y[0, left, 0], torch.tensor(HILUM_LIFT))
    twigs = radius[0, -2 * 14 * 16 :]
    assert 0 < float(twigs.min()) < float(twigs.max()) < float(radius[0, :28].mean())


def test_blurred_is_a_gaussian_with_the_border_repeated() -> None:
    picture = torch.rand(48, 48, generator=torch.Generator().manual_seed(0))
    peer = ndimage.gaussian_filter(picture.numpy(), 1.5, mode="nearest", radius=4)
    assert np.allclose(blurred(picture, 1.5).numpy(), peer, atol=1e-6)
    for sigma in (0.1, 0.5, 3.0, 9.0):
        assert torch.allclose(blurred(torch.full((48, 48), 0.7), sigma), torch.tensor(0.7))
    smooth = torch.linspace(-2, 2, 48)[:, None].sin() * torch.linspace(-1, 2, 48).cos()
    peer = ndimage.gaussian_filter(smooth.numpy(), 6.0, mode="nearest")
    assert np.abs(blurred(smooth, 6.0).numpy() - peer).max() < 0.1  # on a coarser grid


def test_splat_keeps_the_volume_inside_and_drops_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    col, row = 0.1 + 0.8 * torch.rand(2, 3, 500, generator=generator)
    weight = torch.rand(3, 500, generator=generator)
    maps = splat(col, row, weight, 16)
    assert maps.shape == (3, 16, 16)
    assert torch.allclose(maps.sum((1, 2)), weight.sum(1))
    centre = (maps[0].sum(0) * (torch.arange(16) + 0.5)).sum() / weight[0].sum() / 16
    assert float(centre) == pytest.approx(float((weight[0] * col[0]).sum() / weight[0].sum()), abs=1e-4)
    for far in (2.0, -2.0):
        assert splat(col + far, row, weight, 16).sum() == 0
        assert splat(col, row + far, weight, 16).sum() == 0
