"""Pictures that claim too much: refused before they take memory or time; metadata are left out."""

import io
import os
import struct
import time
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from steerlens.errors import PictureError, SteerlensError, UsageError
from steerlens.images import decode_picture, load_picture, picture_files, stored_picture
from steerlens.limits import LIMITS, limit, variable
from steerlens.picture_bytes import first_picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def noise(size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.effect_noise(size, 80).convert("RGB")


def jpeg_of_scans(side: int, scans: int) -> bytes:
    whole = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + whole[-2:]


def gif_of_frames(frames: int) -> bytes:
    images = [Image.new("P", (8, 8), value) for value in (1, 2)]
    whole = encoded(images[0], "GIF", save_all=True, append_images=images[1:], duration=100)
    last = whole[whole.rindex(b"!\xf9") : -1]
    return whole[:-1] + last * frames + b";"


def webp_claiming(side: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def icon_holding(png: bytes) -> bytes:
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png


def png_claiming(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(99)))
        + png_chunk(b"IEND", b"")
    )


HOSTILE = {
    "many scans of a large picture": (lambda: jpeg_of_scans(6000, 80), "scans of 6000 x 6000"),
    "thousands of scans": (lambda: jpeg_of_scans(16, 5000), "scans"),
    "a huge WebP canvas": (lambda: webp_claiming(16000), "16000 x 16000"),
    "a huge PNG": (lambda: png_claiming(30000), "30000 x 30000"),
    "a huge PNG in an icon": (lambda: icon_holding(png_claiming(30000)), "30000 x 30000"),
    "chunks without end": (
        lambda: png_claiming(8)[:-12] + 300_000 * png_chunk(b"tEXt", b"a\0b") + png_chunk(b"IEND", b""),
        "chunks",
    ),
    "segments without end": (lambda: b"\xff\xd8" + 300_000 * b"\xff\xe1\0\2", "chunks"),
    "scans behind markers of no kind": (
        # libjpeg passes over unknown markers while it looks for a restart, and so reads what "follows" them.
        lambda: (whole := jpeg_of_scans(16, 5000))[:20] + b"\xff\x02\xff\xff" + whole[20:],
        "scans",
    ),
    "comments without end": (lambda: b"GIF89a" + bytes(7) + 300_000 * b"!\xfe\1a\0" + b";", "chunks"),
}


@pytest.mark.parametrize("progressive", [False, True])
def test_a_video_behind_a_photograph_and_pictures_in_its_metadata_are_no_scans_of_it(progressive: bool) -> None:
    image = noise((400, 300))
    whole = encoded(image, "JPEG", progressive=progressive)
    video = Random(0).randbytes(2_000_000)  # as in the motion photographs of phones
    assert video.count(b"\xff\xda") > LIMITS["picture_scans"].default // 10
    maker = b"\xff\xed" + struct.pack(">H", 60_002) + (20_000 * b"\xff\xda\xff")
    expected = np.asarray(decode_picture(whole, "plain.jpg")[0])
    for data in (whole + video, whole[:2] + 6 * maker[:60_004] + whole[2:]):
        decoded, _ = decode_picture(data, "photograph.jpg")
        assert np.array_equal(np.asarray(decoded), expected)


@pytest.mark.parametrize("what", HOSTILE)
def test_files_that_claim_too_much_are_refused_quickly(what: str) -> None:
    make, words = HOSTILE[what]
    data, begun = make(), time.process_time()
    with pytest.raises(PictureError, match=words):
        decode_picture(data, "hostile")
    assert time.process_time() - begun < 2


