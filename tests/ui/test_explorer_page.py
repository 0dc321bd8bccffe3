"""The live explorer in a real browser: everything that one can do there, by mouse, by keyboard, on a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import UI, Visit
from PIL import Image

import steerlens as sl
from steerlens.app import Explorer, ServerThread, serve_in_thread
from steerlens.app.models import OpenModel
from steerlens.images import png_bytes
from steerlens.zoo import sample_picture

pytestmark = UI

WHOLE = "#bench-picture[data-quality=whole]:not(.waiting)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explored")


@pytest.fixture(scope="module")
def server(pair: Any, pair_folder: Path, folder: Path) -> Iterator[ServerThread]:
    def opened(_: Any) -> Explorer:
        models = [OpenModel(name, pair, {"model": str(pair_folder)}) for name in ("tiny", "other")]
        explorer = Explorer(models)
        explorer.inputs.offer(sample_picture())
        return explorer

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with serve_in_thread(open_explorer=opened) as server:
            assert server.opening.wait(60), server.opening.error
            yield server


def visit(browser: Any, server: ServerThread, address: str = "#/head/L1H1?rho=2", **options: Any) -> Visit:
    """A page whose picture has come."""
    visited = Visit(browser, server.url + address, within=(server.url, "data:", "blob:"), **options)
    visited.page.wait_for_selector("html[data-ready]")
    visited.page.wait_for_selector(WHOLE, state="attached")
    return visited


def take(page: Any, tool: str) -> None:
    """Takes a tool. The page may redraw its radio buttons at any time, so one is found and clicked at once."""
    page.evaluate("tool => document.querySelector(`input[value=${tool}]`).click()", tool)
    page.wait_for_selector(f"input[value={tool}]:checked", state="attached")


def shown(page: Any) -> str:
    return page.get_attribute("#bench-picture img", "src")


def changed(page: Any, before: str) -> str:
    """The picture, once it is another one at full quality."""
    page.wait_for_function(
        """before => {
            const box = document.querySelector("#bench-picture");
            return box.matches("[data-quality=whole]:not(.waiting)") && box.querySelector("img").src !== before;
        }""",
        arg=before,
    )
    return shown(page)


def sent(folder: Path, name: str, colour: str) -> Path:
    path = folder / name
    path.write_bytes(png_bytes(Image.new("RGB", (40, 40), colour)))
    return path


def test_the_page_opens_with_scores_and_a_picture(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server, "")
    page = visited.page
    assert page.locator("#map .cell:not(.unknown)").count() == 6
    assert page.locator("#writes .cell:not(.unknown)").count() == 9
    assert "similarity" in page.inner_text("#picture-said")
    page.wait_for_selector("#pair figure:nth-child(2) img")  # the clean reconstruction
    visited.done()


def test_1_input_by_choosing_dropping_and_pasting(browser: Any, server: ServerThread, tmp_path: Path) -> None:
    visited = visit(browser, server)
    page = visited.page
    before = shown(page)
    page.set_input_files("#choose-file", [sent(tmp_path, "red.png", "red"), sent(tmp_path, "lime.png", "lime")])
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("lime")')
    before = changed(page, before)
    data = list(png_bytes(Image.new("RGB", (30, 30), "navy")))
    for kind, name in (("drop", "navy"), ("paste", "cyan")):
        data = list(png_bytes(Image.new("RGB", (30, 30), name)))
        page.evaluate(
            """([kind, name, data]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(data)], `${name}.png`, { type: "image/png" }));
                document.dispatchEvent(kind === "drop"
                    ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true })
                    : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
            }""",
            [kind, name, data],
        )
        page.wait_for_selector(f'#switcher [aria-pressed="true"]:text("{name}")')
        before = changed(page, before)
    page.evaluate(
        """() => { const transfer = new DataTransfer();
            transfer.items.add(new File(["no picture"], "bad.png", { type: "image/png" }));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true })) }"""
    )
    page.wait_for_selector('#input-said:text("picture")')
    page.evaluate(
        """data => { const transfer = new DataTransfer();
            transfer.items.add(new File(["no picture"], "worse.png", { type: "image/png" }));
            transfer.items.add(new File([new Uint8Array(data)], "teal.png", { type: "image/png" }));
            transfer.items.add(new File(["text"], "notes.txt", { type: "text/plain" }));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true })) }""",
        list(png_bytes(Image.new("RGB", (30, 30), "teal"))),
    )
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("teal")')
    refused = page.inner_text("#input-said")
    assert "worse" in refused and "notes.txt is not a picture" in refused, "though the last was taken"
    page.click('#switcher button:text("cyan")')
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("cyan")')
    page.wait_for_function("() => document.querySelector('#input-said').textContent === ''")
    visited.trouble = [text for text in visited.trouble if "400" not in text]  # the browser logs the refusal
    page.reload()
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("cyan")')
    visited.done()


def test_1_the_camera(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    page.evaluate(
        """navigator.mediaDevices.getUserMedia = async () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
            canvas.getContext("2d").fillRect(0, 0, 32, 32);
            return canvas.captureStream(5);
        }"""
    )
    page.click("#camera-open")
    page.wait_for_function("() => document.querySelector('#camera video').videoWidth > 0")
    page.click("#camera-take")
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("camera")')
    assert not page.evaluate("document.querySelector('#camera').open")
    visited.done()


def test_2_components_groups_and_regions(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    before = shown(page)
    page.click('#writes [data-site="mlp_out.1"]')
    before = changed(page, before)
    assert "MLP 1" in page.inner_text(".bench-what")
    take(page, "group")
    page.hover('#map [data-site="head.0.0"]')
    page.mouse.down()
    page.hover('#map [data-site="head.1.0"]')
    page.hover('#map [data-site="head.1.1"]')
    page.mouse.up()
    before = changed(page, before)
    assert page.locator("#map .member").count() == 3
    assert "L0H0 + L1H0 + L1H1" in page.inner_text(".bench-what")
    assert "group=head.0.0" in visited.hash
    page.click("#clear-group")
    take(page, "look")
    visited.cell(1, 0).click()
    before = changed(page, before)
    page.click("#region summary")
    first = page.locator(".patches button").first
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + 1.5 * box["width"], box["y"] + 3)
    page.mouse.up()
    before = changed(page, before)
    assert page.locator('.patches [aria-pressed="true"]').count() == 2
    assert "patches=0%2C1" in visited.hash
    page.click("#clear-region")
    changed(page, before)
    visited.done()


def test_2_a_fast_drag_gathers_all_on_its_way_and_moves_nothing(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    take(page, "group")
    top = page.locator("#map").bounding_box()["y"]
    first = visited.cell(0, 0).bounding_box()
    page.mouse.move(first["x"] + 4, first["y"] + 4)
    page.mouse.down()
    assert page.locator("#map .gathering").count() == 1, "the cell where the drag begins shows it"
    mlps = page.locator('#writes [data-site="mlp_out.1"]').bounding_box()
    page.mouse.move(mlps["x"] + 4, mlps["y"] + 4)  # in one leap
    page.mouse.up()
    page.wait_for_selector(WHOLE)
    members = page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('group')").split(",")
    assert "mlp_out.1" in members and any(site.startswith("attn_out.") for site in members), "and what lies between"
    whole = {site.split(".")[1] for site in members if site.startswith("attn_out.")}
    assert not [site for site in members if site.startswith("head.") and site.split(".")[1] in whole]
    assert not page.is_visible(".bench-message")
    assert page.locator("#map .chosen").count() == 0, "the head that was on view before is not"
    assert page.locator("#map").bounding_box()["y"] == top
    page.click("#clear-group")
    page.wait_for_selector("#map .chosen")
    assert page.locator("#map").bounding_box()["y"] == top
    take(page, "group")
    visited.cell(0, 0).click()
    visited.cell(1, 0).click()
    page.wait_for_function("() => document.querySelector('.bench-what').textContent.startsWith('L0H0 + L1H0 at')")
    page.check('.bench input[value="diffusion"]', force=True)
    page.wait_for_function("() => document.querySelector('.bench-what').textContent === 'L0H0 + L1H0, Diffusion Lens'")
    visited.done()


def test_3_the_strip_belongs_to_what_is_on_view(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    page.wait_for_selector(".bench-strip:not(.stale) img")
    strips: list[int] = []
    page.on(
        "request",
        lambda request: (
            strips.append(len((request.post_data_json or {}).get("strengths", [])))
            if request.url.endswith("/api/look")
            else None
        ),
    )
    before = shown(page)
    page.click('.bench-strip [data-strength="rho=7"]')
    before = changed(page, before)
    assert strips and sum(strips) == 0, "another strength has the same strip"
    page.check('.bench input[value="diffusion"]', force=True)
    before = changed(page, before)
    assert page.locator(".bench-strip img").count() == 0
    page.check('.bench input[value="steering"]', force=True)
    changed(page, before)
    page.wait_for_selector(".bench-strip:not(.stale) img")
    assert sum(strips) == 8
    visited.done()


def test_3_lens_strength_seed_steps_and_guidance(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    before = shown(page)
    assert (page.get_attribute("#strength", "min"), page.get_attribute("#strength", "max")) == ("-3", "10")
    for lens in ("diffusion", "total", "control", "steering"):
        page.check(f'.bench input[value="{lens}"]', force=True)
        before = changed(page, before)
    page.wait_for_function("() => document.querySelectorAll('.bench-strip img').length === 8")
    page.click('.bench-strip [data-strength="rho=7"]')
    before = changed(page, before)
    assert "rho=7" in visited.hash
    for field, value in (("#decoder-seed", "5"), ("#decoder-steps", "3"), ("#decoder-guidance", "1.5")):
        page.fill(field, value)
        page.press(field, "Enter")
        before = changed(page, before)
    assert all(part in visited.hash for part in ("seed=5", "steps=3", "guidance=1.5"))
    page.click("#strength-kind")
    before = changed(page, before)
    assert "s=5" in visited.hash
    page.fill("#strength-number", "0.3333333333")
    page.press("#strength-number", "Enter")
    changed(page, before)
    assert "s=0.333333&" in visited.hash
    page.fill("#strength-number", "12345678")
    page.press("#strength-number", "Enter")
    assert (
        page.evaluate("document.querySelector('#strength-number:invalid') !== null") and "s=0.333333&" in visited.hash
    )
    visited.done()


def test_3_the_picture_and_the_numbers_follow_the_slider(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server, "#/head/L1H1?rho=1&steps=30")
    page = visited.page
    page.evaluate(
        """() => {
            window.seen = [];
            const box = document.querySelector("#bench-picture");
            new MutationObserver(() => window.seen.push(box.dataset.quality))
                .observe(box, { attributes: true, attributeFilter: ["data-shown"] });
        }"""
    )
    box = page.locator("#strength").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(400):
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.05 * (step % 10)), box["y"] + box["height"] / 2)
        page.wait_for_timeout(30)
        if page.evaluate("window.seen").count("preview") > 1:
            break
    assert page.evaluate("window.seen").count("preview") > 1
    page.mouse.up()
    page.wait_for_selector(WHOLE)
    strength = float(page.input_value("#strength"))
    page.wait_for_function(
        """value => {
            const told = document.querySelector("#bench-numbers div:nth-child(2) dd").textContent;
            return Math.abs(parseFloat(told) - value) < 0.02;
        }""",
        arg=strength,
    )
    assert f"rho={strength:g}" in visited.hash
    visited.done()


def test_4_the_target_and_the_ranking(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    ranking = page.inner_text("#ranking")
    said = page.inner_text("#picture-said")
    page.fill("#target-text", "red apple")
    page.press("#target-text", "Enter")
    page.wait_for_function("before => document.querySelector('#ranking').textContent !== before", arg=ranking)
    page.wait_for_function("before => document.querySelector('#picture-said').textContent !== before", arg=said)
    assert "target=red+apple" in visited.hash
    page.wait_for_selector('#said p:text("red apple")')
    page.click("#target-itself")
    page.wait_for_function("before => document.querySelector('#ranking').textContent === before", arg=ranking)
    page.fill("#target-text", "no such word")
    page.press("#target-text", "Enter")
    page.wait_for_selector('#target-said:text("no such word")')
    page.click("#target-itself")
    visited.trouble = [text for text in visited.trouble if "400" not in text]
    visited.done()


def test_5_heads_are_taken_away_by_hand(browser: Any, server: ServerThread, folder: Path) -> None:
    visited = visit(browser, server)
    page = visited.page
    take(page, "ablate")
    visited.cell(0, 0).click()
    visited.cell(1, 1).click()
    page.wait_for_selector('#ablation-said:text("L0H0, L1H1")')
    page.wait_for_selector("#ablation-after[data-quality=whole]")
    assert page.locator("#map .away").count() == 2
    assert page.locator("#ablation-labels tbody tr").count() >= 5
    assert visited.chosen == "L1H1"  # what is on view stays
    page.locator('#writes [data-site="attn_out.0"]').click()
    page.wait_for_selector('#ablation-said:text("Without L1H1, Attention 0")')
    assert "part of it" in page.inner_text("#tool-about"), "the head would be ablated twice"
    page.locator('#writes [data-site="resid_post.0"]').click()
    assert "Only heads, MLPs" in page.inner_text("#tool-about") and "resid" not in visited.hash
    page.locator('#writes [data-site="attn_out.0"]').click()
    page.wait_for_selector('#ablation-said:text("Without L1H1,")')
    page.reload()
    page.wait_for_selector('#ablation-said:text("Without L1H1")')
    page.click("#ablation-copy-command")
    page.wait_for_selector("#ablation-copied:not([hidden])")
    command = page.input_value("#ablation-copied")
    assert "--sites head.1.1" in command and "--effect total" in command
    page.click("#ablation-save")
    page.wait_for_selector('#ablation-kept:text("Saved in")')
    saved = page.inner_text("#ablation-kept").removeprefix("Saved in ").rstrip(".")
    assert [cell for cell in sl.load_run(folder / saved).finished if cell.lens == "ablation"]
    visited.cell(0, 1).click()
    page.wait_for_selector("#ablation-copied", state="hidden")
    page.click("#restore")
    page.wait_for_selector("#ablation-section", state="hidden")
    visited.done()


def test_5_the_map_ablates_every_head_on_request(browser: Any, server: ServerThread, tmp_path: Path) -> None:
    visited = visit(browser, server)
    page = visited.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/api/ablate-all") else None)
    assert not asked, "nobody looked at it yet"
    page.click('#map-controls label:has(input[value="without"])')
    page.wait_for_selector('#writes p:text("moves furthest without")')
    labels = page.eval_on_selector_all(
        "#map [data-site]", "cells => cells.map(cell => cell.getAttribute('aria-label'))"
    )
    assert len(labels) == 6 and all("Without it 0." in label for label in labels), labels
    row = page.locator("#detail tr", has_text="Without it, 1 − cosine").inner_text()
    (chosen,) = [label for label in labels if label.startswith("Layer 1, head 1;")]
    assert row.split()[-1] in chosen, "map and panel state one number"
    assert "map=without" in visited.hash
    # Another target changes nothing of it, and asks for nothing again; another input does.
    page.fill("#target-text", "red apple")
    page.press("#target-text", "Enter")
    page.wait_for_selector('#said p:text("red apple")')
    page.wait_for_selector('#writes p:text("moves furthest without")')
    assert len(asked) == 1
    page.set_input_files("#choose-file", [sent(tmp_path, "orange.png", "orange")])
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("orange")')
    page.wait_for_selector('#writes p:text("moves furthest without")')
    assert len(asked) == 2
    page.reload()
    page.wait_for_selector('#writes p:text("moves furthest without")')
    assert page.locator("#map .cell.unknown").count() == 0
    visited.done()


def test_6_pins_control_and_another_model(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    page.click("#pin")
    page.wait_for_selector(".pin img")
    before = shown(page)
    visited.cell(0, 1).click()
    changed(page, before)
    page.click("#pin")
    page.wait_for_selector(".pin:nth-child(2) img")
    page.check("#with-control")
    page.wait_for_selector("#bench-control[data-quality=whole]")
    assert "control=beside" in visited.hash
    page.locator(".pin .card").first.click()
    assert visited.chosen == "L1H1" and page.locator(".pin").count() == 2
    page.select_option("#model", "other")
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector(WHOLE)
    page.wait_for_selector("#with-control:checked")
    assert "model=other" in visited.hash and page.locator(".pin").count() == 2
    page.click("#pin")
    page.wait_for_selector(".pin:nth-child(3) img")
    page.locator(".pin .icon").first.click()
    assert page.locator(".pin").count() == 2
    visited.done()


def test_7_saved_and_copied(browser: Any, server: ServerThread, folder: Path) -> None:
    visited = visit(browser, server)
    page = visited.page
    page.click("#copy-command")
    page.wait_for_selector("#copied:not([hidden])")
    command = page.input_value("#copied")
    assert command.startswith("steerlens lens sample") and "--sites head.1.1" in command and "rho=2" in command
    page.click("#copy-python")
    page.wait_for_function("() => document.querySelector('#copied').value.includes('import steerlens as sl')")
    page.click("#save")
    page.wait_for_selector('#kept:text("Saved in")')
    saved = folder / page.inner_text("#kept").removeprefix("Saved in ").rstrip(".")
    assert json.loads((saved / "manifest.json").read_text())["complete"]
    assert f"--out {saved.relative_to(folder)}" in page.input_value("#copied")
    visited.cell(0, 1).click()
    page.wait_for_selector("#copied", state="hidden")
    assert page.inner_text("#kept") == "", "what was copied is of the view before"
    visited.done()


def test_back_forward_and_reload(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    first = shown(page)
    visited.cell(0, 1).click()
    second = changed(page, first)
    page.click('.bench-strip [data-strength="rho=7"]')
    third = changed(page, second)
    page.go_back()
    assert changed(page, third) == second
    page.go_back()
    assert changed(page, second) == first and visited.chosen == "L1H1"
    page.go_forward()
    assert changed(page, first) == second
    page.reload()
    page.wait_for_selector(WHOLE)
    assert shown(page) == second and visited.chosen == "L0H1"
    visited.done()


def test_a_link_to_a_picture_that_is_not_here_says_so(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server, "#/input/somebody-else/head/L1H1?rho=2")
    page = visited.page
    assert "no picture “somebody-else” here" in page.inner_text("#trouble")
    assert visited.chosen == "L1H1"
    data = list(png_bytes(Image.new("RGB", (30, 30), "olive")))
    page.evaluate(
        """data => { const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], "olive.png", { type: "image/png" }));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true })) }""",
        data,
    )
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("olive")')
    page.wait_for_selector("#trouble", state="hidden")
    assert "olive" in visited.hash
    visited.done()


def test_two_tabs_share_the_model(browser: Any, server: ServerThread) -> None:
    tabs = [visit(browser, server, address) for address in ("#/head/L1H1?rho=2", "#/head/L0H1?rho=3")]
    before = [shown(tab.page) for tab in tabs]
    for tab, steps in zip(tabs, (300, 4), strict=True):
        tab.page.fill("#decoder-steps", str(steps)) if steps < 200 else tab.page.evaluate(
            "location.hash += '&steps=300'"
        )
        if steps < 200:
            tab.page.press("#decoder-steps", "Enter")
    # The short request of one tab does not wait for the long one of the other.
    changed(tabs[1].page, before[1])
    assert tabs[0].page.get_attribute("#bench-picture", "class") == "live-picture waiting"
    for tab in tabs:
        tab.done()


def test_a_closed_tab_ends_its_work(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    visited.page.evaluate("location.hash = '#/head/L0H0?rho=2&steps=900'")
    visited.page.wait_for_selector("#bench-picture.waiting")
    worker = server._server.worker  # pyright: ignore[reportPrivateUsage]
    assert worker.waiting > 0
    visited.page.close()
    other = browser.new_page()
    for _ in range(100):
        if worker.waiting == 0:
            break
        other.wait_for_timeout(50)
    other.close()
    assert worker.waiting == 0


def test_by_keyboard_alone(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server)
    page = visited.page
    before = shown(page)
    page.keyboard.press("m")
    page.keyboard.press("ArrowLeft")
    before = changed(page, before)
    assert visited.chosen == "L0H1"
    page.keyboard.press("s")
    page.keyboard.press("ArrowRight")
    before = changed(page, before)
    page.wait_for_function("() => location.hash.includes('rho=2.1')")
    assert page.evaluate("document.activeElement.id") == "strength"
    page.keyboard.press("c")
    page.wait_for_selector("#bench-control[data-quality=whole]")
    page.keyboard.press("+")
    page.wait_for_selector(".pin img")
    page.keyboard.press("a")
    page.keyboard.press("m")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ablation-section:not([hidden])")
    page.focus("#region summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    changed(page, before)
    assert "patches=1" in visited.hash
    page.keyboard.press("?")
    assert "Go to the strength" in page.inner_text("#keys")
    visited.done()


def test_on_a_phone(browser: Any, server: ServerThread) -> None:
    visited = visit(browser, server, width=390, height=844)
    page = visited.page
    before = shown(page)
    page.fill("#strength-number", "4")
    page.press("#strength-number", "Enter")
    changed(page, before)
    page.click("#detail .close")
    assert page.locator("#detail").is_hidden()
    page.locator('#map [data-site="head.0.1"]').click()
    page.wait_for_selector("#detail:not([hidden])")
    visited.done()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 390), ("dark", 390)])
def test_no_violation_in_any_state(
    browser: Any, server: ServerThread, axe: Any, tmp_path: Path, scheme: str, width: int
) -> None:
    address = "#/head/L1H1?rho=2&map=without&without=head.0.0&patches=0&pin=/head/L0H0?rho%3D1"
    visited = visit(browser, server, address, color_scheme=scheme, width=width)
    page = visited.page
    page.wait_for_selector('#writes p:text("moves furthest without")')
    page.check("#with-control")
    page.wait_for_selector("#ablation-after[data-quality=whole]")
    page.click("#copy-command")
    page.wait_for_selector("#copied:not([hidden])")
    assert axe(page) == [], "every head ablated, control, region, ablation, pin and command"
    for opening, dialog in (("#cite-open", "#cite"), ("#camera-open", "#camera")):
        page.evaluate("selector => document.querySelector(selector).click()", opening)
        page.wait_for_selector(f"{dialog}[open]")
        assert axe(page) == [], dialog
        page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert axe(page) == [], "keys"
    page.keyboard.press("Escape")
    page.set_input_files("#choose-file", [sent(tmp_path, "teal.png", "teal")])
    page.wait_for_selector('#switcher [aria-pressed="true"]:text("teal")')
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.set_input_files("#choose-file", [tmp_path / "bad.png"])
    page.wait_for_selector("#input-said.failed")
    page.evaluate("location.hash = '#/head/L1H1?rho=2&map=write&target=no+such+word'")
    page.wait_for_selector('#target-said:text("no such word")')
    assert axe(page) == [], "several inputs, a bad picture, an unknown text, and the write norm"
    page.evaluate("location.hash = '#/?rho=2&group=head.0.0,head.0.1&target=red+apple&scale=values&model=other'")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector('#clear-group:text("of 2")')
    take(page, "group")
    assert axe(page) == [], "a group, a text, another model, and stretched colours"
    page.route("**/api/look", lambda route: route.abort())
    page.click('#map [data-site="head.1.0"]')
    if width < 1180:
        page.click("#steer-group")
    page.wait_for_selector('.bench-message:text("does not answer")')
    assert axe(page) == [], "a server that does not answer"
    visited.trouble = [text for text in visited.trouble if "Failed to load" not in text]
    visited.done()


def test_while_the_model_is_opened_the_page_says_so(browser: Any, pair: Any, axe: Any) -> None:
    from threading import Event

    going = Event()

    def opened(opening: Any) -> Explorer:
        opening.reach(1)
        going.wait(20)
        explorer = Explorer([OpenModel("tiny", pair, {"model": "tiny"})])
        explorer.inputs.offer(sample_picture())
        return explorer

    with serve_in_thread(open_explorer=opened) as server:
        visited = Visit(browser, server.url + "#/head/L0H1?rho=2", within=(server.url, "data:"))
        visited.page.wait_for_selector('#stage:text("Opening the model")')
        assert axe(visited.page) == []
        going.set()
        visited.page.wait_for_selector("html[data-ready]")
        assert visited.chosen == "L0H1"
        visited.done()


def test_what_cannot_be_opened_is_told(browser: Any, axe: Any) -> None:
    from steerlens.errors import UsageError

    def opened(_: Any) -> Explorer:
        raise UsageError("there is no model called emojj.")

    with serve_in_thread(open_explorer=opened) as server:
        visited = Visit(browser, server.url, within=(server.url, "data:"), color_scheme="dark")
        visited.page.wait_for_selector('#stage:text("There is no model called emojj.")')
        assert visited.page.inner_text("h1") == "The explorer did not open"
        assert axe(visited.page) == []
        visited.done()


def test_an_index_of_pictures_has_its_own_words(browser: Any, pair_folder: Path, tmp_path: Path) -> None:
    from steerlens.cli.main import main

    (tmp_path / "pictures").mkdir()
    for name in ("red", "teal", "olive"):
        sent(tmp_path / "pictures", f"{name}.png", name)
    index = ["neighbours", "index", str(tmp_path / "pictures"), "--encoder", str(pair_folder)]
    assert main([*index, "--out", str(tmp_path / "index")]) == 0
    with serve_in_thread(sl.load(tmp_path / "index", dtype="float32")) as server:
        assert server.opening.wait(60), server.opening.error
        visited = visit(browser, server, "#/head/L1H1?rho=2&without=head.0.0")
        page = visited.page
        assert "cosine with the embedding" in page.inner_text("#picture-said")
        page.wait_for_selector("#ablation-after[data-quality=whole]")
        assert "fidelity" not in page.inner_text("#ablation-section") + page.inner_text("#picture-said")
        assert page.get_attribute("#ablation-after img", "alt") == "Nearest picture, after ablation"
        visited.done()


def test_in_the_frame_of_a_notebook(browser: Any, pair: Any, tmp_path: Path) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    import steerlens as sl

    atlas = sl.look(pair, sl.sample_picture(), sites="head.1.*", progress=False)
    frame = atlas.explore(pair)
    (tmp_path / "notebook.html").write_text(frame._repr_html_())
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    notebook = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path)))
    Thread(target=notebook.serve_forever, daemon=True).start()
    try:
        page = browser.new_page()
        page.goto(f"http://localhost:{notebook.server_port}/notebook.html")
        inside = page.frame_locator("iframe").first
        inside.locator(WHOLE).wait_for(state="attached")
        # The finished pictures of the run are there beside the live ones.
        assert inside.locator("#top .card[data-site]").count() > 0
        page.close()
    finally:
        frame.close()
        notebook.shutdown()
        notebook.server_close()
