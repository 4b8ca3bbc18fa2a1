"""How much tissue and bone each ray crosses on its way through an analytic chest, in millimetres.

Every organ is a formula evaluated at all pixels at once, of several patients at a time (`anatomy.together`).
Most are bodies with a round edge (`rounded`), balls or rods; the ribs are tilted rings; the lungs are what the
cage leaves when mediastinum, heart and diaphragm have taken their place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.data.anatomy import HILUM_LIFT, Chest, Length, View, bubbles, together, turn, vessel_tree

RIBS = 10  # pairs that can be seen above the diaphragm
LOG2_E = 1.4426950408889634  # exp(x) is exp2(LOG2_E x), which takes a third of the time on a CPU


def root_(x: Tensor) -> Tensor:
    """Square root, in place, of what is above 0, in half the time of `sqrt_`, which takes far longer at an exact 0."""
    return x.clamp_min_(1e-24).mul_(x.rsqrt())


def step(x: Tensor) -> Tensor:
    """1 where `x` > 0, else 0; much faster than `torch.where` on a CPU."""
    return (1e4 * x).clamp_(0, 1)


def rounded(inside: Tensor, radius: Length) -> Tensor:
    """How thick a body with a round edge is, `inside` mm behind its outline: 0 outside, 1 from `radius` on.

    >>> rounded(torch.tensor([-1.0, 0.0, 5.0, 20.0]), 10.0).round(decimals=3)
    tensor([0.0000, 0.0000, 0.8660, 1.0000])
    """
    share = (inside * (1 / radius)).clamp_(0, 1)
    return root_((2 - share).mul_(share))


def ball(
    x: Tensor, y: Tensor, cx: Length, cy: Length, rx: Length, ry: Length, angle: float | Tensor | None = None
) -> Tensor:
    """Squared distance from the centre of an ellipse in units of its radii: 1 on its outline."""
    dx, dy = x - cx, y - cy
    if angle is None:
        return dx.mul_(1 / rx).square_().add_(dy.mul_(1 / ry).square_())
    cos, sin = turn(angle)
    along, across = dx * (cos / rx) + dy * (sin / rx), dy.mul_(cos / ry).sub_(dx.mul_(sin / ry))
    return along.square_().add_(across.square_())


def blob_(squared: Tensor) -> Tensor:
    """A soft spot, in place: 1 in the middle, fading with the squared distance (cut before floats become denormal)."""
    return squared.clamp_max_(30.0).mul_(-LOG2_E).exp2_()


def rod(x: Tensor, y: Tensor, start: tuple[Length, Length], end: tuple[Length, Length]) -> Tensor:
    """Squared distance from a straight piece, in mm2."""
    bx, by = end[0] - start[0], end[1] - start[1]
    squared = bx * bx + by * by
    dx, dy = x - start[0], y - start[1]
    along = (dx * (bx / squared)).add_(dy * (by / squared)).clamp_(0, 1)
    return dx.sub_(along * bx).square_().add_(dy.sub_(along * by).square_())


def tube(squared: Tensor, marrow: float = 0.5) -> Tensor:
    """Bone crossed in a long bone, 1 = a solid one's middle; `marrow` is the share that the hollow lacks.

    `squared` is the squared distance from its axis, in units of its radius.
    """
    solid = root_(1 - squared)
    return solid.sub_(root_(0.64 - squared).mul_(marrow)) if marrow else solid


@dataclass(frozen=True)
class Lungs:
    """What the other organs need to know of the lungs; every map is (B, H, W), in mm."""

    lateral: Tensor  # half-width of the cage at each y
    diaphragm: Tensor  # y of the dome at each x
    air: Tensor  # lung crossed
    field: Tensor  # depth inside the lung field, roughly; > 0 is the mask


def _sunk(y: Tensor, centre: Tensor) -> Tensor:
    """The lower half of the heart stretched: it rests on the diaphragm."""
    return y.clamp_max(centre) + 0.4 * (y - centre).clamp_min_(0)


def _on_side(pair: tuple[Tensor, Tensor], left: Tensor) -> Tensor:
    """The right lung's number on its side and the left one's on the other."""
    return pair[0] + (pair[1] - pair[0]) * left


def _half_width(chest: Chest[Tensor], y: Tensor) -> Tensor:
    """Of the rib cage's inside, at each y."""
    below = y - chest.cage
    rest = (below * (-1 / chest.cage)).clamp_min_(0)
    return chest.apex + (chest.width - chest.apex) * root_(1 - rest * rest) + chest.flare * below.clamp_min_(0)


