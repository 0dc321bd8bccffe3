"""Every decoder family against its own diffusers pipeline, loaded from a saved folder, on tiny random weights."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FluxPriorReduxPipeline
from diffusers.models.autoencoders import autoencoder_rae
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import SiglipVisionConfig

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, check_fit, clean_conditioning, decode
from steerlens.decoders.flux_redux import FluxReduxDecoder
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
from steerlens.testing.tiny_decoders import save_tiny_decoder, tiny_pipeline, tiny_redux
from steerlens.testing.tiny_families import tiny_family_encoder
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


@pytest.fixture(scope="module")
def flux(folders: Any) -> Any:
    options = DecodeOptions(4, 2.5, "euler", (16, 16))
    given = {"device": torch.device("cpu"), "dtype": torch.float32, "options": options}
    return FluxReduxDecoder.from_folder(folders("flux-redux"), None, **given)


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_flux_redux_gives_the_pictures_of_its_two_pipelines(flux: Any, size: tuple[int, int]) -> None:
    pipe, encoder = tiny_pipeline("flux-redux"), tiny_family_encoder("SiglipVisionModel")
    prior: Any = FluxPriorReduxPipeline(encoder.model, encoder.processor, tiny_redux())
    pictures = [Image.fromarray(np.full((16, 16, 3), value, dtype=np.uint8)) for value in (20, 200)]
    inputs = encoder.preprocess(pictures)
    with torch.no_grad():  # the prior's own call has FLUX's sizes written into it
        wanted_tokens = prior.encode_image(pictures, "cpu", 1)
        rows = prior.image_embedder(wanted_tokens).image_embeds
    tokens = clean_conditioning(encoder, flux, inputs)
    torch.testing.assert_close(tokens.values, wanted_tokens, rtol=1e-5, atol=1e-5)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (4, 9)]
    given: dict[str, Any] = {"guidance_scale": 2.5, "num_inference_steps": 4, "height": size[0], "width": size[1]}
    given |= {"prompt_embeds": torch.cat([rows.new_zeros(2, 512, 16), rows], dim=1), "generator": generators}
    pixels = pipe(**given, pooled_prompt_embeds=torch.zeros(2, 8), output_type="np").images
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    got = decode(flux, tokens, [4, 9], replace(flux.spec.defaults, size=size))
    assert wanted.std() > 0.02
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)


def test_the_conformance_checks_pass_for_flux_redux(flux: Any) -> None:
    # Many tokens that agree, since the empty text takes part in every attention with 512.
    rows = 3 * torch.randn(4, 1, 32, generator=torch.Generator().manual_seed(1))
    check_decoder(flux, rows.expand(-1, 400, -1)).require()
    defaults, tokens = flux.spec.defaults, Conditioning("image_tokens", torch.ones(1, 4, 32))
    with pytest.raises(UsageError, match="takes Euler steps alone"):
        decode(flux, tokens, [0], replace(defaults, scheduler="ddim"))
    free = decode(flux, tokens, [0], replace(defaults, guidance=1.0))
    torch.testing.assert_close(decode(flux, tokens, [0], replace(defaults, guidance_interval=(0.0, 0.0))), free)
    assert (decode(flux, tokens, [0]) - free).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("image_embedder/diffusion_pytorch_model", {"redux_up.weight": None}, "is no Redux embedder"),
        ("image_embedder/diffusion_pytorch_model", {"redux_up.bias": torch.full((48,), torch.nan)}, "not finite"),
        ("image_encoder/model", {"vision_model.post_layernorm.bias": None}, "holds no post_layernorm"),
    ],
)
def test_a_damaged_redux_is_refused(file: str, damage: Any, words: str, folders: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("flux-redux"), tmp_path / "flux"))
    path = folder / f"{file}.safetensors"
    weights = load_file(path)
    own = {name if name in weights else name.removeprefix("vision_model."): value for name, value in damage.items()}
    save_file({name: value for name, value in {**weights, **own}.items() if value is not None}, path)
    with pytest.raises(ModelError, match=words):
        FluxReduxDecoder.from_folder(folder, None, device=torch.device("cpu"), dtype=torch.float32)


def test_files_of_flux_are_its_shards() -> None:
    files = FluxReduxDecoder.saved_as.decoder_files
    assert "transformer/diffusion_pytorch_model-00003-of-00003.safetensors" in files
    assert "transformer/diffusion_pytorch_model.safetensors.index.json" in files
    assert "transformer/diffusion_pytorch_model.safetensors" not in files


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
    _check_threads(flattened)
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


def _check_threads(flattened: bool) -> None:
    """A second thread builds only when the first is done, so that the first takes nothing from under it."""
    entered, leave, replaced = Event(), Event(), list[bool]()

    def second() -> None:
        with expected_tower():
            entered.set()
            leave.wait()
            replaced.append(autoencoder_rae.SiglipVisionModel is NestedTower)

    thread = Thread(target=second, daemon=True)
    with expected_tower():
        thread.start()
        assert not entered.wait(0.5)
    leave.set()
    thread.join()
    assert replaced == [flattened]
