"""Pictures from files: every kind that Pillow can read becomes upright 8-bit RGB, and broken ones are refused clearly.

Colour profiles are not applied, as the data sets that encoders were trained on did not apply them.
"""

import hashlib
import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from steerlens.errors import PictureError, UsageError
from steerlens.limits import limit, read_file
from steerlens.picture_bytes import check_pixels, check_png, decoding, first_picture, known_formats
from steerlens.picture_modes import upright
from steerlens.picture_modes import upright_rgb as upright_rgb
from steerlens.printable import printable

_OVERSHOOT = 0.25
"""Largest overshoot of values beyond [0,1], to which they are then clipped: filters and decoders overshoot."""

_LOG = logging.getLogger(__name__)

_MAX_ASPECT = 100
"""Largest ratio of sides: encoders scale the short side to their size, so a thin picture would take gigabytes."""

_OTHER_PICTURES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jxr", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
    | {".orf", ".raf", ".rw2", ".pef", ".srw", ".pcx", ".dds", ".sgi", ".icns", ".cur", ".jps", ".fits", ".xcf"}
)
"""Suffixes of pictures that are reported if they cannot be read: by this build of Pillow, or by none."""

_ALSO_READABLE = frozenset((".mpo",))
"""Suffixes of accepted pictures that Pillow registers for another format: several JPEG pictures in one file."""

_LEFT_BEHIND = frozenset(("__MACOSX", "Thumbs.db", "@eaDir"))
"""Folders and files that other programs leave beside pictures."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, ready for an encoder.

    Attributes:
        name: short name for reports.
        pixels: the picture, or a function that opens it: thousands of pictures do not fit into memory.
        sha256: hash of the file's bytes, or of mode, size and pixels for a picture without a file.
        path: the file, or None.
        note: a note on the conversion, such as the frame taken from an animation; usually empty.
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
            PictureError: if its file has changed since it was checked.
        """
        return self.pixels if isinstance(self.pixels, Image.Image) else self.pixels()

    @classmethod
    def from_image(cls, image: Image.Image, name: str) -> "Picture":
        """Creates a picture from memory, converted like a file.

        Raises:
            PictureError: if the image cannot be read or converted, or is far longer than wide.
        """
        with decoding(name):
            converted, note = upright(image)
        _check_aspect(converted.size, name)
        digest = hashlib.sha256(f"RGB {converted.size}".encode() + converted.tobytes()).hexdigest()
        return cls(name, converted, digest, note=note)