def lungs(chest: Chest[Tensor], x: Tensor, y: Tensor) -> Lungs:
    """The lung field and the lungs' thickness.

    The field is what the masks of the real sets show: rays that cross lung, but neither mediastinum, heart
    nor aorta, nor anything below the dome of the diaphragm. Disease does not change it.
    """
    s = x.abs()
    left = step(x)
    lateral = _half_width(chest, y)
    top = (1 - y * (1 / chest.thoracic_inlet)).clamp_(0, 1)
    medial = chest.apex - (chest.apex - _on_side(chest.mediastinum, left)) * root_(1 - top * top)

    at = chest.width * _on_side(chest.dome_at, left)
    out = ((s - at) / (chest.width - at)).clamp_(1e-4, 1.3)
    back = (1 - s / at).clamp_min_(0)
    diaphragm = _on_side(chest.dome, left) + chest.angle * out**chest.angle_power + 14 * (back * back)

    front = x - chest.rotation * chest.depth  # the heart lies in front: rotation moves it
    knob = ball(x, y, *chest.knob[:2], chest.knob[2], chest.knob[2] * 1.1)
    trunk = root_(rod(front, y, (chest.knob[0] - 4, chest.knob[1]), chest.ventricle[:2])) - chest.trunk
    atrium = ball(front, _sunk(y, chest.atrium[1]), *chest.atrium)
    ventricle = ball(front, _sunk(y, chest.ventricle[1]), *chest.ventricle)
    middle_out = torch.minimum(s - medial, trunk)  # mm from mediastinum and heart
    for outline, scale in ((knob, chest.knob[2]), (atrium, chest.atrium[2]), (ventricle, chest.ventricle[3])):
        middle_out = torch.minimum(middle_out, (root_(outline.clone()) - 1) * scale)
    inner = lateral - s
    field = torch.minimum(torch.minimum(middle_out, inner), torch.minimum(diaphragm - y, 1e4 * y))

    deep = 2 * chest.depth * rounded(y, 0.8 * chest.cage) * rounded(inner, 0.6 * chest.width)
    air = deep * (1 - 0.88 * rounded(medial - s, 24.0)) * (1 - rounded(y - diaphragm, 70.0))
    heart = 2 * chest.heart_depth * root_(1 - torch.minimum(atrium, ventricle))
    heart = torch.maximum(heart, 80 * rounded(-trunk, chest.trunk))
    heart = torch.maximum(heart, 1.6 * chest.knob[2] * root_(1 - knob))
    fat = (1 - middle_out * (1 / 36)).clamp_(0, 1) * (1 - 0.5 * left)  # the lung is thinner beside the mediastinum
    air = air * (1 - chest.medial_fat * fat)
    air = torch.minimum(air, (deep - heart).clamp_min_(0) * 0.9 + 0.1 * air)
    return Lungs(lateral, diaphragm, air, field)


def body(chest: Chest[Tensor], x: Tensor, y: Tensor, lateral: Tensor) -> Tensor:
    """Length of the ray inside the skin, in mm, as if all were solid; 0 in the air around the patient."""
    s = x.abs()
    sx, sy = chest.shoulder
    slope = ((s - chest.neck) * (1 / (sx - chest.neck))).clamp_(0, 1)
    skin = chest.neck_y + (sy - chest.neck_y) * ((1.6 - 0.6 * slope) * slope)
    skin = skin + (s - sx).clamp_min_(0) * (0.1 + 0.8 * chest.arm)
    wall = lateral + chest.wall * (0.4 + 0.6 * rounded(y, 80.0))
    torso = 2 * (chest.depth + chest.belly) * rounded(wall - s, 0.75 * chest.width) * rounded(y - skin, 170.0)
    neck = 2 * chest.neck * rounded(chest.neck - s, chest.neck) * (1 - 0.5 * rounded(y - 10, 80.0))
    beyond = s - (chest.width + chest.wall)
    under = chest.axilla + chest.arm * beyond.clamp_min(0) + 1.3 * beyond.clamp_max(0)
    shoulder = 2.6 * root_((y - skin).clamp_min_(0) * (under - y).clamp_min_(0)).clamp_max_(62.0)
    squares = (torso * torso).square_() + (shoulder * shoulder).square_() + (neck * neck).square_()
    solid = root_(root_(squares))  # a soft maximum
    return solid * step(solid - 1)


