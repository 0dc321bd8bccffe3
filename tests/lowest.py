"""Lowest versions of the libraries, as a list of requirements for pip: the lower ends of the ranges in pyproject.toml.

torch is left out, since its older builds bring several gigabytes of CUDA libraries: constraints.txt pins one.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

_EXTRAS = ("app", "train", "test")
"""Extras that the unit tests need; the others bring torchvision or Ray."""

_NEWEST = (
    "torch",
    "ruff",
    "pyright",
    "playwright",
    "import-linter",
    "zensical",
    "mkdocstrings-python",
    "ipykernel",
    "nbclient",
)
"""Libraries that the package itself does not import, and torch."""


def lowest(pyproject: Path) -> list[str]:
    """Requirements such as `numpy==2.0`, one for each declared range with a lower end."""
    project = tomllib.loads(pyproject.read_text())["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in _EXTRAS for line in project["optional-dependencies"][extra]),
    ]
    ranges = [requirement for requirement in map(Requirement, declared) if requirement.name not in _NEWEST]
    ends = {ranged.name: [end.version for end in ranged.specifier if end.operator == ">="] for ranged in ranges}
    return [f"{name}=={versions[0]}" for name, versions in ends.items() if versions]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in lowest(Path(__file__).parents[1] / "pyproject.toml")))
