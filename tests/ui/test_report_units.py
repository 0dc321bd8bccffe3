"""Features of a sparse autoencoder in the report, in a real browser."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import UI, Visit
from PIL import Image
from tiny_saes import tiny_sae

from steerlens.images import Picture
from steerlens.report.html import write_report
from steerlens.sweep.look import look
from steerlens.vocabulary import TextVocabulary
from steerlens.zoo import Pair

pytestmark = UI

HOSTILE = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def report(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    pictures = [Picture.from_image(Image.fromarray(array), name) for array, name in zip(pixels, "ab", strict=True)]
    names = (HOSTILE, "boat", "cup")
    vocabulary = TextVocabulary(names, torch.randn(3, pair.encoder.spec.embedding_size))
    saes = [tiny_sae(pair.encoder, name="stream"), tiny_sae(pair.encoder, "embedding", name="after")]
    atlas = look(pair, pictures, saes=saes, strongest=3, steps=2, vocabulary=vocabulary)
    return write_report(atlas, tmp_path_factory.mktemp("report"), figures=False)


def test_features_have_maps_pictures_labels_and_an_order(browser: Any, report: Path) -> None:
    visit = Visit(browser, report.as_uri())
    page = visit.page
    assert "stream on these inputs" in page.inner_text("header")
    assert "fits these inputs poorly" in page.inner_text("header")
    assert page.locator("#units h3").all_inner_texts() == ["stream", "after"]
    rows = page.locator("#units .unit")
    assert rows.count() == 10
    assert page.locator("#units canvas").count() == 5  # the embedding is on no token
    assert rows.first.locator("img").count() == 4
    assert page.title() != "broken" and HOSTILE in page.inner_text("#units")

    def numbers(word: str) -> list[float]:
        lines = page.locator(f"#units .units:first-of-type .unit-name .line:has-text('{word}')").all_inner_texts()
        return [float(line.removeprefix(f"{word} ").replace("−", "-")) for line in lines]

    page.get_by_label("Direct effect", exact=True).check()
    effects = numbers("effect")[:3]
    assert effects == sorted(effects, reverse=True)
    names = page.locator("#units .unit-name b").all_inner_texts()
    assert names[3:5] == ["stream error", "stream bias"] and names[8:] == ["after error", "after bias"]
    rows.nth(1).locator("button").nth(1).click()
    assert visit.chosen == names[1]
    assert page.locator("#detail canvas").count() == 1
    assert "Without it, the embedding moves" in page.inner_text("#detail")
    assert "/site/feature.stream." in page.url
    visit.done()


def test_a_wide_page_without_heads_opens_at_the_first_feature_and_a_phone_shows_rows(
    browser: Any, report: Path
) -> None:
    wide = Visit(browser, report.as_uri(), width=1400)
    assert wide.chosen == wide.page.locator("#units .unit-name b").first.inner_text()
    wide.done()
    narrow = Visit(browser, report.as_uri(), width=380)
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 380
    narrow.done()