def _extent(reached: Tensor) -> slice:
    """The rows or columns from the first to the last that an organ reaches in any picture; `reached` is (B, L)."""
    places = torch.nonzero(reached.any(0))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def ribs(chest: Chest[Tensor], x: Tensor, y: Tensor) -> Tensor:
    r"""Dense bone of the ribs, in mm.

    A rib is a tilted ring around the cage,
    :math:`(x, y, z) = (a\sin\theta,\; y_0 - b\cos\theta,\; -c\cos\theta)`. Its shadow is the ellipse
    :math:`(x/a)^2 + ((y-y_0)/b)^2 = 1`: the upper half is the rib's back, the lower half its front. A ray
    crosses more bone where the ring runs along it, :math:`ds_{3D}/ds_{2D}` times as much: at the sides.
    """
    rib = torch.arange(RIBS, device=x.device)
    b = chest.rib_drop * (0.5 + 0.125 * rib.clamp_max(4) + 0.04 * (rib - 4).clamp_min(0))  # (B, 1, RIBS)
    yc = chest.rib_first + chest.rib_pitch * rib + b
    a = _half_width(chest, yc) + 4.5
    cartilage = chest.cartilage + 5 * rib
    first = (y.amax(2)[..., None] < yc - b - chest.rib_hump.clamp_min(0) - 10).sum(1)  # row that each can reach
    last = (y.amin(2)[..., None] < yc + b + 12).sum(1)
    count, height, width = x.shape
    tall = (last - first).amax(0).clamp(1, height).tolist()
    start = height * torch.arange(count, device=x.device)[:, None]  # of each picture, among the rows of all

    bone = torch.zeros_like(x).flatten(0, 1)
    for i, rows in enumerate(tall):  # one at a time stays in the processor's cache
        at = start + first[:, i, None].clamp_max(height - rows) + torch.arange(rows, device=x.device)
        near = (xy.flatten(0, 1).index_select(0, at.flatten()).view(count, rows, width) for xy in (x, y))
        ring = (number[..., i, None] for number in (a, b, yc, cartilage))
        bone.index_add_(0, at.flatten(), _rib_shadow(chest, *near, *ring).flatten(0, 1))
    return bone.view_as(x) * chest.rib_bone


def _rib_shadow(
    chest: Chest[Tensor], x: Tensor, y: Tensor, a: Tensor, b: Tensor, yc: Tensor, cartilage: Tensor
) -> Tensor:
    """A rib's share of bone in the rows that it can reach."""
    tall = 2 * chest.rib_height
    v = (y - yc).mul_(1 / b)
    forward = v.clamp(-1, 1)  # from the back, -1, to the front, 1
    u = (x - (chest.rotation * chest.depth) * forward).abs_().mul_(1 / a)
    uu = u * u
    front = forward.add_(1).mul_(0.5)
    v += (u - uu).clamp_min_(0).mul_(1 - front).mul_(4 * chest.rib_hump / b)
    vv = v.square_()
    slope = (uu * (tall / a) ** 2).add_(vv * (tall / b) ** 2)  # of the ellipse's equation, squared; 1 in a `tall`
    level = vv.add_(uu).sub_(1)  # over the slope, the distance from the ring
    flat = (1 - 0.45 * uu).clamp_min_(0.55)  # a rib is half as thick as it is tall: seen from its edge at the sides
    shape = tube(level.square_().div_((0.35 * front).add_(1).mul_(flat).square_().mul_(slope)))
    steep = slope.mul_((a * b / tall) ** 2).add_(1)
    along = (steep / uu.mul_(chest.depth**2).add_(steep)).clamp_min_(1.7**-2).rsqrt_()
    fade = u.mul_(-0.025 * a).add_(1 + 0.025 * (cartilage - 14)).clamp_(0.65, 1)  # cartilage does not show
    return shape.mul_(along).mul_(1 - front.mul_(fade))


