"""What makes decoding fast and leaves pictures as they are: slices, memory formats, compiling."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from steerlens.cli.lens.engines import compile_decoder, pays_to_compile
from steerlens.cli.lens.settings import DecodingSettings, LensSettings, WorkerSettings
from steerlens.conditioning import Conditioning
from steerlens.decoders import diffusion, saved
from steerlens.decoders.base import decode
from steerlens.decoders.diffusion import DiffusionDecoder, in_slices
from steerlens.errors import UsageError
from steerlens.loading import Pair


@pytest.mark.parametrize(("pixels", "slices"), [(1, [1] * 5), (2 * 16 * 16, [2, 2, 1]), (99 * 16 * 16, [5])])
def test_an_autoencoder_decodes_a_few_latents_at_a_time_and_every_one_once(
    pixels: int, slices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion, "_SLICE_PIXELS", pixels)
    seen: list[int] = []

    def decode(rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        return nn.functional.interpolate(rows, scale_factor=4)

    latents = torch.randn(5, 3, 4, 4)
    assert torch.equal(in_slices(decode, latents, 4), nn.functional.interpolate(latents, scale_factor=4))
    assert seen == slices


def test_pictures_do_not_depend_on_the_slices_of_the_autoencoder(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    values = Conditioning("image_embedding", torch.randn(5, pair.encoder.spec.embedding_size, generator=generator))
    options = replace(pair.decoder.spec.defaults, steps=1, guidance=1.0)
    whole = decode(pair.decoder, values, list(range(5)), options)
    height, width = options.size
    monkeypatch.setattr(diffusion, "_SLICE_PIXELS", 2 * height * width)
    assert float((decode(pair.decoder, values, list(range(5)), options) - whole).abs().max()) <= 2 / 255


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_networks_lie_channels_last_on_a_gpu_alone(
    device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = nn.Conv2d(3, 8, 3)
    weight, pixels = plain.weight.detach().clone(), torch.randn(2, 3, 8, 8)
    expected = plain(pixels)
    monkeypatch.setattr(saved, "load_module", lambda *_, **__: plain)
    kind: Any = nn.Conv2d
    loaded = saved.load_component(tmp_path, "unet", kind, torch.device(device), torch.float32)
    assert loaded.weight.is_contiguous(memory_format=torch.channels_last) == (device == "cuda")
    assert torch.equal(loaded.weight, weight)
    assert torch.allclose(loaded(pixels), expected, atol=1e-6)


def test_compiling_reaches_the_denoising_network(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: compiled.append(call) or call)
    compile_decoder(pair)
    (call,) = compiled
    assert isinstance(pair.decoder, DiffusionDecoder)
    assert call.__self__ is pair.decoder.network
    with pytest.raises(UsageError, match="no denoising network to compile"):
        compile_decoder(SimpleNamespace(decoder=SimpleNamespace(spec=SimpleNamespace(name="an index"))))  # type: ignore[arg-type]


def test_compiling_is_left_where_it_does_not_pay(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pays_to_compile(LensSettings(), pair, 10_000), "on a CPU"
    monkeypatch.setattr(DiffusionDecoder, "device", torch.device("cuda"))
    assert pays_to_compile(LensSettings(), pair, 10_000)
    assert not pays_to_compile(LensSettings(), pair, 10)
    assert not pays_to_compile(LensSettings(decoding=DecodingSettings(compile="no")), pair, 10_000)
    assert not pays_to_compile(LensSettings(workers=WorkerSettings(engine="ray")), pair, 10_000)
