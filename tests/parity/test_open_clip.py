"""The adapters of open_clip against open_clip's own forward passes and against raw hooks on its modules."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_picture import check_rows_of_one_picture
from PIL import Image
from raw_hooks import CHANGES, CLOSE, changed, pixels
from torch import Tensor, nn

from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.open_clip import OpenCLIPEncoder, OpenCLIPTimmEncoder
from steerlens.encoders.timm import TimmEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Zero
from steerlens.sites import Site, all_heads
from steerlens.testing.checks import check_encoder
from steerlens.testing.tiny import tiny_processor
from steerlens.testing.tiny_vit import (
    OPEN_CLIP_VARIANTS,
    SIZE,
    TOWER_VARIANTS,
    randomise,
    tiny_open_clip_encoder,
    tiny_open_clip_model,
    tiny_open_clip_timm_encoder,
)

variants = pytest.mark.parametrize("options", OPEN_CLIP_VARIANTS.values(), ids=list(OPEN_CLIP_VARIANTS))
pytestmark = pytest.mark.usefixtures("open_clip", "timm")


def double(**options: Any) -> OpenCLIPEncoder:
    return tiny_open_clip_encoder(dtype=torch.float64, **options)


def native(encoder: NativeEncoder, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        output = encoder.model(pictures)
    return output[0] if isinstance(output, tuple) else output


@variants
def test_every_variant_passes_the_checks(options: dict[str, Any]) -> None:
    encoder = tiny_open_clip_encoder(**options)
    report = check_encoder(encoder, {"pixel_values": pixels(encoder)})
    assert report.passed, str(report)
    assert report.relative_error <= 1e-5


@variants
def test_rows_of_one_picture_share_what_comes_before_their_changes(options: dict[str, Any]) -> None:
    encoder = double(**options)
    check_rows_of_one_picture(encoder, {"pixel_values": pixels(encoder)}, CLOSE)


@variants
def test_a_trace_holds_what_forward_intermediates_gives(options: dict[str, Any]) -> None:
    encoder = double(**options)
    with torch.no_grad():
        out = encoder.model.forward_intermediates(pixels(encoder), output_fmt="NLC", output_extra_tokens=True)
    layers = zip(out["image_intermediates_prefix"], out["image_intermediates"], strict=True)
    whole = torch.stack([torch.cat(layer, dim=1) for layer in layers], dim=1)
    trace = encoder.trace(pixels(encoder))
    torch.testing.assert_close(trace.resid_post, whole[:, :, list(encoder.readout_tokens)], **CLOSE)
    torch.testing.assert_close(trace.embedding, out["image_features"], **CLOSE)
    torch.testing.assert_close(trace.embedding, native(encoder, pixels(encoder)), **CLOSE)


@variants
def test_recomputed_heads_are_those_of_the_fused_module(options: dict[str, Any]) -> None:
    """`nn.MultiheadAttention` gives patterns when asked for weights; values follow from its own weights."""
    encoder = double(**options)
    inputs: list[Tensor] = []
    for block in encoder.model.transformer.resblocks:
        block.attn.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    trace = encoder.trace(pixels(encoder), attention=True)
    assert trace.has_attention
    assert trace.values is not None
    rows, H = list(encoder.readout_tokens), encoder.spec.n_heads
    for layer, block in enumerate(encoder.model.transformer.resblocks):
        hidden = inputs[layer]
        with torch.no_grad():
            output, patterns = block.attn(hidden, hidden, hidden, need_weights=True, average_attn_weights=False)
            D = hidden.shape[-1]
            values = hidden @ block.attn.in_proj_weight[2 * D :].T + block.attn.in_proj_bias[2 * D :]
        torch.testing.assert_close(trace.attention[:, layer], patterns[:, :, rows], **CLOSE)
        torch.testing.assert_close(trace.values[:, layer], values.unflatten(-1, (H, -1)).transpose(1, 2), **CLOSE)
        scale = getattr(block.ls_1, "gamma", torch.ones(()))
        torch.testing.assert_close(trace.attn_out[:, layer], (output * scale)[:, rows].detach(), **CLOSE)


def test_heads_are_the_same_whether_the_native_fast_path_runs_or_not() -> None:
    encoder = double()
    fast = encoder.trace(pixels(encoder))
    with torch.enable_grad():
        slow = encoder.forward(pixels(encoder))
    torch.testing.assert_close(fast.embedding, slow.detach(), **CLOSE)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        again = encoder.trace(pixels(encoder))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(again.head_values, fast.head_values, **CLOSE)
    torch.testing.assert_close(again.attn_out, fast.attn_out, **CLOSE)


# site: (where a raw hook goes, whether it goes before the module)
PLACES: dict[str, tuple[Callable[[Any], nn.Module], bool]] = {
    "resid_pre.1": (lambda visual: visual.transformer.resblocks[1], True),
    "resid_post.0": (lambda visual: visual.transformer.resblocks[0], False),
    "attn_out.1": (lambda visual: visual.transformer.resblocks[1].ls_1, False),
    "mlp_out.2": (lambda visual: visual.transformer.resblocks[2].ls_2, False),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_interventions_are_what_raw_hooks_on_open_clips_modules_do(place: str, change: str) -> None:
    encoder, site = double(ls_init_value=0.5), Site.parse(place)
    find, before = PLACES[place]
    wanted, made = changed(encoder, site, find(encoder.model), before, change, lambda one: native(one, pixels(one)))
    torch.testing.assert_close(encoder.embed(pixels(encoder), [made]), wanted, **CLOSE)


@pytest.mark.parametrize("options", [{}, {"ls_init_value": 0.5}, {"attentional_pool": True}], ids=str)
def test_zeroing_a_head_is_zeroing_its_columns_of_the_projection(options: dict[str, Any]) -> None:
    encoder = double(**options)
    width = encoder.spec.width // encoder.spec.n_heads
    for site in all_heads(encoder.spec.n_layers, encoder.spec.n_heads):
        visual = copy.deepcopy(encoder.model)
        with torch.no_grad():
            own = slice(site.head * width, (site.head + 1) * width)
            visual.transformer.resblocks[site.layer].attn.out_proj.weight[:, own] = 0
            output = visual(pixels(encoder))
        torch.testing.assert_close(encoder.embed(pixels(encoder), [Zero(site)]), output, **CLOSE)


def clip(open_clip: Any, **vision: Any) -> Any:
    sizes = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": SIZE}
    text = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
    return randomise(open_clip.model.CLIP(12, {**sizes, **vision}, text))


def test_a_whole_model_is_opened_at_its_vision_tower(open_clip: Any) -> None:
    model = clip(open_clip)
    assert OpenCLIPEncoder.accepts(model)
    encoder = OpenCLIPEncoder(model, tiny_processor(SIZE))
    with torch.no_grad():
        wanted = model.encode_image(pixels(encoder))
    torch.testing.assert_close(encoder.embed(pixels(encoder)), wanted)
    assert check_encoder(encoder).passed


def test_open_clips_mixed_half_precision_is_traced(open_clip: Any) -> None:
    """open_clip itself leaves norms and position embeddings in float32 and puts the rest into bfloat16."""
    model = open_clip.model.CLIP(
        12,
        {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": SIZE},
        {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
        cast_dtype=torch.bfloat16,
    )
    open_clip.model.convert_weights_to_lp(randomise(model), dtype=torch.bfloat16)
    encoder = OpenCLIPEncoder(model, tiny_processor(SIZE))
    assert encoder.dtype == torch.bfloat16
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32, torch.bfloat16}
    trace = encoder.trace(pixels(encoder))
    trace.check()
    with torch.no_grad():
        assert torch.equal(trace.embedding, model.encode_image(pixels(encoder)))


def test_open_clips_own_transform_is_what_preprocess_applies(open_clip: Any) -> None:
    transform = open_clip.image_transform(SIZE, is_train=False)
    encoder = OpenCLIPEncoder(tiny_open_clip_model(), transform)
    picture = Image.effect_noise((40, 20), 90).convert("RGB")
    assert torch.equal(encoder.preprocess([picture])["pixel_values"][0], transform(picture))
    assert encoder.spec.crops
    squash = open_clip.image_transform(SIZE, is_train=False, resize_mode="squash")
    assert not OpenCLIPEncoder(tiny_open_clip_model(), squash).spec.crops


@pytest.mark.parametrize("options", TOWER_VARIANTS.values(), ids=list(TOWER_VARIANTS))
def test_towers_of_timm_pass_the_checks(options: dict[str, Any]) -> None:
    encoder = tiny_open_clip_timm_encoder(**options)
    torch.testing.assert_close(encoder.embed(pixels(encoder)), native(encoder, pixels(encoder)))
    report = check_encoder(encoder)
    assert report.passed, str(report)
    assert report.relative_error <= 1e-5
    with pytest.raises(UsageError, match="it has no classes"):
        encoder.class_vocabulary()


def test_a_whole_model_with_a_tower_of_timm_is_opened_at_its_tower(open_clip: Any) -> None:
    model = clip(open_clip, timm_model_name="test_vit", image_size=160)
    assert OpenCLIPTimmEncoder.accepts(model)
    assert not OpenCLIPEncoder.accepts(model)
    assert not TimmEncoder.accepts(model)
    encoder = OpenCLIPTimmEncoder(model, tiny_processor(160))
    with torch.no_grad():
        wanted = model.encode_image(pixels(encoder, 1))
    torch.testing.assert_close(encoder.embed(pixels(encoder, 1)), wanted)


class OtherBlock(nn.Module):
    """A block of a kind that the adapter does not know."""


def replaced(path: str, module: nn.Module) -> Any:
    model = tiny_open_clip_model()
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    return model


def attention(**options: Any) -> nn.Module:
    return nn.MultiheadAttention(16, 2, **options)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "ResNet": (
        lambda lib: lib.model.CLIP(
            8,
            {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32, "head_width": 8},
            {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
        ),
        "visual is a .*ModifiedResNet, which is not known",
    ),
    "custom blocks": (
        lambda _: tiny_open_clip_model(qk_norm=True),
        r"visual\.transformer\.resblocks\.0 is a .*CustomResidualAttentionBlock",
    ),
    "another block": (
        lambda _: replaced("transformer.resblocks.1", OtherBlock()),
        r"visual\.transformer\.resblocks\.1 is a .*OtherBlock",
    ),
    "another scale": (
        lambda _: replaced("transformer.resblocks.2.ls_1", nn.Dropout()),
        r"visual\.transformer\.resblocks\.2\.ls_1 is a .*Dropout",
    ),
    "one part more": (
        lambda _: replaced("transformer.resblocks.2.ln_attn", nn.LayerNorm(16)),
        r"visual\.transformer\.resblocks\.2 .*: ln_attn is there unexpectedly",
    ),
    "batch as its second dimension": (
        lambda _: replaced("transformer.resblocks.0.attn", attention()),
        r"visual\.transformer\.resblocks\.0\.attn is not built like",
    ),
    "keys of its own": (
        lambda _: replaced("transformer.resblocks.0.attn", attention(batch_first=True, add_bias_kv=True)),
        r"visual\.transformer\.resblocks\.0\.attn is not built like",
    ),
    "two pooling layers": (
        lambda _: tiny_open_clip_model(attentional_pool="parallel"),
        "attn_pool_contrastive",
    ),
    "no pooling": (lambda _: tiny_open_clip_model(pool_type="none"), "pool_type is 'none'"),
    "another final norm": (lambda _: replaced("ln_post", nn.RMSNorm(16)), r"visual\.ln_post is a .*RMSNorm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_recognised_is_refused_with_its_name(open_clip: Any, case: str) -> None:
    make, words = REFUSED[case]
    model = make(open_clip)
    assert OpenCLIPEncoder.accepts(model)
    with pytest.raises(ModelError, match=words):
        OpenCLIPEncoder(model, tiny_processor(SIZE))


def test_towers_of_another_kind_are_refused(open_clip: Any) -> None:
    resnet = open_clip.timm_model.TimmModel("test_resnet", embed_dim=12, image_size=160)
    with pytest.raises(ModelError, match=r"visual\.trunk is a .*\.ResNet, which is not known"):
        OpenCLIPTimmEncoder(resnet, tiny_processor(160))
    tokens = open_clip.timm_model.TimmModel("test_vit", embed_dim=12, image_size=160, proj="none")
    tokens.trunk.reset_classifier(0, "")
    with pytest.raises(ModelError, match="gives tokens, not one embedding"):
        OpenCLIPTimmEncoder(tokens, tiny_processor(160))
    tuned = open_clip.timm_model.TimmModel("test_vit", embed_dim=12, image_size=160)
    tuned.trunk.blocks[3].attn.proj = nn.modules.linear.NonDynamicallyQuantizableLinear(64, 64)
    with pytest.raises(ModelError, match=r"blocks\.3\.attn\.proj is a .*NonDynamicallyQuantizableLinear"):
        OpenCLIPTimmEncoder(tuned, tiny_processor(160))
    more = open_clip.timm_model.TimmModel("test_vit", embed_dim=12, image_size=160)
    more.neck = nn.Linear(12, 12)
    with pytest.raises(ModelError, match=r"visual is not built like .*: neck is there unexpectedly"):
        OpenCLIPTimmEncoder(more, tiny_processor(160))


def test_pictures_of_another_size_are_refused() -> None:
    encoder = tiny_open_clip_encoder()
    with pytest.raises(UsageError, match=r"sees pictures of 3 channels and 16 x 16 pixels, not of shape \(3, 24, 24\)"):
        encoder.embed(torch.zeros(1, 3, 24, 24))
