"""A patient as a handful of lengths, and how the patient stands before the film.

x runs to the patient's left (the right of the picture), y runs down, both in millimetres; the origin lies on
the spine at the height of the lungs' apices. `projection.project` sends the rays through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

HILUM_LIFT = 10.0  # mm by which the left hilum stands higher than the right

Number = TypeVar("Number", float, Tensor)
Length = float | Tensor  # mm; a tensor for several patients at once


@dataclass(frozen=True)
class Chest(Generic[Number]):
    """One patient, or several at once (see `together`).

    Lengths in mm, in the plane of the film; `x` is lateral, `y` down from the apices.
    """

    female: Number  # 1 or 0
    width: Number  # half the inner width of the rib cage where it is widest
    depth: Number  # half its inner depth
    cage: Number  # y where the cage is widest: short = barrel, long = bell
    flare: Number  # how the cage widens (> 0) or narrows below that, per mm
    apex: Number  # x of the apex
    dome: tuple[Number, Number]  # y of the right and left dome's top
    dome_at: tuple[Number, Number]  # x of it, as a share of `width`
    angle: Number  # how much lower the costophrenic angle lies
    angle_power: Number  # how late the dome falls towards it
    mediastinum: tuple[Number, Number]  # half-widths, right and left
    medial_fat: Number  # share of the lung's depth that fat and vessels take beside the mediastinum
    thoracic_inlet: Number  # y where the mediastinum takes over from the apex
    knob: tuple[Number, Number, Number]  # aortic knob: x, y, radius
    trunk: Number  # radius of the great vessels from the knob to the heart
    atrium: tuple[Number, Number, Number, Number]  # right heart: x, y, radii
    ventricle: tuple[Number, Number, Number, Number, Number]  # left heart: x, y, long and short radius, angle
    heart_depth: Number
    wall: Number  # thickness of the chest wall at the side
    belly: Number  # tissue in front of and behind the cage
    neck: Number  # half-width
    shoulder: tuple[Number, Number]  # x, y of the shoulder's top
    neck_y: Number  # y where the neck meets the trapezius
    axilla: Number  # y of the armpit
    arm: Number  # slope of the arm, mm down per mm outwards
    breast: tuple[Number, Number, Number, Number]  # x, y, radius, thickness
    pectoral: Number
    rib_pitch: Number  # from one rib to the next
    rib_first: Number  # y of the first rib at the spine
    rib_drop: Number  # half the fall of the fifth rib from back to front
    rib_height: Number  # half the height of a rib
    rib_bone: Number  # dense bone crossed in the middle of a rib, mm
    rib_hump: Number
    cartilage: Number  # x where the front ribs turn into cartilage
    spine: Number  # half-width of a vertebra
    spine_bone: Number
    clavicle: tuple[Number, Number, Number, Number]  # y at the sternum, y at the shoulder, S-bend, half-height
    scapula: tuple[Number, Number, Number]  # x of the medial border, y of the inferior angle, blade thickness
    hilum: tuple[Number, Number]  # x, y of the right one; the left lies 10 mm higher
    vessels: Number  # calibre of the first branches
    lung_density: Number
    bubble: tuple[Number, Number, Number, Number]  # gastric air: x, y below the dome, radii
    rotation: Number  # about the long axis: mm that the front moves against the back, per mm of depth
    hilum_size: Number  # of its vessels, 1 = usual
    seeds: tuple[int, ...]  # of what has no name, one per patient: vessel tree, bowel gas, unevenness of tissue


def draw_chest(rng: np.random.Generator) -> Chest[float]:
    """One patient from the spread of adult anatomy, with a full breath or less."""

    def u(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

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
        female=float(female),
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
        seeds=(int(rng.integers(2**31)),),
    )


def turn(angle: float | Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine."""
    angle = torch.as_tensor(angle)
    return angle.cos(), angle.sin()


