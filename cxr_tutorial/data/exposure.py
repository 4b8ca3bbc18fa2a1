"""From tissue in millimetres to a picture: rays, scatter, noise, film or detector, and what is burnt into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Generic

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cxr_tutorial.data.anatomy import Number, together
from cxr_tutorial.data.projection import LOG2_E, root_

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
class Exposure(Generic[Number]):
    r"""How the rays are made and caught.

    Attributes
    ----------
    tissue, bone : attenuation of water-like tissue and of dense bone beyond it, per mm.
    scatter : scattered rays as a share of what reaches the film; `spread` is their reach in mm.
    photons : rays per pixel of a 128-pixel picture in open air, which sets the quantum noise.
    blur : of focal spot and detector, standard deviation in mm.
    film : steepness of the film's curve, or 0 for a digital detector with a logarithmic scale.
    level : exposure behind the lungs in units of the film's middle; for the digital scale,
        the grey of what is densest.
    detail, detail_radius : how much of the difference to a blurred copy is added, and its radius in mm.
    gamma, black, white : tone curve of the display.
    grain : noise of film or digitiser in grey levels of a [0, 1] picture.
    """

    tissue: Number
    bone: Number
    scatter: Number
    spread: Number
    photons: Number
    blur: Number
    film: Number
    level: Number
    detail: Number
    detail_radius: Number
    gamma: Number
    black: Number
    white: Number
    grain: Number


def draw_exposure(rng: np.random.Generator, site: str) -> Exposure[float]:
    """One exposure as site a (film, digitised), b (computed radiography, dark) or c (digital, processed) makes them."""

    def u(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

    common = Exposure(
        tissue=u(0.0165, 0.0215),
        bone=u(0.024, 0.038),
        scatter=u(0.04, 0.14),
        spread=u(20, 45),
        photons=float(np.exp(u(np.log(4e4), np.log(3e6)))),
        blur=u(0.3, 1.0),
        film=u(1.6, 2.8),
        level=u(0.85, 1.7),
        detail=u(0.0, 0.4),
        detail_radius=u(6, 25),
        gamma=u(0.8, 1.25),
        black=u(0.0, 0.04),
        white=u(0.95, 1.0),
        grain=u(0.0, 0.006),
    )
    if site == "b":
        return replace(common, film=u(1.7, 3.0), level=u(0.9, 2.0), detail=u(0.0, 0.6), black=0.0)
    if site == "c":
        return replace(
            common,
            film=0.0,
            bone=u(0.032, 0.052),
            level=u(0.82, 0.97),
            scatter=u(0.02, 0.07),
            detail=u(0.4, 1.6),
            detail_radius=u(8, 40),
            gamma=u(0.5, 0.8),
            black=u(0.01, 0.08),
            white=1.0,
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
    tissue: Tensor, bone: Tensor, lung: Tensor, exposure: Exposure[float], pixel: float, rng: np.random.Generator
) -> Tensor:
    r"""The picture that a beam makes: air dark, bone light, (H, W) in [0, 1].

    .. math::
        E = e^{-(\mu_t T + \mu_b B)} + S, \qquad E \leftarrow E + \sqrt{E / N}\;\varepsilon, \qquad
        v = \frac{1}{1 + (E / E_0)^{g}} \;\text{ (film)} \quad\text{or}\quad v \propto -\log E \;\text{ (digital)}

    Scatter `S` is born in proportion to what a ray lost and spreads over centimetres; it veils the dense parts.

    Parameters
    ----------
    tissue, bone : (H, W), mm (see `anatomy.project`).
    lung : (H, W), 1 in the lungs, where the automatic exposure measures.
    pixel : mm per pixel.
    """
    return expose_all(tissue[None], bone[None], lung[None], [exposure], [pixel], [rng])[0]


def expose_all(
    tissue: Tensor,
    bone: Tensor,
    lung: Tensor,
    exposures: Sequence[Exposure[float]],
    pixels: Sequence[float],
    rngs: Sequence[np.random.Generator],
) -> Tensor:
    """What `expose` does, for several pictures at once: maps are (B, H, W)."""
    size = tissue.shape[-1]
    beam: Exposure[Tensor] = together(exposures, tissue.device)
    primary = (tissue * (-LOG2_E * beam.tissue) + bone * (-LOG2_E * beam.bone)).exp2_()
    born = (1 - primary) * root_(primary.clone())
    energy = primary + beam.scatter * _blurred(born, beam.spread, pixels)
    energy = _blurred(energy, beam.blur, pixels)
    grains = np.stack([rng.standard_normal((size, size), dtype=np.float32) for rng in rngs])
    noise = torch.as_tensor(grains, device=tissue.device)
    energy = (energy + root_(energy / (beam.photons * (128 / size) ** 2)) * noise).clamp_min_(1e-4)
    measured = [(part.sum((1, 2), dtype=torch.float64) + 1e-3)[:, None, None] for part in (energy * lung, lung)]
    behind_lung = (measured[0] / measured[1]).float()
    density = -torch.log(energy)
    film = torch.sigmoid(beam.film * (density - torch.log(beam.level / behind_lung)))
    dense = F.avg_pool2d(density, max(1, size // 16)).amax((1, 2), keepdim=True).clamp_min(0.1)
    image = torch.lerp(density * (beam.level / dense), film, (beam.film > 0).float())
    image = image + beam.detail * (image - _blurred(image, beam.detail_radius, pixels))
    image = image.clamp_(1e-4, 1) ** beam.gamma
    image = beam.black + (beam.white - beam.black) * image
    return (image - beam.grain * noise.flip(1)).clamp_(0, 1)  # the same draw upside down: no second one needed


def _blurred(images: Tensor, sigmas: Tensor, pixels: Sequence[float]) -> Tensor:
    """Each picture blurred as its own exposure says; `sigmas` in mm."""
    wide = zip(images, sigmas.flatten().tolist(), pixels, strict=True)
    return torch.stack([blurred(image, sigma / pixel) for image, sigma, pixel in wide])


@cache
def _letters(words: str) -> Tensor:
    """Framed letters, (1, 1, 9, wide)."""
    cells = [np.array([list(line) for line in _GLYPHS[letter].split()], dtype=np.float32) for letter in words]
    framed = [np.pad(cell, ((1, 1), (1, 0))) for cell in cells] + [np.zeros((9, 1), np.float32)]
    return torch.as_tensor(np.concatenate(framed, axis=1))[None, None]


def _text(image: Tensor, words: str, row: float, col: float, height: float, ink: float, plate: float | None) -> None:
    """Burn letters in, in place; sizes are shares of the picture, `plate` is the grey of what they stand on."""
    size = image.shape[-1]
    shape = _letters(words).to(image.device)
    tall = max(3, round(height * size * 9 / 7))
    wide = max(3, round(tall * shape.shape[-1] / 9))
    cover = F.interpolate(shape, size=(tall, wide), mode="area" if tall < 9 else "bilinear")[0, 0]
    top, start = int(row * size), int(col * size)
    patch = image[top : top + tall, start : start + wide]
    cover = cover[: patch.shape[0], : patch.shape[1]]
    patch.copy_((patch if plate is None else plate) * (1 - cover) + ink * cover)


def burn_in(image: Tensor, lung: Tensor, site: str, rng: np.random.Generator) -> Tensor:
    """Black-outs, borders and markers as each site has them.

    Black-outs, letters and the mark of a film may lie on a few pixels of lung, most often of its apex; the shutters of
    site b leave it free.

    Parameters
    ----------
    image, lung : (H, W); `lung` is True in the lung field, which the shutters leave free.

    Returns
    -------
    Tensor
        A new picture, (H, W).
    """
    image = image.clone()
    if site == "a":
        _film(image, rng)
    elif site == "b":
        _plate(image, lung, rng)
    else:
        _detector(image, rng)
    return image


def _film(image: Tensor, rng: np.random.Generator) -> None:
    """A digitised film: names blacked out, the light box shining past its edges."""
    size = image.shape[-1]

    def at(low: float, high: float) -> int:
        return int(rng.uniform(low, high) * size)

    for place in (at(0.02, 0.25), at(0.7, 0.9)):
        if rng.random() < 0.6:
            image[: at(0.02, 0.06), place : place + at(0.08, 0.2)] = 0.0
    if rng.random() < 0.15:
        place = at(0.25, 0.6)
        image[at(0.9, 0.97) :, place : place + at(0.1, 0.2)] = 0.0
    if rng.random() < 0.5:
        image[size - max(1, at(0.0, 0.02)) :] = 1.0
    if rng.random() < 0.25:
        image[:, size - max(1, at(0.0, 0.02)) :] = 1.0
    if rng.random() < 0.1:
        image[:, : max(1, at(0.005, 0.03))] = 1.0
    if rng.random() < 0.15:
        _text(image, "R", rng.uniform(0.03, 0.15), rng.uniform(0.02, 0.08), rng.uniform(0.03, 0.05), 0.9, None)


def _plate(image: Tensor, lung: Tensor, rng: np.random.Generator) -> None:
    """An imaging plate: shutters that leave black borders, plates of lead letters, small print."""
    size = image.shape[-1]
    rows, cols = torch.nonzero(lung.any(1)), torch.nonzero(lung.any(0))
    top, bottom = (int(rows[0]), int(rows[-1])) if len(rows) else (0, size - 1)
    first, last = (int(cols[0]), int(cols[-1])) if len(cols) else (0, size - 1)
    lean = float(rng.uniform(-0.03, 0.03)) * torch.linspace(-1, 1, size, device=image.device)
    edge = size * (float(rng.uniform(0.68, 1.0)) + lean)
    edge = edge.clamp_min(bottom + 2.0) if rng.random() < 0.75 else edge + size
    row = torch.arange(size, device=image.device)[:, None]
    glare = float(rng.uniform(0.4, 0.9)) * (rng.random() < 0.5)
    image.mul_(row <= edge).masked_fill_((row - edge).abs() < 0.8, glare)
    if rng.random() < 0.12:  # shutters on all sides
        side = int(rng.uniform(0.03, 0.2) * size)
        image[: min(top, int(rng.uniform(0, 0.05) * size))] = 0.0
        image[:, : min(first, side)] = 0.0
        image[:, max(last + 1, size - side) :] = 0.0
    _text(image, "R", rng.uniform(0.03, 0.2), rng.uniform(0.01, 0.12), rng.uniform(0.03, 0.05), 0.9, None)
    place, start = float(rng.uniform(0.02, 0.08)), float(rng.uniform(0.74, 0.84))
    plate, ink = (1.0, 0.05) if rng.random() < 0.8 else (None, 0.9)
    _text(image, "PA", place, start + 0.03, 0.028, ink, plate)
    _text(image, "ERECT", place + 0.055, start, 0.028, ink, plate)
    marks = rng.random((int(rng.integers(6, 30)), 2)) * (0.28, 0.12) + (place + 0.01, 0.86)
    r, c = torch.as_tensor((marks * size).astype(np.int64), device=image.device).T
    image[r, c] = image[(r + 1).clamp_max(size - 1), c] = 0.8


def _detector(image: Tensor, rng: np.random.Generator) -> None:
    """A digital detector: one small letter, narrow edges."""
    size = image.shape[-1]
    letter, low, high = ("R", 0.0, 0.3) if rng.random() < 0.5 else ("L", 0.6, 0.95)
    start = float(rng.uniform(low, high))
    _text(image, letter, rng.uniform(0.01, 0.1), start, rng.uniform(0.03, 0.045), 0.95, None)
    if rng.random() < 0.5:
        _text(image, "1", rng.uniform(0.05, 0.12), start + 0.01, 0.02, 0.9, None)
    if rng.random() < 0.35:
        image[size - max(1, int(rng.uniform(0, 0.02) * size)) :] = float(rng.uniform(0, 1))
    if rng.random() < 0.2:
        edge = max(1, int(rng.uniform(0, 0.025) * size))
        image[:, :edge] = image[:, size - edge :] = float(rng.uniform(0, 0.1))
