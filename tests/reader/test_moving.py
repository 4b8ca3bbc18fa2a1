"""Moving figures: what their traces show, and that every slider and list works on data that is there."""

from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.moving import add_slider, bare_axes, outline, tile


def test_a_small_tile_covers_the_same_square_as_a_large_one():
    for size in (4, 16, 64):
        shown = tile(np.zeros((size, size)), 64)
        assert shown.x0 - shown.dx / 2 == shown.y0 - shown.dy / 2 == 0
        assert size * shown.dx == size * shown.dy == 64


def test_a_tile_holds_one_byte_a_pixel_and_clips():
    shown = tile([[-1.0, 0.0, 0.5, 2.0]], 4, low=-1, high=1)
    assert shown.z.dtype == np.uint8
    assert shown.z.tolist() == [[0, 128, 191, 255]]


def test_a_tile_wants_one_channel():
    with pytest.raises(InputError, match=r"must be \(h, w\), got \(1, 4, 4\)"):
        tile(np.zeros((1, 4, 4)), 4)


def area(line):
    """Inside all the closed pieces of a line, by the shoelace formula."""
    points = np.stack([line.x, line.y], 1)
    gaps = [-1, *np.flatnonzero(np.isnan(points[:, 0]))]
    pieces = [points[a + 1 : b] for a, b in pairwise(gaps)]
    return sum(abs(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1])) / 2 for p in pieces)


def test_an_outline_encloses_the_mask_even_at_the_rim():
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4, :4] = mask[5:7, 5:7] = True
    line = outline(mask, 8)
    corners = 8 * 0.125  # each of eight corners is cut
    assert area(line) == pytest.approx(mask.sum() - corners)
    assert np.isnan(line.x).sum() == 2  # two pieces


def test_an_outline_of_logits_runs_where_they_are_0_between_two_pixels():
    logits = np.tile([3.0, 1.0, -3.0, -3.0], (4, 1))
    assert np.nanmax(outline(logits, 4).x) == pytest.approx(1.5 + 0.25)
    assert np.nanmax(outline(logits, 64).x) == pytest.approx(16 * 1.75)


@pytest.mark.parametrize("mask", [np.zeros((4, 4), dtype=bool), -np.ones((4, 4))])
def test_an_empty_mask_has_no_outline(mask):
    assert np.isnan(outline(mask, 4).x).all()


def states():
    return {f"{k}": [go.Scatter(y=[k, k]), go.Scatter(y=[0, k])] for k in range(4)}


def test_a_slider_reaches_every_state_and_starts_where_the_figure_does():
    figure = add_slider(go.Figure(states()["3"]), states(), [0, 1], prefix="step ", start=3)
    (slider,) = figure.layout.sliders
    frames = {frame.name: frame for frame in figure.frames}
    assert [step.args[0][0] for step in slider.steps] == list(frames) == ["0", "1", "2", "3"]
    start = frames[slider.steps[slider.active].label]
    assert [trace.y for trace in start.data] == [trace.y for trace in figure.data]
    assert all(frame.traces == (0, 1) for frame in figure.frames)


def test_a_state_that_leaves_traces_as_they_were_is_refused():
    with pytest.raises(InputError, match="'2' has 1 traces, but 2 are to be replaced"):
        add_slider(go.Figure(), states() | {"2": [go.Scatter()]}, [0, 1], prefix="")


def test_bare_axes_leave_the_later_panels_alone():
    figure = bare_axes(make_subplots(2, 6), 64, panels=11).layout
    assert figure.xaxis11.visible is False
    assert figure.yaxis11.scaleanchor == "x11"
    assert tuple(figure.yaxis.range) == (64, 0)
    assert figure.xaxis12.visible is None
