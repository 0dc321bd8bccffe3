"""Second-order effects against native modules run one by one, their patterns and the divisors of their norms frozen."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from steerlens.encoders import NativeEncoder, value_paths
from steerlens.errors import UsageError
from steerlens.lenses import LinearAttribution, SecondOrder
from steerlens.sites import Site
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny_families import MODELS, tiny_family_encoder
from steerlens.testing.tiny_vit import tiny_eva_encoder, tiny_open_clip_encoder, tiny_timm_encoder

LAYER, UNITS = 0, (0, 3, 7)
WINDOWED = {name for name in MODELS if name.startswith("Qwen")}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


@contextmanager
def frozen(config: Any, pattern: Tensor) -> Generator[None]:
    """Attention of transformers with the given pattern in place of queries and keys."""

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return (pattern @ value).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS["frozen_by_a_test"] = attend
    before = config._attn_implementation
    config._attn_implementation_internal = "frozen_by_a_test"
    try:
        yield
    finally:
        config._attn_implementation_internal = before
        del ALL_ATTENTION_FUNCTIONS["frozen_by_a_test"]


def full_patterns(block: Any, hidden: Tensor) -> Tensor:
    """The whole pattern of a CLIP block (B,H,T,T), from its own projections."""
    normed, attention = block.layer_norm1(hidden), block.self_attn
    B, T, _ = hidden.shape
    query, key = (
        part(normed).view(B, T, attention.num_heads, -1).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj)
    )
    return (query @ key.mT * attention.scale).softmax(dim=-1)


def norm_with_divisor_of(norm: nn.LayerNorm, clean: Tensor, changed: Tensor) -> Tensor:
    """A LayerNorm of changed values with the standard deviation of the clean ones."""
    deviation = (clean.var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt()
    return (changed - changed.mean(dim=-1, keepdim=True)) / deviation * norm.weight + norm.bias


@torch.no_grad()
def oracle(encoder: NativeEncoder, inputs: Any, unit: int) -> Tensor:
    """Sum over later blocks of native attention: of the clean residual plus the neuron's write, minus the clean one."""
    spec = encoder.spec
    stream = [Site("resid_pre", layer) for layer in range(spec.n_layers)]
    neuron = Site("neuron", LAYER, index=unit)
    recorded = encoder.record(inputs, [*stream, neuron])
    total = torch.zeros_like(recorded[neuron])
    for later in range(LAYER + 1, spec.n_layers):
        block: Any = encoder.layers()[later].block
        clean = recorded[stream[later]]
        with frozen(block.self_attn.config, full_patterns(block, clean)):
            outputs = [
                block.self_attn(norm_with_divisor_of(block.layer_norm1, clean, value))[0]
                for value in (clean + recorded[neuron], clean)
            ]
        total += outputs[0] - outputs[1]
    return total[:, list(encoder.readout_tokens)]


def test_effects_equal_native_attention_with_frozen_patterns() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)
    inputs = noise_pictures(encoder)
    second = SecondOrder.of(encoder, inputs)
    sites = [Site("neuron", LAYER, index=unit) for unit in UNITS]
    found = second.writes(sites)
    for place, unit in enumerate(UNITS):
        torch.testing.assert_close(found[:, place], oracle(encoder, inputs, unit), **CLOSE)


def check_family(encoder: NativeEncoder, inputs: Any) -> None:
    """Attention with frozen patterns adds up: of the whole residual, it gives each head's write without constants."""
    second = SecondOrder.of(encoder, inputs)
    sites = [Site("neuron", LAYER, index=unit) for unit in UNITS]
    written = torch.stack([encoder.record(inputs, [site])[site] for site in sites], dim=1)
    found = second.writes(sites)
    torch.testing.assert_close(second.through_attention(written, LAYER), found, **CLOSE)
    torch.testing.assert_close(second.direct(sites), written[:, :, list(encoder.readout_tokens)], **CLOSE)
    # Only the last layer reads: the residual that enters it gives its heads, up to constants.
    last = encoder.spec.n_layers - 1
    entering = encoder.record(inputs, [Site("resid_pre", last)])[Site("resid_pre", last)]
    through = second.through_attention(torch.stack([entering, 0 * entering], dim=1), last - 1)
    heads = second.trace.head_writes(last).sum(dim=1)
    constant = (heads - through[:, 0]).flatten(0, -2)
    if second.paths.scale is None:
        torch.testing.assert_close(
            constant, constant[:1].expand_as(constant), rtol=1e-5, atol=1e-6
        )  # AIMv2's own norm works in float32
    assert not bool(through[:, 1].any())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.model.modules())


@pytest.mark.parametrize("kind", sorted(set(MODELS) - WINDOWED))
def test_every_family(kind: str) -> None:
    encoder = tiny_family_encoder(kind, dtype=torch.float64)
    check_family(encoder, noise_pictures(encoder))


@pytest.mark.parametrize("kind", sorted(WINDOWED))
def test_attention_within_windows_is_refused(kind: str) -> None:
    encoder = tiny_family_encoder(kind)
    with pytest.raises(UsageError, match="attention within windows"):
        value_paths(encoder, noise_pictures(encoder))


@pytest.mark.parametrize("make", [tiny_timm_encoder, tiny_open_clip_encoder, tiny_eva_encoder])
def test_other_libraries(make: Any) -> None:
    encoder = make(dtype=torch.float64)
    check_family(encoder, noise_pictures(encoder))


def test_contributions_are_those_of_linear_attribution_and_add_up() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection", dtype=torch.float64)
    second = SecondOrder.of(encoder, noise_pictures(encoder))
    sites = [Site("neuron", LAYER, index=unit) for unit in UNITS]
    writes = second.writes(sites)
    parts = second.contributions(writes)
    torch.testing.assert_close(parts, LinearAttribution(encoder).of(second.trace, writes), **CLOSE)
    whole = second.contributions(writes.sum(dim=1, keepdim=True))
    torch.testing.assert_close(whole[:, 0], parts.sum(dim=1), **CLOSE)


def test_neurons_of_the_last_layer_have_no_second_order_effect() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection")
    last = encoder.spec.n_layers - 1
    second = SecondOrder.of(encoder, noise_pictures(encoder))
    assert not bool(second.writes([Site("neuron", last, index=2)]).any())
    assert bool(second.direct([Site("neuron", last, index=2)]).any())


def test_what_is_no_neuron_is_refused() -> None:
    encoder = tiny_family_encoder("CLIPVisionModelWithProjection")
    second = SecondOrder.of(encoder, noise_pictures(encoder))
    with pytest.raises(UsageError, match="is not a neuron"):
        second.writes(["L0H0"])
    with pytest.raises(UsageError, match="has neurons 0 to"):
        second.writes(["neuron.0.99999"])
    with pytest.raises(UsageError, match="no neuron was named"):
        second.writes([])
    with pytest.raises(UsageError, match="are not those of"):
        second.through_attention(torch.zeros(1, 1, 1, encoder.spec.width), 0)
