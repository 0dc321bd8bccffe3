"""Pictures that other sites show beside a link (Open Graph): to an input, to one of its heads."""

import io
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from steerlens.atlas import Atlas, Reading, SiteScore
from steerlens.printable import printable
from steerlens.report.terms import two
from steerlens.report.words import words

SIZE = (1200, 630)
"""Width and height in pixels, in the proportions that sites expect."""

_PAPER, _INK, _QUIET, _ACCENT = "#fdfcf9", "#1d2026", "#646a73", "#225ea8"
_MARGIN, _GAP, _TILES, _LEAST_TILES = 60, 22, 5, 4
_HEADING, _CAPTION = 150, 84
"""Pixels above the tiles, and of the words under each."""


def social_picture(atlas: Atlas, reading: Reading, title: str) -> bytes:
    """Draws the picture of an input's page as JPEG."""
    return _sheet(title, _tiles(atlas, reading))


def head_picture(atlas: Atlas, reading: Reading, score: SiteScore, title: str) -> bytes:
    """Draws the picture of a head's page as JPEG: the input, its reconstruction, the head and its control."""
    tiles = _references(atlas, reading)
    tiles.append((score.image.convert("RGB"), score.site.label, f"similarity {two(score.similarity)}"))
    tiles += [
        (control.image.convert("RGB"), "Random control", f"similarity {two(control.similarity)}")
        for control in atlas.cells("control", score.site, reading.id)[:1]
    ]
    return _sheet(title, tiles)


def _sheet(title: str, tiles: list[tuple[Image.Image, str, str]]) -> bytes:
    sheet = Image.new("RGB", SIZE, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 52), "steerlens", fill=_ACCENT, font=_font(24, bold=True))
    heading = _fitting(draw, title, 46, SIZE[0] - 2 * _MARGIN)
    draw.text((_MARGIN, 92), heading[0], fill=_INK, font=heading[1])
    columns = min(max(len(tiles), _LEAST_TILES), _TILES)
    side = (SIZE[0] - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    top = _HEADING + (SIZE[1] - _HEADING - side - _CAPTION) // 2
    for index, (picture, name, score) in enumerate(tiles):
        left = _MARGIN + index * (side + _GAP)
        sheet.paste(_square(picture, side), (left, top))
        label = _fitting(draw, name, 26, side)
        draw.text((left, top + side + 14), label[0], fill=_INK, font=label[1])
        draw.text((left, top + side + 50), score, fill=_QUIET, font=_font(22))
    buffer = io.BytesIO()
    sheet.save(buffer, format="jpeg", quality=86, optimize=True)
    return buffer.getvalue()


def _tiles(atlas: Atlas, reading: Reading) -> list[tuple[Image.Image, str, str]]:
    tiles = _references(atlas, reading)
    lens = atlas.ranking_lens(reading.id)
    best = () if lens is None else atlas.ranked(lens, reading.id, k=_TILES - len(tiles))
    tiles += [(score.image.convert("RGB"), score.site.label, f"similarity {two(score.similarity)}") for score in best]
    return tiles


def _references(atlas: Atlas, reading: Reading) -> list[tuple[Image.Image, str, str]]:
    """The input and its clean reconstruction."""
    return [
        (reading.picture.image.convert("RGB"), reading.picture.name, "input"),
        *(
            (Image.fromarray(clean.picture), _short(words(atlas)["Clean"]), f"fidelity {two(clean.fidelity)}")
            for clean in atlas.clean(reading.id)[:1]
        ),
    ]


def _short(name: str) -> str:
    return name.removeprefix("Clean ").capitalize()


def _square(picture: Image.Image, side: int) -> Image.Image:
    small = max(picture.size) <= 64
    scale = side / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    scaled = picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    box = Image.new("RGB", (side, side), _PAPER)
    box.paste(scaled, ((side - scaled.width) // 2, (side - scaled.height) // 2))
    return box


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _fitting(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text cut to a width in pixels, in a font that is as large as allowed, and at least three quarters of it."""
    text = printable(text)
    for smaller in range(size, size * 3 // 4, -2):
        if draw.textlength(text, font=_font(smaller)) <= width:
            return text, _font(smaller)
    font = _font(size * 3 // 4)
    if draw.textlength(text, font=font) <= width:
        return text, font
    while len(text) > 1 and draw.textlength(f"{text.rstrip()}…", font=font) > width:
        text = text[:-1]
    return f"{text.rstrip()}…", font
