"""Damage that GDAL reads over is a reason, and not a COG of the values that it made of it."""

import logging
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import rasterio

from jobs.flood_risk_cog import intact
from jobs.flood_risk_cog.convert import convert_raster
from jobs.flood_risk_cog.facts import DamagedRaster, read_facts
from jobs.flood_risk_cog.intact import BlockCheck, check_blocks
from jobs.flood_risk_cog.plan import UnusableRaster
from jobs.flood_risk_cog.source import open_raster
from jobs.flood_risk_cog.tiff import directories, full_size_directories, page_of_larger_image
from tests.unit.raster.made import PLACE, SIDE, hidden, pixels_of, write_raster, write_tag

OFFSETS, SIZES = 273, 279
PROFILE = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32614", "transform": PLACE}
FORMS = [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"ENDIANNESS": "BIG", "BIGTIFF": "YES"}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 128, "blockysize": 128}, {"interleave": "band"}])
def test_directories_tell_where_blocks_are_as_gdal_does(tmp_path, layout, form):
    pixels = pixels_of("float32", bands=2)
    path = write_raster(tmp_path / "a.tif", pixels, "mask", compress="deflate", nodata=-5, **layout, **form)
    main, mask = full_size_directories(str(path))
    with rasterio.open(path) as dataset:
        blocks = [
            tuple(int(dataset.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=bidx)) for what in ("OFFSET", "SIZE"))
            for bidx in ((1, 2) if dataset.interleaving is not rasterio.enums.Interleaving.pixel else (1,))
            for (y, x), _ in dataset.block_windows(bidx)
        ]
    assert list(zip(main.offsets.tolist(), main.sizes.tolist(), strict=True)) == blocks
    assert (main.compression, main.nodata, mask.compression, mask.nodata) == (8, "-5", 8, None)
    assert [each.blocks for each in (main, mask)] == [each.offsets.size for each in (main, mask)]


def change_table(path, tag, change):
    """Have a raster of six strips another table of blocks."""
    (found,) = full_size_directories(str(path))
    numbers = change(list(map(int, found.offsets if tag == OFFSETS else found.sizes)))
    write_tag(path, tag, 4, len(numbers), struct.pack(f"<{len(numbers)}I", *numbers))


@pytest.mark.parametrize("compress", ["none", "deflate"])
@pytest.mark.parametrize(
    ("tag", "change", "reason"),
    [
        ("offsets", lambda each: each[:4], "4 of 6 are there|data is damaged in rows"),
        ("sizes", lambda each: each[:4], "4 of 6 are there"),
        ("offsets", lambda each: [*each[:2], 0, *each[3:]], "block 3 of 6 has no place|data is damaged in rows"),
    ],
)
def test_a_table_that_lacks_blocks_is_damage(tmp_path, compress, tag, change, reason):
    """GDAL reads zeros in the place of a block that the table lacks, or the file's header as values."""
    pixels = pixels_of("uint16", side=60) + 1
    path = write_raster(tmp_path / "a.tif", pixels, compress=compress, blockysize=10)
    change_table(path, OFFSETS if tag == "offsets" else SIZES, change)
    with pytest.raises(UnusableRaster, match=reason):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_table_that_is_longer_is_read(tmp_path, compress):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint16", side=60), compress=compress, blockysize=10)
    for tag in (OFFSETS, SIZES):
        change_table(path, tag, lambda each: [*each, 9, 9])
    assert convert_raster(str(path), str(tmp_path / "out"))["verification"]["values"] == "identical"


def test_a_sparse_raster_is_whole(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif", "w", **PROFILE, width=600, height=600, tiled=True, sparse_ok=True, compress="deflate"
    ) as dataset:
        dataset.write(np.ones((1, 40, 40), "uint8"), window=((0, 40), (0, 40)))
    result = convert_raster(str(tmp_path / "a.tif"), str(tmp_path / "out"))
    assert result["statistics"]["valid_pixels"] == 360_000


