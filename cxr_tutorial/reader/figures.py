"""The look of the book: one palette, one style, an overlay of masks on an X-ray (floor 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cxr_tutorial.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
"""Okabe and Ito's eight colours, which people with any common colour blindness can tell apart."""

TRUTH, PREDICTION = PALETTE["sky"], PALETTE["orange"]
"""On an X-ray the true mask is always sky blue, the predicted one always orange."""

BACKGROUND = "#FFFFFF"
INK = "#222222"
GRID = "#DDDDDD"


def use_style() -> None:
    """Give every matplotlib figure drawn from now on the look of the book.

    The background is opaque and light on purpose, so that a figure reads the same on a dark page. Lines
    cycle through `PALETTE`, without yellow, which is too pale for a thin line on white.

    Examples
    --------
    >>> use_style()
    >>> import matplotlib; matplotlib.rcParams["figure.facecolor"]
    '#FFFFFF'
    """
    import matplotlib as mpl
    from cycler import cycler

    lines = [colour for name, colour in PALETTE.items() if name != "yellow"]
    mpl.rcParams.update(
        {
            "figure.facecolor": BACKGROUND,
            "savefig.facecolor": BACKGROUND,
            "axes.facecolor": BACKGROUND,
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 120,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.prop_cycle": cycler(color=lines),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "lines.linewidth": 2.0,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def overlay(
    ax: Axes,
    image: ArrayLike,
    mask: ArrayLike | None = None,
    prediction: ArrayLike | None = None,
    title: str = "",
) -> None:
    """Draw an X-ray with the outline of its true mask and of a predicted one.

    The true mask is a sky blue line, the predicted one an orange dashed line, so that they also differ
    without colour. What only one of the two covers is tinted in that one's colour: orange is a false
    positive, blue a false negative.

    Parameters
    ----------
    ax : the matplotlib axes to draw on; its ticks are removed.
    image : (H, W), in [0, 1]: 0 is black and 1 is white.
    mask, prediction : (H, W) bool, or None.
    title : text above the picture.

    Raises
    ------
    InputError : the image is not (H, W), or a mask has another shape.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> overlay(plt.figure().add_subplot(), np.zeros((8, 8)), np.eye(8) > 0)
    """
    image = np.asarray(image)  # (H, W)
    if image.ndim != 2:
        raise InputError(f"an image must be (H, W), got {image.shape}: pick one channel, such as image[0]")
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    truth, guess = _same_shape(image, mask, "mask"), _same_shape(image, prediction, "prediction")
    if truth is not None and guess is not None:
        _tint(ax, truth & ~guess, TRUTH)
        _tint(ax, guess & ~truth, PREDICTION)
    if truth is not None:
        _outline(ax, truth, TRUTH, "solid")
    if guess is not None:
        _outline(ax, guess, PREDICTION, "dashed")
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def figure_layout(*, alt: str = "", **more: Any) -> dict[str, Any]:
    """The layout that gives a plotly figure the look of the book.

    Parameters
    ----------
    alt : what a reader who cannot see the figure should be told; it becomes the figure's label in the
        rendered book.
    more : any other entry of a plotly layout, such as `height=400`; it wins over the book's own.

    Returns
    -------
    Keywords for `plotly.graph_objects.Figure.update_layout`.

    Examples
    --------
    >>> import plotly.graph_objects as go
    >>> figure = go.Figure().update_layout(**figure_layout(alt="an empty plot", height=300))
    >>> figure.layout.meta["alt"], figure.layout.paper_bgcolor
    ('an empty plot', '#FFFFFF')
    """
    axis = {"gridcolor": GRID, "linecolor": INK, "showline": True, "zeroline": False, "ticks": "outside"}
    look: dict[str, Any] = {
        "template": {"layout": {"xaxis": axis, "yaxis": axis}},
        "paper_bgcolor": BACKGROUND,
        "plot_bgcolor": BACKGROUND,
        "font": {"size": 14, "color": INK, "family": "system-ui, sans-serif"},
        "colorway": [colour for name, colour in PALETTE.items() if name != "yellow"],
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        "height": 420,
        "meta": {"alt": alt},
    }
    return look | more


def _same_shape(image: np.ndarray, mask: ArrayLike | None, name: str) -> np.ndarray | None:
    if mask is None:
        return None
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != image.shape:
        raise InputError(f"the {name} is {mask.shape} but the image is {image.shape}: resize one of them")
    return mask


def _tint(ax: Axes, where: np.ndarray, colour: str) -> None:
    from matplotlib.colors import to_rgb

    layer = np.zeros((*where.shape, 4))  # (H, W, RGBA)
    layer[where] = (*to_rgb(colour), 0.45)
    ax.imshow(layer)


def _outline(ax: Axes, mask: np.ndarray, colour: str, line: str) -> None:
    if mask.any():
        height, width = mask.shape
        rows, cols = np.arange(-1, height + 1), np.arange(-1, width + 1)
        ax.contour(cols, rows, np.pad(mask, 1), [0.5], colors=colour, linewidths=1.8, linestyles=line)
