"""Curves that the reader moves without a kernel: the game's two wishes, and records by number of masks (floor 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.evidence import student_half
from cxr_tutorial.reader.figures import INK, PALETTE, figure_layout
from cxr_tutorial.reader.moving import add_slider
from cxr_tutorial.results import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

NEW, SYNTHETIC = "solid", "dash"
METHODS = {
    "supervised": ("black", NEW, "square"),
    "mean-teacher": ("blue", NEW, "circle"),
    "cross-pseudo": ("green", NEW, "triangle-up"),
    "appaunet-paper": ("orange", NEW, "triangle-down"),
    "appaunet": ("vermillion", NEW, "diamond"),
    "syn-supervised": ("black", SYNTHETIC, "square"),
    "syn-mean-teacher": ("blue", SYNTHETIC, "circle"),
    "syn-appaunet": ("vermillion", SYNTHETIC, "diamond"),
}
"""Colour, line and marker of each contestant; dashed lines start from weights trained on synthetic X-rays."""

OTHER = ("sky", "dot", "x")  # a contestant of the reader's own

CHOICES = {
    "from new weights": tuple(name for name, (_, line, _) in METHODS.items() if line == NEW),
    "from synthetic weights": tuple(name for name, (_, line, _) in METHODS.items() if line == SYNTHETIC),
    "what synthetic weights add": ("supervised", "syn-supervised"),
    "what D adds": ("syn-mean-teacher", "syn-appaunet"),
}


class Stand(NamedTuple):
    """Where one contestant stands with one number of masks: mean and 95 % interval over its runs."""

    masks: float
    mean: float
    half: float
    runs: int


def stands_of(records: Iterable[Record], figure: str = "dice") -> dict[tuple[str, str], dict[str, list[Stand]]]:
    """The label-budget records, by set and test part and by contestant.

    Parameters
    ----------
    records : of any groups; those named `budget-SET` are used.
    figure : of the metrics, such as `"dice"`.

    Returns
    -------
    For each (set, part) and contestant its stands, fewest masks first. The half interval is Student's, over runs,
    which differ in seed and in which masks they see; it is 0 for a single run.

    Examples
    --------
    >>> from cxr_tutorial.results import load_records
    >>> found = stands_of(load_records())
    >>> min(stand.masks for stand in found["jsrt", "test"]["supervised"])
    1.0
    """
    runs: dict[tuple[str, str], dict[str, dict[float, list[float]]]] = {}
    for r in records:
        name = re.sub(r"-m(all|\d+)-s\d+$", "", r.id)
        if (r.group or "").startswith("budget-"):
            for part, metrics in r.metrics.items():
                if figure in metrics and part.split("/")[0] != "validation":
                    of_name = runs.setdefault((r.config["data"], part), {}).setdefault(name, {})
                    of_name.setdefault(float(r.config["masks"] or np.inf), []).append(metrics[figure]["mean"])

    def stand(masks: float, values: list[float]) -> Stand:
        n = len(values)
        return Stand(masks, float(np.mean(values)), student_half(values) if n > 1 else 0.0, n)

    return {
        where: {
            name: [stand(m, some[m]) for m in sorted(some)]
            for name, some in sorted(names.items(), key=lambda one: _order(one[0]))
        }
        for where, names in sorted(runs.items(), key=lambda one: (one[0][0], one[0][1] != "test", one[0][1]))
    }


def budget_curves(records: Iterable[Record]) -> Figure:
    """Test Dice against the number of masks; one list chooses where it was tested, another whom to compare.

    Bars are 95 % intervals over runs; a hollow marker is a single run, of which no interval is known.

    Parameters
    ----------
    records : as for `stands_of`.

    Raises
    ------
    InputError : there is no such record.

    Examples
    --------
    >>> from cxr_tutorial.results import load_records
    >>> figure = budget_curves(load_records())
    >>> [button.label for button in figure.layout.updatemenus[1].buttons][0]
    'all methods'
    """
    import plotly.graph_objects as go

    stands = stands_of(records)
    if not stands:
        raise InputError("no record of a group 'budget-SET' is among these: load_records() finds those that ship")
    names = sorted({name for some in stands.values() for name in some}, key=_order)
    ticks = sorted({one.masks for some in stands.values() for line in some.values() for one in line})
    views = {where: [_line(name, some.get(name, []), ticks, names) for name in names] for where, some in stands.items()}
    figure = go.Figure(next(iter(views.values())))
    words = {
        where: f"{where[0]}, {'its own test pictures' if where[1] == 'test' else 'unseen: ' + where[1]}"
        for where in views
    }
    figure.update_layout(
        **figure_layout(
            alt="Mean test Dice of each method against the number of masks it saw, with 95 % intervals over runs. "
            "One list chooses the training set and where it was tested, a second one which methods are shown.",
            height=560,
            margin={"l": 60, "r": 15, "t": 110, "b": 60},
            legend={"orientation": "h", "y": -0.2, "font": {"size": 12}},
            updatemenus=[
                _menu(1.3, [(words[where], "update", _restyled(lines)) for where, lines in views.items()]),
                _menu(
                    1.15,
                    [
                        (label, "restyle", [{"visible": [n in chosen for n in names]}])
                        for label, chosen in _choices(names)
                    ],
                ),
            ],
        )
    )
    labels = ["all" if np.isinf(m) else f"{m:g}" for m in ticks]
    figure.update_xaxes(title="masks in training", tickvals=list(range(len(ticks))), ticktext=labels)
    figure.update_yaxes(title="Dice", tickformat=".3f")
    return figure


def adversarial_slopes() -> Figure:
    r"""S's two wishes, $-\log(1-q_K)$ and $\log q_K$, over D's suspicion; a slider moves it.

    Above, both losses over $u$, the logit *predicted* minus *real*, with their tangents; below, the slopes of these
    tangents, $q_K$ and $1-q_K$. Introduced in chapter 8.

    Examples
    --------
    >>> len(adversarial_slopes().frames)
    9
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(2, 1, vertical_spacing=0.16, row_heights=[0.6, 0.4])
    u, q = np.linspace(-6, 6, 61), np.linspace(0, 1, 51)
    for name, (loss, slope, colour, dash) in _FORMS.items():
        look: dict[str, Any] = {"mode": "lines", "line": {"color": PALETTE[colour], "dash": dash}, "legendgroup": name}
        figure.add_scatter(x=u.round(2), y=loss(u).round(4), name=name, **look, row=1, col=1)
        figure.add_scatter(x=q.round(2), y=slope(q).round(4), name=name, showlegend=False, **look, row=2, col=1)
    suspicions = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    states = {f"{value:g}": list(_tangents(value)) for value in suspicions}
    start = len(suspicions) - 1
    figure.add_traces(states[f"{suspicions[start]:g}"], rows=[1, 1, 2] * 2, cols=[1] * 6)
    figure.update_layout(
        **figure_layout(
            alt="Above, the non-saturating and the saturating loss over the logit of D, each with its tangent at the "
            "chosen suspicion. Below, the slopes of both tangents: one rises with the suspicion, the other falls. A "
            "slider moves the suspicion from .01 to .99.",
            height=620,
            margin={"l": 60, "r": 15, "t": 70, "b": 20},
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        )
    )
    figure.update_xaxes(title="u, the logit: predicted minus real", row=1, col=1, range=[-6, 6])
    figure.update_xaxes(title="suspicion q_K", row=2, col=1, range=[-0.02, 1.02])
    figure.update_yaxes(title="loss of S", row=1, col=1, range=[-6.5, 6.5])
    figure.update_yaxes(title="slope", row=2, col=1, range=[-0.05, 1.1])
    return add_slider(figure, states, range(4, 10), prefix="suspicion q_K = ", start=start, below=60)


