"""`make demo`, as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
from rasterio.transform import Affine

from jobs.flood_risk_cog.samples import generate_samples
from tests.acceptance.steps import run_command

pytestmark = pytest.mark.acceptance


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[], Path]:
    """A folder of rasters: a good one and three that cannot be converted."""

    def make() -> Path:
        folder = tmp_path / "rasters"
        (good,) = generate_samples(folder, count=1)
        (folder / "corrupt.tif").write_bytes(good.read_bytes()[:5000])
        with rasterio.open(good) as source:
            pixels, profile = source.read(), source.profile
        turned = Affine.translation(620_000, 3_350_000) * Affine.rotation(30) * Affine.scale(10, -10)
        with rasterio.open(folder / "rotated.tif", "w", **profile | {"transform": turned}) as target:
            target.write(pixels)
        with rasterio.open(folder / "placeless.tif", "w", **profile | {"crs": None}) as target:
            target.write(pixels)
        return folder

    return make


# Twelve rasters; what `make test` has of it: samples are made where no folder is given, and a folder is converted.
@pytest.mark.long
def test_demo_converts_its_own_samples(tmp_path: Path) -> None:
    done = run_command("demo", "--output", "cogs", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12 rasters converted" in done.stdout
    assert (tmp_path / "cogs" / "collection.json").is_file()


def test_demo_of_a_folder_with_bad_rasters_says_what_is_wrong_with_each(
    tmp_path: Path, make_folder: Callable[[], Path]
) -> None:
    # One of them is converted: a second worker would only start.
    done = run_command("demo", "--output", "cogs", "--workers", "1", folder=tmp_path, RASTERS=str(make_folder()))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 4 rasters converted, job completed_with_errors" in done.stdout
    reasons = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ".tif: " in line)
    assert "cannot be opened" in reasons["corrupt.tif"] or "cannot be read" in reasons["corrupt.tif"]
    assert "rotated" in reasons["rotated.tif"]
    assert "coordinate" in reasons["placeless.tif"]
