"""The preview of a flood risk job in a real browser, with a mouse, a keyboard and a phone's width."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from jobs.flood_risk_cog.samples import generate_samples
from tests.integration.ui.dashboard_app import serving
from tests.unit.raster.previews import PREVIEW, PreviewServices, make_results

from .chromium import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
LOADED = "document.documentElement.dataset.tiles === 'loaded'"


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    # Its title is text and nothing else.
    result = make_results(generate_samples(folder / "source", 8), folder / "out", "Valley <img src=x onerror=alert(1)>")
    services = PreviewServices(result)
    with serving(lambda: services) as pages:
        yield pages.removesuffix("/api/ui") + PREVIEW


@pytest.fixture(scope="module")
def opened_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile"), seconds=280) as browser:
        yield browser


@pytest.fixture
def browser(opened_browser: Browser) -> Browser:
    opened_browser.call("Network.setCacheDisabled", cacheDisabled=True)
    opened_browser.requested.clear()
    opened_browser.complaints.clear()
    opened_browser.look(1280, 800)
    return opened_browser


def wait_for_drawing(browser: Browser) -> None:
    """The page draws in the next frame, and only then knows which tiles it lacks."""
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def water_in(browser: Browser) -> float:
    """The share of the picture that is in the colours of water."""
    pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))[:, 340:].astype(int)
    return float((pixels[..., 2] - pixels[..., 0] > 60).mean())


def test_the_page_shows_depths_and_asks_nobody_else(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait_for(LOADED)
    assert browser.run("document.querySelector('h1').textContent") == "Valley <img src=x onerror=alert(1)>"
    assert browser.run("document.querySelectorAll('.layer').length") == 4
    least = water_in(browser)
    assert least > 0.001
    # The last return period: more water.
    browser.run("document.querySelectorAll('.layer input')[3].click()")
    wait_for_drawing(browser)
    browser.wait_for(LOADED)
    wait_for_drawing(browser)
    assert water_in(browser) > 2 * least
    browser.run("const o = document.getElementById('opacity'); o.value = 0; o.dispatchEvent(new Event('input'))")
    wait_for_drawing(browser)
    assert water_in(browser) == 0
    host = url.split("/api/", maxsplit=1)[0]
    assert all(each.startswith(host) for each in browser.requested), browser.requested
    assert [each for each in browser.complaints if "favicon" not in each and "404" not in each] == []


def test_a_click_reads_the_value(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait_for(LOADED)
    browser.click(600, 480)
    browser.wait_for("document.querySelector('#place td')")
    cells = browser.run("[...document.querySelectorAll('#place td')].map(cell => cell.textContent)")
    assert any("rp500" in cell for cell in cells), cells
    assert any(cell.endswith(" m") and cell[0].isdigit() for cell in cells), cells


def test_the_keyboard_is_enough(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait_for(LOADED)
    browser.run("document.getElementById('map').focus()")
    before = browser.run("JSON.stringify(view)")
    for key in ("+", "ArrowRight", "ArrowDown"):
        browser.press(key)
    moved = browser.run("JSON.stringify(view)")
    assert moved != before
    browser.press("Enter")
    browser.wait_for("document.querySelector('#place p')")
    browser.press("Escape")
    assert browser.run("document.getElementById('place').hidden") is True
    browser.press("0")
    assert browser.run("JSON.stringify(view)") == before


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_on_a_phone_the_panel_is_below_the_map(browser: Browser, url: str, colours: str) -> None:
    browser.look(390, 844, dark=colours == "dark", phone=True)
    browser.open(url)
    browser.wait_for(LOADED)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.getElementById('panel').getBoundingClientRect().top") > 400
    pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert ("dark" if pixels.mean() < 100 else "light") == colours


def test_what_cannot_be_shown_is_said_on_the_page(browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.flood_risk_cog import preview

    def fail(_work):
        raise preview.ViewFailed("gone")

    monkeypatch.setattr(preview, "in_child", fail)
    monkeypatch.setattr(preview, "_TILES", preview.Kept(0, 0))
    browser.open(url)
    browser.wait_for("document.getElementById('notes').textContent.includes('could not be read')")
