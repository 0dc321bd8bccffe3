"""Borders of the whole package: only `images.py` decodes pictures, and nothing is unpickled."""

import ast
from pathlib import Path

import steerlens

PACKAGE = Path(steerlens.__file__).parent


def calls(name: str) -> set[str]:
    """The files of the package that call a function or method of this name (`Image.open`, `write_bytes`)."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
                found.add(path.relative_to(PACKAGE).as_posix())
    return found


def test_pictures_are_decoded_in_one_place() -> None:
    assert calls("Image.open") == {"images.py"}


def test_nothing_is_unpickled() -> None:
    for name in ("pickle.load", "pickle.loads"):
        assert calls(name) == set()


def test_files_of_pytorch_are_read_in_one_place_without_running_code() -> None:
    place = "storage/tensors.py"
    assert calls("torch.load") == {place}
    tree = ast.parse((PACKAGE / place).read_text(encoding="utf-8"))
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
    for load in loads:
        assert {keyword.arg: ast.unparse(keyword.value) for keyword in load.keywords}["weights_only"] == "True"
