"""Every record as a dot: the reader chooses group, part and figure, without a kernel (floor 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.figures import PALETTE, figure_layout
from cxr_tutorial.results import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FIGURES = {"dice": "Dice", "auc": "AUC"}
COLOURS = ("blue", "vermillion", "green", "orange", "sky", "purple")


def contestant(record: Record) -> str:
    """What a record's id says besides its repetition.

    >>> from cxr_tutorial.results import load_records
    >>> contestant(next(r for r in load_records() if r.id == "jsrt-kltv-spatial-50-s1"))
    'jsrt-kltv-spatial-50'
    """
    return re.sub(r"-[sf]\d+$", "", record.id)


def explorer(records: Iterable[Record]) -> Figure:
    """A figure with one dot a run, and a list of all groups, parts and figures.

    Parameters
    ----------
    records : of any groups; a view is there for each group, part and figure (Dice or AUC) that has at least two.

    Returns
    -------
    A plotly figure. A line is a contestant, a dot one of its runs; its label tells id, seed, device, date and commit.

    Raises
    ------
    InputError : no two records share a figure.

    Introduced in chapter 11.

    >>> from cxr_tutorial.results import load_records
    >>> len(explorer(r for r in load_records() if r.group == "sizes").data[0].x)
    7
    """
    import plotly.graph_objects as go

    views: dict[str, list[tuple[Record, float, str]]] = {}
    for record in sorted(records, key=lambda one: (one.group or "", one.id)):
        for part, summary in record.metrics.items():
            for figure, words in FIGURES.items():
                if figure in summary and part.split("/")[0] != "validation":
                    view = f"{record.group} · {words} on {part.replace('/', ', ')}"
                    views.setdefault(view, []).append((record, summary[figure]["mean"], words))
    views = {view: rows for view, rows in views.items() if len(rows) > 1}
    if not views:
        raise InputError("there is nothing to explore: give at least two records that share a figure")
    states = {view: _dots(rows) for view, rows in views.items()}
    first = next(iter(states))
    chart = go.Figure(
        go.Scatter(mode="markers", hovertemplate="%{text}<extra></extra>", **states[first]),
        figure_layout(
            alt="One dot for each run of the chosen group: its figure to the right, its contestant to the left. A list "
            "chooses the group, the part it was tested on and the figure.",
            height=620,
            margin={"l": 120, "r": 15, "t": 70, "b": 50},
            showlegend=False,
        ),
    )
    buttons = [
        {
            "label": view,
            "method": "update",
            "args": [
                {key: [value] for key, value in state.items() if key != "marker"} | {"marker": [state["marker"]]},
                {"xaxis.title.text": views[view][0][2], "xaxis.autorange": True, "yaxis.autorange": "reversed"},
            ],
        }
        for view, state in states.items()
    ]
    place = {"x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "pad": {"b": 12}, "font": {"size": 12}}
    chart.update_layout(updatemenus=[place | {"buttons": buttons, "showactive": True, "bgcolor": "#F3F3F3"}])
    chart.update_xaxes(title=views[first][0][2])
    chart.update_yaxes(type="category", autorange="reversed", automargin=True, tickfont={"size": 11})
    return chart


def _dots(rows: list[tuple[Record, float, str]]) -> dict[str, Any]:
    sets = sorted({record.config["data"] for record, _, _ in rows})
    colour = {name: PALETTE[COLOURS[k % len(COLOURS)]] for k, name in enumerate(sets)}
    return {
        "x": [round(value, 5) for _, value, _ in rows],
        "y": [contestant(record) for record, _, _ in rows],
        "text": [_about(record, value) for record, value, _ in rows],
        "marker": {"size": 10, "opacity": 0.75, "color": [colour[record.config["data"]] for record, _, _ in rows]},
    }


def _about(record: Record, value: float) -> str:
    made = record.provenance
    return (
        f"{record.group}/{record.id}: {value:.4f}<br>seed {record.config['seed']}, {record.config['size']} px, "
        f"split {record.config['split']}<br>{made.device}, {made.date[:10]}, commit {(made.commit or 'unknown')[:7]}"
    )
