"""What can be wrong in a synthetic lung: nodules and the faces of tuberculosis, with a place and a grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cxr_tutorial.data.anatomy import Chest, View
from cxr_tutorial.data.example import Finding
from cxr_tutorial.data.projection import Projection, ball, lungs, root_, rounded, splat, step, texture

KINDS = {  # how often, by site
    "a": {"nodule": 1.0},
    "b": {"infiltrate": 0.55, "cavity": 0.2, "effusion": 0.15, "miliary": 0.1},
    "c": {"infiltrate": 0.4, "cavity": 0.2, "effusion": 0.28, "miliary": 0.12},
}
SUBTLETY = (0.16, 0.19, 0.33, 0.24, 0.08)  # how often JSRT's nodules have the grades 1 to 5
CANDIDATES = 600  # points among which a lesion finds its place
STRENGTH = (0.5, 0.8, 1.2, 1.7, 2.4)  # of a finding of each grade


@dataclass(frozen=True)
class Lesion:
    """One finding before it is drawn: its kind, its grade from 1 (extremely subtle) to 5 (obvious), its seed."""

    kind: str
    grade: int
    seed: int


def draw_lesions(rng: np.random.Generator, site: str) -> list[Lesion]:
    """What one ill patient of a site has: infiltrates and cavities come in ones to fours."""
    kinds = KINDS[site]
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    grade = int(rng.choice(5, p=SUBTLETY)) + 1
    count = int(rng.integers(1, 5)) if kind in ("infiltrate", "cavity") else 1
    return [Lesion(kind, grade, int(rng.integers(2**31))) for _ in range(count)]


@dataclass(frozen=True)
class Place:
    """The middle of a lesion: as shares of the picture's width and height, and in mm of the patient."""

    col: float
    row: float
    x: float
    y: float


def place_lesions(
    lesions: Sequence[Lesion], rngs: Sequence[np.random.Generator], chest: Chest[Tensor], view: View[Tensor]
) -> list[Place]:
    """A place in the lung field where each lesion's kind likes to be; the lesion's own patient and view are given.

    It is drawn in the patient, so that two pictures of one patient show it in the same place.
    """
    draws = np.stack([rng.random(3 * CANDIDATES) for rng in rngs])
    across, down, luck = torch.as_tensor(draws, dtype=torch.float32, device=view.tilt.device)[:, None].chunk(3, dim=-1)
    x, y = (2 * across - 1) * chest.width, down * (torch.maximum(*chest.dome) + chest.angle)  # (B, 1, CANDIDATES)
    depth = lungs(chest, x, y).field
    col, row = view.to_picture(x, y)
    apices = torch.exp(-0.5 * ((y / chest.dome[0] - 0.25) / 0.2) ** 2)
    lowest_corner = torch.exp((y - 1.1 * chest.dome[0]) / 12) * step(x.abs() - 0.55 * chest.width)
    likings = {"infiltrate": apices, "cavity": apices, "effusion": lowest_corner}
    everywhere = torch.ones_like(y)
    liking = torch.stack([likings.get(lesion.kind, everywhere)[i] for i, lesion in enumerate(lesions)])
    allowed = (depth > 6) & (col > 0.03) & (col < 0.97) & (row > 0.03) & (row < 0.97)
    allowed |= ~allowed.any(-1, keepdim=True) & (depth >= depth.amax(-1, keepdim=True))
    race = luck.clamp_min(1e-9).log() / (liking + 1e-6)
    best = race.masked_fill(~allowed, -torch.inf).argmax(-1, keepdim=True)  # first of exponential waiting times
    col, row = col.gather(-1, best), row.gather(-1, best)
    middles = torch.cat([col, row, *view.to_patient(col, row)], dim=-1)[:, 0]
    return [Place(*middle) for middle in middles.tolist()]


