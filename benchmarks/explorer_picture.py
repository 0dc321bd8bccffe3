"""Records the animated picture of the explorer that the README shows: a head, its strength, an ablation.

steerlens app --port 8420 --no-browser
python benchmarks/explorer_picture.py http://127.0.0.1:8420/ docs/images/explorer.webp
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

SIZE, SHOWN = (1240, 800), (930, 600)
"""Pixels of the window and of the picture."""

WHOLE = "#bench-picture[data-quality=whole]:not(.waiting)"


class Recording:
    """Frames of a page and how long each is shown, in milliseconds."""

    def __init__(self, page: Any) -> None:
        self.page, self.frames, self.times = page, list[Image.Image](), list[int]()

    def take(self, milliseconds: int) -> None:
        """Adds what is on view."""
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self.frames.append(frame.resize(SHOWN, Image.Resampling.LANCZOS))
        self.times.append(milliseconds)

    def save(self, path: Path) -> None:
        """Writes the frames as an animation that begins anew."""
        first, *others = self.frames
        first.save(path, save_all=True, append_images=others, duration=self.times, loop=0, quality=62, method=6)


def record(page: Any) -> Recording:
    """Goes through what the picture shows."""
    recording = Recording(page)
    page.wait_for_selector("html[data-ready]")
    page.click("#stretch")
    page.evaluate("document.querySelector('#pair').scrollIntoView()")
    settled(page)
    recording.take(1400)
    page.click('#map [data-site="head.4.4"]')
    settled(page)
    recording.take(1400)
    page.click('#map [data-site="head.5.2"]')
    settled(page)
    recording.take(1400)
    for value in (1.3, 1.6, 2, 2.5, 3, 4, 5, 6.5, 8, 6, 4, 2, 0, -1, -2, -3):
        page.fill("#strength-number", str(value))
        page.press("#strength-number", "Enter")
        settled(page)
        recording.take(900 if value in (8, -3) else 230)
    page.fill("#strength-number", "1")
    page.press("#strength-number", "Enter")
    page.check('input[value="ablate"]', force=True)
    for site in ("head.5.2", "head.4.4", "head.9.0"):
        page.click(f'#map [data-site="{site}"]')
    page.wait_for_selector("#ablation-after[data-quality=whole]:not(.waiting)")
    settled(page)
    recording.take(1400)
    page.evaluate("document.querySelector('#legend').scrollIntoView()")
    page.wait_for_timeout(300)
    recording.take(2600)
    return recording


def settled(page: Any) -> None:
    """Waits for the whole picture and its strip of strengths."""
    page.wait_for_timeout(250)
    page.wait_for_selector(WHOLE)
    page.wait_for_selector(".bench-strip button:nth-child(8) img")


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, reduced_motion="reduce")
        page.set_default_timeout(120_000)
        page.goto(options.url)
        record(page).save(options.out)
        browser.close()


if __name__ == "__main__":
    main()
