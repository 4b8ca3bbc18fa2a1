"""How much tissue and bone each ray crosses on its way through an analytic chest, in millimetres.

Every organ is a formula evaluated at all pixels at once. Most are bodies with a round edge (`rounded`), balls
or rods; the ribs are tilted rings; the lungs are what the cage leaves when mediastinum, heart and diaphragm
have taken their place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.data.anatomy import Chest, View

RIBS = 10  # pairs that can be seen above the diaphragm
HILUM_LIFT = 10.0  # mm by which the left hilum stands higher than the right


def root(x: Tensor) -> Tensor:
    """Square root of what is above 0 (an exact 0 costs some CPUs twenty times as long)."""
    return x.clamp_min(1e-10).sqrt()


def step(x: Tensor) -> Tensor:
    """1 where `x` > 0, else 0; much faster than `torch.where` on a CPU."""
    return (1e4 * x).clamp(0, 1)


def rounded(inside: Tensor, radius: float) -> Tensor:
    """How thick a body with a round edge is, `inside` mm behind its outline: 0 outside, 1 from `radius` on.

    >>> rounded(torch.tensor([-1.0, 0.0, 5.0, 20.0]), 10.0).round(decimals=3)
    tensor([0.0000, 0.0000, 0.8660, 1.0000])
    """
    rest = (1 - inside / radius).clamp(0, 1)
    return root(1 - rest * rest)


def ball(x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Tensor:
    """Squared distance from the centre of an ellipse in units of its radii: 1 on its outline."""
    dx, dy = x - cx, y - cy
    if angle:
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    return (dx / rx).square() + (dy / ry).square()


def blob(squared: Tensor) -> Tensor:
    """A soft spot: 1 in the middle, fading with the squared distance (cut where floats become denormal and slow)."""
    return torch.exp(-squared.clamp_max(30.0))


def rod(x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Distance from a straight piece, in mm."""
    bx, by = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    along = ((dx * bx + dy * by) / (bx * bx + by * by)).clamp(0, 1)
    return root((dx - along * bx) ** 2 + (dy - along * by) ** 2)


def tube(distance: Tensor, radius: float, marrow: float = 0.5) -> Tensor:
    """Bone crossed in a long bone, 1 = a solid one's middle; `marrow` is the share that the hollow lacks."""
    across = (distance / radius) ** 2
    solid = root(1 - across)
    return solid - marrow * root(0.64 - across) if marrow else solid


@dataclass(frozen=True)
class Lungs:
    """What the other organs need to know of the lungs; every map is (H, W), in mm."""

    lateral: Tensor  # half-width of the cage at each y
    diaphragm: Tensor  # y of the dome at each x
    air: Tensor  # lung crossed
    field: Tensor  # depth inside the lung field, roughly; > 0 is the mask


def _sunk(y: Tensor, centre: float) -> Tensor:
    """The lower half of the heart stretched: it rests on the diaphragm."""
    return y.clamp_max(centre) + 0.4 * (y - centre).clamp_min(0)


def lungs(chest: Chest, x: Tensor, y: Tensor) -> Lungs:
    """The lung field and the lungs' thickness.

    The field is what the masks of the real sets show: rays that cross lung, but neither mediastinum, heart
    nor aorta, nor anything below the dome of the diaphragm. Disease does not change it.
    """
    s = x.abs()
    left = step(x)
    rest = (1 - y / chest.cage).clamp_min(0)
    lateral = chest.apex + (chest.width - chest.apex) * root(1 - rest * rest)
    lateral = lateral + chest.flare * (y - chest.cage).clamp_min(0)
    top = (1 - y / chest.thoracic_inlet).clamp(0, 1)
    middle = chest.mediastinum[0] + (chest.mediastinum[1] - chest.mediastinum[0]) * left
    medial = chest.apex - (chest.apex - middle) * root(1 - top * top)

    peak = chest.dome[0] + (chest.dome[1] - chest.dome[0]) * left
    at = chest.width * (chest.dome_at[0] + (chest.dome_at[1] - chest.dome_at[0]) * left)
    out = ((s - at) / (chest.width - at)).clamp(1e-4, 1.3)
    back = (1 - s / at).clamp_min(0)
    diaphragm = peak + chest.angle * out**chest.angle_power + 14 * back * back

    front = x - chest.rotation * chest.depth  # the heart lies in front: rotation moves it
    knob = ball(x, y, *chest.knob[:2], chest.knob[2], chest.knob[2] * 1.1)
    trunk = rod(front, y, (chest.knob[0] - 4, chest.knob[1]), chest.ventricle[:2]) - chest.trunk
    atrium = ball(front, _sunk(y, chest.atrium[1]), *chest.atrium)
    ventricle = ball(front, _sunk(y, chest.ventricle[1]), *chest.ventricle)
    middle_out = torch.minimum(s - medial, trunk)  # mm from mediastinum and heart
    for outline, scale in ((knob, chest.knob[2]), (atrium, chest.atrium[2]), (ventricle, chest.ventricle[3])):
        middle_out = torch.minimum(middle_out, (root(outline) - 1) * scale)
    field = torch.minimum(torch.minimum(middle_out, lateral - s), torch.minimum(diaphragm - y, 1e4 * y))

    deep = 2 * chest.depth * rounded(y, 0.8 * chest.cage) * rounded(lateral - s, 0.6 * chest.width)
    air = deep * (1 - 0.88 * rounded(medial - s, 24.0)) * (1 - rounded(y - diaphragm, 70.0))
    heart = 2 * chest.heart_depth * root(1 - torch.minimum(atrium, ventricle))
    heart = torch.maximum(heart, 80 * rounded(-trunk, chest.trunk))
    heart = torch.maximum(heart, 1.6 * chest.knob[2] * root(1 - knob))
    fat = (1 - middle_out / 36).clamp(0, 1) * (1 - 0.5 * left)  # the lung is thinner beside the mediastinum
    air = air * (1 - chest.medial_fat * fat)
    air = torch.minimum(air, (deep - heart).clamp_min(0) * 0.9 + 0.1 * air)
    return Lungs(lateral, diaphragm, air, field)


