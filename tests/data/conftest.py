"""Small made-up pictures and masks, to be laid out as the real sets are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


class Darkroom:
    """Writes pictures: grey noise, and masks of a left and a right half."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def picture(self, path: Path, size: tuple[int, int] = (24, 20), mode: str = "L") -> NDArray[np.uint8]:
        """A noise picture of (height, width); returns its grey values."""
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = self.rng.integers(0, 256, size, dtype=np.uint8)
        picture = Image.fromarray(grey)
        if mode == "P":  # index i shows grey 255 - i, so that raw indices would be a negative
            picture = Image.fromarray(255 - grey)
            picture.putpalette([255 - i for i in range(256) for _ in range(3)])
        elif mode != "L":
            picture = picture.convert(mode)
        picture.save(path)
        return grey

    def mask(self, path: Path, side: str, size: tuple[int, int] = (24, 20), mode: str = "1") -> None:
        """True in the left or right third of the picture's columns, or in both (`side="both"`)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros(size, np.uint8)
        third = size[1] // 3
        if side in ("left", "both"):
            mask[:, :third] = 255
        if side in ("right", "both"):
            mask[:, -third:] = 255
        picture = Image.fromarray(mask)
        if mode == "P":  # two colours, as in the SCR files: index 1 is white
            picture = Image.fromarray(mask // 255)
            picture.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
        else:
            picture = picture.convert(mode)
        picture.save(path)


@pytest.fixture
def darkroom() -> Darkroom:
    return Darkroom()
