"""Linear attribution: its parts add up to the embedding, and each equals plain code with a fixed divisor."""

import pytest
import torch
import transformers
from torch import Tensor, nn

from steerlens.encoders.aimv2 import AIMv2Encoder
from steerlens.encoders.clip import CLIPEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.lenses.attribution import LinearAttribution
from steerlens.sites import Site, all_heads
from steerlens.testing.encoder_checks import noise_pictures
from steerlens.testing.tiny import tiny_encoder
from steerlens.testing.tiny_families import MODELS, tiny_family_encoder, tiny_family_processor, tiny_model
from steerlens.testing.tiny_vit import randomise
from steerlens.trace import Trace

BENT = {"SiglipVisionModel", "SiglipModel", "Siglip2VisionModel", "Siglip2Model", "ViTModel", "DeiTModel"}
BENT |= {"Aimv2VisionModel", "Aimv2Model"}
"""Models with a pooling head or a pooler behind their final norm, which are not linear."""


@pytest.mark.parametrize("kind", sorted(set(MODELS) - BENT))
def test_the_parts_of_an_embedding_add_up_to_it(kind: str) -> None:
    encoder = tiny_family_encoder(kind, dtype=torch.float64)
    trace = encoder.trace(noise_pictures(encoder))
    attribution = LinearAttribution(encoder)
    total = attribution.constant(trace) + attribution.of(trace, trace.components()).sum(dim=1)
    torch.testing.assert_close(total, trace.embedding, rtol=1e-9, atol=1e-9)
    assert not any(module._forward_hooks for module in encoder.model.modules())


def test_the_parts_add_up_before_an_rms_norm_too() -> None:
    config = tiny_model("Aimv2VisionModel").config
    config.use_head = False
    model = randomise(transformers.Aimv2VisionModel(config), seed=1).double()
    encoder = AIMv2Encoder(model, tiny_family_processor("Aimv2VisionModel"))
    trace = encoder.trace(noise_pictures(encoder))
    attribution = LinearAttribution(encoder)
    total = attribution.constant(trace) + attribution.of(trace, trace.components()).sum(dim=1)
    # The model's own RMSNorm works in float32, whatever its weights are.
    torch.testing.assert_close(total, trace.embedding, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(BENT))
def test_a_readout_that_is_not_linear_after_its_norm_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="use the Steering Lens"):
        LinearAttribution(tiny_family_encoder(kind))


def clip() -> tuple[CLIPEncoder, Trace]:
    encoder = tiny_encoder(dtype=torch.float64)
    return encoder, encoder.trace(noise_pictures(encoder))


def plain(encoder: CLIPEncoder, trace: Trace, write: Tensor) -> Tensor:
    norm, residual = encoder.tower.post_layernorm, trace.final[:, 0]
    divisor = ((residual - residual.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + norm.eps).sqrt()
    centred = write - write.mean(-1, keepdim=True)
    return (centred / divisor * norm.weight) @ encoder.model.visual_projection.weight.T


def test_an_attribution_is_what_plain_code_with_the_divisor_of_the_clean_run_gives() -> None:
    encoder, trace = clip()
    sites = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    got = LinearAttribution(encoder).embeddings(trace, sites)
    for index, site in enumerate(sites):
        wanted = plain(encoder, trace, trace.at(site)[:, 0])
        torch.testing.assert_close(got[:, index], wanted.detach(), rtol=1e-9, atol=1e-12)


def test_an_attribution_is_linear_and_takes_directions() -> None:
    encoder, trace = clip()
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attribution = LinearAttribution(encoder, {"mine": direction})
    one = attribution.embeddings(trace, [Site("vector", name="mine")])
    parts = (-3 * direction).expand_as(trace.final)[:, None]
    torch.testing.assert_close(attribution.of(trace, parts), -3 * one, rtol=1e-9, atol=1e-12)


def test_a_head_that_bends_behind_the_norm_is_refused() -> None:
    model = tiny_model("CLIPVisionModelWithProjection")
    size, width = model.visual_projection.weight.shape
    model.visual_projection = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, size))
    with pytest.raises(ModelError, match=r"visual_projection is a .*Sequential, which is not known"):
        CLIPEncoder(model, tiny_family_processor("CLIPVisionModelWithProjection"))
