from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

UTM_PLACE = Affine(10, 0, 600_000, 0, -10, 3_300_000)


@pytest.fixture
def make_raster(tmp_path):
    """Write pixels (bands, rows, columns) to a GeoTIFF in the source folder; keywords go to rasterio."""

    def make(name="a.tif", pixels=None, *, descriptions=(), tags=None, colormap=None, **profile) -> str:
        if pixels is None:
            pixels = np.linspace(0, 4, 700 * 640, dtype="float32").reshape(1, 700, 640)
        folder: Path = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        bands, rows, columns = pixels.shape
        options = {"crs": "EPSG:32614", "transform": UTM_PLACE, **profile}
        with rasterio.open(
            folder / name,
            "w",
            driver="GTiff",
            width=columns,
            height=rows,
            count=bands,
            dtype=pixels.dtype.name,
            **options,
        ) as dataset:
            dataset.write(pixels)
            for index, description in enumerate(descriptions, start=1):
                dataset.set_band_description(index, description)
            dataset.update_tags(**(tags or {}))
            if colormap:
                dataset.write_colormap(1, colormap)
        return str(folder / name)

    return make
