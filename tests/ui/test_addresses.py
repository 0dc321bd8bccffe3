"""Addresses of a report: reload, Back, Forward and shared links; and the keys of the page."""

from pathlib import Path
from typing import Any

import pytest
from browsing import UI, Visit

from steerlens.report.html import write_report
from steerlens.testing.atlases import fake_atlas

pytestmark = UI


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    atlas = fake_atlas(("apple", "boat / ship"), layers=4, heads=3, seeds=(0, 1))
    return write_report(atlas, tmp_path_factory.mktemp("report"), figures=False)


def test_back_forward_and_reload(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri())
    page = visit.page
    assert visit.hash == "", "opening a report does not change its address"
    best = visit.chosen
    visit.cell(2, 1).click()
    page.click("#switcher button >> nth=1")
    page.check('input[value="write"]', force=True)
    visit.cell(0, 2).click()
    assert visit.hash == "#/input/boat%20%2F%20ship/head/L0H2?rho=1&map=write&seed=0"
    page.reload()
    assert visit.chosen == "L0H2"
    assert page.is_checked('input[value="write"]')
    assert "boat / ship" in page.inner_text("#pair")
    page.go_back()
    assert visit.chosen == "L2H1"
    page.go_back()
    assert page.is_checked('input[value="diffusion"], input[value="steering"]')
    page.go_back()
    assert "apple" in page.inner_text("#pair")
    page.go_back()
    assert (visit.hash, visit.chosen) == ("", best)
    page.go_forward()
    assert visit.chosen == "L2H1"
    assert page.locator("#map .cell.chosen").get_attribute("data-site") == "head.2.1"
    visit.done()


def test_a_shared_link_shows_what_was_shared(browser: Any, report: Path) -> None:
    first = Visit(browser, report.as_uri())
    first.page.click("#switcher button >> nth=1")
    first.page.check('input[name="radio-seed"][value="1"]', force=True)
    first.page.check('input[value="pictures"]', force=True)
    first.cell(3, 0).click()
    picture = first.cell(3, 0).locator("img").get_attribute("src")
    other = Visit(browser, report.as_uri() + first.hash)
    assert (other.chosen, other.hash) == ("L3H0", first.hash)
    assert other.cell(3, 0).locator("img").get_attribute("src") == picture
    assert other.page.is_checked('input[name="radio-seed"][value="1"]')
    first.done()
    other.done()


def test_an_old_link_opens_as_before(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri() + f"#picture={1:012x}&site=head.1.2&map=margin")
    assert "boat / ship" in visit.page.inner_text("#pair")
    assert visit.chosen == "L1H2"
    assert visit.page.is_checked('input[value="margin"]')
    visit.done()


def test_arrow_keys_leave_one_step_in_the_history(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri())
    visit.cell(0, 0).click()
    for _ in range(3):
        visit.page.keyboard.press("ArrowRight")
    assert "/head/L3H0" in visit.hash
    visit.page.go_back()
    assert visit.hash == ""
    visit.done()


def test_anchors_of_the_page_are_no_views(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri())
    visit.cell(2, 1).click()
    visit.page.evaluate("location.hash = '#map'")
    assert (visit.hash, visit.chosen) == ("#map", "L2H1")
    visit.done()


def test_keyboard_alone(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri())
    page = visit.page
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    assert "Next head in rank" in page.inner_text("#keys")
    page.keyboard.press("Escape")
    assert not page.is_visible("#keys")
    first = visit.chosen
    page.keyboard.press("j")
    second = visit.chosen
    page.keyboard.press("k")
    assert (visit.chosen, second != first) == (first, True)
    page.keyboard.press("]")
    assert "boat / ship" in page.inner_text("#pair")
    page.keyboard.press("m")
    assert page.evaluate("document.activeElement.role") == "gridcell"
    page.keyboard.press("p")
    assert page.locator("#map .cell img").count() == 12
    assert page.evaluate("document.activeElement.role") == "gridcell", "drawing anew leaves the focus where it was"
    page.keyboard.press("Tab")
    visit.done()


def test_keys_of_a_phone_s_sheet(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri(), width=360, height=740)
    visit.cell(2, 1).click()
    visit.page.locator("#detail [data-step]:not(:disabled)").last.click()
    assert visit.chosen != "L2H1"
    visit.page.go_back()
    assert visit.chosen == "L2H1"
    visit.page.go_back()
    assert not visit.page.is_visible("#detail")
    visit.done()


SHIFTS = """new Promise((done) => {
  let sum = 0;
  const add = (list) => list.getEntries().forEach((entry) => { sum += entry.value; });
  new PerformanceObserver(add).observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => done(sum), 300);
})"""
MOVING = """[...document.querySelectorAll('*')].map((node) => getComputedStyle(node)).filter((style) =>
  style.scrollBehavior === 'smooth' || parseFloat(style.transitionDuration) > 0 || style.animationName !== 'none'
).length"""


@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_jumps_or_moves(browser: Any, report: Path, width: int) -> None:
    visit = Visit(browser, report.as_uri(), width=width, reduced_motion="reduce")
    assert visit.page.evaluate(SHIFTS) == 0
    assert visit.page.evaluate(MOVING) == 0
    visit.done()
