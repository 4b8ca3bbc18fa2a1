"""Figures that the reader moves without a kernel: sliders and buttons that plotly itself draws (floor 2).

A moving figure is a list of states; a slider goes through them. Pictures in it are small and in whole numbers, so
that a page stays light, and drawn without smoothing, so that what is seen is all that there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.figures import TRUTH

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Heatmap, Scatter


def tile(
    values: ArrayLike, side: float, *, colours: str | list[Any] = "gray", low: float = 0, high: float = 1
) -> Heatmap:
    """A small picture as a plotly trace that covers the square from 0 to `side`, whatever its own size.

    So pictures of several levels lie over each other, and an outline in pixels of the full size fits them all.

    Parameters
    ----------
    values : (h, w); 8 bits are kept of each pixel.
    side : width and height on the axes, as a rule the number of pixels of the full-size picture.
    colours : name of a plotly colour scale, or a list of `[place, colour]`.
    low, high : values that get the first and the last colour.

    Raises
    ------
    InputError : the picture is not (h, w).

    Examples
    --------
    >>> trace = tile([[0, 0.5], [1, 2]], 64)
    >>> trace.dx, trace.z.tolist()
    (32.0, [[0, 128], [255, 255]])
    """
    import plotly.graph_objects as go

    shown = np.asarray(values, dtype=float)  # (h, w)
    if shown.ndim != 2:
        raise InputError(f"a picture must be (h, w), got {shown.shape}: pick one channel, such as image[0]")
    dy, dx = side / shown.shape[0], side / shown.shape[1]
    whole = np.rint(255 * np.clip((shown - low) / (high - low), 0, 1)).astype(np.uint8)
    return go.Heatmap(
        z=whole,
        x0=dx / 2,
        dx=dx,
        y0=dy / 2,
        dy=dy,
        zmin=0,
        zmax=255,
        colorscale=colours,
        showscale=False,
        hoverinfo="skip",
    )


def outline(mask: ArrayLike, side: float, *, colour: str = TRUTH, dash: str = "solid") -> Scatter:
    """The edge of a mask as a plotly line, on the axes of `tile`.

    Parameters
    ----------
    mask : (h, w) bool, or logits or other numbers that are cut at 0: then the edge runs between the pixels.
    side : as for `tile`.
    colour, dash : of the line; by default those of a true mask.

    Examples
    --------
    >>> line = outline(np.pad(np.ones((2, 2), bool), 1), 4)
    >>> float(min(line.x)), float(max(line.x))
    (1.0, 3.0)
    """
    import plotly.graph_objects as go
    from contourpy import contour_generator

    given = np.asarray(mask)
    field = np.where(given, 0.5, -0.5) if given.dtype == bool else given.astype(float)
    height, width = field.shape
    x, y = ((np.arange(-1, n + 1) + 0.5) * side / n for n in (width, height))
    around = np.pad(field, 1, constant_values=min(field.min(), -1e-6))
    pieces = contour_generator(x, y, around).lines(0.0)
    gap = np.full((1, 2), np.nan)  # lifts the pen
    points = np.concatenate([part for piece in pieces for part in (np.asarray(piece), gap)] or [gap])
    line = {"color": colour, "width": 2, "dash": dash}
    return go.Scatter(
        x=points[:, 0].round(2), y=points[:, 1].round(2), mode="lines", line=line, hoverinfo="skip", showlegend=False
    )


def add_slider(
    figure: Figure,
    states: Mapping[str, Sequence[Any]],
    moving: Sequence[int],
    *,
    prefix: str,
    start: int = 0,
    below: int = 30,
) -> Figure:
    """Give a figure a slider that replaces some of its traces.

    Parameters
    ----------
    figure : drawn as it is to look at the slider's first position.
    states : the slider's label for each position, and the traces that are then shown.
    moving : which of the figure's traces they replace, by number, in order.
    prefix : text before the label, such as `"training step "`.
    start : the position that the figure shows when the page opens.
    below : room between the plot and the slider, in pixels; more if an axis has a title there.

    Raises
    ------
    InputError : a state has not as many traces as there are to replace.

    Examples
    --------
    >>> import plotly.graph_objects as go
    >>> line = {f"{k}": [go.Scatter(y=[0, k])] for k in (1, 2, 3)}
    >>> figure = add_slider(go.Figure(line["1"]), line, [0], prefix="slope ")
    >>> [frame.name for frame in figure.frames]
    ['1', '2', '3']
    """
    import plotly.graph_objects as go

    for label, traces in states.items():
        if len(traces) != len(moving):
            raise InputError(f"the state {label!r} has {len(traces)} traces, but {len(moving)} are to be replaced")
    figure.frames = [go.Frame(name=label, data=list(traces), traces=list(moving)) for label, traces in states.items()]
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"label": label, "method": "animate", "args": [[label], now]} for label in states]
    look = {"currentvalue": {"prefix": prefix, "font": {"size": 15}}, "pad": {"t": below, "b": 10}, "active": start}
    figure.update_layout(sliders=[look | {"steps": steps, "len": 0.9, "x": 0.05}])
    return figure


def bare_axes(figure: Figure, side: float, panels: int | None = None) -> Figure:
    """Axes for pictures: none to be seen, pixels square, row 0 on top.

    Parameters
    ----------
    figure : of `make_subplots`.
    side : as for `tile`.
    panels : how many of the first panels hold pictures; all by default.
    """
    axes = sorted((name for name in figure.layout if name.startswith("xaxis")), key=lambda name: int(name[5:] or 1))
    for name in axes[:panels]:
        number = name[5:]
        figure.layout[name].update(visible=False, range=[0, side], constrain="domain")
        upright = {"visible": False, "range": [side, 0], "scaleanchor": f"x{number}", "constrain": "domain"}
        figure.layout[f"yaxis{number}"].update(**upright)
    return figure
