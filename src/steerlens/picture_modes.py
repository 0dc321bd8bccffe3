"""Conversion of pictures to upright 8-bit RGB, whatever their mode, depth, transparency and orientation."""

import numpy as np
from PIL import Image

from steerlens.errors import PictureError
from steerlens.picture_bytes import decoding

_SCALED_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def upright_rgb(image: Image.Image, name: str = "a picture") -> Image.Image:
    """Converts a picture for encoders: upright, 8-bit RGB, deep greyscale scaled, transparency laid on white.

    Files and pictures in memory are converted alike (see `_scaled_grey`). A plain RGB picture is returned unchanged.

    Raises:
        PictureError: if it cannot be converted.
    """
    plain = image.mode == "RGB" and type(image) is Image.Image and not image.has_transparency_data
    if plain and all(image.size) and _orientation(image, []) is None:
        return image
    with decoding(name):
        return upright(image)[0]


def upright(image: Image.Image, *, alpha: bool = False) -> tuple[Image.Image, str]:
    """Returns an upright 8-bit copy of a picture, and a note on the conversion.

    Args:
        image: the picture, of any mode.
        alpha: keep transparency: the copy is RGBA then if the picture has any.

    Raises:
        PictureError: if it has no pixels, or grey values that are not finite or out of range; Pillow's own exceptions
            pass.
    """
    notes: list[str] = []
    if not all(image.size):
        raise PictureError(f"it has no pixels: it is {image.width} x {image.height}.")
    image.load()
    image = image.convert("LA") if image.mode == "La" else image  # Pillow converts premultiplied grey to nothing else
    orientation = _orientation(image, notes)
    keep = alpha and image.has_transparency_data and image.mode not in _SCALED_MODES
    converted = image.convert("RGBA") if keep else _rgb(image)
    if orientation is not None:
        converted = converted.transpose(orientation)
    return converted, "; ".join(notes)


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image, notes: list[str]) -> Image.Transpose | None:
    try:
        return _TRANSPOSE.get(image.getexif().get(0x0112, 1))
    except MemoryError:
        raise
    except Exception:  # broken EXIF data raise exceptions of any kind, and the picture is still readable
        notes.append("its EXIF data are broken, so it may not be upright")
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SCALED_MODES:
        return _scaled_grey(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Scales greyscale of more than 8 bits; Pillow's own conversion would clip values above 255 to white."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError("it holds values that are not finite.")
    highest = values.max(initial=0)
    in_eight_bits = image.format is None and highest <= 255  # in memory; whole numbers in a file have 16 bits
    top = {"F": 1.0 if highest <= 1 else 255.0, "I": 255.0 if in_eight_bits else 65535.0}.get(image.mode, 65535.0)
    if values.min(initial=0) < 0 or highest > top:
        raise PictureError(
            f"its greyscale values run from {values.min():g} to {values.max():g}; read are 0 to 65535 in whole "
            "numbers, and 0 to 1 or 0 to 255 in floating point. Save it as an 8-bit picture first."
        )
    grey = np.round(values * (255 / top)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")
