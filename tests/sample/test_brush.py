"""Curves go where their points are, and brush lines are as wide as asked."""

import numpy as np
import pytest
from PIL import Image

from mask_lib.sample import brush

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def drawn(draw, **pose) -> np.ndarray:
    """(200, 200) booleans: what `draw` blackened on white, through a pen of 50 pixels a unit in the middle."""
    image = Image.new("RGB", (200, 200), WHITE)
    draw(brush.Pen(image, (100, 100), 50, **pose))
    return np.asarray(image)[..., 0] < 128


def middle(black: np.ndarray) -> tuple[float, float]:
    """Mean x and y of what is black, in head units."""
    rows, columns = np.nonzero(black)
    return (columns.mean() - 100) / 50, (rows.mean() - 100) / 50


def test_a_spline_passes_through_its_points():
    knots = [(0.0, 0.0), (1.0, 2.0), (3.0, 1.0)]
    curve = brush.spline(knots, steps=4)
    np.testing.assert_allclose(curve[::4], knots, atol=1e-12)
    assert len(brush.spline(knots, closed=True, steps=4)) == 12


@pytest.mark.parametrize(("share", "colour"), [(0, (10, 20, 30)), (1, (110, 40, 30)), (0.5, (60, 30, 30))])
def test_a_mixed_colour_lies_between_both(share, colour):
    assert brush.mix((10, 20, 30), (110, 40, 30), share) == colour


def test_a_shape_lies_where_it_is_put_and_a_side_mirrors_it():
    spot = brush.oval(0.5, -0.4, 0.2, 0.2)
    assert middle(drawn(lambda pen: pen.fill(spot, BLACK))) == pytest.approx((0.5, -0.4), abs=0.02)
    assert middle(drawn(lambda pen: pen.fill(spot, BLACK, side=-1))) == pytest.approx((-0.5, -0.4), abs=0.02)


def test_a_pose_turns_the_picture_and_moves_the_middle_of_the_face_more_than_its_rim():
    right, centre = brush.oval(1.0, 0.0, 0.1, 0.1), brush.oval(0.0, 0.0, 0.1, 0.1)
    assert middle(drawn(lambda pen: pen.fill(right, BLACK), angle=90)) == pytest.approx((0, 1), abs=0.03)
    moves = [middle(drawn(lambda pen, spot=spot: pen.fill(spot, BLACK), lean=(0.2, 0)))[0] for spot in (centre, right)]
    assert moves[0] == pytest.approx(0.2, abs=0.03)
    assert moves[1] == pytest.approx(1.0, abs=0.03)


def test_a_brush_line_has_its_full_width_in_the_middle_and_the_asked_share_at_its_ends():
    line = [(x, 0.0) for x in np.linspace(-1.5, 1.5, 31)]
    black = drawn(lambda pen: pen.stroke(line, BLACK, 0.8, ends=(0.25, 1.0)))
    heights = black.sum(axis=0)
    assert heights[100] == pytest.approx(0.8 * 50, abs=2)
    assert heights[27] == pytest.approx(0.25 * 0.8 * 50, abs=3)
    assert heights[173] == pytest.approx(0.8 * 50, abs=2)


def test_a_soft_shape_fades_out_and_one_beside_the_picture_draws_nothing():
    image = Image.new("RGB", (200, 200), WHITE)
    pen = brush.Pen(image, (100, 100), 50)
    pen.soft(brush.oval(9, 9, 0.3, 0.3), BLACK, 1.0, 0.2)
    assert image.getextrema() == ((255, 255),) * 3
    pen.soft(brush.oval(0, 0, 0.8, 0.8), BLACK, 1.0, 0.2)
    row = np.asarray(image)[100, 100:180, 0].astype(int)
    assert row[0] < 20
    assert row[-1] > 235
    assert (np.diff(row) >= 0).all()
    assert ((row > 60) & (row < 200)).sum() > 5
