"""Public names of a package, imported when they are first used.

A package lists its public names in `__all__` and imports them under `if TYPE_CHECKING:`, for type checkers and editors.
`lazy_names` reads the same block for the running program: there is one list of where names live, and importing the
package stays quick.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names are imported under `if TYPE_CHECKING:`.

    Args:
        package: its `__name__`. No public name may be called like a module of the package, which would hide it.
    """

    @cache
    def homes() -> dict[str, str]:
        return dict(_imports_for_type_checkers(_source(package)))

    def get(name: str) -> Any:
        # Python asks for names such as `__path__` too; only public ones are worth reading the source for.
        if name in sys.modules[package].__all__ and name in homes():
            return getattr(import_module(homes()[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def public() -> list[str]:
        return list(sys.modules[package].__all__)

    return get, public


def _source(package: str) -> str:
    spec = sys.modules[package].__spec__
    loader: Any = None if spec is None else spec.loader
    source: str | None = loader.get_source(package) if hasattr(loader, "get_source") else None
    if source is None:
        raise ImportError(f"{package} was installed without its source, which its public names are read from.")
    return source


def _imports_for_type_checkers(source: str) -> Iterator[tuple[str, str]]:
    """Name and module of every `from module import name` under `if TYPE_CHECKING:`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom) and statement.module is not None:
                    yield from ((alias.name, statement.module) for alias in statement.names)
