"""A browser for all tests of pages."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from browsing import AXE, CHROMIUM, violations


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(missing: Callable[[str], NoReturn]) -> Callable[[Any], list[str]]:
    """Violations that axe-core finds on a page as it stands."""
    if not AXE.is_file():
        missing("axe-core is missing: `npm ci` installs it, and `make test` runs that")
    return violations
