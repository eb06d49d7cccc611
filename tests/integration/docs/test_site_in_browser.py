"""The documents' site in a real browser, opened from its folder and without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.site import build_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name is found: what the site would load from elsewhere is missing here.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    # The page's own timers run at once, until none is left or so many milliseconds of its time have passed.
    "--virtual-time-budget=30000",
    "--dump-dom",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_site(tmp_path_factory.mktemp("site"))


def opened(address: str, profile: Path) -> str:
    """The page as the browser has it when its scripts have run."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


def test_the_search_finds_pages(site, tmp_path):
    assert 'class="md-search-result__item"' in opened(f"file://{site}/index.html?q=lease", tmp_path)


def test_the_search_finds_nothing_where_there_is_nothing(site, tmp_path):
    page = opened(f"file://{site}/index.html?q=rhinoceros", tmp_path)
    assert "No matching documents" in page


def test_diagrams_are_drawn(site, tmp_path):
    page = opened(f"file://{site}/reference/states.html", tmp_path)
    # The theme draws each one into a place of its own and leaves no text of a diagram.
    assert page.count('class="mermaid"') == 3
    assert "stateDiagram-v2" not in page
