"""The built pages in a browser without a network: `make site-test` after `make book`.

They are looked at in Debian's Chromium, light, dark and on a phone's width. `$CXR_SITE` names another folder of pages.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'cxr-tutorial[site]'")
axe_of = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install 'cxr-tutorial[site]'")

SITE = Path(os.environ.get("CXR_SITE", Path(__file__).parents[2] / "_build/html"))
CHROMIUM = shutil.which("chromium")
LOOKS = {"light": (1200, "light"), "dark": (1200, "dark"), "phone": (390, "light")}
NO_PAGE = ("genindex", "py-modindex", "search")
HARMLESS = ("THEBE_JS_URL", "Got invalid theme mode", "strictTypes")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "book/intro.html").exists(), reason=f"no pages in {SITE}: run make book"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
PAGES = sorted(
    page.relative_to(SITE).as_posix()
    for page in SITE.glob("book/**/*.html")
    if page.stem not in NO_PAGE and "_static" not in page.parts
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """Opens a page in one of the looks; what goes wrong on the way is in `page.troubles`."""
    contexts = []

    def opened(path: str, look: str = "light"):
        width, scheme = LOOKS[look]
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.add_init_script(f"localStorage.setItem('mode', '{scheme}'); localStorage.setItem('theme', '{scheme}')")
        page = context.new_page()
        page.troubles = []

        def only_here(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                page.troubles.append(f"asked the network for {route.request.url}")
                route.abort()

        context.route("**/*", only_here)
        page.on("response", lambda answer: _note(page, answer))
        page.on("console", lambda line: _hear(page, line))
        page.on("pageerror", lambda error: _say(page, str(error)))
        page.goto(f"{address}/{path}", wait_until="load")
        page.wait_for_timeout(700)
        return page

    yield opened
    for context in contexts:
        context.close()


def _note(page, answer):
    if answer.status >= 400:
        page.troubles.append(f"{answer.status} for {answer.url}")


def _hear(page, line):
    if line.type == "error" and "Failed to load resource" not in line.text:  # that is noted above, with its address
        _say(page, line.text)


def _say(page, trouble):
    if not any(word in trouble for word in HARMLESS):
        page.troubles.append(trouble)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_and_can_be_used_by_everybody(path, look, open_page):
    page = open_page(path, look)
    assert page.troubles == []
    assert page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look][0], "the page scrolls sideways"
    without = page.eval_on_selector_all("main img", "all => all.filter(i => !i.alt.trim()).map(i => i.src)")
    assert without == [], "pictures without a text"
    raw = page.locator("main").inner_text()
    assert "\\(" not in raw.replace("\\\\(", ""), "mathematics that was not set"
    assert page.evaluate("[...document.querySelectorAll('.cxr-plotly')].every(f => f.querySelector('.main-svg'))")
    found = axe_of.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]
    assert serious == []


@pytest.mark.parametrize("path", [one for one in PAGES if "cxr-plotly" in (SITE / one).read_text()])
def test_what_moves_changes_the_figure(path, open_page):
    page = open_page(path)
    figures = page.locator(".cxr-plotly[role=figure]")
    for k in range(figures.count()):
        figure = figures.nth(k)
        slider = figure.locator(".slider-rail-touch-rect")
        menu = figure.locator(".updatemenu-header, .updatemenu-button")
        if not (slider.count() or menu.count()):
            continue
        before = figure.screenshot()
        if slider.count():
            for place in (0.9, 0.3):  # it may stand at one of them
                _click(page, slider.first, place)
                if figure.screenshot() != before:
                    break
        else:
            _click(page, menu.last, 0.5)
            options = figure.locator(".updatemenu-dropdown-button")
            if options.count():
                _click(page, options.last, 0.5)
        assert figure.screenshot() != before, f"figure {k + 1} does not move"


def _click(page, handle, along):
    """Click into a control of plotly, `along` its width; it takes no click but the mouse's."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    page.mouse.click(box["x"] + along * box["width"], box["y"] + box["height"] / 2)
    page.mouse.move(1, 1)
    page.wait_for_timeout(500)


def test_search_finds_a_word(open_page):
    page = open_page("search.html?q=tversky")
    page.wait_for_selector("#search-results li", timeout=10_000)
    assert page.locator("#search-results li").count() > 3
    assert page.troubles == []


def test_mathematics_is_set(open_page):
    page = open_page("book/02-tversky.html")
    page.wait_for_selector("mjx-container", timeout=10_000)
    assert page.locator("mjx-container").count() > 20
