"""Targets: the embedding that similarities refer to, of a text, a picture or each input itself."""

from pathlib import Path

from PIL import Image

from steerlens.decoders import clean_conditioning
from steerlens.errors import UsageError
from steerlens.images import Picture, load_picture
from steerlens.sweep.job import Target
from steerlens.zoo import Pair


def resolve_target(pair: Pair, target: str | Path | Picture | None) -> Target:
    """Computes the target that similarities refer to.

    Args:
        pair: encoder and decoder.
        target: None for each input itself, a picture or its path, or a text.

    Raises:
        UsageError: if a text is neither the path of a picture nor known to the pair.
    """
    if target is None:
        return Target()
    picture = read_target(target)
    if isinstance(picture, str):
        return Target(f"the text “{picture}”", pair.text_direction(picture), picture)
    inputs = pair.encoder.preprocess([picture.image])
    tokens = None
    if pair.decoder.spec.consumes == "image_tokens":
        tokens = clean_conditioning(pair.encoder, pair.decoder, inputs).values[0]
    embedding = pair.encoder.embed(inputs)[0]
    return Target(f"the picture {picture.name}", embedding.float(), picture.sha256, tokens)


def read_target(target: str | Path | Picture) -> str | Picture:
    """Reads a target without a model: the picture, or the text if it names no file.

    Raises:
        UsageError: if it is an empty text, or could be a text or a file.
        PictureError: if it names a file that is missing or no picture.
    """
    if isinstance(target, str) and not target.strip():
        raise UsageError("the target is an empty text; write a text or a picture file, or leave the target out.")
    if isinstance(target, str) and _could_be_either(target):
        raise UsageError(
            f"the target {target!r} could be this text or the file of this name; write ./{target} for the file, or "
            "say more in the text."
        )
    if isinstance(target, str) and not _names_a_file(target):
        return target
    return target if isinstance(target, Picture) else load_picture(target)


def _could_be_either(text: str) -> bool:
    """True for a file in the current folder whose name looks like a text."""
    plain = not Path(text).suffix and Path(text).name == text
    try:
        return plain and Path(text).is_file()
    except OSError:  # a text longer than any file name
        return False


def _names_a_file(text: str) -> bool:
    """True if a text names a file, even a missing file: `cat.png` is a mistyped path, not a text to compare with."""
    try:
        return Path(text).is_file() or Path(text).suffix.lower() in Image.registered_extensions()
    except OSError:  # longer than any file name
        return False
