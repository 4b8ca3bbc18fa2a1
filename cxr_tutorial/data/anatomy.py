"""An analytic chest: what it is made of, and how much of it a ray crosses.

A patient is a handful of lengths in millimetres (`Chest`), a film is a `View` of that patient, and
`project` gives three maps: millimetres of water-like tissue, millimetres of dense bone and the lung field.
x runs to the patient's left (the right of the picture), y runs down, the origin lies on the spine at the
height of the lungs' apices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RIBS = 10  # pairs that can be seen above the diaphragm


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
    seed: int  # of what has no name: vessel tree, bowel gas, unevenness of tissue


def draw_chest(rng: np.random.Generator) -> Chest:
    """One patient from the spread of adult anatomy, with a full breath or less."""

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def n(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -2.2, 2.2))

    female = bool(rng.random() < 0.45)
    stature = n(0.93 if female else 1.02, 0.05)
    girth = n(0.0, 1.0)  # slim to stout
    width = stature * n(130, 7)
    dome = stature * n(238, 20) - 6 * girth
    heart = stature * n(1.0, 0.09) + 0.04 * girth
    lift = stature * 238 - dome  # a small breath lifts and widens the heart
    wall = max(14.0, n(27, 6) + 6 * girth)
    knob = n(19, 4)
    return Chest(
        female=female,
        width=width,
        depth=stature * n(88, 8),
        cage=stature * u(115, 260),
        flare=u(-0.06, 0.04),
        apex=stature * n(48, 5),
        dome=(dome, dome + n(9, 7)),
        dome_at=(u(0.25, 0.5), u(0.3, 0.55)),
        angle=u(35, 80),
        angle_power=u(1.5, 2.6),
        mediastinum=(n(23, 4), n(23, 4)),
        thoracic_inlet=n(62, 12),
        knob=(n(17, 4), stature * n(84, 8), knob),
        trunk=n(25, 4),
        atrium=(n(-2, 5), dome - heart * n(38, 6), heart * n(37, 4), heart * n(62, 6)),
        ventricle=(
            heart * n(26, 5),
            dome + n(9, 7) - heart * n(30, 6),
            heart * n(78, 8),
            heart * n(48, 5),
            u(0.55, 1.05) - 0.004 * lift,
        ),
        heart_depth=heart * n(52, 6),
        wall=wall,
        belly=max(12.0, n(19, 4) + 6 * girth),
        neck=stature * n(56, 5) + 3 * girth,
        shoulder=(stature * n(172, 10), n(8, 16)),
        neck_y=n(-42, 14),
        axilla=stature * n(122, 18),
        arm=u(0.4, 3.0),
        breast=(stature * n(92, 10), stature * n(205, 18), n(66, 9), n(38, 13) if female else 0.0),
        pectoral=max(0.0, n(12, 6)) * (0.5 if female else 1.2),
        rib_pitch=dome / u(9.2, 10.6),
        rib_first=n(4, 5),
        rib_drop=n(46, 8),
        rib_height=n(6.6, 0.7),
        rib_bone=n(6.5, 1.5),
        rib_hump=n(5, 5),
        cartilage=n(66, 10),
        spine=stature * n(19, 1.5),
        spine_bone=n(9, 2.5),
        clavicle=(n(38, 12), n(6, 14), n(5, 4), n(6.2, 0.8)),
        scapula=(n(128, 13), stature * n(172, 15), n(4, 1.2)),
        hilum=(n(38, 4), stature * n(112, 8)),
        vessels=n(3.0, 0.6),
        lung_density=u(0.2, 0.34),
        bubble=(n(62, 12), u(12, 30), u(12, 40), u(6, 22)),
        rotation=n(0, 0.035),
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


def rounded(inside: Tensor, radius: float) -> Tensor:
    """How thick a body with a round edge is, `inside` mm behind its outline: 0 outside, 1 from `radius` on.

    >>> rounded(torch.tensor([-1.0, 0.0, 5.0, 20.0]), 10.0)
    tensor([0.0000, 0.0000, 0.8660, 1.0000])
    """
    rest = (1 - inside / radius).clamp(0, 1)
    return (1 - rest * rest).sqrt()


def ball(x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Tensor:
    """Squared distance from the centre of an ellipse, 1 on its outline."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    dx, dy = x - cx, y - cy
    return ((cos * dx + sin * dy) / rx) ** 2 + ((cos * dy - sin * dx) / ry) ** 2