def body(chest: Chest, x: Tensor, y: Tensor, lateral: Tensor) -> Tensor:
    """Length of the ray inside the skin, in mm, as if all were solid; 0 in the air around the patient."""
    s = x.abs()
    sx, sy = chest.shoulder
    slope = ((s - chest.neck) / (sx - chest.neck)).clamp(0, 1)
    skin = chest.neck_y + (sy - chest.neck_y) * (1.6 * slope - 0.6 * slope * slope)
    skin = skin + (s - sx).clamp_min(0) * (0.1 + 0.8 * chest.arm)
    wall = lateral + chest.wall * (0.4 + 0.6 * rounded(y, 80.0))
    torso = 2 * (chest.depth + chest.belly) * rounded(wall - s, 0.75 * chest.width) * rounded(y - skin, 170.0)
    neck = 2 * chest.neck * rounded(chest.neck - s, chest.neck) * (1 - 0.5 * rounded(y - 10, 80.0))
    beyond = s - chest.width - chest.wall
    under = chest.axilla + chest.arm * beyond.clamp_min(0) + 1.3 * beyond.clamp_max(0)
    shoulder = 2.6 * root((y - skin).clamp_min(0) * (under - y).clamp_min(0)).clamp_max(62.0)
    squares = (torso**2) ** 2 + (shoulder**2) ** 2 + (neck**2) ** 2  # a soft maximum
    solid = root(root(squares))
    return solid * step(solid - 1)


