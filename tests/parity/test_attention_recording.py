"""Recorded attention against plain code and against transformers' own eager patterns."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain import SIZES, Plain, Size, plain_forward, random_encoder, random_pixels
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from steerlens.encoders.attention import recorded_attention
from steerlens.encoders.clip import CLIPEncoder
from steerlens.errors import UsageError
from steerlens.sites import Site, all_heads
from steerlens.trace import Trace


@cache
def traced(size: Size) -> tuple[CLIPEncoder, Tensor, Trace, Plain]:
    encoder = random_encoder(size)
    pixels = random_pixels(encoder)
    return encoder, pixels, encoder.trace(pixels, attention=True), plain_forward(encoder, pixels)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patterns_and_values_are_those_of_plain_code_and_rows_sum_to_1(size: Size) -> None:
    _, _, trace, plain = traced(size)
    assert trace.attention is not None
    assert trace.values is not None
    torch.testing.assert_close(trace.attention.sum(-1), torch.ones_like(trace.attention[..., 0]), rtol=0, atol=1e-12)
    for layer in range(size.layers):
        wanted = plain.patterns[layer][:, :, :1]
        torch.testing.assert_close(trace.attention[:, layer], wanted, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(trace.values[:, layer], plain.values[layer], **size.close)


def test_patterns_are_those_that_transformers_gives_under_eager_attention() -> None:
    encoder, pixels, trace, _ = traced(SIZES[1])
    with torch.no_grad():
        native = encoder.model(pixel_values=pixels, output_attentions=True).attentions
    assert trace.attention is not None
    torch.testing.assert_close(trace.attention, torch.stack(native, dim=1)[:, :, :, :1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parts_by_token_sum_to_the_heads_write(size: Size) -> None:
    encoder, _, trace, _ = traced(size)
    for site in all_heads(size.layers, size.heads):
        parts = trace.token_writes(site)
        assert parts.shape == (len(trace), 1, encoder.spec.n_tokens, size.width)
        torch.testing.assert_close(parts.sum(dim=2), trace.at(site), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_recording_changes_nothing_else_of_the_trace(size: Size) -> None:
    encoder, pixels, trace, _ = traced(size)
    without = encoder.trace(pixels)
    assert not without.has_attention
    for missing in ("attention", "values"):
        with pytest.raises(UsageError, match="attention=True"):
            getattr(without, missing)
    torch.testing.assert_close(trace.embedding, without.embedding, **size.close)
    torch.testing.assert_close(trace.head_values, without.head_values, **size.close)


@pytest.mark.parametrize("size", SIZES[1:3], ids=str)
def test_recording_leaves_configuration_and_registry_as_they_were(size: Size) -> None:
    encoder, pixels, _, _ = traced(size)
    before = dict(ALL_ATTENTION_FUNCTIONS)
    encoder.trace(pixels, attention=True)
    assert encoder.model.config._attn_implementation == size.attn
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_recording_is_undone_after_an_exception_in_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, pixels, trace, _ = traced(SIZES[2])
    before = dict(ALL_ATTENTION_FUNCTIONS)

    def burst(*_: Any, **__: Any) -> Tensor:
        raise MemoryError("while the third layer runs")

    with monkeypatch.context() as patch, pytest.raises(MemoryError, match="third layer"):
        patch.setattr(encoder.model.vision_model.encoder.layers[2].mlp, "forward", burst)
        encoder.trace(pixels, attention=True)
    assert encoder.model.config._attn_implementation == "sdpa"
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.model.modules())
    torch.testing.assert_close(encoder.trace(pixels).embedding, trace.embedding)


def test_parts_by_token_need_a_head_and_a_trace_with_attention() -> None:
    encoder, pixels, trace, _ = traced(SIZES[2])
    with pytest.raises(UsageError, match=r"mlp_out\.1: only a head's write"):
        trace.token_writes(Site("mlp_out", 1))
    with pytest.raises(UsageError, match="attention=True"):
        encoder.trace(pixels).token_writes(Site("head", 1, 1))


class Attention(nn.Module):
    """The way a transformers model calls attention, mask included, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation="sdpa", _attn_implementation_internal="sdpa")

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation_internal]
        return attend(self, query, key, value, mask, scaling=0.25)[0]


@pytest.mark.parametrize("kind", ["boolean", "additive", "boolean for all queries"])
def test_a_masked_token_gets_no_attention_in_the_recorded_pattern(kind: str) -> None:
    attention, generator = Attention(), torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3))
    allowed = torch.ones(2, 1, 1 if kind == "boolean for all queries" else 5, 5, dtype=torch.bool)
    allowed[1, ..., 3:] = False
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf) if kind == "additive" else allowed
    with recorded_attention({attention: 0}, tokens=[0, 4]) as recorded:
        output = attention(query, key, value, mask)
    pattern, values = recorded[0].pattern, recorded[0].values
    assert pattern.shape == (2, 3, 2, 5)
    assert (pattern[1, ..., 3:] == 0).all()
    assert (pattern[0, ..., 3:] > 0).all()
    torch.testing.assert_close(pattern @ values, output.transpose(1, 2)[:, :, [0, 4]])
