"""An encoder sees the same picture, whether it comes from a file or from memory."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.encoders.transforms import apply_transform
from steerlens.errors import UsageError
from steerlens.images import decode_picture, eight_bit
from steerlens.testing.tiny import tiny_encoder


def deep_grey() -> Image.Image:
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype("<u2")
    return Image.frombytes("I;16", (40, 30), values.tobytes())


def transparent() -> Image.Image:
    image = Image.effect_noise((40, 30), 80).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    return image


def lying() -> Image.Image:
    image = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    image.getexif()[0x0112] = 6
    return image


@pytest.mark.parametrize("make", [deep_grey, transparent, lying])
@pytest.mark.parametrize("opened", [True, False], ids=["from a file", "in memory"])
def test_an_encoder_sees_the_same_from_a_file_and_from_memory(make: object, opened: bool) -> None:
    stream = io.BytesIO()
    image: Image.Image = make()  # type: ignore[operator]
    image.save(stream, "TIFF" if image.mode != "RGBA" else "PNG", exif=image.getexif())
    expected, _ = decode_picture(stream.getvalue(), "picture")
    given = Image.open(io.BytesIO(stream.getvalue())) if opened else image
    encoder = tiny_encoder()
    seen, wanted = (encoder.preprocess([each])["pixel_values"] for each in (given, expected))
    assert torch.equal(seen, wanted)

    def transform(rgb: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(rgb.resize((16, 16)))).permute(2, 0, 1).float()

    assert torch.equal(apply_transform(transform, [given], (16, 16)), apply_transform(transform, [expected], (16, 16)))


@pytest.mark.parametrize("span", [(0.0, 255.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_values_that_would_saturate_are_refused(span: tuple[float, float]) -> None:
    pictures = torch.tensor(span).reshape(2, 1, 1, 1).expand(2, 3, 8, 8)
    for convert in (eight_bit, tiny_encoder().preprocess_tensor):
        with pytest.raises(UsageError, match=r"\[0,1\]"):
            convert(pictures)
