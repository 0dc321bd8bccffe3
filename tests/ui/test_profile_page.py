"""The page of head profiles in a real browser: offline, every picture drawn, links and sorting at work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import UI, Visit
from PIL import Image

from steerlens.cli.main import main
from steerlens.testing.tiny import save_tiny_pair

pytestmark = UI


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("profile")
    pair, rng = save_tiny_pair(folder / "pair"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / "photos" / f"cat {number}.png")
    arguments = ["profile", "--model", pair, "--images", folder / "photos", "--out", folder / "out", "--json"]
    assert (
        main([str(one) for one in (*arguments, "--top", 2, "--ablate", 0, "--steps", 1, "--heads", "L0H1,head.2.*")])
        == 0
    )
    yield folder / "out" / "profile.html"


def test_the_page_draws_itself_offline_and_its_links_and_sorting_work(browser: Any, file: Path) -> None:
    page = browser.new_page(viewport={"width": 1300, "height": 500})
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
    page.goto(file.as_uri() + "#L2H0")
    page.wait_for_function("() => [...document.querySelectorAll('#L2H0 img')].every((image) => image.naturalWidth > 0)")
    box = page.locator("#L2H0").bounding_box()
    assert box is not None
    assert -5 <= box["y"] <= 40
    order = "[...document.querySelectorAll('.head')].map((head) => head.id)"
    effects = page.evaluate("[...document.querySelectorAll('.head')].map((head) => Number(head.dataset.effect))")
    assert effects == sorted(effects), "the most telling heads come first"
    assert page.evaluate(
        "[...document.querySelectorAll('.head')].filter((head) => head.open).map((head) => head.id)"
    ) == ["L2H0"]
    page.select_option("#sort", "place")
    assert page.evaluate(order) == ["L0H1", "L2H0", "L2H1"]
    page.fill("#find", "l2h1")
    assert page.locator(".head:visible").count() == 1
    assert page.inner_text("#count") == "1 of 3 heads"
    page.fill("#find", "cat")
    assert page.locator(".head:visible").count() == 3, "concepts are found too"
    page.fill("#find", "nothing of the kind")
    assert page.locator(".head:visible").count() == 0
    page.fill("#find", "")
    page.locator("#unfold").click()
    assert page.locator(".head[open]").count() == 3
    page.wait_for_function("() => [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    page.select_option("#sort", "write")
    sizes = page.evaluate("[...document.querySelectorAll('.head')].map((head) => -head.dataset.write)")
    assert sizes == sorted(sizes, reverse=True)
    page.locator(".heads-map a[href='#L0H1']").click()
    assert page.url.endswith("#L0H1")
    page.wait_for_function("() => document.getElementById('L0H1').open")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert trouble == []
    injected = file.with_name("injected.html")
    injected.write_text(file.read_text().replace("</main>", "<script>document.title = 'broken'</script></main>"))
    page.goto(injected.as_uri())
    assert page.title() != "broken"
    assert any("Content Security Policy" in text for text in trouble)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_accessibility(browser: Any, axe: Callable[[Any], list[str]], file: Path, scheme: str, width: int) -> None:
    visit = Visit(browser, file.as_uri(), width=width, color_scheme=scheme)
    assert axe(visit.page) == [], "as it opens"
    visit.page.locator("#unfold").click()
    assert axe(visit.page) == [], "with all heads open"
    visit.done()