def damage_unnoticed(path, directory):
    """Change a bit of the first block so that it decompresses to more than it should, which GDAL does not look at."""
    content = bytearray(path.read_bytes())
    begin, size = int(directory.offsets[0]), int(directory.sizes[0])
    for at in range(begin + size // 3, begin + size - 8):
        changed = content.copy()
        changed[at] ^= 0x10
        path.write_bytes(bytes(changed))
        with suppress(rasterio.errors.RasterioError), rasterio.open(path) as dataset:
            dataset.read()
            return
    raise AssertionError("expected GDAL to read over some damage, found that it noticed all")


def test_a_damaged_block_that_gdal_reads_is_found_by_its_checksum(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 1000, (1, 300, 300)).astype("float32")
    path = write_raster(tmp_path / "a.tif", pixels, compress="deflate")
    damage_unnoticed(path, full_size_directories(str(path))[0])
    with pytest.raises(UnusableRaster, match=r"its data is damaged in block 1 of \d+ .* get a fresh copy"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_a_damaged_block_of_a_mask_is_found_by_its_checksum(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), "mask", compress="deflate")
    check_blocks(str(path))
    mask = full_size_directories(str(path))[1]
    content = bytearray(path.read_bytes())
    # The last byte of the checksum.
    content[int(mask.offsets[0]) + int(mask.sizes[0]) - 1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedRaster, match=r"block 1 of .*incorrect data check"):
        check_blocks(str(path))


def test_a_block_whose_stream_never_ends_is_damaged(tmp_path):
    rows, columns = np.mgrid[:300, :300]
    pixels = (np.sin(columns / 50) * 500 + rows).astype("float32")[None]
    path = write_raster(tmp_path / "a.tif", pixels, compress="deflate", **WHOLE_TILES)
    (main,) = full_size_directories(str(path))
    content = bytearray(path.read_bytes())
    end = int(main.offsets[0]) + int(main.sizes[0])
    # As a copy that broke off leaves it, in a file of the right size.
    content[end - 4096 : end] = bytes(4096)
    path.write_bytes(bytes(content))
    with pytest.raises(UnusableRaster, match="its data is damaged in block 1 of 1 "):
        convert_raster(str(path), str(tmp_path / "out"))


def test_a_block_of_much_of_the_same_ends(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 3000, 1000), "uint8"), compress="deflate", blockysize=3000)
    check_blocks(str(path))


def test_an_error_that_gdal_reports_and_goes_on_is_damage(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", bands=3), compress="jpeg", interleave="pixel")
    (main,) = full_size_directories(str(path))
    content = bytearray(path.read_bytes())
    middle = int(main.offsets[0]) + int(main.sizes[0]) // 2
    content[middle : middle + 20] = b"\xff" * 20
    path.write_bytes(bytes(content))
    level = logging.getLogger("rasterio._err").level
    with pytest.raises(UnusableRaster, match=r"its data is damaged in some of its blocks .*JPEG"):
        convert_raster(str(path), str(tmp_path / "out"))
    assert logging.getLogger("rasterio._err").level == level


@pytest.mark.parametrize("compress", ["jpeg", "deflate", "zstd", "lzw"])
def test_a_whole_raster_is_not_damaged(tmp_path, compress):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8"), compress=compress, sparse_ok=True)
    assert convert_raster(str(path), str(tmp_path / "out"))["verification"]["values"] == "identical"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mask_of_another_size_is_named(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), "msk")
    with rasterio.open(tmp_path / "a.tif.msk") as mask:
        profile = mask.profile | {"width": 30, "height": 20}
        tags = mask.tags()
    with rasterio.open(tmp_path / "a.tif.msk", "w", **profile) as mask:
        mask.write(np.where(hidden(), 0, 255)[None, :20, :30].astype("uint8"))
        mask.update_tags(**tags)
    with pytest.raises(
        UnusableRaster, match=rf"its mask \(.msk\) has 30 x 20 pixels, and it has {SIDE} x {SIDE}; remove"
    ):
        convert_raster(str(path), str(tmp_path / "out"))


def test_a_corner_that_is_nowhere_is_refused(tmp_path):
    place = rasterio.Affine(10, 0, float("nan"), 0, -10, 10)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=20), transform=place)
    with pytest.raises(UnusableRaster, match=r"its corner \(nan, 10\) is no place"):
        convert_raster(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("size", [0.0, float("nan")])
def test_pixels_without_a_size_are_refused(tmp_path, size):
    place = rasterio.Affine(size, 0, 10, 0, size, 10)
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), crs="EPSG:4326", transform=place)
    with pytest.raises(UnusableRaster, match="its pixels have no size"):
        convert_raster(str(path), str(tmp_path / "out"))


