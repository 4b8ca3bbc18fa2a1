import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cxr_tutorial.errors import InputError
from cxr_tutorial.reader.figures import PALETTE, PREDICTION, TRUTH, figure_layout, overlay, use_style


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def mask(*pixels):
    drawn = np.zeros((6, 6), dtype=bool)
    for pixel in pixels:
        drawn[pixel] = True
    return drawn


def tinted(ax, colour):
    """Where a layer of this colour lies on the picture."""
    layers = [image.get_array() for image in ax.images[1:]]
    [layer] = [x for x in layers if (x[..., 3] > 0).any() and np.allclose(x[x[..., 3] > 0][0, :3], to_rgb(colour))]
    return layer[..., 3] > 0


def test_only_what_one_mask_covers_is_tinted(ax):
    overlay(ax, np.zeros((6, 6)), mask((1, 1), (2, 2)), mask((2, 2), (4, 4)))
    assert (tinted(ax, TRUTH) == mask((1, 1))).all()  # missed
    assert (tinted(ax, PREDICTION) == mask((4, 4))).all()  # added


def test_one_mask_alone_is_outlined_and_not_tinted(ax):
    overlay(ax, np.zeros((6, 6)), mask((1, 1)), title="a lung")
    assert len(ax.images) == 1
    assert len(ax.collections) == 1
    assert ax.get_title() == "a lung"


@pytest.mark.parametrize("drawn", [np.zeros((6, 6)), np.ones((6, 6))], ids=["empty", "full"])
def test_empty_and_full_masks_draw_without_a_warning(ax, drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlay(ax, np.zeros((6, 6)), drawn, drawn)


def test_grey_values_are_not_stretched(ax):
    overlay(ax, np.full((6, 6), 0.5))
    assert ax.images[0].get_clim() == (0, 1)


def test_wrong_shapes_are_named(ax):
    with pytest.raises(InputError, match=r"must be \(H, W\), got \(1, 6, 6\)"):
        overlay(ax, np.zeros((1, 6, 6)))
    with pytest.raises(InputError, match=r"prediction is \(3, 3\) but the image is \(6, 6\)"):
        overlay(ax, np.zeros((6, 6)), prediction=np.zeros((3, 3)))


def test_figures_are_opaque_and_lines_take_the_palette():
    with plt.rc_context():
        use_style()
        assert plt.rcParams["figure.facecolor"] == plt.rcParams["savefig.facecolor"] == "#FFFFFF"
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"][0] == PALETTE["blue"]


def test_a_callers_layout_wins():
    layout = figure_layout(alt="two curves", height=300)
    assert layout["height"] == 300
    assert layout["meta"] == {"alt": "two curves"}