def test_further_frames_and_text_are_not_decoded() -> None:
    info = PngImagePlugin.PngInfo()
    for number in range(40):
        info.add_text(f"note-{number}", "x" * 2_000_000, zip=True)  # more text than Pillow takes
    image = noise()
    plain, _ = decode_picture(encoded(image, "PNG", pnginfo=info), "with text")
    assert plain.tobytes() == image.tobytes()
    frames = gif_of_frames(100_000)
    first, note = decode_picture(frames, "frames")
    assert first.getpixel((0, 0)) == decode_picture(gif_of_frames(0), "two frames")[0].getpixel((0, 0))
    assert note == "the first of several frames"
    assert len(first_picture(frames, "frames", 1000)[0]) < 2000


@pytest.mark.parametrize("name", ["picture_pixels", "picture_bytes", "picture_scans"])
def test_limits_can_be_raised(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(noise(), "JPEG", progressive=True))
    monkeypatch.setenv(variable(name), "1")
    with pytest.raises(SteerlensError):
        load_picture(path)
    monkeypatch.setenv(variable(name), str(LIMITS[name].default))
    load_picture(path)
    monkeypatch.setenv(variable(name), "plenty")
    with pytest.raises(UsageError, match=variable(name)):
        limit(name)


def test_what_is_no_ordinary_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(UsageError, match="not a regular file"):
            load_picture(path)


def test_stored_pictures_are_whole_png_files_or_refused() -> None:
    image = noise()
    png = encoded(image, "PNG")
    assert stored_picture(png).tobytes() == image.tobytes()
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    for data in (eps, encoded(image, "GIF"), b"", png[:-20]):
        with pytest.raises(PictureError):
            stored_picture(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "PPM"]), st.data())
def test_mutated_files_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(Image.new("RGB", (16, 16), "red"), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture, _ = decode_picture(bytes(whole[: data.draw(st.integers(1, len(whole)))]), "mutated")
    except PictureError as error:
        assert str(error).startswith("mutated")
    else:
        assert picture.mode == "RGB"


def test_one_flipped_bit_of_a_stored_picture_is_noticed() -> None:
    png = encoded(noise(), "PNG")
    for place in range(len(png)):
        flipped = bytearray(png)
        flipped[place] ^= 1
        with pytest.raises(PictureError):
            stored_picture(bytes(flipped))


# ---- folders of pictures


def test_files_that_other_programs_leave_behind_are_no_pictures(tmp_path: Path) -> None:
    png = encoded(noise(), "PNG")
    for name in ("cat/1.png", "cat/.ipynb_checkpoints/1.png", ".trash/2.png", "__MACOSX/cat/1.png", "cat/._1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png)
    assert picture_files(tmp_path) == [tmp_path / "cat" / "1.png"]
    assert picture_files(tmp_path / ".trash") == [tmp_path / ".trash" / "2.png"]  # a folder that is named is meant


def test_pictures_of_formats_that_cannot_be_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.png").write_bytes(encoded(noise(), "PNG"))
    (tmp_path / "IMG_2.HEIC").write_bytes(b"....ftypheic")
    assert picture_files(tmp_path) == [tmp_path / "1.png"]
    assert "IMG_2.HEIC" in caplog.text and "left out" in caplog.text
    (tmp_path / "1.png").unlink()
    with pytest.raises(UsageError, match=r"IMG_2\.HEIC.*convert"):
        picture_files(tmp_path)


def test_pictures_of_any_other_format_are_told_and_several_in_one_file_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stereo = encoded(noise(), "MPO", save_all=True, append_images=[noise()])
    (tmp_path / "1.MPO").write_bytes(stereo)
    others = ("2.orf", "3.pcx", "4.EXR", "5.dds")
    for name in others:
        (tmp_path / name).write_bytes(b"a picture of that format")
    assert picture_files(tmp_path) == [tmp_path / "1.MPO"]
    assert load_picture(tmp_path / "1.MPO").note == "the first of several frames"
    assert "4 pictures" in caplog.text and "2.orf" in caplog.text


def test_a_lack_of_memory_says_nothing_about_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    data = encoded(noise(), "PNG")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(MemoryError):
        decode_picture(data, "noise.png")