def test_a_reason_does_not_name_the_folder_in_which_it_was_read(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), compress="lzw")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = b"\xff" * 50
    path.write_bytes(bytes(content))
    with pytest.raises(UnusableRaster, match="its data is damaged") as caught:
        convert_raster(str(path), str(tmp_path / "out"))
    assert "scratch" not in str(caught.value)
    assert "source.tif" not in str(caught.value)


TILES = {"tiled": True, "blockxsize": 64, "blockysize": 128}
WHOLE_TILES = {"tiled": True, "blockxsize": 320, "blockysize": 304}


@pytest.mark.parametrize("form", [{"interleave": "pixel"}, {"interleave": "band"}, {"ENDIANNESS": "BIG"}])
@pytest.mark.parametrize("layout", [TILES, WHOLE_TILES, {"blockysize": 1}, {"blockysize": 7}, {"blockysize": 600}])
def test_blocks_are_compared_with_the_values_that_were_read(tmp_path, monkeypatch, layout, form):
    rows = 600 if layout.get("blockysize") == 600 else 300
    pixels = np.random.default_rng(1).integers(0, 9, (2, rows, 300)).astype("float32")
    path = write_raster(tmp_path / "a.tif", pixels, compress="deflate", **layout, **form)
    inflated = []
    monkeypatch.setattr(intact, "_inflate", inflated.append)
    with open_raster(str(path)) as dataset:
        blocks = BlockCheck(dataset, str(path))
        read_facts(dataset, seen_bands=blocks.see)
        blocks.finish()
    assert inflated == []


def test_a_tile_at_the_edge_may_have_any_values_beyond_it(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32", side=320), compress="deflate", **TILES)
    content = path.read_bytes()
    # The image ends within its tiles.
    for tag in (b"\x00\x01\x03\0\x01\0\0\0", b"\x01\x01\x03\0\x01\0\0\0"):
        assert content.count(tag + (320).to_bytes(2, "little")) == 1
        content = content.replace(tag + (320).to_bytes(2, "little"), tag + (300).to_bytes(2, "little"))
    path.write_bytes(content)
    assert convert_raster(str(path), str(tmp_path / "out"))["verification"]["values"] == "identical"


@pytest.mark.parametrize("layout", [TILES, {"blockysize": 7}])
@pytest.mark.parametrize("predictor", [1, 3])
def test_a_block_with_another_checksum_is_named(tmp_path, layout, predictor):
    path = write_raster(tmp_path / "a.tif", pixels_of("float32"), compress="deflate", predictor=predictor, **layout)
    (main,) = full_size_directories(str(path))
    content = bytearray(path.read_bytes())
    content[int(main.offsets[2]) + int(main.sizes[2]) - 1] ^= 1
    path.write_bytes(bytes(content))
    with open_raster(str(path)) as dataset:
        blocks = BlockCheck(dataset, str(path))
        with suppress(DamagedRaster):
            # GDAL may notice it, too.
            read_facts(dataset, seen_bands=blocks.see)
        with pytest.raises(DamagedRaster, match=r"block 3 of \d+ \(.*incorrect data check"):
            blocks.finish()


def test_a_damaged_count_takes_no_more_memory_than_the_file_is_long(tmp_path):
    """Of an entry that says to have four thousand million values."""
    path = tmp_path / "a.tif"
    entries = struct.pack("<HHII", 256, 4, 1, 1) + struct.pack("<HHII", 273, 4, 0xFFFFFFFF, 8)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4))
    tracemalloc.start()
    (found,) = directories(str(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.offsets.size == 7
    assert most < 1 << 20


def test_sizes_of_one_strip_per_band_need_not_be_there(tmp_path):
    """Libtiff finds them out, as for a single strip."""
    pixels = pixels_of("uint8", bands=3, side=30)
    path = write_raster(tmp_path / "a.tif", pixels, interleave="band", blockysize=30)
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<HHI", SIZES, 3, 3))
    # A private tag of one byte in its place; the order of tags is no matter to libtiff here.
    content[at : at + 12] = struct.pack("<HHII", 280, 3, 1, 0)
    path.write_bytes(content)
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(), pixels)
    intact.check_every_block(str(path))


def test_a_mask_larger_than_the_image_is_no_larger_image(tmp_path):
    path = write_raster(tmp_path / "a.tif", pixels_of("uint8", side=30), "mask")
    write_tag(path, 256, 3, 1, struct.pack("<HH", 20, 0))
    image, mask = directories(str(path))
    assert (image.width, mask.width) == (20, 30)
    assert page_of_larger_image(str(path)) is None
