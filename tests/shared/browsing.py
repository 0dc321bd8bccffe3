"""What tests in a real browser share: which Chromium, pages that count trouble, and the check of accessibility."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"

UI = [
    pytest.mark.ui,
    # At the gate a missing browser is a failure: these tests must not pass by not running.
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason="no Chromium on this machine; runs once chromium is installed (apt-get install chromium)",
    ),
]


class Visit:
    """A page that counts what must never happen: errors, and requests for anything but itself.

    Args:
        browser: of Playwright.
        url: address of the page.
        within: prefixes of addresses that the page may load from.
        options: of the browser context, such as `color_scheme`.
    """

    def __init__(
        self,
        browser: Any,
        url: str,
        *,
        width: int = 1400,
        height: int = 900,
        within: tuple[str, ...] = ("file:", "data:"),
        **options: Any,
    ) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.page.set_default_timeout(20_000)
        self.within = within
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def cell(self, layer: int, head: int) -> Any:
        """The cell of a head in the map."""
        return self.page.locator(f'#map .cell[data-layer="{layer}"][data-head="{head}"]')

    @property
    def chosen(self) -> str:
        """Name of the component whose panel is open."""
        return self.page.inner_text("#detail h2")

    @property
    def hash(self) -> str:
        """The view in the address."""
        return self.page.evaluate("location.hash")

    def check(self) -> None:
        """No error, no request outside, nothing wider than the window, no id twice."""
        outside = [url for url in self.requests if not url.startswith(self.within)]
        wide = self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        ids = self.page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
        assert (self.trouble, outside, wide) == ([], [], False), (self.trouble, outside, wide)
        assert len(ids) == len(set(ids))

    def done(self) -> None:
        """Checks the page and closes it."""
        self.check()
        self.page.close()


def violations(page: Any) -> list[str]:
    """Violations that axe-core finds on a page as it stands: rule, what is wrong, and where."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['failureSummary']}"
        for rule in result["violations"]
        for node in rule["nodes"]
    ]