def png_bytes(image: Image.Image) -> bytes:
    """Encodes a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def eight_bit(pictures: Float[Tensor, "B 3 height width"]) -> UInt8[np.ndarray, "B height width 3"]:
    """Rounds pictures with values in [0,1] to 8 bits, as in a file.

    Pictures are rounded here before they are scored or saved, so that saving does not change a score.

    Raises:
        UsageError: if values lie outside [0,1] by more than a resampling filter overshoots, or are not finite.
    """
    values = pictures.detach().float()
    if values.numel() and not (float(values.min()) >= -_OVERSHOOT and float(values.max()) <= 1 + _OVERSHOOT):
        raise UsageError(
            f"the values of a picture lie in [0,1], not in [{float(values.min()):g},{float(values.max()):g}]; divide "
            "pictures of 0 to 255 by 255, and give (x + 1) / 2 of pictures of -1 to 1."
        )
    levels = (values.clamp(0, 1) * 255).round()
    return levels.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def load_picture(path: Path | str, *, max_pixels: int | None = None) -> Picture:
    """Reads one picture.

    Handled: rotation from EXIF, CMYK, palettes, greyscale of 8, 16 and 32 bits (scaled, not clipped), transparency
    (laid on white), animations and multi-page files (the first frame, which the note says).

    Args:
        path: the file.
        max_pixels: pixels of the largest picture that is opened, up to 178 million; by default that of `limits`.

    Raises:
        UsageError: if there is no such file, or it is a folder or cannot be opened.
        PictureError: if the file is empty, truncated, corrupt, no picture, or too large.
    """
    path = Path(path)
    data = _read(path)
    converted, note = decode_picture(data, str(path), max_pixels=max_pixels)
    # Names of files need not be valid text, but names of pictures must be, of one line: tables and pages contain them.
    label = printable(path.stem.encode("utf-8", "replace").decode("utf-8"))
    return Picture(label, converted, hashlib.sha256(data).hexdigest(), path, note)


def load_pictures(pictures: Iterable[Path | str | Picture], *, max_pixels: int | None = None) -> list[Picture]:
    """Checks several pictures, in order, and numbers those of equal name.

    Every file is read and checked immediately, and opened again when its pixels are needed.

    Args:
        pictures: files, or pictures, which stay as they are.
        max_pixels: as in `load_picture`.

    Raises:
        UsageError, PictureError: as `load_picture`.
    """
    files = _Files(max_pixels)
    return numbered(entry if isinstance(entry, Picture) else files.look_through(entry) for entry in pictures)


class _Files:
    """Pictures in files; only the pixels of the last picture stay in memory."""

    def __init__(self, max_pixels: int | None) -> None:
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
    """Opens a picture from its file; pickling it includes the file's bytes, for another process."""

    files: _Files
    path: Path
    sha256: str

    def __call__(self) -> Image.Image:
        return self.files.open(self.path, self.sha256)

    def __reduce__(self) -> "tuple[type[PictureInBytes], tuple[bytes, str, int | None]]":
        data = _read(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise _changed(self.path)
        return PictureInBytes, (data, str(self.path), self.files.max_pixels)


@dataclass(frozen=True)
class PictureInBytes:
    """Opens a picture from the bytes of a file."""

    data: bytes = field(repr=False)
    name: str
    max_pixels: int | None

    def __call__(self) -> Image.Image:
        """Decodes the picture; see `decode_picture`."""
        return decode_picture(self.data, self.name, max_pixels=self.max_pixels)[0]


def picture_files(folder: Path) -> list[Path]:
    """Lists the files under a folder that are named like readable pictures, sorted.

    Hidden files, and those that macOS and Jupyter leave behind, are skipped. Unreadable formats are logged.

    Raises:
        UsageError: if there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.")
    formats = known_formats()
    endings = {ending for ending, name in Image.registered_extensions().items() if name in formats}
    endings |= _ALSO_READABLE
    readable: list[Path] = []
    unreadable: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") or part in _LEFT_BEHIND for part in path.relative_to(folder).parts):
            continue
        ending = path.suffix.lower()
        if ending in endings and path.is_file():
            if not _is_text(path):
                raise UsageError(
                    f"the name of {_as_text(path)} is not UTF-8; rename it, since tables hold names as text."
                )
            readable.append(path)
        elif ending in _OTHER_PICTURES and path.is_file():
            unreadable.append(path)
    if unreadable:
        names = ", ".join(printable(path.name) for path in unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        told = f"{folder} holds {len(unreadable)} pictures of formats that cannot be read ({names})"
        if not readable:
            raise UsageError(f"{told}, and no other picture; convert them to PNG or JPEG.")
        _LOG.warning("%s; they are left out. Convert them to PNG or JPEG to use them.", told)
    if not readable:
        raise UsageError(f"{folder} holds no picture: no file in it is named like one ({', '.join(formats)}).")
    return readable


def _as_text(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _is_text(path: Path) -> bool:
    return _as_text(path) == str(path)


def numbered(pictures: Iterable[Picture]) -> list[Picture]:
    """Appends numbers to the names of pictures with equal names."""
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


def decode_picture(
    data: bytes, name: str, *, max_pixels: int | None = None, alpha: bool = False
) -> tuple[Image.Image, str]:
    """Decodes an upright picture from the bytes of a file, with a note on the conversion.

    Args:
        data: the bytes of a file, in one of the accepted formats.
        name: its name in messages.
        max_pixels: pixels of the largest picture that is opened; by default that of `limits`.
        alpha: keep transparency, in mode RGBA; else the picture is laid on white, in mode RGB.

    Raises:
        PictureError: if it is truncated, corrupt, no picture, or too large.
    """
    most = limit("picture_pixels") if max_pixels is None else max_pixels
    with decoding(name):
        decisive, more = first_picture(data, name, most)
        with Image.open(io.BytesIO(decisive), formats=known_formats()) as image:
            check_pixels(image.size, name, most)
            more = more or bool(getattr(image, "is_animated", False))
            converted, note = upright(image, alpha=alpha)
    _check_aspect(converted.size, name)
    return converted, "; ".join([*(["the first of several frames"] if more else []), *([note] if note else [])])


def picture_format(data: bytes, name: str) -> str:
    """Names the format of a picture that `decode_picture` has accepted, as Pillow does: `PNG`; empty if not known.

    Raises:
        PictureError: if it is corrupt or no picture.
    """
    with decoding(name), Image.open(io.BytesIO(data), formats=known_formats()) as image:
        return image.format or ""


def load_with_alpha(path: Path) -> Image.Image:
    """Reads a picture like `load_picture`, but in RGBA if it has transparency.

    Raises:
        UsageError, PictureError: as `load_picture`.
    """
    return decode_picture(_read(path), str(path), alpha=True)[0]


def stored_picture(png: bytes) -> Image.Image:
    """Decodes a picture that steerlens stored, in RGB; only PNG files are opened.

    Raises:
        PictureError: if it is damaged.
    """
    check_png(png)
    return decode_picture(png, "a stored picture")[0]


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the pictures in it, for example {path / '*.png'}.")
    data = read_file(path, "picture_bytes")
    if not data:
        raise PictureError(f"{path} is empty (0 bytes).")
    return data


def _check_aspect(size: tuple[int, int], name: str) -> None:
    if max(size) > _MAX_ASPECT * min(size):
        raise PictureError(f"{name} is {size[0]} x {size[1]} pixels: too long and thin to be looked at as a square.")
