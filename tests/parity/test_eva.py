"""timm's class `Eva`, alone and as a tower of open_clip, against timm's own forward passes."""

from typing import Any

import pytest
import torch
from one_picture import check_rows_of_one_picture
from raw_hooks import CLOSE, pixels
from torch import Tensor, nn

from steerlens.encoders.open_clip import OpenCLIPTimmEncoder
from steerlens.encoders.prefix import record_prefix, resume
from steerlens.encoders.timm import TimmEncoder
from steerlens.errors import ModelError
from steerlens.interventions import Zero
from steerlens.lenses.regions import token_part
from steerlens.sites import Site, all_heads
from steerlens.testing.checks import check_encoder
from steerlens.testing.encoder_checks import relative
from steerlens.testing.tiny import tiny_processor
from steerlens.testing.tiny_vit import (
    EVA_TOWERS,
    EVA_VARIANTS,
    SIZE,
    randomise,
    tiny_eva_encoder,
    tiny_eva_model,
    tiny_open_clip_eva_encoder,
    tiny_open_clip_eva_model,
)

variants = pytest.mark.parametrize("options", EVA_VARIANTS.values(), ids=list(EVA_VARIANTS))
pytestmark = pytest.mark.usefixtures("timm")


def double(**options: Any) -> TimmEncoder:
    return tiny_eva_encoder(dtype=torch.float64, **options)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_variant_passes_the_checks(options: dict[str, Any], dtype: torch.dtype) -> None:
    report = check_encoder(tiny_eva_encoder(dtype=dtype, **options))
    report.require(whole=dtype == torch.float32)
    if dtype == torch.float32:
        assert report.relative_error <= 1e-5


@variants
def test_the_classifier_on_the_embedding_is_the_models_own_forward_pass(options: dict[str, Any]) -> None:
    encoder = double(**options)
    with torch.no_grad():
        wanted = encoder.model(pixels(encoder))
        torch.testing.assert_close(encoder.model.head(encoder.embed(pixels(encoder))), wanted, **CLOSE)


@variants
def test_recorded_attention_is_what_timm_computes_without_fused_kernels(options: dict[str, Any]) -> None:
    encoder = double(**options)
    trace = encoder.trace(pixels(encoder), attention=True)
    patterns = list[Tensor]()
    for block in encoder.model.blocks:
        block.attn.fused_attn = False
        # timm's plain code puts its pattern through this dropout.
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: patterns.append(output))
    encoder.embed(pixels(encoder))
    wanted = torch.stack(patterns, dim=1)[:, :, :, list(encoder.readout_tokens)]
    assert trace.attention is not None
    torch.testing.assert_close(trace.attention, wanted, **CLOSE)


