"""Every decoder family against its own diffusers pipeline, loaded from a saved folder, on tiny random weights."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.models.autoencoders import autoencoder_rae
from safetensors.torch import load_file
from torch import Tensor
from transformers import SiglipVisionConfig

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, check_fit, decode
from steerlens.decoders.ip_adapter import IPAdapterDecoder, IPAdapterPlusDecoder, IPAdapterXLDecoder
from steerlens.decoders.kandinsky21 import Kandinsky21Decoder
from steerlens.decoders.karlo import KarloDecoder
from steerlens.decoders.rae import RAEDecoder
from steerlens.decoders.rae.siglip import NestedTower, builds_unaided, expected_tower
from steerlens.decoders.sd_image_variations import SDImageVariationsDecoder
from steerlens.decoders.stable_unclip import StableUnCLIPDecoder
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Zero
from steerlens.sites import Site
from steerlens.testing.checks import check_decoder
from steerlens.testing.tiny import tiny_encoder
from steerlens.testing.tiny_decoders import save_tiny_decoder, tiny_pipeline
from steerlens.testing.tiny_parts import EMBEDDING_SIZE, WIDTH
from steerlens.zoo import encoder_inside

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


RAE = ["dinov2", "siglip2", "mae"]


@pytest.mark.parametrize("kind", RAE)
def test_a_representation_autoencoder_gives_its_own_reconstruction(kind: str, folders: Any) -> None:
    native, family = tiny_pipeline(f"rae-{kind}"), f"rae-{kind}"
    decoder = RAEDecoder.from_folder(folders(family), None, device=torch.device("cpu"), dtype=torch.float32)
    side = native.encoder_input_size
    pictures = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = native(pictures, return_dict=False)[0]
    encoder = encoder_inside(decoder, "tiny")
    inputs = native._resize_and_normalize(pictures)
    assert decoder.spec.tokens is not None
    site = Site("resid_post", decoder.spec.tokens.last_layer(encoder.spec.n_layers))
    tokens = decoder.tokens(encoder.record(inputs, [site])[site])
    got = decode(decoder, Conditioning("image_tokens", tokens), [0, 1, 2])
    assert wanted.std() > 0.02 and not bool(((wanted > 0) & (wanted < 1)).all())  # the native pixels are unclamped
    torch.testing.assert_close(got, wanted.clamp(0, 1), rtol=0, atol=1e-5)
    check_fit(decoder.spec, encoder.spec)
    assert encoder.trace(inputs).relative_error() < 1e-5


@pytest.mark.parametrize("kind", RAE)
def test_the_conformance_checks_pass_for_representation_autoencoders(kind: str, folders: Any) -> None:
    decoder = RAEDecoder.from_folder(folders(f"rae-{kind}"), None, device=torch.device("cpu"), dtype=torch.float32)
    values = torch.randn(4, 4, 64, generator=torch.Generator().manual_seed(1))
    check_decoder(decoder, values, stochastic=False).require()
    with pytest.raises(ModelError, match="reads 4 image tokens a picture, but was given 3"):
        decode(decoder, Conditioning("image_tokens", values[:, :3]), [0, 1, 2, 3])
    with pytest.raises(UsageError, match="16 x 16 pixels alone"):
        decode(decoder, Conditioning("image_tokens", values), [0, 1, 2, 3], DecodeOptions(1, 1.0, "none", (32, 32)))


def test_a_siglip_tower_is_replaced_only_while_diffusers_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = autoencoder_rae.SiglipVisionModel
    flattened = not hasattr(own(SiglipVisionConfig(num_hidden_layers=1)), "vision_model")
    assert builds_unaided() is not flattened
    with expected_tower():
        assert (autoencoder_rae.SiglipVisionModel is NestedTower) == flattened
    assert autoencoder_rae.SiglipVisionModel is own
    # A diffusers that reaches the norm of a flattened tower is left alone.
    monkeypatch.setattr(autoencoder_rae, "_build_encoder", lambda *_, **__: None)
    assert builds_unaided()
    with expected_tower():
        assert autoencoder_rae.SiglipVisionModel is own
    # Any other failure of its is no reason to replace anything.
    monkeypatch.setattr(autoencoder_rae, "_build_encoder", lambda *_, **__: own.no_such_part)
    with pytest.raises(AttributeError, match="no_such_part"):
        builds_unaided()


def test_weights_of_the_siglip_2_variant_have_the_published_names(folders: Any) -> None:
    names = load_file(folders("rae-siglip2") / "diffusion_pytorch_model.safetensors")
    assert "encoder.vision_model.embeddings.patch_embedding.weight" in names


def test_ip_adapter_plus_reads_what_its_pipeline_reads_and_refuses_sites_of_the_last_layer() -> None:
    encoder, pipe = tiny_encoder(), tiny_pipeline("ip-adapter-plus-sd15")
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted, negative = pipe.encode_image(pixels, "cpu", 1, True)
    source = IPAdapterPlusDecoder.token_source
    assert source is not None and not source.normed and not source.patches_only
    site = Site("resid_post", source.last_layer(encoder.spec.n_layers))
    torch.testing.assert_close(encoder.record(pixels, [site])[site], wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(IPAdapterPlusDecoder.negative_of(encoder), negative[:1], rtol=0, atol=1e-6)
    last = encoder.spec.n_layers - 1
    for late in (Site("head", last, 0), Site("mlp_out", last), Site("resid_post", last), Site("resid_mid", last)):
        with pytest.raises(
            UsageError, match=f"has no effect on what plus shows: it reads the tokens after layer {last - 1}"
        ):
            source.check(late, encoder.spec.n_layers, "plus")
    for early in (Site("head", last - 1, 0), Site("resid_pre", last), Site("embed"), Site("vector", name="x")):
        source.check(early, encoder.spec.n_layers, "plus")
    # The claim behind the refusal: removing what the last layer writes leaves the tokens as they are.
    without = encoder.record(pixels, [site], [Zero(Site("mlp_out", last)), Zero(Site("attn_out", last))])[site]
    assert torch.equal(without, encoder.record(pixels, [site])[site])
