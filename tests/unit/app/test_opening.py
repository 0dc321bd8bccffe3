"""Opening: how far it is, and the garbage collector that is paused meanwhile."""

import gc

import pytest

from steerlens.app.opening import collection_paused


def test_collection_is_paused_and_comes_back() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()


def test_collection_comes_back_after_an_error() -> None:
    with pytest.raises(KeyError), collection_paused():
        raise KeyError("no model")
    assert gc.isenabled()


def test_a_process_without_collection_keeps_it_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
