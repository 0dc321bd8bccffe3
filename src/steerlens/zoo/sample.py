"""The sample picture of the package."""

from importlib.resources import as_file, files

from steerlens.errors import ModelError
from steerlens.images import Picture, load_picture


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
