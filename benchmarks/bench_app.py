"""The explorer's waits: command to first map, scores of a new picture, slider to preview and to refined picture.

    python benchmarks/bench_app.py [--drags 50] [--model emoji]

Starts `steerlens app` as a process, drives a real Chromium, and prints medians. On a busy machine the seconds say how
busy it was; the CPU seconds of the server beside them say what the explorer took.
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

BARS = {
    "command to first clickable map": 5.0,
    "scores after dropping a picture": 0.5,
    "slider to preview": 0.25,
    "slider to refined picture": 1.0,
}

# Seconds from an input event of the slider until the next picture of a kind, measured in the page itself. A strength
# that the strip has decoded already is answered with the whole picture at once, and with no preview.
DRAG = """([value, quality, settle]) => new Promise((resolve) => {
    const box = document.querySelector("#bench-picture"), slider = document.querySelector("#strength");
    const start = performance.now();
    const watch = new MutationObserver(() => {
        if (![quality, "whole"].includes(box.dataset.quality)) return;
        watch.disconnect();
        resolve((performance.now() - start) / 1000);
    });
    watch.observe(box, { attributes: true, attributeFilter: ["data-shown"] });
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    if (settle) slider.dispatchEvent(new Event("change", { bubbles: true }));
})"""

DROP = """(data) => new Promise((resolve) => {
    const before = document.querySelector("#ranking").textContent, start = performance.now();
    new MutationObserver((_, watch) => {
        if (document.querySelector("#ranking").textContent === before) return;
        watch.disconnect();
        resolve((performance.now() - start) / 1000);
    }).observe(document.querySelector("#ranking"), { childList: true, characterData: true, subtree: true });
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(data)], "dropped.png", { type: "image/png" }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drags", type=int, default=50)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--model", default="emoji")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        command = [
            sys.executable,
            "-m",
            "steerlens",
            "app",
            "--no-browser",
            "--port",
            str(port),
            "--model",
            options.model,
        ]
        started = time.monotonic()
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            cpu = cpu_of(psutil.Process(server.pid))
            measure(page, f"http://127.0.0.1:{port}/", options, started, cpu)
        finally:
            server.terminate()
            server.wait(timeout=30)
            browser.close()


def cpu_of(process: psutil.Process) -> Callable[[], float]:
    def spent() -> float:
        times = process.cpu_times()
        return times.user + times.system

    return spent


def measure(page: Any, url: str, options: argparse.Namespace, started: float, cpu: Callable[[], float]) -> None:
    while True:
        try:
            page.goto(url)
            break
        except Exception:  # the server is not listening yet
            time.sleep(0.05)
    page.wait_for_selector("html[data-ready] #map .cell:not(.unknown)")
    report("command to first clickable map", [time.monotonic() - started], [cpu()])
    page.wait_for_selector("#bench-picture[data-quality=whole]:not(.waiting)")
    timed(
        page,
        "slider to preview",
        options.drags,
        cpu,
        lambda i: page.evaluate(DRAG, [0.5 + 0.17 * (i % 50), "preview", False]),
    )
    timed(
        page,
        "slider to refined picture",
        options.drags,
        cpu,
        lambda i: page.evaluate(DRAG, [0.6 + 0.17 * (i % 50), "whole", True]),
    )
    pictures = [list(picture(number)) for number in range(options.pictures)]
    timed(page, "scores after dropping a picture", options.pictures, cpu, lambda i: page.evaluate(DROP, pictures[i]))
    state = json.loads(urllib.request.urlopen(f"{url}api/state").read())
    load = f"load {psutil.getloadavg()[0]:.1f} of {psutil.cpu_count()} cores"
    print(f"model {state['models'][0]}, {options.drags} drags, {load}")


def timed(page: Any, name: str, count: int, cpu: Callable[[], float], act: Callable[[int], float]) -> None:
    seconds, spent = list[float](), list[float]()
    for number in range(count):
        before = cpu()
        seconds.append(act(number))
        spent.append(cpu() - before)
        # What the last one left to do (the picture at full quality, the strip) is not part of the next.
        page.wait_for_selector("#bench-picture[data-quality=whole]:not(.waiting)")
        page.wait_for_timeout(300)
    report(name, seconds, spent)


def picture(number: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        Image.new("RGB", (256, 256), (20 * number % 256, 90, 160)).save(path)
        return path.read_bytes()


def report(name: str, seconds: list[float], spent: list[float]) -> None:
    median, bar = statistics.median(seconds), BARS[name]
    kept = "kept" if median <= bar else "MISSED"
    most = f", slowest {max(seconds):.2f} s" if len(seconds) > 1 else ""
    print(
        f"{name:34} {median:6.3f} s (bar {bar:g} s: {kept}{most}), CPU of the server {statistics.median(spent):.3f} s"
    )


if __name__ == "__main__":
    main()
