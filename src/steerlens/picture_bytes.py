"""Checks of a picture file's bytes before they reach a decoder.

A decoder may spend memory and time on any size that a file claims. This module keeps the parts that decide the first
picture and compares the sizes in headers with the limits. Metadata and further frames do not reach Pillow.
"""

import re
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Lock
from warnings import catch_warnings, simplefilter

from PIL import Image, UnidentifiedImageError

from steerlens.errors import PictureError
from steerlens.limits import limit, over_limit

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")
"""Accepted formats. Pillow knows more, some of which it passes to other programs on the machine."""

PNG_START = b"\x89PNG\r\n\x1a\n"

_PNG_DECISIVE = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"))
"""Chunks of a PNG file that decide its pixels or its orientation."""

_PNG_ORIENTATION = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of text chunks that may contain the orientation; others are left out."""

_MOST_ORIENTATION = 1 << 16

_SCAN_SHARE = 10
"""Factor by which the largest picture may have fewer scans than a small picture: each scan passes over all pixels."""


def known_formats() -> list[str]:
    """Returns the accepted formats that this build of Pillow can decode."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


class _WithoutWarnings:
    """Context in which warnings are ignored, in any number of threads.

    Filters belong to the whole process: if threads saved and restored them one by one, the last could restore those of
    another and leave warnings ignored for good. So the first thread saves them, and the last restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._saved = catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._saved = catch_warnings()
                self._saved.__enter__()
                simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_WITHOUT_WARNINGS = _WithoutWarnings()


@contextmanager
def decoding(name: str) -> Generator[None]:
    """Turns Pillow's exceptions into one PictureError, and ignores its warnings.

    Args:
        name: the picture's name in messages.
    """
    try:
        with _WITHOUT_WARNINGS:
            yield
    except PictureError as error:
        raise (error if str(error).startswith(name) else PictureError(f"{name}: {error}")) from None
    except UnidentifiedImageError:
        known = ", ".join(FORMATS[:6])
        raise PictureError(
            f"{name} is not a readable picture ({known} and some others are, unless of rare colours)."
        ) from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} would take far too much memory: it claims more than 178 million pixels.") from None
    except MemoryError:  # which says nothing about the picture: its size has been checked
        raise
    except Exception as error:
        # Pillow's readers raise nearly any exception on hostile bytes (SyntaxError, struct.error, zlib.error, ...).
        reason = str(error).rstrip(".") or type(error).__name__
        raise PictureError(f"{name} is corrupt or truncated ({reason}).") from None


def first_picture(data: bytes, name: str, max_pixels: int) -> tuple[bytes, bool]:
    """Returns the bytes that decide the first picture of a file, and True if the file contains more pictures.

    Args:
        data: the bytes of a file of any format.
        name: its name in messages.
        max_pixels: pixels of the largest picture that is opened.

    Raises:
        PictureError: if it claims more than the limits allow, or is a broken PNG or GIF file.
    """
    if data.startswith(PNG_START):
        check_pixels(_png_size(data, len(PNG_START)), name, max_pixels)
        return _first_of_png(data, name)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _first_of_gif(data, name)
    if data.startswith(b"\xff\xd8\xff"):
        _check_scans(data, name, max_pixels)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and (size := _webp_size(data)) is not None:
        check_pixels(size, name, max_pixels)  # the decoder allocates memory for it on opening
    if data.startswith(b"\0\0\1\0"):
        for start in _places(data, PNG_START):  # icons may contain PNG files of any size
            check_pixels(_png_size(data, start + len(PNG_START)), name, max_pixels)
    return data, False


def check_pixels(size: tuple[int, ...], name: str, max_pixels: int) -> None:
    """Compares a width and a height with a limit.

    Raises:
        PictureError: if there are more pixels.
    """
    if size[0] * size[1] > max_pixels:
        raise PictureError(
            f"{name} is {size[0]} x {size[1]} pixels, more than the {max_pixels / 1e6:.4g} million that are opened; "
            "make it smaller first."
        )


def check_png(data: bytes) -> None:
    """Checks that a PNG file is whole, by the checksum of each of its chunks, and not too large.

    Raises:
        PictureError: if it is not.
    """
    if not data.startswith(PNG_START):
        raise PictureError("a stored picture is no PNG file.")
    _first_of_png(data, "a stored picture")
    check_pixels(_png_size(data, len(PNG_START)), "a stored picture", limit("picture_pixels"))


def _png_size(data: bytes, start: int) -> tuple[int, ...]:
    """Reads width and height from the header of a PNG file that begins at `start`."""
    return struct.unpack(">II", data[start + 8 : start + 16].ljust(8, b"\0"))


def _first_of_png(data: bytes, name: str) -> tuple[bytes, bool]:
    kept, more = [PNG_START], False
    for count, (kind, chunk) in enumerate(_png_chunks(data, name), start=1):
        if words := over_limit("picture_chunks", count):
            raise PictureError(f"{name} has {words}.")
        if kind in _PNG_DECISIVE or chunk[8:].startswith(_PNG_ORIENTATION):
            kept.append(chunk)
        elif kind == b"acTL":
            more = chunk[8:12] != b"\0\0\0\1"
    return b"".join(kept), more


def _png_chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    place, kind, view = len(PNG_START), b"", memoryview(data)
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[place : place + 8]) if place + 8 <= len(data) else (0, b"")
        end = place + 12 + length
        if not kind or end > len(data):
            raise PictureError(f"{name} is corrupt or truncated (it ends in the middle of a chunk).")
        if kind in _PNG_DECISIVE and zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise PictureError(f"{name} is corrupt or truncated (a checksum does not fit).")
        small = length <= _MOST_ORIENTATION
        yield kind, bytes(view[place:end]) if kind in _PNG_DECISIVE or small else b""
        place = end


def _first_of_gif(data: bytes, name: str) -> tuple[bytes, bool]:
    """Returns header, colours and first frame of a GIF file, with the extension that defines its transparency."""
    place = 13 + _gif_colours(data, 10)
    kept, control = [data[:place]], b""
    for count in range(1, len(data)):
        start, kind = place, data[place : place + 1]
        if words := over_limit("picture_chunks", count):
            raise PictureError(f"{name} has {words}.")
        if kind == b"!":
            place = _gif_blocks_end(data, place + 2, name)
            control = data[start:place] if data[start + 1 : start + 2] == b"\xf9" else control
        elif kind == b",":
            place = _gif_blocks_end(data, place + 11 + _gif_colours(data, place + 9), name)
            kept += [control, data[start:place], b";"]
            return b"".join(kept), data[place : place + 1] not in (b";", b"")
        else:
            raise PictureError(f"{name} is corrupt or truncated (there is no frame in it).")
    raise PictureError(f"{name} is corrupt or truncated (there is no frame in it).")


def _gif_colours(data: bytes, place: int) -> int:
    """Returns the bytes of the colour table that the flags at `place` announce."""
    flags = data[place] if place < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, place: int, name: str) -> int:
    """Returns the end of a sequence of data blocks, which begin with their length; an empty block is the last."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    if place >= len(data):
        raise PictureError(f"{name} is corrupt or truncated (it ends in the middle of a frame).")
    return place + 1


