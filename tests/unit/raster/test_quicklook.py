"""The picture of rasters that are far apart: none is a speck, and it is said where each is."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from rasterio.transform import from_origin

from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.depth_grid import add_depths
from jobs.flood_risk_cog.panels import DEEP
from jobs.flood_risk_cog.picture_frame import MOST_PANELS, Frame, groups_of
from jobs.flood_risk_cog.quicklook import CLASSES, EDGE, FOOTER, HEADER, draw_quicklook
from tests.unit.raster.made import pixels_of, write_raster


def shape_at(longitude, latitude, size=0.05):
    east, north = longitude + size, latitude + size
    east -= 360 * (east > 180)
    ring = [[longitude, latitude], [east, latitude], [east, north], [longitude, north], [longitude, latitude]]
    return (None, {"type": "Polygon", "coordinates": [ring]}, [longitude, latitude, east, north])


@pytest.fixture
def far(tmp_path):
    """Three rasters of 1 km, two of them neighbours, each as deep as the others."""
    shapes = []
    for number, (longitude, latitude) in enumerate([(4.40, 51.9), (4.42, 51.9), (139.7, 35.6)]):
        place = from_origin(longitude, latitude, 0.0001, 0.0001)
        pixels = np.full((1, 100, 100), 2, dtype="float32")
        path = write_raster(tmp_path / f"{number}.tif", pixels, crs="EPSG:4326", transform=place)
        result = convert_raster(str(path), str(tmp_path / "cogs"))
        shapes.append((result["path"], result["geometry"], result["bbox"]))
    return shapes


def water_of(png):
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    # Without the colours below, of the legend.
    return int((picture[:-72] == DEEP).all(axis=-1).sum())


def test_rasters_far_apart_are_each_as_large_as_a_picture_can_show_them(far):
    png, missing = draw_quicklook(far, "Two places")
    assert missing == []
    # On one map of both places, each would be less than a pixel.
    assert water_of(png) > 3 * 80 * 80


def test_neighbours_stay_together_and_in_one_picture(far):
    assert [len(group) for group in groups_of(far)] == [2, 1]
    assert groups_of(far[:2]) == [far[:2]]
    assert draw_quicklook(far[:2])[0] == draw_quicklook(list(far[:2]))[0]


def test_groups_are_divided_across_the_antimeridian_and_not_at_it():
    shapes = [shape_at(179.97, -17), shape_at(-179.9, -17), shape_at(10, 50)]
    groups = groups_of(shapes)
    assert sorted(len(group) for group in groups) == [1, 2]


def test_many_places_share_a_bounded_number_of_pictures():
    shapes = [shape_at(-170 + 11 * number, -60 + 37 * number % 120) for number in range(30)]
    groups = groups_of(shapes)
    assert len(groups) == MOST_PANELS
    assert sorted(id(shape) for group in groups for shape in group) == sorted(map(id, shapes))
    png, _ = draw_quicklook(shapes, "Everywhere")
    assert Image.open(io.BytesIO(png)).width < 900


def test_what_is_still_a_speck_has_a_ring_around_it():
    """Rasters in a row without a gap cannot be divided."""
    shapes = [shape_at(0, 0, 40), shape_at(40, 0, 40), shape_at(79.99, 0, 0.02)]
    assert groups_of(shapes) == [shapes]
    png, _ = draw_quicklook(shapes)
    without, _ = draw_quicklook(shapes[:2])
    assert png != without


def test_a_raster_that_covers_all_the_others_is_drawn_apart():
    world, *small = [shape_at(-80, -80, 160), shape_at(10, 50), shape_at(10.1, 50)]
    assert groups_of([world, *small]) == [[world], small]


def test_the_same_rasters_give_the_same_picture(far):
    assert draw_quicklook(far, "A")[0] == draw_quicklook(far, "A")[0]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_alpha_hides_is_not_drawn(tmp_path, dtype):
    """Floats are no mask for GDAL."""
    path = write_raster(tmp_path / "a.tif", pixels_of(dtype) * 0 + 7, "alpha")
    result = convert_raster(str(path), str(tmp_path / "out"))
    frame = Frame.around([result["bbox"]])
    depths = np.full((frame.rows, frame.columns), np.nan, "float32")
    add_depths(depths, frame, result["path"], result["bbox"])
    assert np.nanmax(depths) == 7
    assert 0.7 < np.isfinite(depths).mean() < 0.82


def drawn_words(monkeypatch, *given, **options):
    """What is written in a picture, with the box of each text."""
    words = []
    real = ImageDraw.ImageDraw.text

    def note(pen, at, text, *more, **how):
        font = more[1] if len(more) > 1 else None
        words.append((text, pen.im.size, pen.textbbox(at, text, font, anchor=how.get("anchor"))))
        return real(pen, at, text, *more, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    draw_quicklook(*given, **options)
    return words


WORLD = (None, {"type": "Polygon", "coordinates": [[[-180, -75], [180, -75], [180, 75], [-180, 75], [-180, -75]]]})
WORLD = (*WORLD, [-180, -75, 180, 75])


def test_around_a_world_no_part_is_shown_twice_and_no_words_are_on_others(monkeypatch):
    shapes = [WORLD, shape_at(4, 51), shape_at(139, 35), shape_at(-179.9, -17), shape_at(-179.5, -17.2)]
    words = drawn_words(monkeypatch, shapes, "World")
    sheet = max(size for _, size, _ in words)
    in_map = [(text, box) for text, size, box in words if size != sheet]
    degrees = [text for text, _ in in_map if "°" in text and text not in {"0°", "180°"}]
    assert len(degrees) == len(set(degrees))
    for index, (_, (left, top, right, bottom)) in enumerate(in_map):
        for _, (west, north, east, south) in in_map[index + 1 :]:
            assert right <= west or east <= left or bottom <= north or south <= top
    texts = [text for text, _, _ in words]
    assert "A: 1 raster at 0° 0°, 40,100 km wide" in texts


def test_the_legend_ends_at_the_deepest_pixel_and_not_at_the_deepest_that_is_drawn(far, monkeypatch):
    labels = [text for text, _, _ in drawn_words(monkeypatch, far, "Depths", deepest=298.0)]
    assert "298 (no unit)" in labels
    assert "2 (no unit)" not in labels


def test_areas_of_classes_have_a_colour_of_their_own():
    png, _ = draw_quicklook([WORLD])
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[HEADER:-FOOTER, EDGE:-EDGE]
    # Beside it is a margin.
    assert (picture == CLASSES).all(axis=-1).mean() == pytest.approx(360 * 150 / (381.6 * 171.6), abs=0.02)


def test_a_picture_of_classes_says_so(monkeypatch):
    texts = [text for text, _, _ in drawn_words(monkeypatch, [WORLD], "Land")]
    assert {"1 raster of classes, the area alone", "classes, no depths"} <= set(texts)
    assert not {"no water", "dry", "no data"} & set(texts)
