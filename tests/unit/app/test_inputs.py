"""Pictures of the explorer: their order stays, and the least recently used one of a visitor makes room."""

import pytest
from PIL import Image

import steerlens as sl
from steerlens.app import Policy
from steerlens.app.inputs import InputStore
from steerlens.errors import UsageError
from steerlens.images import png_bytes


def test_use_changes_no_order_and_decides_what_makes_room() -> None:
    store = InputStore(Policy(inputs=2))
    store.offer(sl.sample_picture())
    first, second = (store.send(png_bytes(Image.new("RGB", (8, 8), name)), f"{name}.png") for name in ("red", "lime"))
    store.get(first.id)
    assert [entry.picture.name for entry in store.all()] == ["sample", "red", "lime"]
    store.get(store.examples()[0].id)
    assert [entry.picture.name for entry in store.all()] == ["sample", "red", "lime"]
    again = store.send(png_bytes(Image.new("RGB", (8, 8), "red")), "other.png")
    assert again is first
    store.send(png_bytes(Image.new("RGB", (8, 8), "navy")), "red.png")
    assert [entry.picture.name for entry in store.all()] == ["sample", "red", "red-2"], "lime was used longest ago"
    with pytest.raises(UsageError, match="drop it on the page again"):
        store.get(second.id)


def test_the_first_example_stays_the_page_that_opens() -> None:
    store = InputStore(Policy())
    offered = [store.offer(sl.sample_picture())]
    store.send(png_bytes(Image.new("RGB", (8, 8), "red")), "red.png")
    store.get(offered[0].id)
    assert store.examples() == offered