_FORMS = {
    "non-saturating, −log(1 − q_K)": (lambda u: np.logaddexp(0, u), lambda q: q, "blue", "solid"),
    "saturating, log q_K": (lambda u: -np.logaddexp(0, -u), lambda q: 1 - q, "vermillion", "dash"),
}


def _tangents(q: float) -> Iterator[Scatter]:
    """For each form: the tangent, its point of contact with the slope in figures, the slope below."""
    import plotly.graph_objects as go

    u = np.log(q / (1 - q))
    for (loss, slope, colour, _), above in zip(_FORMS.values(), (True, False), strict=True):
        steep, ends = slope(q), np.array([u - 1.5, u + 1.5])
        dot = {"size": 11, "color": PALETTE[colour], "line": {"width": 1, "color": INK}}
        quiet: dict[str, Any] = {"showlegend": False, "hoverinfo": "skip"}
        tangent = (loss(u) + steep * (ends - u)).round(4)
        yield go.Scatter(x=ends.round(4), y=tangent, mode="lines", line={"color": INK, "width": 3}, **quiet)
        place = f"{'top' if above else 'bottom'} {'left' if u > 0 else 'right'}"
        text = {"mode": "markers+text", "text": [f"slope {steep:.2f}"], "textposition": place, "textfont": {"size": 14}}
        yield go.Scatter(x=[round(u, 4)], y=[round(float(loss(u)), 4)], marker=dot, **text, **quiet)
        yield go.Scatter(x=[q], y=[steep], mode="markers", marker=dot, **quiet)


