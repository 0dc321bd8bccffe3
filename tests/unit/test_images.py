"""Pictures of every kind become upright RGB; broken ones are refused with one clear message."""

import hashlib
import io
import os
import pickle
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from steerlens.errors import PictureError, UsageError
from steerlens.images import Picture, load_picture, load_pictures, upright_rgb


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def gradient(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    ramp = np.linspace(0, 255, size[0], dtype=np.uint8)
    grey = np.broadcast_to(ramp, (size[1], size[0]))
    return Image.fromarray(np.stack([grey, grey[:, ::-1], np.full_like(grey, 60)], axis=-1)).convert(mode)


def test_rgb_png_is_taken_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.png", gradient())
    picture = load_picture(path)
    assert np.array_equal(np.asarray(picture.image), np.asarray(gradient()))
    assert (picture.name, picture.path, picture.note) == ("plain", path, "")
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (-1, 0)), (3, (-1, -1)), (4, (0, -1)), (5, (0, 0)), (6, (-1, 0)), (7, (-1, -1)), (8, (0, -1))],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    stored = Image.new("RGB", (6, 4))
    stored.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = load_picture(save(tmp_path / "turned.png", stored, exif=exif))
    assert picture.image.size == ((6, 4) if orientation < 5 else (4, 6))
    width, height = picture.image.size
    assert picture.image.getpixel((corner[0] % width, corner[1] % height)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    if suffix == "png" and mode in ("CMYK", "YCbCr"):
        suffix = "jpg"
    if suffix == "tif" and mode == "YCbCr" and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("runs with Pillow 13; earlier ones take such TIFF files, their own too, for truncated")
    original = gradient(mode)
    picture = load_picture(save(tmp_path / f"one.{suffix}", original))
    assert picture.image.mode == "RGB"
    difference = np.asarray(picture.image).astype(int) - np.asarray(original.convert("RGB")).astype(int)
    assert abs(difference).mean() < 3


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 128 * 257], [200 * 257, 65535]], dtype=np.uint16)
    mode = "I;16B" if dtype == ">u2" else "I;16"
    image = Image.frombytes(mode, (2, 2), values.astype(dtype).tobytes())
    picture = load_picture(save(tmp_path / "deep.tif", image))
    assert np.asarray(picture.image)[..., 0].tolist() == [[0, 128], [200, 255]]


def test_whole_numbers_in_memory_up_to_255_have_eight_bits(tmp_path: Path) -> None:
    grey = gradient("L")
    assert upright_rgb(grey.convert("I")).tobytes() == upright_rgb(grey).tobytes()
    deep = Image.fromarray(np.array([[0, 65535]], dtype=np.int32))
    assert np.asarray(upright_rgb(deep))[0, :, 0].tolist() == [0, 255]
    dark = tmp_path / "dark.pgm"
    dark.write_bytes(b"P5 2 1 65535\n" + np.array([[0, 255]], dtype=">u2").tobytes())
    assert np.asarray(load_picture(dark).image)[0, :, 0].tolist() == [0, 1]


def test_premultiplied_grey_is_laid_on_white() -> None:
    grey = gradient("LA")
    grey.putalpha(128)
    assert upright_rgb(grey.convert("La")).tobytes() == upright_rgb(grey.convert("La").convert("LA")).tobytes()
    assert upright_rgb(Image.new("LA", (1, 1), (0, 0)).convert("La")).getpixel((0, 0)) == (255, 255, 255)


def test_floating_point_is_read_in_its_usual_ranges_and_refused_elsewhere(tmp_path: Path) -> None:
    unit = save(tmp_path / "unit.tif", Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)))
    assert np.asarray(load_picture(unit).image)[0, :, 0].tolist() == [0, 255]
    wild = save(tmp_path / "wild.tif", Image.fromarray(np.array([[-4.0, 900.0]], dtype=np.float32)))
    with pytest.raises(PictureError, match=r"wild\.tif.*-4 to 900"):
        load_picture(wild)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    picture = load_picture(save(tmp_path / "clear.png", image))
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]
    palette = image.convert("RGB").quantize(4)
    keyed = save(tmp_path / "keyed.png", palette, transparency=palette.getpixel((1, 0)))
    assert load_picture(keyed).image.getpixel((1, 0)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame_and_says_so(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    path = save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    picture = load_picture(path)
    assert picture.image.getpixel((4, 4)) == (255, 0, 0)
    assert picture.note == "the first of several frames"


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("side", "words"), [(11_000, "11000 x 11000"), (60_000, "memory|60000 x 60000")])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path: Path, side: int, words: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_claiming(side, side))
    with pytest.raises(PictureError, match=words):
        load_picture(path)


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    path = save(tmp_path / "small.png", gradient())
    with pytest.raises(PictureError, match="24 x 16 pixels"):
        load_picture(path, max_pixels=100)


