"""The trace against plain code and against raw hooks on the native model."""

from functools import cache

import pytest
import torch
from plain import SIZES, Plain, Size, plain_forward, random_encoder, random_pixels
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.sites import Site, SiteKind, all_heads, layer_sites
from steerlens.trace import Trace


def native_sites(encoder: CLIPEncoder) -> list[Site]:
    kinds: tuple[SiteKind, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    return [Site("embed"), *(site for kind in kinds for site in layer_sites(kind, L)), *all_heads(L, H)]


@cache
def traced(size: Size) -> tuple[CLIPEncoder, Tensor, Trace, Plain]:
    encoder = random_encoder(size)
    pixels = random_pixels(encoder)
    return encoder, pixels, encoder.trace(pixels), plain_forward(encoder, pixels)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_site_of_a_trace_holds_what_plain_code_computes_there(size: Size) -> None:
    encoder, _, trace, plain = traced(size)
    for site in native_sites(encoder):
        wanted = plain.sites[str(site)][:, :1]
        torch.testing.assert_close(trace.at(site), wanted, **size.close, msg=lambda m, s=site: f"{s}: {m}")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_record_holds_every_site_on_every_token(size: Size) -> None:
    encoder, pixels, _, plain = traced(size)
    recorded = encoder.record(pixels, native_sites(encoder))
    assert list(recorded) == native_sites(encoder)
    for site, value in recorded.items():
        torch.testing.assert_close(value, plain.sites[str(site)], **size.close, msg=lambda m, s=site: f"{s}: {m}")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_embedding_of_a_trace_is_the_native_one_and_the_plain_one(size: Size) -> None:
    encoder, pixels, trace, plain = traced(size)
    with torch.no_grad():
        native = encoder.model(pixel_values=pixels).image_embeds
    assert torch.equal(trace.embedding, native)
    torch.testing.assert_close(native, plain.embedding, **size.close)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_heads_write_is_what_attention_loses_when_its_slice_is_zeroed(size: Size) -> None:
    encoder, pixels, trace, _ = traced(size)
    d = encoder.spec.width // encoder.spec.n_heads
    for site in all_heads(encoder.spec.n_layers, encoder.spec.n_heads):
        attention = encoder.model.vision_model.encoder.layers[site.layer].self_attn
        outputs: list[Tensor] = []

        def zero_slice(_: object, args: tuple[Tensor], head: int = site.head) -> tuple[Tensor]:
            changed = args[0].clone()
            changed[..., head * d : (head + 1) * d] = 0
            return (changed,)

        watch = attention.out_proj.register_forward_hook(lambda _, __, output, kept=outputs: kept.append(output))
        with torch.no_grad():
            encoder.model(pixel_values=pixels)
            cut = attention.out_proj.register_forward_pre_hook(zero_slice)
            encoder.model(pixel_values=pixels)
        watch.remove()
        cut.remove()
        torch.testing.assert_close(trace.at(site), (outputs[0] - outputs[1])[:, :1], **size.close)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_components_sum_to_the_final_residual_at_double_precision(size: Size) -> None:
    trace = traced(size)[2]
    assert trace.components().shape[1] == 1 + size.layers * (size.heads + 2)
    assert trace.check() < 1e-13


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_components_sum_to_the_final_residual_within_1e5_in_float32(size: Size) -> None:
    encoder = random_encoder(size, torch.float32)
    assert encoder.trace(random_pixels(encoder)).check(1e-5) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_trace_in_half_precision_passes_the_check_for_half_precision(dtype: torch.dtype) -> None:
    encoder = random_encoder(SIZES[1], dtype)
    trace = encoder.trace(random_pixels(encoder))
    assert trace.final.dtype == dtype
    assert trace.check() > 1e-5  # The rounding of the residual stream itself: float32's limit would refuse it.


def test_a_picture_traced_alone_has_the_trace_it_has_in_a_batch() -> None:
    encoder, pixels, trace, _ = traced(SIZES[2])
    for index in range(len(pixels)):
        alone, picked = encoder.trace(pixels[index : index + 1]), trace.select(index)
        for name in ("embed", "head_values", "attn_out", "mlp_out", "resid_post", "embedding"):
            torch.testing.assert_close(getattr(alone, name), getattr(picked, name), **SIZES[2].close)


def test_tracing_keeps_copies_of_readout_tokens_and_not_whole_activations() -> None:
    encoder, pixels, trace, _ = traced(SIZES[2])
    L, D = encoder.spec.n_layers, encoder.spec.width
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in captured(trace)}
    per_picture = (D * (1 + 4 * L) + encoder.spec.embedding_size) * 8
    assert sum(held.values()) == trace.nbytes == per_picture * len(pixels)


def captured(trace: Trace) -> list[Tensor]:
    return [trace.embed, trace.head_values, trace.attn_out, trace.mlp_out, trace.resid_post, trace.embedding]


def test_the_weights_of_a_trace_are_views_of_the_models_own() -> None:
    encoder, _, trace, _ = traced(SIZES[2])
    for weights, block in zip(trace.out_weights, encoder.model.vision_model.encoder.layers, strict=True):
        assert weights.untyped_storage().data_ptr() == block.self_attn.out_proj.weight.untyped_storage().data_ptr()
        assert not weights.requires_grad


def test_readout_of_the_final_residual_is_the_native_embedding() -> None:
    encoder, _, trace, _ = traced(SIZES[2])
    with torch.no_grad():
        torch.testing.assert_close(encoder.readout(trace.final), trace.embedding, **SIZES[2].close)


def test_the_bundled_encoder_decomposes_within_1e5(emoji: object) -> None:
    encoder = emoji.encoder  # type: ignore[attr-defined]
    trace = encoder.trace(random_pixels(encoder, 2))
    assert trace.check(1e-5) <= 1e-5
