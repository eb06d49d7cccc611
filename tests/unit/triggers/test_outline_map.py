"""Maps that the server draws: what is in them, and where."""

import re

import pytest

from jobs.views import Outline
from triggers.ui.outline_map import LEAST_HEIGHT, MOST_HEIGHT, MOST_NAMED, WIDTH, draw_map


def square(name, west, south, size=0.2, group=""):
    corners = [(west, south), (west + size, south), (west + size, south + size), (west, south + size), (west, south)]
    return Outline(name, [corners], group)


def points_of(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"([-\d.e]+) ([-\d.e]+)", path)]


def test_nothing_to_draw_is_no_map():
    assert draw_map([]) is None
    assert draw_map([Outline("a raster without a place", [])]) is None


def test_outlines_are_within_the_map_and_true_to_scale():
    drawn = draw_map([square("a", 13.0, 60.0), square("b", 13.4, 60.3, group="other")])
    corners = [point for shape in drawn.shapes for point in points_of(shape.path)]
    assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in corners)
    (west, south), (east, _), (_, north) = points_of(drawn.shapes[0].path)[:3]
    # At 60 degrees a degree of longitude is half as long as one of latitude.
    assert (east - west) / (south - north) == pytest.approx(0.5, abs=0.02)
    assert (drawn.shapes[1].name, drawn.shapes[1].group, drawn.groups) == ("b", 1, ["other"])
    assert [line.label for line in drawn.parallels if "60" in line.label]


@pytest.mark.parametrize(
    "outlines",
    [
        [square("a point", 9.0, 45.0, size=0.0)],
        [square("a row of scenes", number / 2, 45.0) for number in range(100)],
        [square("a column of scenes", 9.0, number / 2) for number in range(100)],
        [square("the Earth", -180.0, -90.0, size=180.0), square("the other half", 0.0, -90.0, size=180.0)],
        [square("the pole", -10.0, 88.0, size=2.0)],
    ],
)
def test_map_is_no_strip_whatever_is_in_it(outlines):
    drawn = draw_map(outlines)
    assert drawn.width == WIDTH
    assert LEAST_HEIGHT - 1 <= drawn.height <= MOST_HEIGHT + 1


def test_places_on_both_sides_of_the_antimeridian_are_beside_each_other():
    drawn = draw_map([square("Fiji", 179.5, -17.0), square("beyond", -179.7, -17.0)])
    lefts = [min(x for x, _ in points_of(shape.path)) for shape in drawn.shapes]
    assert 0 < lefts[1] - lefts[0] < WIDTH
    assert {"180°W", "179.8°W"} & {line.label for line in drawn.meridians}


def test_land_is_there_where_the_map_is_and_nowhere_else():
    def points_within(drawn):
        return [(x, y) for x, y in points_of(drawn.land) if 0 <= x <= drawn.width and 0 <= y <= drawn.height]

    assert points_within(draw_map([square("Portugal", -9.5, 37.0, size=4.0)]))
    assert not points_within(draw_map([square("the Atlantic", -30.0, 30.0, size=4.0)]))


def test_many_outlines_lose_their_names_and_not_their_places():
    drawn = draw_map([square(f"{number}", number % 40, number // 40) for number in range(MOST_NAMED + 100)])
    assert len(drawn.shapes) == MOST_NAMED + 1
    assert (drawn.shapes[-1].name, drawn.shapes[-1].path.count("M")) == ("", 100)


def test_marker_shows_a_small_place_on_the_earth():
    x, y, width, height = draw_map([square("Null Island", 0.0, 0.0, size=0.01)]).marker
    assert (width, height) == (6.0, 6.0)
    assert (x + 3, y + 3) == (pytest.approx(135, abs=0.5), pytest.approx(67.5, abs=0.5))
