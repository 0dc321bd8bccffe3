"""The sample picture of the package."""

from importlib.resources import as_file, files
from pathlib import Path

from steerlens.errors import ModelError
from steerlens.images import Picture, load_picture

_NAME = "sample"


def named_picture(place: Path) -> Picture:
    """Loads a picture from a file, or the sample picture if its name is `sample` and there is no such file.

    Raises:
        UsageError, PictureError: as `load_picture`.
        ModelError: if the sample picture is missing from this installation.
    """
    return sample_picture() if is_sample(place) else load_picture(place)


def is_sample(place: Path) -> bool:
    """True if a command means the sample picture by this path: it is `sample`, and there is no such file."""
    return place == Path(_NAME) and not place.exists()


def sample_picture() -> Picture:
    """Returns the sample picture of the package, for demonstrations and checks.

    A Fluent emoji (Microsoft, MIT licence), "grinning face with one large and one small eye", on a blue ground; the
    bundled pair has not seen this drawing in training.

    Raises:
        ModelError: if it is missing from this installation.
    """
    with as_file(files("steerlens.zoo") / "sample.png") as path:
        if not path.is_file():
            raise ModelError("the sample picture is missing from this installation; install it again.")
        return load_picture(path)
