"""A published site in a real browser, from a local server: pages, addresses, lazy pictures, phones, accessibility."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsing import UI, Visit

from steerlens.progress import run_to_end
from steerlens.report.site import publish_site
from steerlens.testing.atlases import fake_atlas, with_cards

pytestmark = UI


def eventually(page: Any, expression: str) -> None:
    """Waits until an expression holds. Playwright's own polling evaluates texts, which the pages' policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"it never came true: {expression}")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a site of two runs."""
    folder: Path = tmp_path_factory.mktemp("published") / "site"
    runs = {
        "week one": with_cards(fake_atlas(("apple", "boat / ship"), layers=12, heads=8, seeds=(0, 1))),
        "other": fake_atlas(("moon",), layers=3, heads=2, sites="all", effects=("direct", "total")),
    }
    run_to_end(publish_site(runs, folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def visit_site(browser: Any, site: str, path: str = "", **options: Any) -> Visit:
    return Visit(browser, site + path, within=(site, "data:"), **options)


def test_from_the_index_to_a_head_and_back(browser: Any, site: str) -> None:
    visit = visit_site(browser, site)
    page = visit.page
    assert page.locator(".thumbnails img").count() == 3
    page.get_by_text("boat / ship").click()
    page.wait_for_selector("#map .cell")
    assert page.url.endswith("/week-one/boat-ship.html")
    visit.cell(2, 1).click()
    assert page.url.endswith("/week-one/boat-ship.html#/run/week-one/input/boat%20%2F%20ship/head/L2H1?rho=1&seed=0")
    page.locator("#detail .attention canvas").wait_for()
    assert page.title() == "boat / ship, L2H1 · steerlens"
    page.click("#switcher button >> nth=0")
    eventually(page, "document.querySelector('#pair').innerText.includes('apple')")
    assert "/week-one/apple.html#" in page.url
    page.go_back()
    eventually(page, "document.querySelector('#pair').innerText.includes('boat')")
    assert "/week-one/boat-ship.html#" in page.url
    page.reload()
    page.wait_for_selector("#map .cell")
    assert visit.chosen == "L2H1"
    page.click(".wordmark a")
    page.wait_for_selector(".thumbnails")
    visit.done()


def test_a_link_to_a_head_opens_it(browser: Any, site: str) -> None:
    visit = visit_site(browser, site, "week-one/apple.html#/head/L7H3?rho=1&seed=1")
    visit.page.wait_for_selector("#map .cell")
    assert visit.chosen == "L7H3"
    alone = visit_site(browser, site, "other/moon.html")
    alone.page.wait_for_selector("#map .cell")
    assert alone.page.title() == "moon · steerlens"
    alone.done()
    assert visit.page.is_checked('input[name="radio-seed"][value="1"]')
    visit.done()


def test_the_page_of_a_head_forwards_to_it(browser: Any, site: str) -> None:
    visit = visit_site(browser, site, "week-one/apple.html")
    page = visit.page
    page.wait_for_selector("#share")
    best = visit.chosen
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click("#share")
    eventually(page, "window.copied !== undefined")
    address = page.evaluate("window.copied")
    assert address == f"{site}week-one/heads/apple/{best}.html"
    page.goto(address)
    page.wait_for_selector("#map .cell")
    assert page.url.startswith(f"{site}week-one/apple.html#") and visit.chosen == best
    visit.done()


def test_pictures_load_when_they_come_into_view(browser: Any, site: str) -> None:
    visit = visit_site(browser, site, "week-one/apple.html")
    page = visit.page
    page.wait_for_load_state("networkidle")
    first = len([url for url in visit.requests if "/pictures/" in url])
    assert first < 60, "not the hundreds of pictures of the run"
    page.check('input[value="pictures"]', force=True)
    page.locator("#map").scroll_into_view_if_needed()
    eventually(page, "[...document.querySelectorAll('#map .cell img')].some((image) => image.naturalWidth > 0)")
    assert len([url for url in visit.requests if "/pictures/" in url]) > first
    visit.done()


def test_cards_of_heads_load_when_one_is_opened(browser: Any, site: str) -> None:
    visit = visit_site(browser, site, "week-one/apple.html", height=3000)
    page = visit.page
    page.wait_for_load_state("networkidle")
    best = visit.chosen
    cards = lambda: [url for url in visit.requests if "/cards/" in url]  # noqa: E731
    assert page.locator("#detail .card-of-head").is_visible()
    assert cards() == [], "the first view needs none, however tall the window"
    page.click("#detail .card-of-head summary")
    eventually(page, "document.querySelectorAll('#detail .card-of-head .ends img').length === 6")
    assert cards() == [f"{site}week-one/cards/apple/{best}.json"]
    assert "Gained" in page.inner_text("#detail .card-of-head") and "20 pictures" in page.inner_text("#detail")
    page.click('#detail [data-step="1"]')
    eventually(page, "document.querySelectorAll('#detail .card-of-head .ends img').length === 6")
    assert len(cards()) == 2, "another head's stays open"
    page.click('#detail [data-step="-1"]')
    eventually(page, "document.querySelectorAll('#detail .card-of-head .ends img').length === 6")
    assert len(cards()) == 2, "none is loaded twice"
    visit.done()
    broken = visit_site(browser, site, "week-one/apple.html")
    broken.page.route("**/cards/**", lambda route: route.fulfill(status=404))
    broken.page.click("#detail .card-of-head summary")
    eventually(broken.page, "document.querySelector('#detail .card-of-head').innerText.includes('did not send')")
    broken.page.close()


def test_a_missing_file_is_told(browser: Any, site: str) -> None:
    visit = visit_site(browser, site, "week-one/apple.html")
    visit.page.wait_for_selector("#map .cell")
    visit.page.route("**/data/boat-ship.json", lambda route: route.fulfill(status=404))
    visit.page.click("#switcher button >> nth=1")
    eventually(visit.page, "document.querySelector('#trouble').innerText.includes('did not send')")
    assert "apple" in visit.page.inner_text("#pair")
    visit.page.close()


def test_citation(browser: Any, site: str) -> None:
    visit = visit_site(browser, site, "week-one/apple.html#/head/L7H3?rho=1&seed=0")
    page = visit.page
    page.wait_for_selector("#map .cell")
    page.click("#cite-open")
    text = page.inner_text("#cite-text")
    assert "@software{steerlens," in text
    assert f"\\url{{{page.url}}}" in text
    assert "{{apple, L7H3}}" in text
    page.click("#cite-copy")
    eventually(page, "document.querySelector('#cite-said').innerText !== ''")
    visit.done()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_accessibility(browser: Any, axe: Callable[[Any], list[str]], site: str, scheme: str, width: int) -> None:
    index = visit_site(browser, site, width=width, color_scheme=scheme)
    assert axe(index.page) == []
    index.done()
    shared = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    shared.route("**/forward-*.js", lambda route: route.abort())  # else the page of a head does not stay
    shared.goto(f"{site}other/heads/moon/L1H1.html")
    assert axe(shared) == [], "the page of a head"
    shared.close()
    visit = visit_site(browser, site, "other/moon.html#/head/L1H1?rho=1&seed=0", width=width, color_scheme=scheme)
    visit.page.wait_for_selector("#detail .attention canvas")
    assert axe(visit.page) == []
    visit.page.keyboard.press("Escape")
    visit.page.click("#cite-open")
    assert axe(visit.page) == [], "with the citation"
    visit.page.keyboard.press("Escape")
    visit.page.click("#stretch")
    visit.page.keyboard.press("?")
    assert axe(visit.page) == [], "with its keys"
    visit.done()
