"""From tissue in millimetres to a picture: rays, scatter, noise, film or detector, and what is burnt into it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SITES = ("a", "b", "c")

_GLYPHS = {
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "1": "00100 01100 00100 00100 00100 00100 01110",
}


@dataclass(frozen=True)
class Exposure:
    r"""How the rays are made and caught.

    Attributes
    ----------
    tissue, bone : attenuation of water-like tissue and of dense bone beyond it, per mm.
    scatter : scattered rays as a share of what reaches the film; `spread` is their reach in mm.
    photons : rays per pixel of a 128-pixel picture in open air, which sets the quantum noise.
    blur : of focal spot and detector, standard deviation in mm.
    film : steepness of the film's curve, or 0 for a digital detector with a logarithmic scale.
    level : exposure behind the lungs in units of the film's middle; for the digital scale, the log range shown.
    detail, detail_radius : how much of the difference to a blurred copy is added, and its radius in mm.
    gamma, black, white : tone curve of the display.
    grain : noise of film or digitiser in grey levels of a [0, 1] picture.
    """

    tissue: float
    bone: float
    scatter: float
    spread: float
    photons: float
    blur: float
    film: float
    level: float
    detail: float
    detail_radius: float
    gamma: float
    black: float
    white: float
    grain: float


def draw_exposure(rng: np.random.Generator, site: str) -> Exposure:
    """One exposure as site a (film, digitised), b (computed radiography, dark) or c (digital, processed) makes them."""

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    common = Exposure(
        tissue=u(0.0165, 0.0215),
        bone=u(0.024, 0.038),
        scatter=u(0.04, 0.14),
        spread=u(20, 45),
        photons=float(np.exp(u(np.log(3e4), np.log(4e5)))),
        blur=u(0.4, 1.3),
        film=u(1.3, 2.1),
        level=u(1.2, 2.2),
        detail=u(0.0, 0.4),
        detail_radius=u(6, 25),
        gamma=u(0.8, 1.25),
        black=u(0.0, 0.04),
        white=u(0.95, 1.0),
        grain=u(0.001, 0.008),
    )
    if site == "b":
        return replace(common, film=u(1.4, 2.4), level=u(1.5, 3.0), detail=u(0.0, 0.6), black=0.0)
    if site == "c":
        return replace(
            common,
            film=0.0,
            level=u(3.4, 4.8),
            scatter=u(0.02, 0.07),
            detail=u(0.3, 1.4),
            detail_radius=u(8, 40),
            gamma=u(0.6, 0.95),
            black=u(0.01, 0.08),
            white=u(0.88, 1.0),
        )
    return common


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of an (H, W) map, `sigma` in pixels; a wide one is made on a coarser grid."""
    if sigma < 0.3:
        return image
    factor = max(1, int(sigma / 2))
    small = image[None, None]
    if factor > 1:
        small = F.avg_pool2d(small, factor, ceil_mode=True, count_include_pad=False)
    reach = max(1, int(np.ceil(2.5 * sigma / factor)))
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (at * factor / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(small, (reach, reach, reach, reach), mode="replicate")
    small = F.conv2d(F.conv2d(padded, kernel[None, None, None, :]), kernel[None, None, :, None])
    if factor > 1:
        small = F.interpolate(small, size=image.shape, mode="bilinear", align_corners=False)
    return small[0, 0]


def expose(
    tissue: Tensor, bone: Tensor, lung: Tensor, exposure: Exposure, pixel: float, rng: np.random.Generator
) -> Tensor:
    r"""The picture that a beam makes: air dark, bone light, (H, W) in [0, 1].

    .. math::
        E = e^{-(\mu_t T + \mu_b B)} + S, \qquad E \leftarrow E + \sqrt{E / N}\;\varepsilon, \qquad
        v = \frac{1}{1 + (E / E_0)^{g}} \;\text{ (film)} \quad\text{or}\quad v = -\log(E) / r \;\text{ (digital)}

    Scatter `S` is born in proportion to what a ray lost and spreads over centimetres; it veils the dense parts.

    Parameters
    ----------
    tissue, bone : (H, W), mm (see `anatomy.project`).
    lung : (H, W) bool, where the automatic exposure measures.
    pixel : mm per pixel.
    """
    size = tissue.shape[-1]
    primary = torch.exp(-(exposure.tissue * tissue + exposure.bone * bone))
    born = primary.sqrt() * (1 - primary)
    energy = primary + exposure.scatter * blurred(born, exposure.spread / pixel)
    energy = blurred(energy, exposure.blur / pixel)
    noise = torch.as_tensor(rng.standard_normal((2, size, size), dtype=np.float32), device=tissue.device)
    photons = exposure.photons * (128 / size) ** 2
    energy = (energy + (energy / photons).sqrt() * noise[0]).clamp_min(1e-4)
    behind_lung = energy[lung].median() if bool(lung.any()) else energy.median()
    if exposure.film > 0:
        image = 1 / (1 + (energy * (exposure.level / behind_lung)) ** exposure.film)
    else:
        image = -torch.log(energy) / exposure.level
    if exposure.detail > 0:
        image = image + exposure.detail * (image - blurred(image, exposure.detail_radius / pixel))
    image = image.clamp(0, 1) ** exposure.gamma
    image = exposure.black + (exposure.white - exposure.black) * image
    return (image + exposure.grain * noise[1]).clamp(0, 1)


def _text(
    image: Tensor, words: str, row: float, col: float, height: float, value: float, box: float | None
) -> None:
    """Burn letters in, in place; sizes as shares of the picture; `box` is the grey of a plate behind them."""
    size = image.shape[-1]
    cells = [
        np.array([[int(c) for c in line] for line in _GLYPHS[letter].split()], dtype=np.float32)
        for letter in words
    ]
    ink = np.concatenate([np.pad(cell, ((1, 1), (1, 0))) for cell in cells] + [np.zeros((9, 1))], axis=1)
    tall = max(3, round(height * size * 9 / 7))
    wide = max(3, round(tall * ink.shape[1] / 9))
    shape = torch.as_tensor(ink, dtype=torch.float32, device=image.device)[None, None]
    ink_map = F.interpolate(shape, size=(tall, wide), mode="area" if tall < 9 else "bilinear")[0, 0]
    top, start = max(0, int(row * size)), max(0, int(col * size))
    patch = image[top : top + tall, start : start + wide]
    ink_map = ink_map[: patch.shape[0], : patch.shape[1]]
    patch.copy_((patch if box is None else box) * (1 - ink_map) + value * ink_map)


def burn_in(image: Tensor, site: str, rng: np.random.Generator) -> Tensor:
    """Black-outs, film edges, collimation borders and markers, as each site has them; (H, W), a new tensor."""
    image = image.clone()
    size = image.shape[-1]

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def at(share: float) -> int:
        return int(share * size)

    if site == "a":
        for place in (u(0.02, 0.25), u(0.7, 0.9)):  # names are blacked out
            if rng.random() < 0.6:
                image[: at(u(0.03, 0.08)), at(place) : at(place + u(0.08, 0.2))] = 0.0
        if rng.random() < 0.07:
            top, start = u(0.88, 0.95), u(0.25, 0.6)
            image[at(top) :, at(start) : at(start + u(0.1, 0.2))] = 0.0
        if rng.random() < 0.5:  # the light box shows beside the film
            image[size - max(1, at(u(0.0, 0.02))) :] = 1.0
        if rng.random() < 0.25:
            image[:, size - max(1, at(u(0.0, 0.02))) :] = 1.0
        if rng.random() < 0.1:
            image[:, : max(1, at(u(0.005, 0.04)))] = 1.0
        if rng.random() < 0.15:
            _text(image, "R", u(0.03, 0.15), u(0.02, 0.08), u(0.03, 0.05), 0.9, None)
    elif site == "b":
        if rng.random() < 0.75:  # the shutter below the chest
            across = torch.linspace(-0.5, 0.5, size, device=image.device)
            edge = size * (u(0.72, 1.0) + u(-0.04, 0.04) * across)
            row = torch.arange(size, device=image.device)[:, None]
            line = (row - edge).abs() < 0.8
            image = torch.where(row > edge, 0.0, image)
            if rng.random() < 0.5:
                image = torch.where(line, 0.7 * torch.ones_like(image), image)
        if rng.random() < 0.12:  # the whole film smaller than the frame
            side, top, low = u(0.03, 0.2), u(0.0, 0.05), u(0.7, 0.95)
            inside = torch.zeros_like(image)
            inside[at(top) : at(low), at(side) : at(1 - side * u(0.6, 1.2))] = 1
            image = image * inside
        _text(image, "R", u(0.03, 0.2), u(0.01, 0.15), u(0.035, 0.06), 0.9, None)
        top, start = u(0.02, 0.1), u(0.74, 0.84)
        plate = 1.0 if rng.random() < 0.8 else None
        ink = 0.05 if plate else 0.9
        _text(image, "PA", top, start + 0.03, 0.028, ink, plate)
        _text(image, "ERECT", top + 0.055, start, 0.028, ink, plate)
        for _ in range(int(rng.integers(6, 30))):  # small print, written downwards
            r, c = at(top + 0.09 + u(-0.08, 0.2)), at(u(0.86, 0.98))
            image[r : r + 2, c : c + 1] = 0.8
    else:
        letter = "R" if rng.random() < 0.5 else "L"
        col = u(0.0, 0.3) if letter == "R" else u(0.6, 0.95)
        _text(image, letter, u(0.01, 0.1), col, u(0.03, 0.045), 0.95, None)
        if rng.random() < 0.5:
            _text(image, "1", u(0.05, 0.12), col + 0.01, 0.02, 0.9, None)
        if rng.random() < 0.35:
            image[size - max(1, at(u(0.0, 0.02))) :] = u(0.0, 1.0)
        if rng.random() < 0.2:
            edge = max(1, at(u(0.0, 0.03)))
            image[:, :edge] = image[:, size - edge :] = u(0.0, 0.1)
    return image
