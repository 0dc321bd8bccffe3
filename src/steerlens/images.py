"""Pictures from files: every kind that Pillow can read becomes upright 8-bit RGB, and broken ones are refused clearly.

Colour profiles are not applied, as the data sets that encoders were trained on did not apply them.
"""

import hashlib
import io
import stat
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from steerlens.errors import PictureError, UsageError

MAX_PIXELS = 100_000_000
"""Pixels of the largest picture that is opened, against files that are small on disk and huge in memory."""

_MAX_BYTES = 1 << 29

_MAX_ASPECT = 100
"""Encoders scale the short side to their size before they crop; a thread of pixels would grow into gigabytes."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")
"""What is tried. Pillow knows more, among them formats that it hands to other programs on the machine."""

_SCALED_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to look at, ready for an encoder.

    Attributes:
        name: short name for reports.
        pixels: the picture, or what opens it: thousands of pictures do not fit into memory.
        sha256: of the file's bytes; of mode, size and pixels for a picture that comes from no file.
        path: the file, or None.
        note: what had to be decided on the way, such as which frame of an animation was taken; mostly empty.
    """

    name: str
    pixels: Image.Image | Callable[[], Image.Image] = field(repr=False)
    sha256: str
    path: Path | None = None
    note: str = ""

    @property
    def image(self) -> Image.Image:
        """The picture: upright, 8-bit RGB, transparency laid on white.

        Raises:
            PictureError: if its file has changed since it was looked through.
        """
        return self.pixels if isinstance(self.pixels, Image.Image) else self.pixels()

    @classmethod
    def from_image(cls, image: Image.Image, name: str) -> "Picture":
        """A picture from memory, converted as one from a file would be.

        Raises:
            PictureError: if the image cannot be read or converted, or is far longer than wide.
        """
        with _careful(name):
            converted, note = _upright_rgb(image)
        _check_aspect(converted.size, name)
        digest = hashlib.sha256(f"RGB {converted.size}".encode() + converted.tobytes()).hexdigest()
        return cls(name, converted, digest, note=note)