def rod(x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Distance from a straight piece."""
    ax, ay = start
    bx, by = end[0] - ax, end[1] - ay
    along = (((x - ax) * bx + (y - ay) * by) / (bx * bx + by * by)).clamp(0, 1)
    return ((x - ax - along * bx) ** 2 + (y - ay - along * by) ** 2).sqrt()


def tube(distance: Tensor, radius: float, marrow: float = 0.5) -> Tensor:
    """Bone crossed in a hollow bone: 1 through a solid one's middle, most at its cortical edges."""
    outer = (1 - (distance / radius) ** 2).clamp_min(0).sqrt()
    inner = (0.8**2 - (distance / radius) ** 2).clamp_min(0).sqrt()
    return outer - marrow * inner


@dataclass(frozen=True)
class Lungs:
    """What the other organs need to know of the lungs; every map is (H, W)."""

    lateral: Tensor  # half-width of the cage at each y
    diaphragm: Tensor  # y of the dome at each x
    heart: Tensor  # mm of heart and great vessels
    air: Tensor  # mm of lung
    field: Tensor  # mm inside the lung field (> 0), roughly


def lungs(chest: Chest, x: Tensor, y: Tensor) -> Lungs:
    """The lung field and the lungs' thickness.

    The field is what the masks of the real sets show: rays that cross lung, but neither mediastinum, heart nor
    aorta, nor anything below the dome of the diaphragm; disease does not change it.
    """
    s = x.abs()
    left = x > 0
    rest = (1 - y / chest.cage).clamp_min(0)
    lateral = chest.apex + (chest.width - chest.apex) * (1 - rest * rest).clamp_min(0).sqrt()
    lateral = lateral + chest.flare * (y - chest.cage).clamp_min(0)
    top = (1 - y / chest.thoracic_inlet).clamp(0, 1)
    middle = torch.where(left, chest.mediastinum[1], chest.mediastinum[0])
    medial = chest.apex - (chest.apex - middle) * (1 - top * top).sqrt()

    peak = torch.where(left, chest.dome[1], chest.dome[0])
    at = torch.where(left, chest.dome_at[1], chest.dome_at[0]) * chest.width
    out = ((s - at) / (chest.width - at)).clamp(0, 1.3)
    back = (1 - s / at).clamp_min(0)
    diaphragm = peak + chest.angle * out**chest.angle_power + 14 * back * back

    front = x - chest.rotation * chest.depth  # the heart lies in front: rotation moves it
    knob = ball(x, y, *chest.knob[:2], chest.knob[2], chest.knob[2] * 1.1)
    trunk = rod(front, y, (chest.knob[0] - 4, chest.knob[1]), chest.ventricle[:2]) - chest.trunk
    atrium = ball(front, y, *chest.atrium)
    ventricle = ball(front, y, *chest.ventricle)
    outside_heart = torch.minimum(
        (ventricle.sqrt() - 1) * chest.ventricle[3],
        torch.minimum((atrium.sqrt() - 1) * chest.atrium[2], (knob.sqrt() - 1) * chest.knob[2]),
    )
    outside_heart = torch.minimum(outside_heart, trunk)
    field = torch.minimum(torch.minimum(lateral - s, s - medial), torch.minimum(diaphragm - y, outside_heart))
    field = torch.where(y > 0, field, torch.minimum(y, -torch.ones_like(y)))

    deep = 2 * chest.depth * rounded(y, chest.cage) * rounded(lateral - s, 0.8 * chest.width)
    air = deep * (1 - 0.93 * rounded(medial - s, 14.0)) * (1 - rounded(y - diaphragm, 70.0))
    heart = 2 * chest.heart_depth * torch.maximum(1 - atrium, 1 - ventricle).clamp_min(0).sqrt()
    heart = torch.maximum(heart, 80 * rounded(-trunk, chest.trunk))
    heart = torch.maximum(heart, 1.6 * chest.knob[2] * (1 - knob).clamp_min(0).sqrt())
    air = torch.minimum(air, (deep - heart).clamp_min(0) * 0.9 + 0.1 * air)
    return Lungs(lateral, diaphragm, heart, air, field)


def body(chest: Chest, x: Tensor, y: Tensor, lateral: Tensor) -> Tensor:
    """Length of the ray inside the skin, in mm, as if all were solid; 0 in the air around the patient."""
    s = x.abs()
    wall = lateral + chest.wall * (0.4 + 0.6 * rounded(y, 80.0))
    torso = 2 * (chest.depth + chest.belly) * rounded(wall - s, chest.width)
    neck = 2 * chest.neck * rounded(chest.neck - s, chest.neck) * (1 - 0.5 * rounded(y - 10, 80.0))
    sx, sy = chest.shoulder
    slope = ((s - chest.neck) / (sx - chest.neck)).clamp(0, 1)
    skin = chest.neck_y + (sy - chest.neck_y) * (1.6 * slope - 0.6 * slope * slope)
    skin = skin + (s - sx).clamp_min(0) * (0.2 + 0.6 * chest.arm)
    torso = torso * rounded(y - skin, 90.0)
    under = chest.axilla + chest.arm * (s - chest.width - chest.wall).clamp_min(0)
    shoulder = 2.2 * ((y - skin).clamp_min(0) * (under - y).clamp_min(0)).sqrt().clamp_max(62.0)
    solid = (torso**4 + shoulder**4 + neck**4 + 1e-6) ** 0.25
    return torch.where(solid > 1, solid, 0.0)


def ribs(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    r"""Dense bone of the ribs, in mm.

    A rib is a tilted ring around the cage, :math:`(x, y, z) = (a\sin\theta, y_0 - b\cos\theta, -c\cos\theta)`; its
    shadow is the ellipse :math:`(x/a)^2 + ((y-y_0)/b)^2 = 1`, upper half behind, lower half in front. A ray crosses
    more bone where the ring runs along it: at the sides.
    """
    bone = torch.zeros_like(x)
    top, bottom = y.amin(1), y.amax(1)
    c = chest.depth
    for k in range(RIBS):
        b = chest.rib_drop * (0.5 + 0.5 * min(k / 4, 1) + 0.04 * max(k - 4, 0))
        yc = chest.rib_first + chest.rib_pitch * k + b
        a = chest.apex + (chest.width - chest.apex) * (1 - max(1 - yc / chest.cage, 0) ** 2) ** 0.5 + 4
        a += chest.flare * max(yc - chest.cage, 0)
        near = torch.nonzero((bottom > yc - b - 25) & (top < yc + b + 12))
        if len(near) == 0:
            continue
        rows = slice(int(near[0]), int(near[-1]) + 1)
        v = (y[rows] - yc) / b
        front = 0.5 + 0.5 * v.clamp(-1, 1)
        u = (x[rows] - chest.rotation * c * (2 * front - 1)).abs() / a
        v = v + (4 * chest.rib_hump / b) * (u * (1 - u)).clamp_min(0) * (1 - front)
        uu, vv = u * u, v * v
        distance = (uu + vv - 1) * 0.5 / (uu / a**2 + vv / b**2 + 1e-9).sqrt()
        side = a * a * vv + (b * b) * uu
        along = ((side + c * c * uu) / (side + 1)).sqrt().clamp_max(1.6)
        ends = ((u * a - chest.cartilage - 5 * k) / 14 + 1).clamp(0, 1)  # cartilage does not show
        shape = tube(distance / (1 + 0.25 * front), chest.rib_height)
        bone[rows] += shape * along * (1 - front * (1 - 0.65 * ends))
    return chest.rib_bone * bone


def spine(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    """Dense bone of the vertebrae, in mm: bodies, discs between them, pedicles and spinous processes."""
    phase = (y - chest.rib_first) / chest.rib_pitch
    disc = torch.cos(2 * torch.pi * phase)  # 1 in the middle of a body
    half = chest.spine * (1 + 0.0006 * y) * (0.94 + 0.06 * disc.abs())
    bodies = rounded(half - x.abs(), 9.0) * (0.8 + 0.2 * (3 * disc + 1.5).clamp(-1, 1))
    cell = torch.remainder(phase + 0.5, 1) - 0.5
    pedicles = torch.exp(-((x.abs() - 0.62 * half) ** 2 / 14 + (cell * chest.rib_pitch + 4) ** 2 / 22))
    process = torch.exp(-((x + chest.rotation * 40) ** 2 / 16 + (cell * chest.rib_pitch - 6) ** 2 / 60))
    transverse = rounded(1.9 * half - x.abs(), 10.0) * torch.exp(-((cell * chest.rib_pitch) ** 2) / 40)
    return chest.spine_bone * (bodies + 0.25 * pedicles + 0.3 * process + 0.22 * transverse)


def girdle(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    """Dense bone of clavicles, shoulder blades and upper arms, in mm."""
    s = x.abs()
    sx, sy = chest.shoulder
    inner, outer, bend, half = chest.clavicle
    along = ((s - 16) / (sx - 22)).clamp(0, 1)
    centre = inner + (outer + sy - inner) * along - bend * torch.sin(2 * torch.pi * along)
    centre = centre + torch.where(x > 0, 60.0, -60.0) * chest.rotation * (1 - along)
    tilt = 1 + ((outer + sy - inner) / (sx - 22)) ** 2
    thick = half * (1 + 0.35 * (1 - along) ** 4 + 0.2 * along**4)
    clavicle = 9.0 * tube((y - centre) / (thick * tilt**0.5), 1.0, 0.6)
    clavicle = clavicle * ((s - 13) / 5).clamp(0, 1) * ((sx - 4 - s) / 5).clamp(0, 1)

    medial, low, plate = chest.scapula
    head = (sx + 2, sy + 34)
    humerus = 9.0 * tube(ball(s, y, *head, 24, 24).sqrt(), 1.0, 0.6)
    reach = (head[0] + 70 / (1 + chest.arm), head[1] + 70 * chest.arm / (1 + chest.arm) + 20)
    humerus = torch.maximum(humerus, 9.0 * tube(rod(s, y, head, reach), 12.5, 0.75))
    glenoid = (sx - 22, sy + 36)
    border = rod(s, y, glenoid, (medial + 12, low))
    blade = torch.minimum((s - medial) - 0.06 * (y - 60).abs(), (low - y))
    rim = (glenoid[0] - s) - (glenoid[0] - medial - 12) / (low - glenoid[1]) * (y - glenoid[1])
    blade = torch.minimum(torch.minimum(blade, rim), y - sy - 8)
    scapula = plate * 0.5 * rounded(blade, 5.0) + 5.5 * tube(border, 6.0, 0.5)
    ridge = rod(s, y, (medial + 4, sy + 40), (sx, sy + 10))
    return clavicle + humerus + scapula + 5.0 * tube(ridge, 7.0, 0.6)


def soft_parts(chest: Chest, x: Tensor, y: Tensor, parts: Lungs) -> Tensor:
    """Water-like tissue beside the body's own outline, in mm: breasts, muscles, hila, aorta; gas counts below 0."""
    rng = np.random.default_rng(chest.seed)
    s = x.abs()
    tissue = (
        chest.pectoral
        * rounded((110 + 0.5 * (s - 60)) - y, 60.0)
        * rounded(s - 40, 40.0)
        * rounded(y - 10, 60.0)
    )
    bx, by, radius, thick = chest.breast
    if thick > 0:
        lobe = ball(s, y, bx, by, radius, radius * 1.05)
        fall = ((y - by) / radius * 0.6 + 0.55).clamp(0, 1)
        tissue = tissue + thick * (1 - lobe).clamp_min(0).sqrt() * fall
    aorta = rounded(chest.mediastinum[1] + 2 - (x - 4).abs(), 12.0) * (y > chest.knob[1])
    tissue = tissue + 12 * aorta
    hx, hy = chest.hilum
    for sign, lift in ((-1.0, 0.0), (1.0, 10.0)):
        tissue = tissue + 16 * torch.exp(-1.6 * ball(x, y, sign * hx, hy - lift, 11, 20, -sign * 0.35))
    carina = 0.66 * hy
    airway = tube(rod(x, y, (0, -200), (-2, carina)), 9.0, 0.0) * 16
    for end in ((-34.0, carina + 30), (40.0, carina + 34)):
        airway = torch.maximum(airway, 10 * tube(rod(x, y, (-2, carina), end), 6.5, 0.0))
    gx, gy, rx, ry = chest.bubble
    gas = _bubble(x, y, gx, chest.dome[1] + gy + ry, rx, ry)
    for _ in range(int(rng.integers(0, 5))):
        side = rng.choice([-1.0, 1.0], p=[0.25, 0.75])
        cx, cy = side * rng.uniform(25, 105), max(chest.dome) + rng.uniform(35, 110)
        gas = torch.maximum(gas, _bubble(x, y, cx, cy, rng.uniform(8, 24), rng.uniform(6, 16)))
    gas = gas * (y > parts.diaphragm + 5)
    return tissue - airway - gas


def _bubble(x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float) -> Tensor:
    """Air above a fluid level, in mm."""
    air = 1.6 * ry * (1 - ball(x, y, cx, cy, rx, ry)).clamp_min(0).sqrt()
    return air * ((cy + 0.5 * ry - y) / 4 + 0.5).clamp(0.25, 1)


def vessel_tree(chest: Chest) -> np.ndarray:
    """The lungs' vessels as straight pieces: (pieces, 5) of x, y, x, y, radius in mm."""
    rng = np.random.default_rng(chest.seed + 1)
    pieces = []
    for sign, lift in ((-1.0, 0.0), (1.0, 10.0)):
        count = 12
        angle = np.linspace(-1.2, 1.5, count) + 0.12 * rng.standard_normal(count)
        start = np.stack(
            [np.full(count, chest.hilum[0]), chest.hilum[1] - lift + 26 * np.linspace(-1, 1, count)], 1
        )
        radius = chest.vessels * rng.uniform(0.55, 1.0, count)
        length = 26.0
        for _ in range(5):
            reach = length * rng.uniform(0.6, 1.4, len(radius))
            end = start + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
            flip = np.array([sign, 1.0])
            pieces.append(np.concatenate([start * flip, end * flip, radius[:, None]], 1))
            fork = rng.uniform(0.15, 0.55, (2, len(radius))) * np.array([[1], [-1]])
            start, angle = np.tile(end, (2, 1)), np.concatenate([angle + fork[0], angle + fork[1]])
            radius = np.tile(radius, 2) * rng.uniform(0.6, 0.82, 2 * len(radius))
            length *= 0.86
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Projection:
    """The maps behind one picture, each (H, W): mm of water-like tissue, mm of dense bone, mm inside the lung."""

    tissue: Tensor
    bone: Tensor
    field: Tensor
    air: Tensor
    x: Tensor
    y: Tensor


def project(chest: Chest, view: View, size: int, device: str | torch.device = "cpu") -> Projection:
    """Everything that the rays cross on their way to each of `size` x `size` pixels.

    Introduced in chapter 1.

    >>> rng = np.random.default_rng(0)
    >>> still = ((0.0, 0.0, 0.0),) * 3
    >>> maps = project(draw_chest(rng), View((358.0, 358.0), (0.5, 0.08), 0.0, still), 64)
    >>> maps.tissue.shape, bool((maps.bone >= 0).all()), 0.15 < float((maps.field > 0).float().mean()) < 0.45
    (torch.Size([64, 64]), True, True)
    """
    at = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    x, y = view.to_patient(at[None, :], at[:, None])
    x, y = x.contiguous(), y.contiguous()
    parts = lungs(chest, x, y)
    solid = body(chest, x, y, parts.lateral)
    inside = (solid > 8).float()
    tissue = solid - (1 - chest.lung_density) * parts.air
    tissue = tissue + soft_parts(chest, x, y, parts) + _vessels(chest, view, size, parts.air)
    rng = np.random.default_rng(chest.seed + 2)
    for grid, strength in ((9, 7.0), (26, 2.2)):  # muscle and fat are uneven
        rough = torch.as_tensor(rng.standard_normal((1, 1, grid, grid)), dtype=torch.float32, device=device)
        uneven = torch.nn.functional.interpolate(
            rough, size=(size, size), mode="bilinear", align_corners=True
        )
        tissue = tissue + strength * uneven[0, 0] * inside
    tissue = torch.maximum(tissue, 0.12 * solid)
    bone = (ribs(chest, x, y) + spine(chest, x, y) + girdle(chest, x, y)) * inside
    return Projection(tissue, bone, parts.field, parts.air, x, y)


def _vessels(chest: Chest, view: View, size: int, air: Tensor) -> Tensor:
    """Thickness of the vessel tree: its volume, dropped point by point into the pixels it projects to."""
    tree = vessel_tree(chest)
    steps = max(6, size // 16)
    along = (np.arange(steps) + 0.5) / steps
    x = tree[:, 0, None] + (tree[:, 2] - tree[:, 0])[:, None] * along
    y = tree[:, 1, None] + (tree[:, 3] - tree[:, 1])[:, None] * along
    length = np.hypot(tree[:, 2] - tree[:, 0], tree[:, 3] - tree[:, 1])
    volume = np.broadcast_to((np.pi * tree[:, 4] ** 2 * length / steps)[:, None], x.shape)
    col, row = view.to_picture(torch.from_numpy(x), torch.from_numpy(y))
    thickness = splat(col.numpy().ravel(), row.numpy().ravel(), volume.ravel(), size)
    area = view.field[0] * view.field[1] / size**2
    return torch.as_tensor(thickness / area, dtype=torch.float32, device=air.device) * rounded(air, 40.0)


def splat(col: np.ndarray, row: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Share points among the four nearest pixels: (size, size), summing to the weights inside the picture."""
    c, r = col * size - 0.5, row * size - 0.5
    c0, r0 = np.floor(c).astype(np.int64), np.floor(r).astype(np.int64)
    fc, fr = c - c0, r - r0
    total = np.zeros(size * size)
    for dc, dr, share in (
        (0, 0, (1 - fc) * (1 - fr)),
        (1, 0, fc * (1 - fr)),
        (0, 1, (1 - fc) * fr),
        (1, 1, fc * fr),
    ):
        cc, rr = c0 + dc, r0 + dr
        ok = (cc >= 0) & (cc < size) & (rr >= 0) & (rr < size)
        total += np.bincount(rr[ok] * size + cc[ok], weight[ok] * share[ok], size * size)
    return total.reshape(size, size)