def _check_scans(data: bytes, name: str, max_pixels: int) -> None:
    scans, size = _jpeg_scans(data, name)
    if words := over_limit("picture_scans", scans):
        raise PictureError(f"{name} has {words}.")
    if scans > limit("picture_scans") // _SCAN_SHARE and size[0] * size[1] * scans * _SCAN_SHARE > max_pixels * limit(
        "picture_scans"
    ):
        raise PictureError(
            f"{name} has {scans} scans of {size[0]} x {size[1]} pixels, too many for its size; "
            "save it again as a plain JPEG or PNG file."
        )


_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
"""Marker of a segment of a JPEG file, or of its end. In compressed data a byte of 255 is followed by 0, or begins a
restart marker; markers that no segment follows are left out, too."""

_SCAN, _END, _FRAMES = 0xDA, 0xD9, frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))


def _jpeg_scans(data: bytes, name: str) -> tuple[int, tuple[int, int]]:
    """Counts the scans of the first picture of a JPEG file, and reads the size of its largest frame.

    Metadata may contain other pictures, and phones append videos: neither is a part of it.
    """
    scans, size, place, segments = 0, (0, 0), 2, 0
    while (match := _SEGMENT.search(data, place)) is not None and match[1][0] != _END:
        kind, place, segments = match[1][0], match.end(), segments + 1
        if words := over_limit("picture_chunks", segments):
            raise PictureError(f"{name} has {words}.")
        scans += kind == _SCAN
        if kind in _FRAMES:
            height, width = struct.unpack(">HH", data[place + 3 : place + 7].ljust(4, b"\0"))
            size = max(size, (width, height), key=lambda sides: sides[0] * sides[1])
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return scans, size


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Reads width and height of the canvas of a WebP file; None if its header does not contain them."""
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def _places(data: bytes, text: bytes) -> Iterator[int]:
    start = data.find(text)
    while start >= 0:
        yield start
        start = data.find(text, start + 1)
