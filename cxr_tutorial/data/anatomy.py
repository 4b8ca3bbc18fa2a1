"""A patient as a handful of lengths, and how the patient stands before the film.

x runs to the patient's left (the right of the picture), y runs down, both in millimetres; the origin lies on
the spine at the height of the lungs' apices. `projection.project` sends the rays through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Chest:
    """One patient. Lengths in mm, in the plane of the film; `x` is lateral, `y` down from the apices."""

    female: bool
    width: float  # half the inner width of the rib cage where it is widest
    depth: float  # half its inner depth
    cage: float  # y where the cage is widest: short = barrel, long = bell
    flare: float  # how the cage widens (> 0) or narrows below that, per mm
    apex: float  # x of the apex
    dome: tuple[float, float]  # y of the right and left dome's top
    dome_at: tuple[float, float]  # x of it, as a share of `width`
    angle: float  # how much lower the costophrenic angle lies
    angle_power: float  # how late the dome falls towards it
    mediastinum: tuple[float, float]  # half-widths, right and left
    medial_fat: float  # share of the lung's depth that fat and vessels take beside the mediastinum
    thoracic_inlet: float  # y where the mediastinum takes over from the apex
    knob: tuple[float, float, float]  # aortic knob: x, y, radius
    trunk: float  # radius of the great vessels from the knob to the heart
    atrium: tuple[float, float, float, float]  # right heart: x, y, radii
    ventricle: tuple[float, float, float, float, float]  # left heart: x, y, long and short radius, angle
    heart_depth: float
    wall: float  # thickness of the chest wall at the side
    belly: float  # tissue in front of and behind the cage
    neck: float  # half-width
    shoulder: tuple[float, float]  # x, y of the shoulder's top
    neck_y: float  # y where the neck meets the trapezius
    axilla: float  # y of the armpit
    arm: float  # slope of the arm, mm down per mm outwards
    breast: tuple[float, float, float, float]  # x, y, radius, thickness
    pectoral: float
    rib_pitch: float  # from one rib to the next
    rib_first: float  # y of the first rib at the spine
    rib_drop: float  # half the fall of the fifth rib from back to front
    rib_height: float  # half the height of a rib
    rib_bone: float  # dense bone crossed in the middle of a rib, mm
    rib_hump: float
    cartilage: float  # x where the front ribs turn into cartilage
    spine: float  # half-width of a vertebra
    spine_bone: float
    clavicle: tuple[float, float, float, float]  # y at the sternum, y at the shoulder, S-bend, half-height
    scapula: tuple[float, float, float]  # x of the medial border, y of the inferior angle, blade thickness
    hilum: tuple[float, float]  # x, y of the right one; the left lies 10 mm higher
    vessels: float  # calibre of the first branches
    lung_density: float
    bubble: tuple[float, float, float, float]  # gastric air: x, y below the dome, radii
    rotation: float  # about the long axis: mm that the front moves against the back, per mm of depth
    hilum_size: float  # of its vessels, 1 = usual
    seed: int  # of what has no name: vessel tree, bowel gas, unevenness of tissue


def draw_chest(rng: np.random.Generator) -> Chest:
    """One patient from the spread of adult anatomy, with a full breath or less."""

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def n(mean: float, spread: float) -> float:
        return float(mean + spread * min(max(rng.standard_normal(), -2.2), 2.2))

    female = bool(rng.random() < 0.45)
    stature = n(0.93 if female else 1.02, 0.05)
    girth = n(0.0, 1.0)  # slim to stout
    width = stature * n(130, 7)
    dome = stature * n(220, 19) - 6 * girth
    heart = stature * n(1.0, 0.09) + 0.04 * girth
    lift = stature * 220 - dome  # a small breath lifts and widens the heart
    wall = max(18.0, n(36, 7) + 7 * girth)
    knob = n(19, 4)
    return Chest(
        female=female,
        width=width,
        depth=stature * n(88, 8),
        cage=stature * u(120, 270),
        flare=u(-0.05, 0.1),
        apex=stature * n(48, 5),
        dome=(dome, dome + n(9, 7)),
        dome_at=(u(0.25, 0.5), u(0.3, 0.55)),
        angle=u(35, 80),
        angle_power=u(1.5, 2.6),
        mediastinum=(n(22, 4), n(24, 4)),
        medial_fat=u(0.0, 0.55),
        thoracic_inlet=n(62, 12),
        knob=(n(20, 4), stature * n(84, 8), knob),
        trunk=n(25, 4),
        atrium=(n(-3, 5), dome - heart * n(42, 7), heart * n(33, 5), heart * n(62, 6)),
        ventricle=(
            heart * n(29, 5),
            dome + 8 - heart * n(42, 7),
            heart * n(80, 8),
            heart * n(44, 5),
            u(0.55, 1.05) - 0.004 * lift,
        ),
        heart_depth=heart * n(52, 6),
        wall=wall,
        belly=max(9.0, n(15, 4) + 6 * girth),
        neck=stature * n(56, 5) + 3 * girth,
        shoulder=(stature * n(186, 11), n(-6, 14)),
        neck_y=n(-42, 14),
        axilla=stature * n(140, 20),
        arm=u(0.8, 3.5),
        breast=(stature * n(92, 10), stature * n(205, 18), n(66, 9), n(38, 13) if female else 0.0),
        pectoral=max(0.0, n(9, 6)) * (0.5 if female else 1.2),
        rib_pitch=dome / u(9.2, 10.6),
        rib_first=n(4, 5),
        rib_drop=dome * n(0.23, 0.03),
        rib_height=n(6.6, 0.7),
        rib_bone=max(2.5, n(6.5, 2.0)),
        rib_hump=n(5, 5),
        cartilage=n(66, 10),
        spine=stature * n(19, 1.5),
        spine_bone=n(6, 2),
        clavicle=(n(50, 13), n(18, 10), n(4, 4), n(5.6, 0.7)),
        scapula=(n(128, 13), stature * n(172, 15), n(4, 1.2)),
        hilum=(n(44, 6), stature * n(112, 8)),
        vessels=n(2.6, 0.6),
        lung_density=u(0.14, 0.28),
        bubble=(n(62, 14), u(4, 30), u(12, 40), u(6, 24)),
        rotation=n(0, 0.05),
        hilum_size=max(0.5, n(1.3, 0.45)),
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class View:
    """How the patient stands before the film.

    Attributes
    ----------
    field : (width, height) of the picture in mm of the patient.
    apex : (column, row) of the origin as shares of the picture.
    tilt : the patient leans, in radians.
    bends : amplitude in mm, waves per mm and phase of the sideways and upward bends of the body.
    """

    field: tuple[float, float]
    apex: tuple[float, float]
    tilt: float
    bends: tuple[tuple[float, float, float], ...]

    def to_patient(self, col: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Where in the patient a point of the picture lies; `col`, `row` are shares of the picture."""
        x, y = self._upright(col, row)
        dx, dy = self._bend(x, y)
        return x + dx, y + dy

    def to_picture(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `to_patient` (three fixed-point steps: the bends are gentle)."""
        px, py = x, y
        for _ in range(3):
            dx, dy = self._bend(px, py)
            px, py = x - dx, y - dy
        cos, sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))
        col = (cos * px - sin * py) / self.field[0] + self.apex[0]
        row = (sin * px + cos * py) / self.field[1] + self.apex[1]
        return col, row

    def _upright(self, col: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))
        x = (col - self.apex[0]) * self.field[0]
        y = (row - self.apex[1]) * self.field[1]
        return cos * x + sin * y, cos * y - sin * x

    def _bend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (a, f, p), (b, g, q), (c, h, r) = self.bends
        dx = a * torch.sin(f * y + p) + b * torch.sin(g * x + q)
        return dx, c * torch.sin(h * x + r)
