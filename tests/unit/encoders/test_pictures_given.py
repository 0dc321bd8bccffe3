"""An encoder sees the same picture, whether it comes from a file or from memory."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens import load_encoder
from steerlens.encoders.transforms import apply_transform
from steerlens.errors import ModelError, UsageError
from steerlens.images import decode_picture, eight_bit
from steerlens.testing.tiny import tiny_encoder, tiny_processor


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


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of NumPy, which divides
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"do_rescale": False}, r"944 apart.*do_rescale: true"),
        ({"rescale_factor": 0.0}, "the same values for black and for white"),
        ({"image_std": [0.0, 1.0, 1.0]}, "not finite; check its mean and std"),
        ({"image_mean": [float("nan")] * 3}, "not finite; check its mean and std"),
    ],
)
def test_preprocessing_that_no_model_was_trained_on_is_refused(settings: dict[str, Any], words: str) -> None:
    processor = tiny_processor()
    vars(processor).update({"image_std": [0.27, 0.27, 0.27], **settings})
    with pytest.raises(ModelError, match=words):
        load_encoder(tiny_encoder().model, processor, name="mine")


def test_preprocessing_of_values_up_to_255_is_taken() -> None:
    processor = tiny_processor()
    vars(processor).update({"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [1.0, 1.0, 1.0]})
    assert load_encoder(tiny_encoder().model, processor, name="mine").spec.geometry is not None