def _bytes_of(kind: str) -> bytes:
    stream = io.BytesIO()
    gradient(size=(200, 150)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.2, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, part: float) -> None:
    data = _bytes_of(kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(PictureError, match=r"cut is (corrupt or truncated|no picture)"):
        load_picture(path)


def test_a_corrupt_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(_bytes_of("PNG"))
    data[60:90] = b"\xff" * 30
    path = tmp_path / "bad.png"
    path.write_bytes(bytes(data))
    with pytest.raises(PictureError, match=r"bad\.png is corrupt"):
        load_picture(path)


def test_large_texts_in_a_png_are_left_out_and_the_picture_is_whole(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_itxt("workflow", "x" * 3_000_000, zip=True)
    texts.add_text("parameters", "y" * 3_000_000, zip=True)
    image, path = Image.effect_noise((60, 60), 90), tmp_path / "generated.png"
    image.save(path, pnginfo=texts, icc_profile=b"z" * 2_000_000)
    picture = load_picture(path)
    assert np.array_equal(np.asarray(picture.image), np.asarray(image.convert("RGB")))
    assert not picture.note
    path.write_bytes(path.read_bytes()[:-1000])  # cut short as well: that is still told
    with pytest.raises(PictureError, match="corrupt or truncated"):
        load_picture(path)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    text, empty = tmp_path / "notes.txt", tmp_path / "empty.png"
    text.write_text("hello")
    empty.touch()
    with pytest.raises(PictureError, match="is not a readable picture"):
        load_picture(text)
    with pytest.raises(PictureError, match="0 bytes"):
        load_picture(empty)


def test_formats_that_run_other_programs_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "page.eps"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(PictureError, match="is not a readable picture"):
        load_picture(path)


def test_what_is_no_file_is_a_mistake_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        load_picture(tmp_path / "missing.png")
    with pytest.raises(UsageError, match="is a folder"):
        load_picture(tmp_path)


def test_a_thread_of_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="too long and thin"):
        load_picture(save(tmp_path / "thread.png", Image.new("L", (1000, 2))))


def test_names_are_made_unique(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "cat.png", gradient())
    pictures = load_pictures([tmp_path / "a" / "cat.png", tmp_path / "b" / "cat.png"])
    assert [picture.name for picture in pictures] == ["cat", "cat-2"]


def test_from_memory() -> None:
    picture = Picture.from_image(gradient("RGBA"), "mine")
    assert picture.image.mode == "RGB" and picture.path is None
    assert picture.sha256 == Picture.from_image(gradient("RGBA"), "other").sha256
    assert picture.sha256 != Picture.from_image(gradient("L"), "mine").sha256


def test_a_name_of_several_lines_becomes_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "cat\nreport: elsewhere.png")
    assert load_picture(tmp_path / "cat\nreport: elsewhere.png").name == r"cat\nreport: elsewhere"


def test_a_name_that_is_no_text_becomes_one(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        save(path, gradient())
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert load_picture(path).name == "caf?"


def test_pictures_of_a_list_are_opened_when_asked_for_and_one_stays_in_memory(tmp_path: Path) -> None:
    for number in range(3):
        gradient().rotate(90 * number).save(tmp_path / f"{number}.png")
    lazy = load_pictures(sorted(tmp_path.glob("*.png")))
    eager = [load_picture(path) for path in sorted(tmp_path.glob("*.png"))]
    for one, other in zip(lazy, eager, strict=True):
        assert (one.name, one.sha256, one.note) == (other.name, other.sha256, other.note)
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
        assert one.image is one.image  # decoded once while it is looked at
        assert not isinstance(one.pixels, Image.Image)
        assert not isinstance(replace(one, name="other").pixels, Image.Image)


def test_a_file_that_changes_after_it_was_looked_through_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        gradient().save(tmp_path / f"{name}.png")
    gradient().rotate(90).save(tmp_path / "two.png")
    first, _ = load_pictures([tmp_path / "one.png", tmp_path / "two.png"])
    gradient().rotate(180).save(tmp_path / "one.png")
    with pytest.raises(PictureError, match=r"one\.png has changed"):
        _ = first.image


def test_a_picture_that_is_sent_to_another_machine_takes_its_file_along(tmp_path: Path) -> None:
    gradient().save(tmp_path / "one.png")
    (picture,) = load_pictures([tmp_path / "one.png"])
    sent = pickle.dumps(picture)
    (tmp_path / "one.png").unlink()
    arrived = pickle.loads(sent)
    assert arrived.sha256 == picture.sha256
    assert np.array_equal(np.asarray(arrived.image), np.asarray(gradient()))


def test_a_file_that_changed_is_not_sent_to_another_machine(tmp_path: Path) -> None:
    gradient().save(tmp_path / "one.png")
    (picture,) = load_pictures([tmp_path / "one.png"])
    gradient().rotate(180).save(tmp_path / "one.png")
    with pytest.raises(PictureError, match=r"one\.png has changed"):
        pickle.dumps(picture)