def _order(name: str) -> tuple[int, str]:
    return (list(METHODS).index(name) if name in METHODS else len(METHODS), name)


def _choices(names: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    sensible = [(label, chosen) for label, chosen in CHOICES.items() if len(set(chosen) & set(names)) > 1]
    return [("all methods", tuple(names)), *sensible]


def _line(name: str, line: list[Stand], ticks: list[float], names: list[str]) -> Scatter:
    import plotly.graph_objects as go

    colour, dash, symbol = METHODS.get(name, OTHER)
    aside = 0.04 * (names.index(name) - (len(names) - 1) / 2)  # so that bars do not hide each other
    said = [
        f"{name}: {one.mean:.4f}<br>" + (f"± {one.half:.4f} over {one.runs} runs" if one.runs > 1 else "single run")
        for one in line
    ]
    return go.Scatter(
        x=[ticks.index(one.masks) + aside for one in line],
        y=[round(one.mean, 5) for one in line],
        error_y={"array": [round(one.half, 5) for one in line], "thickness": 1.5, "width": 4},
        name=name,
        mode="lines+markers",
        line={"color": PALETTE[colour], "dash": dash, "width": 2},
        marker={"symbol": [symbol + ("" if one.runs > 1 else "-open") for one in line], "size": 9},
        text=said,
        hovertemplate="%{text}<extra></extra>",
    )


def _restyled(lines: list[Scatter]) -> list[dict[str, Any]]:
    parts = {
        "x": [line.x for line in lines],
        "y": [line.y for line in lines],
        "error_y.array": [line.error_y.array for line in lines],
        "marker.symbol": [line.marker.symbol for line in lines],
        "text": [line.text for line in lines],
    }
    return [parts, {"yaxis.autorange": True, "xaxis.autorange": True}]


def _menu(height: float, entries: list[tuple[str, str, list[dict[str, Any]]]]) -> dict[str, Any]:
    buttons = [{"label": label, "method": method, "args": args} for label, method, args in entries]
    place = {"x": 0, "xanchor": "left", "y": height, "yanchor": "top", "pad": {"t": 0, "b": 0}}
    return place | {"buttons": buttons, "showactive": True, "font": {"size": 13}, "bgcolor": "#F3F3F3"}