def spine(chest: Chest[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Dense bone of the vertebrae, in mm: bodies, discs between them, pedicles and spinous processes."""
    s = x.abs()
    phase = (y - chest.rib_first) * (1 / chest.rib_pitch)
    off = phase - phase.round()  # from the middle of the nearest body
    disc = (7 * off.abs() - 7 * 0.36).clamp_min_(0)  # 0 in a body, 1 in the middle of a disc
    off = chest.rib_pitch * off
    half = chest.spine * (1 + 0.0006 * y) * (1 - 0.08 * disc)
    bodies = rounded(half - s, 9.0) * (1 - 0.4 * disc)
    pedicles = blob_(ball(s, off, 0.62 * half, -4, 14**0.5, 22**0.5))
    process = blob_(ball(x, off, -40 * chest.rotation, 6, 4, 60**0.5))
    transverse = rounded(1.9 * half - s, 10.0) * blob_(off * off * (1 / 40))
    bodies = bodies * (0.6 + 0.002 * y).clamp_(0.5, 1.0)  # vertebrae grow downwards
    return chest.spine_bone * (bodies + 0.25 * pedicles + 0.3 * process + 0.22 * transverse)


def girdle(chest: Chest[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Dense bone of clavicles, shoulder blades and upper arms, in mm."""
    s = x.abs()
    sx, sy = chest.shoulder
    inner, outer, bend, half = chest.clavicle
    fall = outer + sy - inner
    along = ((s - 16) * (1 / (sx - 22))).clamp_(0, 1)
    rest = 1 - along
    centre = inner + fall * along - bend * torch.sin(2 * torch.pi * along)
    centre = centre + (120 * chest.rotation) * (step(x) - 0.5) * rest
    thick = 1 + 0.35 * (rest * rest).square_() + 0.2 * (along * along).square_()
    thick = half * (1 + (fall / (sx - 22)) ** 2) ** 0.5 * thick
    clavicle = 15.0 * tube(((y - centre) / thick).square_(), 0.6)
    clavicle = clavicle * ((s - 13) * 0.2).clamp_(0, 1) * ((sx - 4 - s) * 0.2).clamp_(0, 1)

    medial, low, plate = chest.scapula
    head = (sx + 2, sy + 34)
    reach = (head[0] + 70 / (1 + chest.arm), head[1] + 70 * chest.arm / (1 + chest.arm) + 20)
    humerus = torch.maximum(tube(ball(s, y, *head, 24, 24), 0.6), tube(rod(s, y, head, reach) * 12.5**-2, 0.75))
    glenoid = (sx - 22, sy + 36)
    lean = (glenoid[0] - medial - 12) / (low - glenoid[1])
    blade = torch.minimum(s - medial - 0.06 * (y - 60).abs_(), glenoid[0] - s - lean * (y - glenoid[1]))
    blade = torch.minimum(blade, torch.minimum(low - y, y - (sy + 8)))
    border = tube(rod(s, y, glenoid, (medial + 12, low)) * (1 / 36))
    ridge = tube(rod(s, y, (medial + 4, sy + 40), (sx, sy + 10)) * (1 / 49), 0.6)
    return clavicle + 9.0 * humerus + (0.5 * plate) * rounded(blade, 5.0) + 5.5 * border + 5.0 * ridge


def soft_parts(chest: Chest[Tensor], x: Tensor, y: Tensor, diaphragm: Tensor) -> Tensor:
    """Water-like tissue beside the body's outline, in mm: breasts, muscle, hila, aorta; gas counts below 0."""
    s = x.abs()
    tissue = chest.pectoral * rounded(80 + 0.5 * s - y, 60.0) * rounded(s - 40, 40.0) * rounded(y - 10, 60.0)
    bx, by, radius, thick = chest.breast
    fall = ((y - by) * (0.65 / radius) + 0.42).clamp_(0, 1)
    tissue += thick.clamp_min(0) * root_(1 - ball(s, y, bx, by, radius, radius * 1.05)) * fall
    tissue += 12 * rounded(chest.mediastinum[1] + 2 - (x - 4).abs_(), 12.0) * step(y - chest.knob[1])  # aorta
    tissue += _hila(chest, x, y)
    fork = 0.66 * chest.hilum[1]
    airway = 19 * tube(rod(x, y, (0, -200), (-2, fork)) * 0.01, 0)
    tissue -= torch.maximum(airway, 7 * tube(rod(s, y, (0, fork), (37, fork + 32)) * 6.5**-2, 0))
    low = _extent(y.amax(2) > torch.minimum(*chest.dome)[..., 0])
    x, y, diaphragm = x[:, low], y[:, low], diaphragm[:, low]
    gas = torch.zeros_like(x)
    for cx, cy, rx, ry, height in bubbles(chest):
        air = 1.6 * height * root_(1 - ball(x, y, cx, cy, rx, ry))
        gas = torch.maximum(gas, air * ((cy + 0.5 * ry - y) * 0.25 + 0.5).clamp_(0.25, 1))  # above a fluid level
    tissue[:, low] -= gas * ((y - diaphragm) * (1 / 6)).clamp_(0, 1)
    return tissue


def _hila(chest: Chest[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The roots of the lungs: a soft knot, the arteries to the lower lobes and the veins from the upper ones."""
    hx, hy = chest.hilum
    s, y = x.abs(), y + HILUM_LIFT * step(x)
    knot = 15 * blob_(1.5 * ball(s, y, hx, hy, 13, 22, -0.35))
    crowd = 13 * blob_(1.3 * ball(s, y, hx + 2, hy + 42, 30, 72, -0.12))  # small vessels over one another
    lower = 12 * blob_(rod(s, y, (hx, hy), (hx + 18, hy + 55)) * 6.5**-2)
    upper = 7 * blob_(rod(s, y, (hx - 2, hy), (hx + 10, hy - 45)) * 0.04)
    return chest.hilum_size * (knot + crowd + lower + upper)


def splat(col: Tensor, row: Tensor, weight: Tensor, size: int) -> Tensor:
    """Share points among the four nearest pixels: (B, K) to (B, size, size), summing to the weights inside.

    >>> float(splat(torch.tensor([[0.5]]), torch.tensor([[0.25]]), torch.tensor([[2.0]]), 8).sum())
    2.0
    """
    side = size + 4  # the canvas has a rim of two pixels, where all that lies outside the picture ends
    c, r = col * size - 0.5, row * size - 0.5
    c0, r0 = c.floor(), r.floor()
    right, down = (c - c0) * weight, r - r0
    left = weight - right
    place = (r0.clamp_(-2, size) + 2).long() * side + (c0.clamp_(-2, size) + 2).long()
    place = place + side * side * torch.arange(len(col), device=col.device)[:, None]
    canvas = weight.new_zeros(len(col) * side * side)
    for shift, mass in ((0, left), (1, right)):
        lower = mass * down
        canvas[shift:].index_add_(0, place.flatten(), (mass - lower).flatten())
        canvas[shift + side :].index_add_(0, place.flatten(), lower.flatten())
    return canvas.view(-1, side, side)[:, 2:-2, 2:-2]


def _vessels(chest: Chest[Tensor], view: View[Tensor], size: int, air: Tensor) -> Tensor:
    """Thickness of the vessel tree, in mm: its volume, dropped point by point into the pixels it falls on."""
    x, y, radius = vessel_tree(chest)
    steps = max(5, size // 12)
    # a piece bends so little in the picture that a parabola through three of its points is as good as the truth
    three = torch.tensor([[0.89, 0.5, 0.11], [0.11, 0.5, 0.89]], device=air.device)
    u = ((torch.arange(steps, device=air.device) + 0.5) / steps - 0.5) / 0.39
    parabola = torch.stack([u * (u - 1) / 2, 1 - u * u, u * (u + 1) / 2])
    col, row = ((at @ parabola).flatten(1) for at in view.to_picture(x @ three, y @ three))
    volume = (torch.pi / steps) * radius**2 * torch.hypot(x[..., 1] - x[..., 0], y[..., 1] - y[..., 0])
    thickness = splat(col, row, volume.repeat_interleave(steps, dim=1), size)
    return thickness * (size**2 / (view.field[0] * view.field[1])) * rounded(air, 40.0)


@cache
def _interpolation(grid: int, size: int, device: torch.device) -> Tensor:
    """The matrix that interpolates `size` values between `grid` ones linearly, (grid, size)."""
    return F.interpolate(torch.eye(grid, device=device)[None], size=size, mode="linear", align_corners=True)[0]


def texture(rng: np.random.Generator, grid: int, size: int, device: torch.device) -> Tensor:
    """Smooth noise of unit strength with features of 1/`grid` of the picture: (size, size)."""
    rough = torch.as_tensor(rng.standard_normal((grid, grid), dtype=np.float32), device=device)
    between = _interpolation(grid, size, device)
    return between.T @ rough @ between


def _unevenness(chest: Chest[Tensor], size: int) -> Tensor:
    """Muscle, fat and marrow are uneven: textures of three grains, (B, size, size) in mm."""
    device = chest.width.device
    rngs = [np.random.default_rng(seed + 2) for seed in chest.seeds]
    across, down = [], []
    for grid, strength in ((9, 7.0), (26, 2.2), (64, 1.6)):
        rough = np.stack([rng.standard_normal((grid, grid), dtype=np.float32) for rng in rngs])
        across.append(_interpolation(grid, size, device))
        down.append(strength * across[-1].T @ torch.as_tensor(rough, device=device))
    return torch.cat(down, dim=-1) @ torch.cat(across)


@dataclass(frozen=True)
class Projection:
    """What the rays crossed, each (H, W) or (B, H, W) in mm, and where in the patient each pixel lies."""

    tissue: Tensor
    bone: Tensor
    air: Tensor  # lung
    field: Tensor  # depth inside the lung field; > 0 is the mask
    x: Tensor
    y: Tensor

    def __getitem__(self, index: int) -> Projection:
        """One of several."""
        return Projection(*(getattr(self, f.name)[index] for f in fields(self)))


def project(chest: Chest[float], view: View[float], size: int, device: str | torch.device = "cpu") -> Projection:
    """Everything that the rays cross on their way to each of `size` x `size` pixels.

    Introduced in chapter 1.

    >>> from cxr_tutorial.data.anatomy import draw_chest
    >>> still = ((0.0, 0.0, 0.0),) * 3
    >>> view = View(field=(358.0, 358.0), apex=(0.5, 0.08), tilt=0.0, bends=still)
    >>> maps = project(draw_chest(np.random.default_rng(0)), view, 64)
    >>> maps.tissue.shape, bool((maps.bone >= 0).all()), 0.15 < float((maps.field > 0).float().mean()) < 0.5
    (torch.Size([64, 64]), True, True)
    """
    return project_all(together([chest], device), together([view], device), size)[0]


def project_all(chest: Chest[Tensor], view: View[Tensor], size: int) -> Projection:
    """What `project` does, for several patients at once: maps are (B, H, W)."""
    at = (torch.arange(size, device=view.tilt.device, dtype=torch.float32) + 0.5) / size
    x, y = (xy.contiguous() for xy in view.to_patient(at[None, :], at[:, None]))
    parts = lungs(chest, x, y)
    solid = body(chest, x, y, parts.lateral)
    inside = step(solid - 8)
    tissue = solid - (1 - chest.lung_density) * parts.air + _unevenness(chest, size) * inside
    tissue = tissue + soft_parts(chest, x, y, parts.diaphragm) + _vessels(chest, view, size, parts.air)
    tissue = torch.maximum(tissue, 0.12 * solid)
    bone = ribs(chest, x, y)
    middle = _extent(x.abs().amin(1) < 2.6 * chest.spine[..., 0])
    bone[..., middle] += spine(chest, x[..., middle].contiguous(), y[..., middle].contiguous())
    upper = _extent(y.amin(2) < torch.maximum(chest.scapula[1] + 6, chest.shoulder[1] + 137)[..., 0])
    bone[:, upper] += girdle(chest, x[:, upper], y[:, upper])
    return Projection(tissue, bone * inside, parts.air, parts.field, x, y)