def png_bytes(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def eight_bit(pictures: Float[Tensor, "B 3 height width"]) -> UInt8[np.ndarray, "B height width 3"]:
    """Pictures with values in [0,1] as the 8-bit pictures that a file would hold.

    Everything that is scored or saved goes through here, so that a score does not change when a picture is
    saved.
    """
    levels = (pictures.detach().float().clamp(0, 1) * 255).round()
    return levels.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def load_picture(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads one picture.

    Handled: rotation from EXIF, CMYK, palettes, greyscale of 8, 16 and 32 bits (scaled, not clipped), transparency
    (laid on white), animations and multi-page files (the first frame, which the note says).

    Args:
        path: the file.
        max_pixels: pixels of the largest picture that is opened, up to 178 million.

    Raises:
        UsageError: if there is no such file, or it is a folder or cannot be opened.
        PictureError: if the file is empty, truncated, corrupt, no picture, or too large.
    """
    path = Path(path)
    data = _read(path)
    converted, note = _decoded(data, str(path), max_pixels)
    # Names of files need not be text; names of pictures are, since they are written into tables and pages.
    label = path.stem.encode("utf-8", "replace").decode("utf-8")
    return Picture(label, converted, hashlib.sha256(data).hexdigest(), path, note)


def load_pictures(pictures: Iterable[Path | str | Picture], *, max_pixels: int = MAX_PIXELS) -> list[Picture]:
    """Looks several pictures through, in order, and gives those of equal name a number.

    Every file is read and checked at once, and opened again when its pixels are asked for.

    Args:
        pictures: files, or pictures that are taken as they are.
        max_pixels: as in `load_picture`.

    Raises:
        UsageError: as `load_picture`.
        PictureError: as `load_picture`.
    """
    files = _Files(max_pixels)
    return numbered(one if isinstance(one, Picture) else files.look_through(one) for one in pictures)


class _Files:
    """Pictures in files, of which the pixels of the last one alone stay in memory."""

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._last: Picture | None = None

    def look_through(self, path: Path | str) -> Picture:
        self._last = load_picture(path, max_pixels=self.max_pixels)
        return replace(self._last, pixels=_InFile(self, Path(path), self._last.sha256))

    def open(self, path: Path, sha256: str) -> Image.Image:
        if self._last is None or self._last.sha256 != sha256:
            self._last = load_picture(path, max_pixels=self.max_pixels)
            if self._last.sha256 != sha256:
                raise _changed(path)
        return self._last.image


def _changed(path: Path) -> PictureError:
    return PictureError(f"{path} has changed since it was first read; run the command again.")


@dataclass(frozen=True)
class _InFile:
    """Opens a picture from its file; sent to another process, it takes the file's bytes along."""

    files: _Files
    path: Path
    sha256: str

    def __call__(self) -> Image.Image:
        return self.files.open(self.path, self.sha256)

    def __reduce__(self) -> "tuple[type[_InBytes], tuple[bytes, str, int]]":
        data = _read(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise _changed(self.path)
        return _InBytes, (data, str(self.path), self.files.max_pixels)


@dataclass(frozen=True)
class _InBytes:
    """Opens a picture from the bytes of a file."""

    data: bytes = field(repr=False)
    name: str
    max_pixels: int

    def __call__(self) -> Image.Image:
        return _decoded(self.data, self.name, self.max_pixels)[0]


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder, and of the folders in it, that are named like pictures that can be read, sorted.

    Raises:
        UsageError: if there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.")
    formats = _formats()
    endings = {ending for ending, name in Image.registered_extensions().items() if name in formats}
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    for path in found:
        if not _is_text(path):
            raise UsageError(f"the name of {_as_text(path)} is not UTF-8; rename it, since tables hold names as text.")
    if not found:
        raise UsageError(f"{folder} holds no picture: no file in it is named like one ({', '.join(formats)}).")
    return found


def _as_text(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _is_text(path: Path) -> bool:
    return _as_text(path) == str(path)


def numbered(pictures: Iterable[Picture]) -> list[Picture]:
    """The same pictures, those of equal name told apart by a number."""
    named: list[Picture] = []
    taken: set[str] = set()
    for picture in pictures:
        name, count = picture.name, 1
        while name in taken:
            count += 1
            name = f"{picture.name}-{count}"
        taken.add(name)
        named.append(replace(picture, name=name))
    return named


def _decoded(data: bytes, name: str, max_pixels: int) -> tuple[Image.Image, str]:
    """An upright RGB picture from the bytes of a file, and a note on what was decided."""
    try:
        return _opened(data, name, max_pixels)
    except PictureError as error:
        lean = _without_chunks(data, _PNG_TEXTS) if data.startswith(_PNG) else data
        # Pillow limits how large the texts of a PNG may unfold, and then gives up the whole file.
        if "text chunk" not in str(error).lower().replace("_", " ") or len(lean) == len(data):
            raise
    image, note = _opened(lean, name, max_pixels)
    return image, "; ".join(filter(None, (note, "its texts are too large and were not read")))


def _opened(data: bytes, name: str, max_pixels: int) -> tuple[Image.Image, str]:
    with _careful(name), Image.open(io.BytesIO(data), formats=_formats()) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise PictureError(
                f"{name} is {width} x {height} pixels, more than the {max_pixels / 1e6:.4g} million that are opened; "
                "make it smaller first."
            )
        converted, note = _upright_rgb(image)
    _check_aspect(converted.size, name)
    return converted, note


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of a PNG that hold texts and colour profiles, of which none changes a pixel here."""


def _without_chunks(data: bytes, kinds: Sequence[bytes]) -> bytes:
    """A PNG without chunks of some kinds; what follows a chunk that is cut short stays as it is."""
    kept, start = [_PNG], len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in kinds:
            kept.append(data[start:end])
        start = end
    return b"".join([*kept, data[start:]])


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a folder; name the pictures in it, for example {path / '*.png'}.")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is no ordinary file.")
        if status.st_size > _MAX_BYTES:
            raise PictureError(f"{path} takes {status.st_size / 1e6:.0f} MB, too much for a picture.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}.") from None
    except (OSError, ValueError) as error:
        # ValueError: a null byte in the name.
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not data:
        raise PictureError(f"{path} is empty (0 bytes).")
    return data


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


@contextmanager
def _careful(name: str) -> Generator[None]:
    """Turns whatever Pillow says about a file, in exceptions or warnings, into one PictureError or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PictureError as error:
        raise (error if str(error).startswith(name) else PictureError(f"{name}: {error}")) from None
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS[:6])
        raise PictureError(f"{name} is no picture that can be read ({known} and some others can).") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} would take far too much memory: it claims more than 178 million pixels.") from None
    except Exception as error:
        # Pillow's readers meet hostile bytes with nearly any exception (SyntaxError, struct.error, zlib.error, ...).
        reason = str(error).rstrip(".") or type(error).__name__
        raise PictureError(f"{name} is corrupt or truncated ({reason}).") from None


def _check_aspect(size: tuple[int, int], name: str) -> None:
    if max(size) > _MAX_ASPECT * min(size):
        raise PictureError(f"{name} is {size[0]} x {size[1]} pixels: too long and thin to be looked at as a square.")


def _upright_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """An upright RGB copy, and a note on what was decided."""
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        image.seek(0)
        notes.append(f"the first of {frames} frames")
    image.load()
    orientation = _orientation(image, notes)
    rgb = _rgb(image)
    if orientation is not None:
        rgb = rgb.transpose(orientation)
    return rgb, "; ".join(notes)


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
    except Exception:  # broken EXIF data raise nearly anything, and the picture is still there
        notes.append("its EXIF data are broken, so it may not be upright")
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SCALED_MODES:
        return _scaled_grey(image)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    if image.mode == "RGB":
        return image.copy()
    return image.convert("RGB")


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits; Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError("it holds values that are not finite.")
    top = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 255.0 if image.mode == "F" else 65535.0
    if values.min(initial=0) < 0 or values.max(initial=0) > top:
        raise PictureError(
            f"its greyscale values run from {values.min():g} to {values.max():g}; read are 0 to 65535 in whole "
            "numbers, and 0 to 1 or 0 to 255 in floating point. Save it as an 8-bit picture first."
        )
    grey = np.round(values * (255 / top)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")
