"""Every decoder family against its own diffusers pipeline, loaded from a saved folder, on tiny random weights."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, decode
from steerlens.decoders.ip_adapter import IPAdapterDecoder, IPAdapterPlusDecoder, IPAdapterXLDecoder
from steerlens.decoders.kandinsky21 import Kandinsky21Decoder
from steerlens.decoders.karlo import KarloDecoder
from steerlens.decoders.sd_image_variations import SDImageVariationsDecoder
from steerlens.decoders.stable_unclip import StableUnCLIPDecoder
from steerlens.testing.checks import check_decoder
from steerlens.testing.tiny import tiny_encoder
from steerlens.testing.tiny_decoders import EMBEDDING_SIZE, WIDTH, save_tiny_decoder, tiny_pipeline

FAMILIES: dict[str, Any] = {
    "kandinsky-2.1": Kandinsky21Decoder,
    "stable-unclip-2.1": StableUnCLIPDecoder,
    "karlo": KarloDecoder,
    "sd-image-variations": SDImageVariationsDecoder,
    "ip-adapter-sd15": IPAdapterDecoder,
    "ip-adapter-plus-sd15": IPAdapterPlusDecoder,
    "ip-adapter-sdxl": IPAdapterXLDecoder,
}
OWN_SCHEDULER = {"kandinsky-2.1": "ddim", "karlo": "ddpm", "ip-adapter-sdxl": "euler"}
SEEDS = [4, 9, 2]
TOLERANCE = 2e-4
"""A twentieth of one step of an 8-bit picture: rounding, which guidance and dividing by small noise levels amplify."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def saved(family: str) -> Path:
        return save_tiny_decoder(family, tmp_path_factory.mktemp(family))

    return saved


def negative_for(family: str) -> Tensor | None:
    encoder = tiny_encoder()
    if family == "kandinsky-2.1":
        return encoder.zero_embedding()
    return IPAdapterPlusDecoder.negative_of(encoder) if family == "ip-adapter-plus-sd15" else None


def load(family: str, folder: Path, **more: Any) -> Any:
    given = {"device": torch.device("cpu"), "dtype": torch.float32, **more}
    return FAMILIES[family].from_folder(folder, negative_for(family), **given)


def conditions(family: str, count: int = 3) -> Tensor:
    shape = (count, 5, WIDTH) if family == "ip-adapter-plus-sd15" else (count, EMBEDDING_SIZE)
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


def options_for(family: str, scheduler: str, guidance: float) -> DecodeOptions:
    return DecodeOptions(4, guidance, scheduler, (16, 16))  # type: ignore[arg-type]


def pipeline_pictures(family: str, pipe: Any, values: Tensor, guidance: float, seeds: Sequence[int] = SEEDS) -> Tensor:
    if family.startswith("ip-adapter") and len(values) > 1:
        # The pipeline repeats its image embeddings for every prompt: pictures of a batch cannot differ by them.
        rows = zip(values.split(1), SEEDS, strict=True)
        return torch.cat([pipeline_pictures(family, pipe, row, guidance, [seed]) for row, seed in rows])
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    common: dict[str, Any] = {"generator": generators, "output_type": "np"}
    if family == "karlo":
        given = {"image_embeddings": values, "decoder_num_inference_steps": 4, "decoder_guidance_scale": guidance}
        pictures = pipe(**given, **common).images
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)
    common |= {"height": 16, "width": 16, "num_inference_steps": 4, "guidance_scale": guidance}
    empty = [""] * len(values)
    if family == "kandinsky-2.1":
        negative = negative_for(family)
        assert negative is not None
        call = {"prompt": empty, "image_embeds": values, "negative_image_embeds": negative.expand_as(values)}
    elif family == "stable-unclip-2.1":
        call = {"prompt": empty, "image_embeds": values}
    elif family == "sd-image-variations":
        # The pipeline takes pictures alone; its encoder is told to give the wanted embeddings for them.
        pipe._encode_image = lambda image, device, count, guided: _one_token(values, guided)
        call = {"image": torch.zeros(len(values), 3, 16, 16)}
    else:
        image = values[:, None]
        if guidance > 1:
            negative = negative_for(family)
            zeros = torch.zeros_like(image) if negative is None else negative[:, None].expand_as(image)
            image = torch.cat([zeros, image])
        call = {"prompt": empty, "ip_adapter_image_embeds": [image]}
    return torch.from_numpy(pipe(**call, **common).images).permute(0, 3, 1, 2)


def _one_token(values: Tensor, guided: bool) -> Tensor:
    token = values[:, None]
    return torch.cat([torch.zeros_like(token), token]) if guided else token


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("scheduler", ["ddpm", "own"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_those_of_the_pipeline(family: str, scheduler: str, guidance: float, folders: Any) -> None:
    pipe, values = tiny_pipeline(family), conditions(family)
    name = OWN_SCHEDULER.get(family, "pndm") if scheduler == "own" else "ddpm"
    if scheduler == "ddpm" and family != "karlo":
        pipe.scheduler = DDPMScheduler.from_config(
            {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
        )
    wanted = pipeline_pictures(family, pipe, values, guidance)
    decoder = load(family, folders(family))
    got = decode(decoder, Conditioning(decoder.spec.consumes, values), SEEDS, options_for(family, name, guidance))
    assert wanted.std() > 0.02
    assert ((wanted > 0) & (wanted < 1)).float().mean() > 0.3
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_conformance_checks_pass(family: str, folders: Any) -> None:
    decoder, values = load(family, folders(family)), conditions(family, 4)
    report = check_decoder(decoder, values, options_for(family, OWN_SCHEDULER.get(family, "pndm"), 4.0))
    report.require()