def add_lesion(
    lesion: Lesion,
    place: Place,
    rng: np.random.Generator,
    maps: Projection,
    chest: Chest[float],
    view: View[float],
) -> tuple[Tensor, list[Finding]]:
    """Water-like tissue that a lesion adds to the lungs, (H, W) in mm, and where in the picture it is.

    >>> from cxr_tutorial.data.anatomy import draw_chest, together
    >>> from cxr_tutorial.data.projection import project
    >>> chest = draw_chest(np.random.default_rng(0))
    >>> view = View(field=(358.0, 358.0), apex=(0.5, 0.08), tilt=0.0, bends=((0.0, 0.0, 0.0),) * 3)
    >>> lesion, rng = Lesion("nodule", 5, 1), np.random.default_rng(1)
    >>> [place] = place_lesions([lesion], [rng], together([chest]), together([view]))
    >>> added, (nodule,) = add_lesion(lesion, place, rng, project(chest, view, 64), chest, view)
    >>> nodule.kind, nodule.subtlety, bool(added.max() > 5)
    ('nodule', 5, True)
    """
    size = maps.x.shape[-1]
    col, row, cx, cy = place.col, place.row, place.x, place.y
    strength = STRENGTH[lesion.grade - 1]
    pixel = (view.field[0] * view.field[1]) ** 0.5 / size
    x, y = maps.x, maps.y
    flat = float(rng.uniform(0.8, 1.25))

    def found(radius: float, at: tuple[float, float] = (col, row)) -> Finding:
        return Finding(lesion.kind, at[1] * size - 0.5, at[0] * size - 0.5, radius / pixel, lesion.grade)

    if lesion.kind == "nodule":
        radius = float(rng.uniform(6, 16)) * (0.75 + 0.35 * strength)  # the obvious ones are large, too
        bulk = 2 * radius * _dome(ball(x, y, cx, cy, radius, radius * flat))
        return min(strength, 1.6) * bulk * rounded(maps.air, 25.0), [found(radius)]

    if lesion.kind == "miliary":
        count = 9000
        radii = rng.uniform(1.0, 2.4, count) * (0.8 + 0.2 * strength)
        drawn = np.stack([rng.random(count), rng.random(count), 4.19 * radii**3 * strength / pixel**2])
        right, down, mass = torch.as_tensor(drawn, dtype=torch.float32, device=x.device)[:, None]
        dots = splat(right, down, mass, size)[0]
        middles = [torch.tensor([side * 0.62 * chest.width, 0.45 * chest.dome[0]]) for side in (-1, 1)]
        places = [[float(v) for v in view.to_picture(middle[0], middle[1])] for middle in middles]
        both = [found(0.3 * chest.width, (place[0], place[1])) for place in places]
        return (1.5 * dots + 6 * strength) * rounded(maps.air, 60.0), both

    if lesion.kind == "effusion":
        height = float(rng.uniform(14, 34)) * (0.6 + 0.9 * strength)
        side = 1.0 if cx > 0 else -1.0
        s = (side * x).clamp_min(0) / chest.width
        level = chest.dome[int(cx > 0)] + 0.3 * chest.angle - height - 1.3 * height * (s * s).square()  # the meniscus
        fluid = rounded(y - level, 30.0) * step(side * x)
        return (1 - chest.lung_density) * fluid * maps.air, [found(0.6 * height)]

    radius = float(rng.uniform(18, 46)) * (0.8 + 0.2 * strength)
    cloud = (0.45 + 0.8 * texture(rng, 24, size, x.device)).clamp_min(0)
    patch = (1 - ball(x, y, cx, cy, radius, radius * flat)).clamp_min(0) * cloud
    if lesion.kind == "infiltrate":
        return 70 * strength * patch * rounded(maps.air, 25.0), [found(radius)]
    hole, wall = float(rng.uniform(8, 20)), float(rng.uniform(3, 8))
    outer, inner = hole + wall, hole
    shell = outer * _dome(ball(x, y, cx, cy, outer, outer)) - inner * _dome(ball(x, y, cx, cy, inner, inner))
    return strength * (1.6 * shell + 30 * patch) * rounded(maps.air, 25.0), [found(outer)]


def _dome(squared: Tensor) -> Tensor:
    """Half the chord through a unit ball."""
    return root_(1 - squared)