def ribs(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    r"""Dense bone of the ribs, in mm.

    A rib is a tilted ring around the cage,
    :math:`(x, y, z) = (a\sin\theta,\; y_0 - b\cos\theta,\; -c\cos\theta)`. Its shadow is the ellipse
    :math:`(x/a)^2 + ((y-y_0)/b)^2 = 1`: the upper half is the rib's back, the lower half its front. A ray
    crosses more bone where the ring runs along it, :math:`ds_{3D}/ds_{2D}` times as much: at the sides.
    """
    bone = torch.zeros_like(x)
    for first in range(0, RIBS, 3):  # a few at a time stay in the processor's cache
        few = torch.arange(first, min(first + 3, RIBS), device=x.device, dtype=x.dtype)
        rows, thickness = _rib_shadows(chest, x, y, few)
        bone.index_add_(0, rows.flatten(), thickness.flatten(0, 1))
    return chest.rib_bone * bone


def _rib_shadows(chest: Chest, x: Tensor, y: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that each of the ribs `k` can reach, (K, R), and its share of bone there, (K, R, W)."""
    b = chest.rib_drop * (0.5 + 0.125 * k.clamp_max(4) + 0.04 * (k - 4).clamp_min(0))
    yc = chest.rib_first + chest.rib_pitch * k + b
    a = chest.apex + (chest.width - chest.apex) * root(1 - (1 - yc / chest.cage).clamp_min(0) ** 2) + 4.5
    a = a + chest.flare * (yc - chest.cage).clamp_min(0)
    c = chest.depth

    first = (y.amax(1) < (yc - b - 25)[:, None]).sum(1)
    last = (y.amin(1) < (yc + b + 12)[:, None]).sum(1)
    tall = min(int((last - first).amax().clamp_min(1)), len(y))
    rows = first.clamp_max(len(y) - tall)[:, None] + torch.arange(tall, device=x.device)

    k, b, yc, a = (value[:, None, None] for value in (k, b, yc, a))
    v = (y[rows] - yc) * (1 / b)
    front = (0.5 + 0.5 * v).clamp(0, 1)
    u = (x[rows] - chest.rotation * c * (2 * front - 1)).abs() * (1 / a)
    uu = u * u
    v = v + (u - uu).clamp_min(0) * (1 - front) * (4 * chest.rib_hump / b)
    vv = v * v
    distance = 0.5 * (uu + vv - 1) / root(uu * a**-2 + vv * b**-2)
    along = (1 + uu * c**2 / (vv * a**2 + uu * b**2 + 1)).sqrt().clamp_max(1.7)
    flat = 1 - 0.45 * uu.clamp_max(1)  # a rib is half as thick as it is tall: seen from its edge at the sides
    ends = (u * (a / 14) - (chest.cartilage + 5 * k - 14) / 14).clamp(0, 1)  # cartilage does not show
    shape = tube(distance / ((1 + 0.35 * front) * flat), chest.rib_height)
    return rows, shape * along * (1 - front * (1 - 0.35 * ends))


def spine(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    """Dense bone of the vertebrae, in mm: bodies, discs between them, pedicles and spinous processes."""
    s = x.abs()
    phase = (y - chest.rib_first) / chest.rib_pitch
    off = chest.rib_pitch * (phase - phase.round())  # mm from the middle of the nearest body
    disc = (off.abs() / chest.rib_pitch - 0.36).clamp_min(0) * 7  # 0 in a body, 1 in the middle of a disc
    half = chest.spine * (1 + 0.0006 * y) * (1 - 0.08 * disc)
    bodies = rounded(half - s, 9.0) * (1 - 0.4 * disc)
    pedicles = blob((s - 0.62 * half) ** 2 / 14 + (off + 4) ** 2 / 22)
    process = blob((x + 40 * chest.rotation) ** 2 / 16 + (off - 6) ** 2 / 60)
    transverse = rounded(1.9 * half - s, 10.0) * blob(off * off / 40)
    bodies = bodies * (0.6 + 0.002 * y).clamp(0.5, 1.0)  # vertebrae grow downwards
    return chest.spine_bone * (bodies + 0.25 * pedicles + 0.3 * process + 0.22 * transverse)


def girdle(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    """Dense bone of clavicles, shoulder blades and upper arms, in mm."""
    s = x.abs()
    sx, sy = chest.shoulder
    inner, outer, bend, half = chest.clavicle
    fall = outer + sy - inner
    along = ((s - 16) / (sx - 22)).clamp(0, 1)
    centre = inner + fall * along - bend * torch.sin(2 * torch.pi * along)
    centre = centre + 120 * chest.rotation * (step(x) - 0.5) * (1 - along)
    ends = (1 - along) ** 4
    thick = half * (1 + (fall / (sx - 22)) ** 2) ** 0.5 * (1 + 0.35 * ends + 0.2 * along**4)
    clavicle = 15.0 * tube((y - centre) / thick, 1.0, 0.6)
    clavicle = clavicle * ((s - 13) / 5).clamp(0, 1) * ((sx - 4 - s) / 5).clamp(0, 1)

    medial, low, plate = chest.scapula
    head = (sx + 2, sy + 34)
    reach = (head[0] + 70 / (1 + chest.arm), head[1] + 70 * chest.arm / (1 + chest.arm) + 20)
    humerus = torch.maximum(tube(root(ball(s, y, *head, 24, 24)), 1.0, 0.6), tube(rod(s, y, head, reach), 12.5, 0.75))
    glenoid = (sx - 22, sy + 36)
    lean = (glenoid[0] - medial - 12) / (low - glenoid[1])
    blade = torch.minimum(s - medial - 0.06 * (y - 60).abs(), glenoid[0] - s - lean * (y - glenoid[1]))
    blade = torch.minimum(blade, torch.minimum(low - y, y - sy - 8))
    border = tube(rod(s, y, glenoid, (medial + 12, low)), 6.0)
    ridge = tube(rod(s, y, (medial + 4, sy + 40), (sx, sy + 10)), 7.0, 0.6)
    return clavicle + 9.0 * humerus + 0.5 * plate * rounded(blade, 5.0) + 5.5 * border + 5.0 * ridge


def soft_parts(chest: Chest, x: Tensor, y: Tensor, diaphragm: Tensor) -> Tensor:
    """Water-like tissue beside the body's outline, in mm: breasts, muscle, hila, aorta; gas counts below 0."""
    rng = np.random.default_rng(chest.seed)
    s = x.abs()
    tissue = chest.pectoral * rounded(80 + 0.5 * s - y, 60.0) * rounded(s - 40, 40.0) * rounded(y - 10, 60.0)
    bx, by, radius, thick = chest.breast
    if thick > 0:
        fall = ((y - by) / radius * 0.65 + 0.42).clamp(0, 1)
        tissue += thick * root(1 - ball(s, y, bx, by, radius, radius * 1.05)) * fall
    tissue += 12 * rounded(chest.mediastinum[1] + 2 - (x - 4).abs(), 12.0) * step(y - chest.knob[1])  # aorta
    tissue += _hila(chest, x, y)
    fork = 0.66 * chest.hilum[1]
    airway = 19 * tube(rod(x, y, (0, -200), (-2, fork)), 10.0, 0)
    tissue -= torch.maximum(airway, 7 * tube(rod(s, y, (0, fork), (37, fork + 32)), 6.5, 0))
    low = slice(int((y.amax(1) < min(chest.dome)).sum()), None)  # the rows that reach below a dome
    gx, gy, rx, ry = chest.bubble
    gas = _bubble(x[low], y[low], gx, chest.dome[1] + gy + ry, rx, ry)
    for _ in range(int(rng.integers(0, 5))):
        side = rng.choice([-1.0, 1.0], p=[0.2, 0.8])
        cx, cy = side * rng.uniform(25, 120), max(chest.dome) + rng.uniform(20, 110)
        gas = torch.maximum(gas, _bubble(x[low], y[low], cx, cy, rng.uniform(8, 26), rng.uniform(6, 24)))
    tissue[low] -= gas * ((y[low] - diaphragm[low]) / 6).clamp(0, 1)
    return tissue


def _hila(chest: Chest, x: Tensor, y: Tensor) -> Tensor:
    """The roots of the lungs: a soft knot, the arteries to the lower lobes and the veins from the upper ones."""
    hx, hy = chest.hilum
    size = chest.hilum_size
    s, y = x.abs(), y + HILUM_LIFT * step(x)
    knot = 15 * blob(1.5 * ball(s, y, hx, hy, 13, 22, -0.35))
    crowd = 13 * blob(1.3 * ball(s, y, hx + 2, hy + 42, 30, 72, -0.12))  # small vessels over one another
    lower = 12 * blob((rod(s, y, (hx, hy), (hx + 18, hy + 55)) / 6.5) ** 2)
    upper = 7 * blob((rod(s, y, (hx - 2, hy), (hx + 10, hy - 45)) / 5) ** 2)
    return size * (knot + crowd + lower + upper)


def _bubble(x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float) -> Tensor:
    """Air above a fluid level, in mm."""
    air = 1.6 * ry * root(1 - ball(x, y, cx, cy, rx, ry))
    return air * ((cy + 0.5 * ry - y) / 4 + 0.5).clamp(0.25, 1)


def vessel_tree(chest: Chest) -> NDArray[np.float64]:
    """The lungs' vessels as straight pieces: (pieces, 5) of x, y, x, y, radius in mm."""
    rng = np.random.default_rng(chest.seed + 1)
    pieces = []
    for side, lift in ((-1.0, 0.0), (1.0, HILUM_LIFT)):
        count = 14
        angle = np.linspace(-1.3, 1.8, count) + 0.12 * rng.standard_normal(count)
        height = chest.hilum[1] - lift + 30 * np.linspace(-1, 1, count)
        start = np.stack([np.full(count, chest.hilum[0]), height], 1)
        radius = chest.vessels * rng.uniform(0.55, 1.0, count)
        length = 26.0
        for _ in range(5):
            reach = length * rng.uniform(0.6, 1.4, len(radius))
            end = start + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
            mirror = np.array([side, 1.0])
            pieces.append(np.concatenate([start * mirror, end * mirror, radius[:, None]], 1))
            fork = rng.uniform(0.15, 0.55, (2, len(radius))) * np.array([[1], [-1]])
            start, angle = np.tile(end, (2, 1)), np.concatenate([angle + fork[0], angle + fork[1]])
            radius = np.tile(radius, 2) * rng.uniform(0.6, 0.82, 2 * len(radius))
            length *= 0.86
    return np.concatenate(pieces)


def splat(
    col: NDArray[np.float64], row: NDArray[np.float64], weight: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Share points among the four nearest pixels: (size, size), summing to the weights inside the picture.

    >>> float(splat(np.array([0.5]), np.array([0.25]), np.array([2.0]), 8).sum())
    2.0
    """
    c, r = col * size - 0.5, row * size - 0.5
    c0, r0 = np.floor(c), np.floor(r)
    fc, fr = c - c0, r - r0
    ok = (c0 >= -1) & (c0 < size) & (r0 >= -1) & (r0 < size)
    place = ((r0 + 1) * (size + 2) + c0 + 1)[ok].astype(np.int64)  # on a canvas with a rim of one pixel
    corners = ((0, (1 - fc) * (1 - fr)), (1, fc * (1 - fr)), (size + 2, (1 - fc) * fr), (size + 3, fc * fr))
    at = np.concatenate([place + shift for shift, _ in corners])
    mass = np.concatenate([(weight * share)[ok] for _, share in corners])
    canvas = np.bincount(at, mass, (size + 2) ** 2).astype(np.float64)
    return canvas.reshape(size + 2, size + 2)[1:-1, 1:-1]


def _vessels(chest: Chest, view: View, size: int, air: Tensor) -> Tensor:
    """Thickness of the vessel tree, in mm: its volume, dropped point by point into the pixels it falls on."""
    tree = vessel_tree(chest)
    steps = max(5, size // 12)
    along = (np.arange(steps) + 0.5) / steps
    reach = tree[:, 2:4] - tree[:, :2]
    x = (tree[:, 0, None] + reach[:, 0, None] * along).ravel()
    y = (tree[:, 1, None] + reach[:, 1, None] * along).ravel()
    volume = np.repeat(np.pi * tree[:, 4] ** 2 * np.hypot(reach[:, 0], reach[:, 1]) / steps, steps)
    col, row = view.to_picture(torch.from_numpy(x), torch.from_numpy(y))
    thickness = splat(col.numpy(), row.numpy(), volume, size) * (size**2 / (view.field[0] * view.field[1]))
    return torch.as_tensor(thickness, dtype=torch.float32, device=air.device) * rounded(air, 40.0)


def texture(rng: np.random.Generator, grid: int, size: int, device: torch.device) -> Tensor:
    """Smooth noise of unit strength with features of 1/`grid` of the picture: (size, size)."""
    rough = torch.as_tensor(rng.standard_normal((1, 1, grid, grid), dtype=np.float32), device=device)
    return F.interpolate(rough, size=(size, size), mode="bilinear", align_corners=True)[0, 0]


@dataclass(frozen=True)
class Projection:
    """What the rays crossed, each (H, W) in mm, and where in the patient each pixel lies."""

    tissue: Tensor
    bone: Tensor
    air: Tensor  # lung
    field: Tensor  # depth inside the lung field; > 0 is the mask
    x: Tensor
    y: Tensor


def project(chest: Chest, view: View, size: int, device: str | torch.device = "cpu") -> Projection:
    """Everything that the rays cross on their way to each of `size` x `size` pixels.

    Introduced in chapter 1.

    >>> from cxr_tutorial.data.anatomy import draw_chest
    >>> still = ((0.0, 0.0, 0.0),) * 3
    >>> view = View(field=(358.0, 358.0), apex=(0.5, 0.08), tilt=0.0, bends=still)
    >>> maps = project(draw_chest(np.random.default_rng(0)), view, 64)
    >>> maps.tissue.shape, bool((maps.bone >= 0).all()), 0.15 < float((maps.field > 0).float().mean()) < 0.5
    (torch.Size([64, 64]), True, True)
    """
    at = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    x, y = (xy.contiguous() for xy in view.to_patient(at[None, :], at[:, None]))
    parts = lungs(chest, x, y)
    solid = body(chest, x, y, parts.lateral)
    inside = step(solid - 8)
    rng = np.random.default_rng(chest.seed + 2)
    grain = ((9, 7.0), (26, 2.2), (64, 1.6))  # muscle, fat and marrow are uneven
    uneven = torch.stack([strength * texture(rng, grid, size, x.device) for grid, strength in grain]).sum(0)
    tissue = solid - (1 - chest.lung_density) * parts.air + uneven * inside
    tissue = tissue + soft_parts(chest, x, y, parts.diaphragm) + _vessels(chest, view, size, parts.air)
    tissue = torch.maximum(tissue, 0.12 * solid)
    bone = (ribs(chest, x, y) + spine(chest, x, y) + girdle(chest, x, y)) * inside
    return Projection(tissue, bone, parts.air, parts.field, x, y)