@dataclass(frozen=True)
class View(Generic[Number]):
    """How the patient stands before the film, or several patients (see `together`).

    Attributes
    ----------
    field : (width, height) of the picture in mm of the patient.
    apex : (column, row) of the origin as shares of the picture.
    tilt : the patient leans, in radians.
    bends : amplitude in mm, waves per mm and phase of the sideways and upward bends of the body.
    """

    field: tuple[Number, Number]
    apex: tuple[Number, Number]
    tilt: Number
    bends: tuple[tuple[Number, Number, Number], ...]

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
        cos, sin = turn(self.tilt)
        col = (cos * px - sin * py) / self.field[0] + self.apex[0]
        row = (sin * px + cos * py) / self.field[1] + self.apex[1]
        return col, row

    def _upright(self, col: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = turn(self.tilt)
        x = (col - self.apex[0]) * self.field[0]
        y = (row - self.apex[1]) * self.field[1]
        return cos * x + sin * y, cos * y - sin * x

    def _bend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (a, f, p), (b, g, q), (c, h, r) = self.bends
        dx = a * torch.sin(f * y + p) + b * torch.sin(g * x + q)
        return dx, c * torch.sin(h * x + r)


def together(parts: Sequence[Any], device: str | torch.device = "cpu") -> Any:
    """Several patients, views or exposures as one, each of whose numbers is a (B, 1, 1) tensor on `device`.

    A formula that makes an (H, W) map of one makes (B, H, W) maps of all in as many operations; most of what an
    operation costs on a small map is the call.

    >>> both = together([draw_chest(np.random.default_rng(seed)) for seed in (0, 1)])
    >>> both.width.shape, both.dome[0].shape, len(both.seeds)
    (torch.Size([2, 1, 1]), torch.Size([2, 1, 1]), 2)
    """
    names = [field.name for field in fields(parts[0]) if field.name != "seeds"]
    rows = [_flat(tuple(getattr(part, name) for name in names)) for part in parts]
    columns = torch.as_tensor(np.array(rows, np.float32).T, device=device)[..., None, None].unbind()
    values = _shaped(tuple(getattr(parts[0], name) for name in names), iter(columns))
    seeds = {"seeds": tuple(seed for part in parts for seed in part.seeds)} if hasattr(parts[0], "seeds") else {}
    return type(parts[0])(**dict(zip(names, values, strict=True)), **seeds)


def _flat(value: Any) -> list[float]:
    return [number for part in value for number in _flat(part)] if isinstance(value, tuple) else [value]


def _shaped(like: Any, numbers: Iterator[Tensor]) -> Any:
    """The numbers in tuples within tuples, as in `like`."""
    return tuple(_shaped(part, numbers) for part in like) if isinstance(like, tuple) else next(numbers)


def vessel_tree(chest: Chest[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The lungs' vessels as straight pieces: x and y of both ends, (B, P, 2), and the radius, (B, P), in mm."""
    trunks, forks = 14, 5  # on each side, and how often each one forks
    sizes = [trunks, *(trunks * 2**level * draws for level in range(forks) for draws in (1, 2, 2))]
    bent, shares = [], []
    for seed in chest.seeds:
        rng = np.random.default_rng(seed + 1)
        for _ in "rl":
            bent.append(rng.standard_normal(trunks))
            shares.append(rng.random(sum(sizes)))
    spread, share = (
        torch.as_tensor(np.array(drawn, np.float32), device=chest.width.device).unflatten(0, (-1, 2))
        for drawn in (bent, shares)
    )  # (B, 2, ...): the right lung's, then the left one's
    first, *rest = share.split(sizes, dim=-1)

    side = spread.new_tensor([[-1.0], [1.0]])
    fan = torch.linspace(-1, 1, trunks, device=side.device)
    angle = 0.25 + 1.55 * fan + 0.12 * spread
    x, y = chest.hilum[0].expand_as(angle), chest.hilum[1] - HILUM_LIFT * side.clamp_min(0) + 30 * fan
    radius = chest.vessels * (0.55 + 0.45 * first)
    length, ends, radii = 26.0, [], []
    for reach, fork, taper in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        reach = length * (0.6 + 0.8 * reach)
        end_x, end_y = x + reach * angle.cos(), y + reach * angle.sin()
        ends.append(torch.stack([side * x, side * end_x, y, end_y], dim=-1).flatten(1, 2))
        radii.append(radius.flatten(1))
        up, down = (0.15 + 0.4 * fork).chunk(2, dim=-1)
        angle = torch.cat([angle + up, angle - down], dim=-1)
        x, y = torch.cat([end_x, end_x], dim=-1), torch.cat([end_y, end_y], dim=-1)
        radius = torch.cat([radius, radius], dim=-1) * (0.6 + 0.22 * taper)
        length *= 0.86
    x, y = torch.cat(ends, dim=1).chunk(2, dim=-1)
    return x, y, torch.cat(radii, dim=1)


def bubbles(chest: Chest[Tensor]) -> Tensor:
    """Air in stomach and bowel: up to five bubbles of x, y, two radii and height, (5, 5, B, 1, 1), in mm.

    Where a patient has fewer, the height is 0.
    """
    drawn = np.zeros((len(chest.seeds), 4, 6), np.float32)
    for place, seed in enumerate(chest.seeds):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(0, 5))
        drawn[place, :count, :5] = rng.random((count, 5))
        drawn[place, :count, 5] = 1
    side, cx, cy, rx, ry, there = torch.as_tensor(drawn, device=chest.width.device).permute(2, 1, 0)[..., None, None]
    cx = (25 + 95 * cx) * (1 - 2 * (side < 0.2).float())
    cy = torch.maximum(*chest.dome) + 20 + 90 * cy
    rx, ry = 8 + 18 * rx, 6 + 18 * ry
    bowel = torch.stack([cx, cy, rx, ry, ry * there], dim=1)
    gx, gy, rx, ry = chest.bubble
    stomach = torch.stack([gx, chest.dome[1] + gy + ry, rx, ry, ry])
    return torch.cat([stomach[None], bowel])
