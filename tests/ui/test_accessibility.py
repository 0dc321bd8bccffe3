"""axe-core on every state of the report: light, dark and on a phone; no violation."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import UI, Visit

from steerlens.report.html import write_report
from steerlens.testing.atlases import fake_atlas

pytestmark = UI
Axe = Callable[[Any], list[str]]

SIZES = {"wide": (1400, 900), "phone": (390, 800)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    atlas = fake_atlas(
        ("apple", "boat"), layers=4, heads=3, sites="all", vectors=("smile",), seeds=(0, 1), effects=("direct", "total")
    )
    return write_report(atlas, tmp_path_factory.mktemp("report"), figures=False)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


@pytest.mark.parametrize("size", SIZES)
def test_report(browser: Any, axe: Axe, report: Path, scheme: str, size: str) -> None:
    width, height = SIZES[size]
    visit = Visit(browser, report.as_uri(), width=width, height=height, color_scheme=scheme)
    page = visit.page
    assert axe(page) == [], "as it opens"
    visit.cell(2, 1).click()
    assert axe(page) == [], "with the panel of a head"
    page.check('input[value="pictures"]', force=True)
    page.locator("#settings summary").click()
    assert axe(page) == [], "with pictures in the map, and settings"
    page.keyboard.press("Escape")
    for mode in ("effect", "margin", "write", "direct"):
        page.check(f'input[value="{mode}"]', force=True)
    assert axe(page) == [], "with a diverging scale"
    page.keyboard.press("?")
    assert axe(page) == [], "with its keys"
    visit.done()
