"""Checks every adapter and writes docs/conformance.json and docs/models.md; `make models` runs it.

python benchmarks/conformance.py               # measure all
python benchmarks/conformance.py clip timm     # measure these again and keep the others
python benchmarks/conformance.py --page        # write the page again from what was measured
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from steerlens.testing.optional import add_optional_libraries

add_optional_libraries()  # Before transformers is imported.

from steerlens.testing import catalogue  # noqa: E402
from steerlens.testing.conformance import measure, read_measurements, write_measurements  # noqa: E402
from steerlens.zoo.cards import cards  # noqa: E402
from steerlens.zoo.registry import registered  # noqa: E402

DOCS = Path(__file__).parent.parent / "docs"
MEASUREMENTS = DOCS / "conformance.json"
LIBRARIES = ("torch", "transformers", "diffusers", "timm", "open-clip-torch")


def versions() -> dict[str, str]:
    """Of the libraries that are measured with."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed; `make models` sets everything up.")
    return found


def main(families: list[str]) -> None:
    """Measures and writes."""
    rows = {}
    if families != ["--page"]:
        with_versions = versions()
        for row in measure(families or None):
            rows[row.family] = row
            print(row.family, row.errors, *row.failures, sep="\n  ", flush=True)
        before = {row.family: row for row in read_measurements(MEASUREMENTS)[0]} if families else {}
        rows = before | rows
        order = [name for group in ("steerlens.encoders", "steerlens.decoders") for name in registered(group)]
        write_measurements(MEASUREMENTS, [rows[name] for name in order if name in rows], with_versions)
    measured, with_versions = read_measurements(MEASUREMENTS)
    (DOCS / "models.md").write_text(catalogue(measured, cards(), with_versions), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
