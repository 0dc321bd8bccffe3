"""Borders that the whole package keeps: one place decodes pictures, and one room writes files."""

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


def test_nothing_is_pickled_or_runs_code_of_a_model() -> None:
    for name in ("pickle.load", "pickle.loads", "torch.load", "eval", "exec", "subprocess.run", "os.system"):
        allowed = {"scenes/pictures.py"} if name == "subprocess.run" else set[str]()  # npm, of `steerlens train`
        assert {place for place in calls(f"{name}") if place not in allowed and not _is_method(place, name)} == set()


def _is_method(place: str, name: str) -> bool:
    """Whether every call is a method that is called so: `model.eval()` puts a model into evaluation mode."""
    if "." in name:
        return False
    tree = ast.parse((PACKAGE / place).read_text(encoding="utf-8"))
    plain = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]
    return not plain
