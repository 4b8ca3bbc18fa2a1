"""The synthetic X-ray: an analytic chest, findings in it, and a film of it, with exact truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cxr_tutorial.data.anatomy import View, draw_chest, together
from cxr_tutorial.data.example import Entry, Example, Examples, Finding
from cxr_tutorial.data.exposure import SITES, burn_in, draw_exposure, expose_all
from cxr_tutorial.data.lesions import add_lesion, draw_lesions, place_lesions
from cxr_tutorial.data.projection import project_all, step
from cxr_tutorial.errors import InputError
from cxr_tutorial.machine import keep_freed_memory
from cxr_tutorial.shipped import shipped

VERSION = 1  # of the generator: raise it when the pixels change
BLOCK = 2**18  # pixels that are drawn at once: enough to share the cost of a call, few enough for the cache


@dataclass(frozen=True)
class Case:
    """What is decided before a pixel is drawn: who, where, and whether there is a finding."""

    id: str
    patient: str
    site: str
    label: int
    person: int
    seed: int
    index: int


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Synthetic X-rays with their truth.

    Attributes
    ----------
    images : (N, 1, H, W) float32 in [0, 1], in steps of 1/255; air is dark and bone is light.
    masks : (N, 1, H, W) bool, the lung fields.
    labels : (N,) int64, 1 = finding.
    sites : the site of each picture.
    findings : where and what, in pixels; empty for label 0.
    spacing_mm : (row, column) mm per pixel of each picture.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    sites: tuple[str, ...]
    findings: tuple[tuple[Finding, ...], ...]
    spacing_mm: tuple[tuple[float, float], ...]


def _check(n: int, size: int, seed: int, site: str, finding_rate: float) -> None:
    if not isinstance(n, int) or n < 0:
        raise InputError(f"n must be a whole number >= 0, got {n!r}: choose how many pictures to make")
    if not isinstance(size, int) or not 16 <= size <= 2048:
        raise InputError(f"size must be a whole number from 16 to 2048, got {size!r}: 128 is a good start")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be a whole number >= 0, got {seed!r}")
    if site not in (*SITES, "mixed"):
        raise InputError(f"site must be one of 'a', 'b', 'c', 'mixed', got {site!r}")
    if not 0 <= finding_rate <= 1:
        raise InputError(f"finding_rate must lie in [0, 1], got {finding_rate!r}: 0.5 makes half of them ill")


def _case(index: int, seed: int, site: str, finding_rate: float) -> Case:
    person = index - 1 if index % 8 == 7 else index  # every eighth picture is a second one of the last patient
    rng = np.random.default_rng([seed, person, 0])
    chosen = site if site != "mixed" else str(rng.choice(SITES))
    label = int(rng.random() < finding_rate)
    stem = f"synthetic-{chosen}-{seed}"
    return Case(f"{stem}-{index:05d}", f"{stem}-p{person:05d}", chosen, label, person, seed, index)


def draw_view(rng: np.random.Generator, site: str) -> View[float]:
    """How the patient stands before the film at each site: a 36 cm film, a tall or wide plate, a wide detector."""

    def u(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

    magnify = u(0.9, 1.06)
    if site == "a":
        field, row = (358.0, 358.0), u(0.02, 0.13)
    elif site == "b":
        tall = rng.random() < 0.6
        field = (362.0, 430.0) if tall else (430.0, 362.0)
        row = u(0.05, 0.17)
        if rng.random() < 0.1:
            magnify *= u(1.15, 1.5)
    else:
        width = u(375, 450)
        field, row = (width, width * u(0.92, 1.05)), u(0.07, 0.2)
    bends = (
        (u(-10, 10), 2 * np.pi / u(250, 700), u(0, 6.28)),
        (u(-6, 6), 2 * np.pi / u(200, 500), u(0, 6.28)),
        (u(-8, 8), 2 * np.pi / u(250, 700), u(0, 6.28)),
    )
    return View((field[0] * magnify, field[1] * magnify), (u(0.45, 0.55), row), u(-0.09, 0.09), bends)


@dataclass(frozen=True, eq=False)
class Drawn:
    """One picture and its truth: (H, W) maps."""

    image: Tensor
    lung: Tensor
    findings: tuple[Finding, ...]
    spacing_mm: tuple[float, float]


@torch.inference_mode()
def _draw_block(cases: Sequence[Case], size: int, device: str | torch.device) -> list[Drawn]:
    people = [np.random.default_rng([case.seed, case.person, 1]) for case in cases]
    rngs = [np.random.default_rng([case.seed, case.index, 2]) for case in cases]
    chests = [draw_chest(person) for person in people]
    views = [draw_view(rng, case.site) for rng, case in zip(rngs, cases, strict=True)]
    exposures = [draw_exposure(rng, case.site) for rng, case in zip(rngs, cases, strict=True)]
    maps = project_all(together(chests, device), together(views, device), size)

    ill = [i for i, case in enumerate(cases) if case.label]
    lesions = [(i, lesion) for i in ill for lesion in draw_lesions(people[i], cases[i].site)]
    findings: list[list[Finding]] = [[] for _ in cases]
    if lesions:
        where, what = zip(*lesions, strict=True)
        patients, stands = (together([parts[i] for i in where], device) for parts in (chests, views))
        chances = [np.random.default_rng(lesion.seed) for lesion in what]
        places = place_lesions(what, chances, patients, stands)
        for i, lesion, place, chance in zip(where, what, places, chances, strict=True):
            added, found = add_lesion(lesion, place, chance, maps[i], chests[i], views[i])
            maps.tissue[i] += added
            findings[i] += found

    pixels = [(view.field[0] * view.field[1]) ** 0.5 / size for view in views]
    images = expose_all(maps.tissue, maps.bone, step(maps.field), exposures, pixels, rngs)
    lungs = maps.field > 0
    for image, lung, case, rng in zip(images, lungs, cases, rngs, strict=True):
        image.copy_(burn_in(image, lung, case.site, rng))
    images = (images * 255).round_() / 255
    spacings = [(view.field[1] / size, view.field[0] / size) for view in views]
    return [Drawn(*parts) for parts in zip(images, lungs, map(tuple, findings), spacings, strict=True)]


def _draw(cases: Sequence[Case], size: int, device: str | torch.device = "cpu") -> Iterator[Drawn]:
    """Pictures, drawn a block at a time; each is the same in whichever block."""
    keep_freed_memory()
    count = max(1, min(64, BLOCK // size**2))
    for first in range(0, len(cases), count):
        yield from _draw_block(cases[first : first + count], size, device)


def generate(
    n: int,
    *,
    size: int = 128,
    seed: int = 0,
    site: str = "mixed",
    finding_rate: float = 0.5,
    device: str | torch.device = "cpu",
) -> Synthetic:
    """`n` synthetic chest X-rays; picture `i` depends on `seed` and `i` alone, not on `n`.

    Sites differ as the three real sets differ: "a" like JSRT (film, nodules), "b" like Montgomery (dark plates
    with wide borders, apical tuberculosis), "c" like Shenzhen (digital, processed, more effusions).

    Parameters
    ----------
    n : how many.
    size : height and width in pixels.
    seed : of everything.
    site : "a", "b", "c" or "mixed".
    finding_rate : share of patients with a finding.
    device : where they are drawn and stay.

    Raises
    ------
    InputError
        For a size, site, rate or number that cannot be.

    Notes
    -----
    Introduced in chapter 1.

    >>> made = generate(4, size=64, seed=1)
    >>> made.images.shape, made.masks.dtype, len(made.findings)
    (torch.Size([4, 1, 64, 64]), torch.bool, 4)
    """
    _check(n, size, seed, site, finding_rate)
    cases = [_case(i, seed, site, finding_rate) for i in range(n)]
    drawn = list(_draw(cases, size, device))
    empty = torch.empty(0, size, size, device=device)
    return Synthetic(
        images=torch.stack([d.image for d in drawn])[:, None] if drawn else empty[:, None],
        masks=torch.stack([d.lung for d in drawn])[:, None] if drawn else empty[:, None].bool(),
        labels=torch.tensor([case.label for case in cases], dtype=torch.int64, device=device),
        sites=tuple(case.site for case in cases),
        findings=tuple(d.findings for d in drawn),
        spacing_mm=tuple(d.spacing_mm for d in drawn),
    )


def load_synthetic(
    n: int | None = None,
    *,
    seed: int = 0,
    size: int = 128,
    site: str = "mixed",
    finding_rate: float = 0.5,
) -> Examples:
    """Synthetic chest X-rays as `Examples`: `n` of them drawn when they are read, or the fixed set that ships.

    Parameters
    ----------
    n : how many; None for the shipped set (64 pictures of 128 pixels from all sites), of which only `site` can
        be chosen.
    seed, size, site, finding_rate : see `generate`.

    Returns
    -------
    Examples
        Every eighth picture is a second one of the patient before it: split by patient.

    Raises
    ------
    InputError
        For arguments that cannot be, or where the shipped set is missing.

    Notes
    -----
    Introduced in chapter 1.

    >>> load_synthetic(3, seed=5, size=64, site="a")[2].id
    'synthetic-a-5-00002'
    >>> len(load_synthetic())
    64
    """
    if n is None:
        if (seed, size, finding_rate) != (0, 128, 0.5):
            raise InputError("the shipped synthetic set is fixed: give n to choose seed, size or finding_rate")
        _check(0, size, seed, site, finding_rate)
        return _load_shipped(shipped("synthetic"), site)
    _check(n, size, seed, site, finding_rate)
    cases = {case.id: case for case in (_case(i, seed, site, finding_rate) for i in range(n))}
    version = f"synthetic-{VERSION}-{size}-{seed}-{site}-{finding_rate}"

    def read_all(entries: Sequence[Entry]) -> Iterator[Example]:
        return _examples([cases[entry.id] for entry in entries], size)

    return Examples(
        entries=tuple(_entry(case, version) for case in cases.values()),
        read=lambda entry: next(read_all([entry])),
        name=f"synthetic-{site}",
        release=f"synthetic generator {VERSION}, seed {seed}, {size} px",
        read_all=read_all,
    )


def lesion_grades(n: int, *, seed: int = 0, site: str = "mixed", finding_rate: float = 0.5) -> list[int]:
    """How clearly the finding of each picture of `load_synthetic(n, ...)` will show, known before a pixel is drawn.

    Parameters
    ----------
    n, seed, site, finding_rate : see `generate`.

    Returns
    -------
    JSRT's grades, 1 extremely subtle to 5 obvious; 0 for a picture without a finding.

    >>> lesion_grades(4, seed=5)[:2] == [
    ...     one.findings[0].subtlety if one.findings else 0 for one in load_synthetic(4, seed=5, size=16)[:2]
    ... ]
    True
    """
    _check(n, 16, seed, site, finding_rate)
    grades = []
    for case in (_case(i, seed, site, finding_rate) for i in range(n)):
        person = np.random.default_rng([seed, case.person, 1])
        draw_chest(person)  # the lesions' draws come after the chest's
        grades.append(draw_lesions(person, case.site)[0].grade if case.label else 0)
    return grades


def _entry(case: Case, version: str) -> Entry:
    return Entry(case.id, case.patient, f"synthetic-{case.site}", case.label, True, version=version)


def _examples(cases: Sequence[Case], size: int) -> Iterator[Example]:
    for case, drawn in zip(cases, _draw(cases, size), strict=True):
        yield Example(
            image=drawn.image.numpy().copy(),  # else one example keeps the whole block alive
            mask=drawn.lung.numpy().copy(),
            label=case.label,
            id=case.id,
            patient=case.patient,
            source=f"synthetic-{case.site}",
            spacing_mm=drawn.spacing_mm,
            findings=drawn.findings,
        )


def write_set(folder: str | Path, n: int = 64, *, size: int = 128, seed: int = 2019) -> None:
    """Write a set as it ships in `data/synthetic/`: `images/*.png`, `masks/*.png` and `cases.json`.

    The shipped set is made anew by
    `python -c "from cxr_tutorial.data.synthetic import write_set; write_set('data/synthetic')"`.
    """
    from PIL import Image

    folder = Path(folder)
    rows = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for example in _examples([_case(index, seed, "mixed", 0.5) for index in range(n)], size):
        assert example.mask is not None
        assert example.spacing_mm is not None
        Image.fromarray((example.image * 255).round().astype(np.uint8)).save(
            folder / "images" / f"{example.id}.png", optimize=True
        )
        Image.fromarray(example.mask).save(folder / "masks" / f"{example.id}.png", optimize=True)
        rows.append(
            {
                "id": example.id,
                "patient": example.patient,
                "source": example.source,
                "label": example.label,
                "spacing_mm": [round(v, 4) for v in example.spacing_mm],
                "findings": [
                    {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(f).items()}
                    for f in example.findings
                ],
            }
        )
    lines = ",\n ".join(json.dumps(row) for row in rows)
    head = json.dumps({"generator": VERSION, "seed": seed, "size": size})
    (folder / "cases.json").write_text(f'{{"made_by": {head},\n"cases": [\n {lines}\n]}}\n', encoding="utf-8")


def _load_shipped(folder: Path, site: str) -> Examples:
    from PIL import Image

    table = folder / "cases.json"
    if not table.is_file():
        raise InputError(f"{table} is missing: expected the shipped synthetic set; reinstall, or pass n to draw one")
    text = table.read_text(encoding="utf-8")
    content = json.loads(text)
    wanted = [row for row in content["cases"] if site in ("mixed", row["source"][-1])]
    rows = {row["id"]: row for row in wanted}
    made = content["made_by"]
    version = f"shipped-{made['generator']}-{made['seed']}-{made['size']}"

    def read(entry: Entry) -> Example:
        row = rows[entry.id]
        image, mask = (np.asarray(Image.open(path)) for path in entry.files)
        spacing = row["spacing_mm"]
        return Example(
            image=np.divide(image, 255, dtype=np.float32),
            mask=mask.astype(bool),
            label=row["label"],
            id=row["id"],
            patient=row["patient"],
            source=row["source"],
            spacing_mm=(spacing[0], spacing[1]),
            findings=tuple(Finding(**finding) for finding in row["findings"]),
        )

    entries = tuple(
        Entry(
            row["id"],
            row["patient"],
            row["source"],
            row["label"],
            True,
            (folder / "images" / f"{row['id']}.png", folder / "masks" / f"{row['id']}.png"),
            version,
        )
        for row in wanted
    )
    return Examples(entries, read, f"synthetic-{site}", f"the {len(entries)} synthetic X-rays that ship")
