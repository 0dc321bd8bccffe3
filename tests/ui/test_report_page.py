"""The report in a real browser: offline, by mouse and by keyboard, without a single error."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import UI, Visit
from PIL import Image

from steerlens.atlas import CardEnd, CardPicture, Faithfulness, HeadCard, InputCards, TextScore
from steerlens.images import png_bytes
from steerlens.report.html import write_report
from steerlens.testing.atlases import fake_atlas

pytestmark = UI

HOSTILE = "</script><img src=x onerror=document.title='broken'>"


def visit_file(browser: Any, file: Path, hash: str = "", **size: int) -> Visit:
    return Visit(browser, file.as_uri() + hash, **size)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    atlas = fake_atlas((HOSTILE, "boat"), layers=4, heads=3, sites="all", vectors=("smile-b",))
    return write_report(atlas, tmp_path_factory.mktemp("report"), figures=False)


INJECTED = "<img src=data: onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


def test_an_inline_script_that_is_not_the_page_s_own_does_not_run(browser: Any, report: Path, tmp_path: Path) -> None:
    injected = tmp_path / "report.html"
    injected.write_text(report.read_text().replace("</main>", f"{INJECTED}</main>", 1))
    visit = visit_file(browser, injected)
    assert visit.page.locator(".cell").count() == 12  # the page's own script runs
    assert visit.page.title() != "broken"
    assert len([text for text in visit.trouble if "Content Security Policy" in text]) == 2
    visit.page.close()


def test_mouse(browser: Any, report: Path) -> None:
    visit = visit_file(browser, report)
    page = visit.page
    assert page.title() != "broken"
    assert page.locator("#strip .card").count() == 4
    assert page.locator(".cell").count() == 12
    assert page.locator("#top .lens-row").count() == 2
    assert "smile-b" in page.inner_text("#other")
    visit.cell(2, 1).click()
    assert visit.chosen == "L2H1"
    assert page.locator("#detail .detail-pictures img").count() == 4
    assert page.locator("#detail .attention canvas").count() == 1
    assert "/head/L2H1?" in page.url
    page.locator("#top .card[data-site]").first.click()
    assert visit.chosen == page.locator("#top .card[data-site] .name").first.inner_text()
    page.locator("#strip .card").nth(1).click()
    assert visit.chosen == "resid_post.1"
    visit.done()


def test_direct_and_total_effects_side_by_side(browser: Any, report: Path, tmp_path: Path) -> None:
    plain = visit_file(browser, report)
    assert plain.page.locator("#effects-section").is_hidden()
    plain.done()
    atlas = fake_atlas(layers=4, heads=3, sites="heads,mlp_out.1", vectors=("smile",), effects=("direct", "total"))
    visit = visit_file(browser, write_report(atlas, tmp_path, figures=False))
    page = visit.page
    assert page.locator("#effects h3").all_inner_texts() == ["Heads", "MLP outputs", "Your own directions"]
    assert page.locator("#effects .lens-row").count() == 9  # direct, total and without it, for each
    of_a_head = [row.inner_text() for row in page.locator("#effects .lens-row").all()[:3]]
    best = atlas.ranked("total")[0]
    assert all(best.site.label in row and "clean" in row for row in of_a_head)
    assert "changes" not in of_a_head[0] and "changes" in of_a_head[1] and "changes" in of_a_head[2]
    page.locator("#effects .card[data-site]").first.click()
    assert visit.chosen == best.site.label
    names = page.locator("#detail .detail-pictures b").all_inner_texts()
    assert names == ["Direct", "Total", "Without it", "Control", "Total control", "Diffusion", "Clean"]
    assert "Cosine of the changes" in page.inner_text("#detail")
    for mode in ("total", "effect"):
        page.check(f'input[value="{mode}"]', force=True)
        assert page.locator(".cell.unknown").count() == 0
    visit.done()


def test_total_effects_alone(browser: Any, tmp_path: Path) -> None:
    atlas = fake_atlas(layers=4, heads=3, effects=("total",))
    visit = visit_file(browser, write_report(atlas, tmp_path, figures=False))
    assert visit.page.locator("#effects .lens-row").count() == 2
    assert "Total Lens beats the head's own control" in visit.page.inner_text("#legend")
    assert visit.page.locator(".cell .mark").count() == sum(
        bool(score.beats_control) for score in atlas.ranked("total")
    )
    visit.cell(1, 1).click()
    assert visit.page.locator("#detail .detail-pictures b").first.inner_text() == "Total"
    visit.done()


def test_keyboard(browser: Any, report: Path) -> None:
    visit = visit_file(browser, report)
    assert visit.page.locator('.cell[tabindex="0"]').count() == 1
    visit.cell(0, 0).click()
    for key, wanted in (("ArrowRight", "L1H0"), ("ArrowDown", "L1H1"), ("End", "L3H1"), ("ArrowRight", "L3H1")):
        visit.page.keyboard.press(key)
        assert visit.chosen == wanted
    assert visit.page.locator('.cell[tabindex="0"]').get_attribute("data-site") == "head.3.1"
    assert visit.page.evaluate("document.activeElement.dataset.site") == "head.3.1"
    assert "control" in (visit.cell(3, 1).get_attribute("aria-label") or "")
    visit.done()


def test_modes_and_pictures_of_the_map(browser: Any, report: Path) -> None:
    visit = visit_file(browser, report)
    for mode in ("diffusion", "margin", "write", "direct", "steering"):
        visit.page.check(f'input[value="{mode}"]', force=True)
        assert visit.page.locator(".cell.unknown").count() == 0
    visit.page.check('input[value="pictures"]', force=True)
    assert visit.page.locator(".cell img").count() == 12
    visit.done()


def test_switching_inputs_and_coming_back_by_address(browser: Any, report: Path) -> None:
    visit = visit_file(browser, report)
    visit.page.click("#switcher button >> nth=1")
    visit.cell(1, 2).click()
    assert "boat" in visit.page.inner_text("#pair")
    again = visit_file(browser, report, "#" + visit.page.url.split("#")[1] + "&map=margin")
    assert "boat" in again.page.inner_text("#pair")
    assert again.chosen == "L1H2"
    assert again.page.is_checked('input[value="margin"]')
    visit.done()
    again.done()


@pytest.mark.parametrize(
    "hash", ["#site=head.99.99", "#site=__proto__", "#site=constructor", "#site=<img>&picture=no&map=__proto__", "#%%%"]
)
def test_odd_addresses_do_no_harm(browser: Any, report: Path, hash: str) -> None:
    visit = visit_file(browser, report, hash)
    assert visit.page.locator(".cell").count() == 12
    visit.done()


def test_narrow_page_opens_and_closes_the_panel(browser: Any, report: Path) -> None:
    visit = visit_file(browser, report, width=360, height=740)
    assert not visit.page.is_visible("#detail")
    visit.cell(2, 1).click()
    assert visit.page.is_visible("#detail")
    visit.page.keyboard.press("Escape")
    assert not visit.page.is_visible("#detail")
    assert visit.page.evaluate("document.activeElement.dataset.site") == "head.2.1"
    visit.done()


@pytest.mark.parametrize(
    "options",
    [
        {"lenses": ("diffusion",), "sites": "resid_post", "vocabulary": False, "attention": False, "controls": 0},
        {"lenses": ("steering",), "sites": "L1H1,mlp_out", "controls": 0, "strength": "s=40"},
        {"sites": "mlp_out", "seeds": (0, 1), "controls": 2, "target": "the text “boat”"},
        {"layers": 48, "heads": 16, "sites": "head.40-47.*", "lenses": ("steering",), "controls": 0},
    ],
    ids=["layers-only", "few-heads", "seeds", "48x16"],
)
def test_runs_with_missing_parts(browser: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    atlas = fake_atlas(**options)
    visit = visit_file(browser, write_report(atlas, tmp_path, figures=False))
    page = visit.page
    assert page.is_visible("#strip-section") == (options.get("sites") == "resid_post")
    assert page.is_visible("#other-section") == ("mlp_out" in options["sites"])
    assert page.is_visible("#labels-section") == options.get("vocabulary", True)
    visit.cell(1, 1).click()
    assert visit.chosen == "L1H1"
    if options.get("seeds"):
        page.locator("#other .card").last.click()
        assert page.locator("#detail .detail-pictures").count() == 2
        assert "Agreement of seeds" in page.inner_text("#detail")
    json.dumps(page.inner_text("main"))
    visit.done()


def test_printing_shows_every_input(browser: Any, tmp_path: Path) -> None:
    visit = visit_file(browser, write_report(fake_atlas(("apple", "boat", "moon")), tmp_path, figures=False))
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("#printed .printed-input").count() == 2
    assert visit.page.locator("#printed .printed-name").all_inner_texts() == ["boat", "moon"]
    assert visit.page.locator("#printed img").count() > 10
    ids = visit.page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    visit.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert visit.page.locator("#printed").count() == 0
    visit.done()


def test_a_selection_opens_with_the_scores_of_all_heads(browser: Any, tmp_path: Path) -> None:
    atlas = fake_atlas()
    readings = tuple(
        replace(reading, steered_similarity=torch.linspace(-0.2, 0.2, 6).view(3, 2)) for reading in atlas.readings
    )
    atlas = replace(atlas, readings=readings, manifest={**atlas.manifest, "decode": "top:2"})
    visit = visit_file(browser, write_report(atlas, tmp_path, figures=False))
    assert visit.page.locator('input[value="undecoded"]').is_checked()
    assert visit.page.locator(".cell.unknown").count() == 0
    assert visit.page.locator(".cell .minus").count() == 3
    assert "by chance" not in visit.page.inner_text("#map-said")
    visit.done()
    some = tuple(result for result in atlas.results if str(result.cell.site) != "head.2.1")
    plan = replace(atlas.plan, cells=tuple(result.cell for result in some))
    report = write_report(replace(atlas, results=some, plan=plan), tmp_path / "some", figures=False)
    visit = visit_file(browser, report, "#/head/L2H1")
    panel = visit.page.inner_text("#detail")
    assert "No picture of this head" in panel and "Steering, not decoded" in panel and "0.20" in panel
    visit.done()


def test_the_card_of_a_head_shows_both_ends_and_what_was_not_measured(browser: Any, tmp_path: Path) -> None:
    atlas = fake_atlas(("boat",), layers=4, heads=3)
    site, other = (score.site for score in atlas.ranked("steering", k=2))

    def end(name: str) -> CardEnd:
        shown = CardPicture(HOSTILE, 0.5, png_bytes(Image.new("RGB", (16, 16), "red")))
        return CardEnd(shown, (shown,) * 5, (TextScore(name, 0.2, 0.1, True), TextScore(HOSTILE, 0.1, 0.05, False)))

    measured = Faithfulness("contrast pair", "a measure", 0.4, 0.3, 0.5, {site.label: 0.25}, 9)
    cards = InputCards("tiny", "rho=1", "20 pictures", 0.1, (HeadCard(site, end("gained"), end("lost")),), (measured,))
    report = write_report(replace(atlas, cards={atlas.readings[0].id: cards}), tmp_path, figures=False)
    visit = visit_file(browser, report, f"#/head/{site.label}")
    card = visit.page.locator("#detail .card-of-head")
    assert card.locator("img").count() == 12 and card.locator(".names i:not(.chance)").all_inner_texts() == [
        "gained",
        "lost",
    ]
    said = card.inner_text()
    assert "Not measured on tiny: how far real pictures and own writes" in said and "0.40 [0.30, 0.50]" in said
    assert f"Card of {site.label}" == card.get_attribute("aria-label") and HOSTILE in said
    visit.page.evaluate(f"location.hash = '#/head/{other.label}'")
    visit.page.wait_for_function(f"() => document.querySelector('#detail h2').textContent === '{other.label}'")
    assert card.count() == 0
    visit.done()
