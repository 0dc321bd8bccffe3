"""What callers give to an encoder: other kinds of values are refused with a sentence that says what to give."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from steerlens.borders import mixed_precision, refuse_autocast
from steerlens.conditioning import Conditioning
from steerlens.decoders import DecodeOptions, decode
from steerlens.decoders.batches import BatchSize, decode_in_batches
from steerlens.errors import PictureError, UsageError
from steerlens.interventions import Scale, Zero
from steerlens.lenses.steering import SteeringLens
from steerlens.testing.tiny import tiny_encoder


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("given", [Image.new("RGB", (8, 8)), [], ["cat.png"], [torch.zeros(3, 8, 8)], None], ids=type)
def test_preprocess_takes_a_list_of_pil_images(given: Any) -> None:
    with pytest.raises(UsageError, match="takes a list of PIL images"):
        tiny_encoder().preprocess(given)


def test_a_picture_without_pixels_is_no_picture() -> None:
    with pytest.raises(PictureError, match="no pixels: it is 0 x 4"):
        tiny_encoder().preprocess([Image.new("RGB", (0, 4))])


@pytest.mark.parametrize(
    "given",
    [
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),  # 0 to 255, which no norm of the processor has seen
        torch.zeros(0, 3, 16, 16),
        torch.tensor(1.0),
        torch.zeros(1, 3, 16, 16).numpy(),
        {},
        Image.new("RGB", (16, 16)),
    ],
    ids=["uint8", "empty", "number", "array", "no name", "picture"],
)
def test_inputs_are_normalised_values_in_floating_point(given: Any) -> None:
    encoder = tiny_encoder()
    for call in (encoder.embed, encoder.trace):
        with pytest.raises(UsageError, match="takes what its `preprocess` returns, or normalised pixel values"):
            call(given)


@pytest.mark.parametrize("given", [Zero("L1H1"), ["L1H1"], "L1H1", {"L1H1": 0}], ids=str)
def test_interventions_are_a_list(pixels: Tensor, given: Any) -> None:
    with pytest.raises(UsageError, match="interventions are given as a list"):
        tiny_encoder().embed(pixels, given)


def test_autocast_is_refused_in_every_pass(pixels: Tensor, pair: Any) -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(pixels)
    lens = SteeringLens(encoder, "rho=1")
    row = Conditioning("image_embedding", torch.zeros(1, pair.decoder.spec.embedding_size))
    calls = [
        lambda: encoder.trace(pixels),
        lambda: encoder.embed(pixels, [Scale("L1H1", factor=2.0)]),
        lambda: lens.embeddings(trace, "L1H1"),
        lambda: decode(pair.decoder, row, [0]),
    ]
    for call in calls:
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(UsageError, match=r"autocast is on.*in bfloat16"):
            call()
    with mixed_precision(torch.device("cpu")):  # as training does on purpose
        close = encoder.embed(pixels)
    assert not torch.equal(close, trace.embedding) and torch.allclose(close.float(), trace.embedding, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert torch.equal(encoder.trace(pixels).embedding, trace.embedding)


@pytest.mark.parametrize(
    "place", ["", "vision_model", "vision_model.encoder.layers.0", "vision_model.encoder.layers.2"]
)
def test_autocast_inside_the_model_is_refused(pixels: Tensor, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    plain = encoder.trace(pixels)
    module = encoder.model.get_submodule(place)
    monkeypatch.setattr(module, "forward", torch.autocast("cpu", torch.bfloat16)(module.forward))
    with pytest.raises(UsageError, match=r"its own forward turns torch\.autocast on.*in bfloat16"):
        encoder.trace(pixels)
    with mixed_precision(torch.device("cpu")):
        assert torch.allclose(encoder.embed(pixels).float(), plain.embedding, atol=0.05)
    if place != "vision_model.encoder.layers.0":  # without hooks, the last block alone is watched
        with pytest.raises(UsageError, match="its own forward turns"):
            encoder.embed(pixels)
    monkeypatch.undo()
    assert torch.equal(encoder.trace(pixels).embedding, plain.embedding)


def test_devices_without_autocast_have_none_on() -> None:
    refuse_autocast(torch.device("meta"), "a model that is not loaded")


def test_a_decoder_may_name_its_device(pair: Any) -> None:
    native, options = pair.decoder, DecodeOptions(2, 1.0, "ddim", (16, 16))
    row = Conditioning("image_embedding", torch.zeros(1, native.spec.embedding_size))
    decoder: Any = SimpleNamespace(spec=native.spec, decode_batches=native.decode_batches, device="cpu")
    assert torch.equal(decode(decoder, row, [0], options), decode(native, row, [0], options))
    assert list(decode_in_batches(decoder, row, [0], options, BatchSize(native, options)))
