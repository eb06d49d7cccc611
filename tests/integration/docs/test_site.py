"""The documents' site builds without a warning, reads nothing from elsewhere, and works in a browser from a folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.host.chromium import CHROMIUM, Browser

ROOT = Path(__file__).resolve().parents[3]
# No name is found: what the site would load from elsewhere is missing here.
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with Browser(tmp_path_factory.mktemp("profile"), NO_NETWORK, seconds=280) as browser:
        yield browser


def loaded_by(page: str) -> list[str]:
    """What a browser fetches by itself for a page."""
    scripts = re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?([^\s\">]+)", page)
    links = re.findall(r"<link\b[^>]*>", page)
    fetched = [link for link in links if re.search(r"rel=\"?(stylesheet|icon|preload|preconnect)", link)]
    return scripts + [found for link in fetched for found in re.findall(r"href=\"?([^\s\">]+)", link)]


def test_what_a_page_loads_is_found():
    page = '<link rel="icon" href="a.png"><link rel=next href=b.html><script src="https://c/d.js"></script>'
    assert loaded_by(page) == ["https://c/d.js", "a.png"]


def test_every_page_loads_files_of_the_site_alone(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loaded = loaded_by(page.read_text())
        assert loaded
        for address in loaded:
            # The page of a missing address is the only one that does not know its own place.
            place = site / address.lstrip("/") if page.name == "404.html" else page.parent / address
            assert place.is_file(), f"{page.name} loads {address}"


def test_style_sheets_load_nothing_from_elsewhere(site):
    addresses = [
        address
        for sheet in site.rglob("*.css")
        for address in re.findall(r"url\(\"?([^)\"]+)", sheet.read_text())
        if not address.startswith(("data:", "#"))
    ]
    assert [address for address in addresses if "//" in address] == []


def test_every_document_is_a_page(site):
    documents = [path for path in (ROOT / "docs").rglob("*.md") if ".site" not in path.parts]
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in documents]
    assert [page for page in pages if not (site / page).is_file()] == []


def test_the_search_finds_pages_and_nothing_where_there_is_nothing(site, browser):
    """On one page, since each page makes the index of all documents anew."""
    browser.open(f"file://{site}/index.html?q=lease")
    browser.wait_for("document.querySelector('.md-search-result__item')")
    browser.run(
        "(field => { field.value = 'rhinoceros'; field.dispatchEvent(new Event('keyup')); })"
        "(document.querySelector('[data-md-component=search-query]'))"
    )
    browser.wait_for("document.body.textContent.includes('No matching documents')")


def test_diagrams_are_drawn(site, browser):
    """The theme draws each one into a place of its own and leaves no text of a diagram."""
    browser.open(f"file://{site}/reference/states.html")
    browser.wait_for("!document.documentElement.outerHTML.includes('stateDiagram-v2')")
    assert browser.run("document.querySelectorAll('.mermaid').length") == 3
