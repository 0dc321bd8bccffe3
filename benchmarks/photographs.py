"""Writes a dozen photographs out of the wheels of scikit-image and scikit-learn, and matplotlib, into a folder.

    python benchmarks/photographs.py WHEEL... --out photographs

Their names say what they show. `pip download --no-deps` fetches the wheels, which are not installed.
matplotlib is a dependency of steerlens. None of the photographs is part of this repository.
"""

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib

PHOTOGRAPHS = {
    "skimage/data/astronaut.png": "astronaut",
    "skimage/data/camera.png": "photographer",
    "skimage/data/chelsea.png": "cat",
    "skimage/data/coffee.png": "cup of coffee",
    "skimage/data/rocket.jpg": "rocket",
    "skimage/data/motorcycle_left.png": "motorcycle",
    "skimage/data/coins.png": "coins",
    "skimage/data/moon.png": "moon",
    "skimage/data/gravel.png": "gravel",
    "sklearn/datasets/images/china.jpg": "temple",
    "sklearn/datasets/images/flower.jpg": "flower",
}
"""Files in the wheels, with what they show."""

OFFICER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def write_photographs(wheels: Sequence[Path], out: Path) -> list[Path]:
    """Writes the photographs; returns their paths.

    Raises:
        SystemExit: if a photograph is in none of the wheels.
    """
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for inside, name in PHOTOGRAPHS.items():
        holding = next((wheel for wheel in wheels if inside in zipfile.ZipFile(wheel).namelist()), None)
        if holding is None:
            raise SystemExit(f"{inside} is in none of: {', '.join(map(str, wheels)) or 'no wheel'}.")
        written.append(out / f"{name}{Path(inside).suffix}")
        written[-1].write_bytes(zipfile.ZipFile(holding).read(inside))
    written.append(out / "officer.jpg")
    written[-1].write_bytes(OFFICER.read_bytes())
    return written


def main() -> int:
    """Writes the photographs and prints their folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    written = write_photographs(arguments.wheels, arguments.out)
    print(f"{len(written)} photographs: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
