"""`atlas.explore()`: the page in the frame of a notebook, static and live."""

from pathlib import Path
from typing import Any

import pytest
from browsing import UI, Visit

from steerlens.errors import UsageError
from steerlens.report.notebook import Exploration, NotebookAtlas
from steerlens.testing.atlases import fake_atlas


def notebook_atlas(*names: str) -> NotebookAtlas:
    return NotebookAtlas(**vars(fake_atlas(names, layers=4, heads=3)))


@UI[0]
@UI[1]
def test_the_static_page_works_inside_a_notebook(browser: Any, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    frame = notebook_atlas("apple", 'boat "<i>"').explore(height=700)._repr_html_()
    notebook.write_text(f"<!doctype html><title>notebook</title><body style='margin: 0'>{frame}</body>")
    visit = Visit(browser, notebook.as_uri())
    inside = visit.page.frame_locator("iframe")
    inside.locator('#map .cell[data-layer="2"][data-head="1"]').click()
    assert inside.locator("#detail h2").inner_text() == "L2H1"
    inside.locator("#switcher button").nth(1).click()
    assert 'boat "<i>"' in inside.locator("#pair").inner_text()
    inside.locator("#map .cell").first.press("?")
    assert inside.locator("#keys").is_visible()
    assert visit.trouble == []
    visit.page.close()


def test_a_live_page_falls_back_to_the_static_one() -> None:
    class Server:
        url = "http://127.0.0.1:9/?token=a&b"
        closed = False

        def close(self) -> None:
            self.closed = True

    server = Server()
    live = Exploration("<p>static</p>", 500, server)
    html = live._repr_html_()
    assert 'src="http://127.0.0.1:9/?token=a&amp;b"' in html
    assert "&lt;p&gt;static&lt;/p&gt;" in html
    live.close()
    assert server.closed
    assert notebook_atlas("apple").explore().url is None


def test_inputs_are_chosen_and_few() -> None:
    atlas = notebook_atlas(*(f"picture {number}" for number in range(14)))
    assert "12 of the 14 inputs" in " ".join(atlas.explore().page.split())
    assert "steerlens-picture-1" not in atlas.explore(inputs=["picture 13"]).page
    with pytest.raises(UsageError):
        atlas.explore(inputs=["nobody"])