@pytest.mark.parametrize("name", ["EVA-CLIP", "separate bias", "RMSNorm of heads", "DINOv3"])
def test_the_part_read_from_some_tokens_is_the_sum_of_its_tokens(name: str) -> None:
    encoder = double(**EVA_VARIANTS[name])
    trace = encoder.trace(pixels(encoder), attention=True)
    weights = torch.linspace(0.1, 0.9, encoder.spec.n_tokens)
    for site in all_heads(2, 2):
        parts = trace.token_writes(site)
        torch.testing.assert_close(parts.sum(dim=2), trace.at(site), **CLOSE)
        wanted = (weights[:, None] * parts).sum(dim=2).float()
        torch.testing.assert_close(token_part(trace, site, weights), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(trace.select(1).token_writes(site), parts[1:2], **CLOSE)


def test_attention_without_the_fused_kernel_is_refused_with_what_to_do() -> None:
    encoder = tiny_eva_encoder()
    encoder.model.blocks[1].attn.fused_attn = False
    encoder.trace(pixels(encoder))
    with pytest.raises(ModelError, match=r"layer 1 called .* 0 times .* turn the library's fused attention on"):
        encoder.trace(pixels(encoder), attention=True)


@pytest.mark.parametrize("name", ["EVA-02", "mixed rotary", "DINOv3"])
def test_resumed_passes_share_rotary_positions_though_they_have_as_many_rows_as_pictures(name: str) -> None:
    """Four patches and four pictures, two heads and two pictures: a row of positions is no row of a batch."""
    encoder = double(**EVA_VARIANTS[name])
    for count in (2, 4):
        inputs = pixels(encoder, count)
        prefix, zero = record_prefix(encoder, inputs), Zero(Site("head", 1, 0))
        rows = [count - 1, 0, 0]
        wanted = encoder.embed(inputs[rows], [zero])
        torch.testing.assert_close(resume(encoder, prefix, 1, rows, [zero]), wanted, **CLOSE)


@variants
def test_rows_of_one_picture_share_what_comes_before_their_changes(options: dict[str, Any]) -> None:
    encoder = double(**options)
    check_rows_of_one_picture(encoder, {"pixel_values": pixels(encoder)}, CLOSE)


@pytest.mark.parametrize("name", EVA_TOWERS)
def test_towers_of_open_clip_trace_as_timm_does(name: str, open_clip: Any) -> None:
    tower = tiny_open_clip_eva_model(**EVA_VARIANTS[name])
    own, other = OpenCLIPTimmEncoder(tower, tiny_processor(SIZE)), TimmEncoder(tower.trunk, tiny_processor(SIZE))
    report = check_encoder(own)
    report.require(whole=True)
    assert report.relative_error <= 1e-5
    with torch.no_grad():
        wanted = tower(pixels(own))
        assert relative(own.embed(pixels(own)), wanted) <= 1e-5
        assert relative(tower.trunk.head(other.embed(pixels(own))), wanted) <= 1e-5
    mine, theirs = own.trace(pixels(own), attention=True), other.trace(pixels(own), attention=True)
    for part in ("embed", "head_values", "attn_out", "mlp_out", "resid_post", "attn_bias", "attention", "values"):
        assert relative(getattr(theirs, part), getattr(mine, part)) <= 1e-5, part


def test_towers_of_open_clip_work_in_half_precision(open_clip: Any) -> None:
    check_encoder(tiny_open_clip_eva_encoder(dtype=torch.bfloat16, **EVA_VARIANTS["EVA-CLIP"])).require()


def test_every_eva_of_timm_is_opened_or_refused_by_name(timm: Any) -> None:
    refused = list[str]()
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2.0, "num_classes": 0}
    names = timm.list_models(module="eva")
    assert len(names) > 60
    for name in names:
        side = 28 if "patch14" in name else 32
        shared = {"num_kv_heads": 1} if "sapiens2" in name else {}
        model = timm.create_model(name, img_size=side, **small, **shared)
        try:
            encoder = TimmEncoder(randomise(model), tiny_processor(side))
        except ModelError as error:
            assert "EvaBlockPostNorm" in str(error)
            refused.append(name)
            continue
        trace = encoder.trace(pixels(encoder, 1), attention=True)
        assert trace.check() <= 1e-5, name
        for site in all_heads(2, 2):
            assert relative(trace.token_writes(site).sum(dim=2), trace.at(site)) <= 1e-5, name
    assert refused == ["eva02_enormous_patch14_clip_224"]


class DoubledLinear(nn.Linear):
    """A layer whose output depends on more than its weight."""


class DoubledDropout(nn.Dropout):
    """A dropout of a kind that the adapter does not know."""


def replaced(path: str, module: nn.Module, **options: Any) -> Any:
    model = tiny_eva_model(**options)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    return model


REFUSED: dict[str, tuple[Any, str]] = {
    "norm after the projection": (
        lambda: tiny_eva_model(use_post_norm=True),
        r"blocks\.0 is an EvaBlockPostNorm: .*no head writes .* not supported",
    ),
    "another projection": (
        lambda: replaced("blocks.1.attn.proj", DoubledLinear(16, 16)),
        r"blocks\.1\.attn\.proj is a .*DoubledLinear, which is not known",
    ),
    "something after attention": (
        lambda: replaced("blocks.0.drop_path1", DoubledDropout()),
        r"blocks\.0\.drop_path1 is a .*DoubledDropout",
    ),
    "another norm inside": (
        lambda: replaced("blocks.0.attn.norm", nn.GroupNorm(2, 16), scale_attn_inner=True),
        r"blocks\.0\.attn\.norm is a .*GroupNorm",
    ),
    "one part more": (lambda: replaced("neck", nn.Linear(16, 16)), "neck is there unexpectedly"),
    "no pooling": (lambda: tiny_eva_model(global_pool=""), "gives tokens, not one embedding"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_recognised_is_refused_with_its_name(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(ModelError, match=words):
        TimmEncoder(make(), tiny_processor(SIZE))
