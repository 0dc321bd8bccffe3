"""Features and neurons in the live explorer, in a browser: chosen, steered, ablated, copied, and in the address."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import UI, Visit
from tiny_saes import tiny_sae

from steerlens.app import Explorer, ServerThread, serve_in_thread
from steerlens.app.models import OpenAutoencoder, OpenModel
from steerlens.zoo import sample_picture

pytestmark = UI

WHOLE = "#bench-picture[data-quality=whole]:not(.waiting)"
LISTED = "#units button.unit-name"


@pytest.fixture(scope="module")
def server(pair: Any, pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    def opened(_: Any) -> Explorer:
        sae = OpenAutoencoder(tiny_sae(pair.encoder), "tiny.safetensors", "resid_post.1", "relu")
        explorer = Explorer([OpenModel("tiny", pair, {"model": str(pair_folder)}, autoencoders={"tiny": sae})])
        explorer.inputs.offer(sample_picture())
        return explorer

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("explored"))
        with serve_in_thread(open_explorer=opened) as server:
            assert server.opening.wait(60), server.opening.error
            yield server


def visit(browser: Any, server: ServerThread, address: str = "", **options: Any) -> Visit:
    visited = Visit(browser, server.url + address, within=(server.url, "data:", "blob:"), **options)
    visited.page.wait_for_selector("html[data-ready]")
    visited.page.wait_for_selector(LISTED)
    return visited


def test_features_are_listed_and_steered(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    assert "of the 40 features of resid_post.1" in page.inner_text("#units-said")
    feature = page.locator(LISTED).first
    key = feature.get_attribute("data-site")
    feature.click()
    page.wait_for_function("key => location.hash.includes(key)", arg=key)
    page.wait_for_selector(WHOLE)
    assert visited.chosen == key.replace("feature.", "").replace(".", " ")
    assert feature.get_attribute("aria-pressed") == "true"
    assert "Without it, the embedding moves by" in page.inner_text("#detail")
    page.check("#with-control")
    page.wait_for_selector("#bench-control img")
    page.click("#copy-command")
    page.wait_for_function("() => document.querySelector('#copied').value.includes('--sae')")
    command = page.input_value("#copied")
    assert f"--sites {key}" in command and "--sae-site resid_post.1 --sae-activation relu" in command
    page.click("#copy-python")
    page.wait_for_function("() => document.querySelector('#copied').value.includes('sl.load_sae(')")
    visited.done()


def test_neurons_of_a_layer_and_the_address(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    page.select_option("#unit-list", "neurons.1")
    page.wait_for_selector(f'{LISTED}[data-site^="neuron.1."]')
    assert "list=neurons.1" in visited.hash
    neuron = page.locator(LISTED).first
    key = neuron.get_attribute("data-site")
    neuron.click()
    page.wait_for_selector(WHOLE)
    page.reload()
    page.wait_for_selector(f'{LISTED}[data-site="{key}"][aria-pressed="true"]')
    assert visited.chosen == f"L1N{key.rpartition('.')[2]}" and page.input_value("#unit-list") == "neurons.1"
    page.go_back()
    page.go_back()
    page.wait_for_selector(f'{LISTED}[data-site^="feature.tiny."]')
    page.go_forward()
    page.wait_for_selector(f'{LISTED}[data-site^="neuron.1."]')
    visited.done()


def test_a_feature_is_ablated_alone(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server, "#/head/L1H1?without=head.0.0")
    page = visited.page
    page.click('label:has-text("Ablate")')
    page.locator(LISTED).first.click()
    page.wait_for_function(
        "() => /Without tiny \\d+, the embedding moves/.test(document.querySelector('#ablation-said').innerText)"
    )
    page.wait_for_selector("#ablation-after[data-quality=whole]")
    assert "L0H0 restored" in page.inner_text("#tool-about")
    assert "head.0.0" not in visited.hash and "without=feature.tiny" in visited.hash
    page.click('label:has-text("Group")')
    page.locator(LISTED).nth(1).click()
    assert "cannot be in a group" in page.inner_text("#tool-about")
    assert "group=" not in visited.hash
    visited.done()


def test_addresses_of_no_unit_open_the_page_all_the_same(browser: Any, server: ServerThread) -> None:
    for address in ("#/site/feature.tiny.4000", "#/site/feature.__proto__.1", "#/site/neuron.7.0?list=neurons.9"):
        visited = visit(browser, server, address)
        visited.page.wait_for_selector(WHOLE)
        assert visited.chosen.startswith("L")  # the best head
        visited.done()


def test_no_violation_and_by_keyboard(browser: Any, server: ServerThread, axe: Any) -> None:
    visited = visit(browser, server, width=390, height=800)
    page = visited.page
    page.focus("#unit-list")
    page.keyboard.press("Tab")
    page.locator(LISTED).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(WHOLE, state="attached")
    page.keyboard.press("Escape")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visited.done()
