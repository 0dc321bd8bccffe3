"""Inputs as the encoder saw them, after its preprocessing cropped, squashed or padded them."""

from PIL import Image

from steerlens.atlas import Atlas, Reading


def seen_picture(atlas: Atlas, reading: Reading) -> Image.Image:
    """The input as the encoder saw it, padding in white; the whole picture if the geometry is not known."""
    picture, geometry = reading.picture.image, atlas.encoder.geometry
    if geometry is None or geometry.resize == "unknown":
        return picture
    view = atlas.encoder.view(picture.size)
    left, top, right, bottom = view.box
    height, width = view.window
    # Not smaller than the picture itself: its pixels are kept, only the proportions are those of the model's input.
    scale = max((right - left) / width, (bottom - top) / height)
    across, down = scale * width / (right - left), scale * height / (bottom - top)
    inside = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
    place = [
        round((inside[0] - left) * across),
        round((inside[1] - top) * down),
        round((inside[2] - left) * across),
        round((inside[3] - top) * down),
    ]
    whole = Image.new("RGB", (max(round(width * scale), 1), max(round(height * scale), 1)), "white")
    size = (max(place[2] - place[0], 1), max(place[3] - place[1], 1))
    whole.paste(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=inside), (place[0], place[1]))
    return whole
