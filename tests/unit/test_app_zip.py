"""The zip of a Function App: all that the app needs, nothing else, and no raster libraries for a platform app."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("app_zip", ROOT / ".ci" / "app_zip.py")
app_zip = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(app_zip)

PACKAGES = {"core", "infrastructure", "jobs", "sql", "triggers"}
# They go wherever the map data and the pages of Swagger UI go.
LICENCES = {
    "triggers/ui/land.txt",
    *(f"triggers/swagger/{name}" for name in ("LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")),
}
FILES = {"LICENSE", "function_app.py", "host.json", "requirements.txt"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# The others of that extra look at places, which a submission does.
ONLY_RASTER = {re.split(r"[\[><=;]", each)[0] for each in EXTRAS["raster"]} - {"aiohttp", "fsspec"}
# Whatever the environment has, the app is loaded without these.
MISSING = ["numpy", "PIL", "pyproj", "rasterio", "rio_cogeo", "coremachine", "tests"]
LOADS = """
import json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in json.loads(sys.argv[1]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, "")
import function_app
from triggers.services import load_registry

names = [function.get_function_name() for function in function_app.app.get_functions()]
registry = load_registry("jobs.all_jobs:build_registry", ["tasks", "raster"])
job = registry.get_job("flood_risk_cog")
given = {"source": sys.argv[2], "output": f"{sys.argv[2]}/out", "target_crs": "EPSG:3857"}
parameters = job.validate_job_parameters(given)
planned = list(job.create_tasks_for_stage(1, parameters, "ab" * 32, []))
print(json.dumps([function_app.__file__, names, registry.job_types, len(planned)]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The zip of each kind of app."""
    folder = tmp_path_factory.mktemp("dist")
    for kind in app_zip.REQUIREMENTS:
        app_zip.write_zip(kind, folder / f"{kind}.zip")
    with zipfile.ZipFile(folder / "app.zip") as app, zipfile.ZipFile(folder / "platform.zip") as platform:
        yield {"app": app, "platform": platform}


@pytest.mark.parametrize("kind", ["app", "platform"])
def test_the_zip_has_the_code_of_the_app_and_nothing_else(made, kind):
    names = made[kind].namelist()
    assert {name.partition("/")[0] for name in names} == PACKAGES | FILES
    below = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT).as_posix() for path in below if path.suffix != ".pyc"}
    assert set(names) == wanted | FILES
    assert set(names) >= LICENCES


@pytest.mark.parametrize("kind", ["app", "platform"])
def test_a_platform_app_is_deployed_without_raster_libraries(made, kind):
    pins = set(re.findall(r"(?m)^([a-z0-9-]+)==", made[kind].read("requirements.txt").decode()))
    assert {"azure-functions", "psycopg-binary", "azure-monitor-opentelemetry-exporter"} <= pins
    assert "adlfs" in pins
    assert ONLY_RASTER & pins == (set() if kind == "platform" else ONLY_RASTER)


def test_a_platform_app_loads_and_plans_without_raster_libraries(made, tmp_path):
    made["platform"].extractall(tmp_path)
    (tmp_path / "a.tif").touch()
    environment = {"PATH": "/usr/bin:/bin", "COREMACHINE_APP_MODE": "platform"}
    command = [sys.executable, "-c", LOADS, json.dumps(MISSING), str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, timeout=60, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    place, names, job_types, planned = json.loads(done.stdout.splitlines()[-1])
    assert Path(place) == tmp_path / "function_app.py"
    assert {"web_api", "process_jobs", "janitor_sweep"} <= set(names)
    assert job_types == ["flood_risk_cog", "hello_world"]
    assert planned == 1
