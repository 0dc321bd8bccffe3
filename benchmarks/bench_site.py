"""A published site in Chromium, from a local server: bytes transferred and seconds until the first view is drawn.

A view is drawn when its map is there and every picture inside the window is loaded. Each is opened anew, without a
cache, `--repeats` times; the medians are printed. The pictures are of a fake run: 64 pixels wide and stored without
loss, about 3 kB each (the bundled pair's take 5 kB). `--layers 48 --heads 16 --inputs 20 --lenses steering` is an
atlas of a ViT-bigG.

    python benchmarks/bench_site.py
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from timing import machine

from steerlens.progress import run_to_end
from steerlens.report.site import publish_site
from steerlens.testing.atlases import fake_atlas, with_cards

BAR_BYTES, BAR_SECONDS = 1_000_000, 1.0

DRAWN = """() => {
  const map = document.querySelector('#map .cell') || document.querySelector('.thumbnails');
  const inside = [...document.images].filter((image) => {
    const box = image.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight && box.width > 0;
  });
  return map && inside.length && inside.every((image) => image.complete && image.naturalWidth) && performance.now();
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A plain server of files, without compression."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def first_view(browser: Any, url: str) -> tuple[int, float]:
    """Bytes transferred and seconds until the view is drawn, in a browser without a cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    session, sizes = context.new_cdp_session(page), list[int]()
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
    page.goto(url, wait_until="commit")
    milliseconds = page.wait_for_function(DRAWN, polling=10).json_value()
    page.wait_for_load_state("networkidle")  # pictures just below the window are fetched too: they count as bytes
    context.close()
    return sum(sizes), milliseconds / 1000


def main() -> None:
    """Prints the size of the site, and bytes and seconds of three first views."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--inputs", type=int, default=10)
    parser.add_argument("--lenses", nargs="+", default=["diffusion", "steering"])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--cards", type=int, default=6, help="heads of each input with a card")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    names = [f"picture {number}" for number in range(options.inputs)]
    atlas = fake_atlas(
        names, layers=options.layers, heads=options.heads, sites="heads", lenses=tuple(options.lenses), controls=0,
        size=options.side, grid=16,
    )  # fmt: skip
    if options.cards:
        atlas = with_cards(atlas, heads=options.cards, real=5, side=96)
    folder = Path(tempfile.mkdtemp(prefix="steerlens-site-"))
    try:
        started = time.perf_counter()
        site = run_to_end(publish_site({"atlas": atlas}, folder / "site"))
        seconds = time.perf_counter() - started
        print(f"{machine('cpu')}; {site.pictures} pictures, {site.bytes / 1e6:.1f} MB, written in {seconds:.1f} s")
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site.folder))) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            base = f"http://127.0.0.1:{server.server_address[1]}/"
            failed = measure(base, options.repeats)
            server.shutdown()
    finally:
        shutil.rmtree(folder)
    raise SystemExit(failed)


def measure(base: str, repeats: int) -> int:
    """Prints the first views; returns 1 if one misses its bar."""
    failed = 0
    views = {"index": "", "an input": "atlas/picture-3.html", "a head": "atlas/picture-3.html#/head/L7H3?rho=1&seed=0"}
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        first_view(browser, base)  # the browser's own start does not count
        for name, path in views.items():
            runs = [first_view(browser, base + path) for _ in range(repeats)]
            size, seconds = (statistics.median(values) for values in zip(*runs, strict=True))
            failed |= size > BAR_BYTES or seconds > BAR_SECONDS
            print(f"{name}: {size / 1e3:.0f} kB transferred (bar 1000), drawn after {seconds:.2f} s (bar 1)")
        browser.close()
    return int(failed)


if __name__ == "__main__":
    main()
