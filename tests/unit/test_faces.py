"""Every room lists its public names once, and importing a room stays quick."""

import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest

import steerlens

ROOMS = [f"steerlens.{module.name}" for module in iter_modules(steerlens.__path__) if module.ispkg]
FACES = ["steerlens", *(room for room in ROOMS if hasattr(import_module(room), "__all__"))]


@pytest.mark.parametrize("face", FACES)
def test_public_names_are_there_and_hidden_by_no_module(face: str) -> None:
    room = import_module(face)
    assert set(dir(room)) >= set(room.__all__)
    for name in room.__all__:
        assert not isinstance(getattr(room, name), ModuleType), f"{face}.{name} is a module of the same name"
    with pytest.raises(AttributeError, match=f"'{face}' has no attribute 'nothing'"):
        _ = room.nothing


def test_a_face_is_imported_without_torch() -> None:
    lines = [*(f"import {face}" for face in FACES), "import sys", "assert 'torch' not in sys.modules"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
