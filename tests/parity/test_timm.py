"""The adapter of timm against timm's own forward passes and against raw hooks on its modules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_picture import check_rows_of_one_picture
from PIL import Image
from raw_hooks import CHANGES, CLOSE, changed, pixels
from torch import Tensor, nn

from steerlens.encoders.timm import TimmEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Zero
from steerlens.lenses.logit import LogitLens
from steerlens.sites import Site, all_heads
from steerlens.testing.checks import check_encoder
from steerlens.testing.tiny import tiny_processor
from steerlens.testing.tiny_vit import SIZE, TIMM_VARIANTS, tiny_timm_encoder, tiny_timm_model

variants = pytest.mark.parametrize("options", TIMM_VARIANTS.values(), ids=list(TIMM_VARIANTS))
pytestmark = pytest.mark.usefixtures("timm")


def double(**options: Any) -> TimmEncoder:
    return tiny_timm_encoder(dtype=torch.float64, **options)


@variants
def test_every_variant_passes_the_checks(options: dict[str, Any]) -> None:
    encoder = tiny_timm_encoder(**options)
    report = check_encoder(encoder, {"pixel_values": pixels(encoder)})
    assert report.passed, str(report)
    assert report.relative_error <= 1e-5


@variants
def test_the_classifier_on_the_embedding_is_the_models_own_forward_pass(options: dict[str, Any]) -> None:
    encoder = double(**options)
    with torch.no_grad():
        wanted = encoder.model(pixels(encoder))
        torch.testing.assert_close(encoder.model.head(encoder.embed(pixels(encoder))), wanted, **CLOSE)


@variants
def test_rows_of_one_picture_share_what_comes_before_their_changes(options: dict[str, Any]) -> None:
    encoder = double(**options)
    check_rows_of_one_picture(encoder, {"pixel_values": pixels(encoder)}, CLOSE)


@variants
def test_a_trace_holds_what_forward_intermediates_gives(options: dict[str, Any]) -> None:
    encoder = double(**options)
    with torch.no_grad():
        out = encoder.model.forward_intermediates(
            pixels(encoder), output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    # timm gives prefix tokens apart from the patches, where there are any.
    layers = [torch.cat([one[1], one[0]], dim=1) if isinstance(one, tuple) else one for one in out]
    trace = encoder.trace(pixels(encoder))
    wanted = torch.stack(layers, dim=1)[:, :, list(encoder.readout_tokens)]
    torch.testing.assert_close(trace.resid_post, wanted, **CLOSE)


def test_attention_is_what_timm_computes_without_fused_kernels() -> None:
    encoder = double(qk_norm=True, global_pool="avg")
    patterns: list[Tensor] = []
    for block in encoder.model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: patterns.append(output))
    trace = encoder.trace(pixels(encoder), attention=True)
    assert trace.has_attention
    wanted = torch.stack(patterns, dim=1)[:, :, :, list(encoder.readout_tokens)]
    torch.testing.assert_close(trace.attention, wanted, **CLOSE)


# site: (where a raw hook goes, whether it goes before the module)
PLACES: dict[str, tuple[Callable[[Any], nn.Module], bool]] = {
    "resid_pre.1": (lambda vit: vit.blocks[1], True),
    "resid_post.0": (lambda vit: vit.blocks[0], False),
    "attn_out.1": (lambda vit: vit.blocks[1].ls1, False),
    "mlp_out.2": (lambda vit: vit.blocks[2].ls2, False),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_interventions_are_what_raw_hooks_on_timms_modules_do(place: str, change: str) -> None:
    encoder, site = double(init_values=0.5, reg_tokens=1), Site.parse(place)
    find, before = PLACES[place]
    wanted, made = changed(encoder, site, find(encoder.model), before, change, lambda one: one.model(pixels(one)))
    got = encoder.model.head(encoder.embed(pixels(encoder), [made]))
    torch.testing.assert_close(got.detach(), wanted, **CLOSE)


def test_zeroing_a_head_is_zeroing_its_slice_of_the_projections_input() -> None:
    encoder = double(init_values=0.5)
    width = encoder.spec.width // encoder.spec.n_heads
    for site in all_heads(encoder.spec.n_layers, encoder.spec.n_heads):

        def zero_slice(_: object, args: tuple[Tensor], head: int = site.head) -> tuple[Tensor]:
            values = args[0].clone()
            values[..., head * width : (head + 1) * width] = 0
            return (values,)

        handle = encoder.model.blocks[site.layer].attn.proj.register_forward_pre_hook(zero_slice)
        with torch.no_grad():
            wanted = encoder.model(pixels(encoder))
        handle.remove()
        got = encoder.model.head(encoder.embed(pixels(encoder), [Zero(site)]))
        torch.testing.assert_close(got.detach(), wanted, **CLOSE)


def test_the_vocabulary_of_a_classifier_scores_the_final_residual_with_its_logits() -> None:
    encoder = double(global_pool="avg")
    vocabulary = encoder.class_vocabulary([f"class {index}" for index in range(5)])
    trace = encoder.trace(pixels(encoder))
    scores = LogitLens(encoder, vocabulary).scores(trace, [Site("resid_post", encoder.spec.n_layers - 1)])[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(scores, encoder.model(pixels(encoder)), **CLOSE)
    assert encoder.class_vocabulary().names == ("0", "1", "2", "3", "4")
    with pytest.raises(ModelError, match="5 classes was given 1 names"):
        encoder.class_vocabulary(["only one"])
    with pytest.raises(UsageError, match="has no classifier"):
        double(num_classes=0).class_vocabulary()


def test_timms_own_transform_is_what_preprocess_applies(timm: Any) -> None:
    transform = timm.data.create_transform(input_size=(3, SIZE, SIZE), crop_pct=1.0)
    encoder = TimmEncoder(tiny_timm_model(), transform)
    picture = Image.effect_noise((40, 20), 90).convert("RGB")
    assert torch.equal(encoder.preprocess([picture])["pixel_values"][0], transform(picture))
    assert encoder.spec.crops
    squashed = timm.data.create_transform(input_size=(3, SIZE, SIZE), crop_pct=1.0, crop_mode="squash")
    assert torch.equal(
        TimmEncoder(tiny_timm_model(), squashed).preprocess([picture])["pixel_values"][0], squashed(picture)
    )
    wrong = timm.data.create_transform(input_size=(3, 8, 8))
    with pytest.raises(ModelError, match="give the transform that belongs to the model"):
        TimmEncoder(tiny_timm_model(), wrong).preprocess([picture])


def test_pictures_of_another_size_are_refused_though_the_model_would_take_them() -> None:
    encoder = tiny_timm_encoder(dynamic_img_size=True)
    assert encoder.embed(pixels(encoder)).shape == (3, 16)
    with pytest.raises(UsageError, match=r"sees pictures of 3 channels and 16 x 16 pixels, not of shape \(3, 24, 24\)"):
        encoder.embed(torch.zeros(1, 3, 24, 24))


class OtherBlock(nn.Module):
    """A block of a kind that the adapter does not know."""


class DoubledLinear(nn.Linear):
    """Writes more than its weight says, as the layers of fine-tuning libraries do."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class DoubledDropout(nn.Dropout):
    """Doubles what it is given, in evaluation mode too."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * input


def gated(timm: Any) -> Any:
    model = tiny_timm_model()
    model.blocks[1].attn = timm.layers.Attention(16, 2, gated=True)
    return model


def replaced(path: str, module: nn.Module) -> Any:
    model = tiny_timm_model()
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    return model


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another block": (lambda _: replaced("blocks.1", OtherBlock()), r"blocks\.1 is a .*OtherBlock, which is not known"),
    "parallel blocks": (
        lambda timm: tiny_timm_model(block_fn=timm.models.vision_transformer.ParallelScalingBlock),
        r"blocks\.0 is a .*ParallelScalingBlock",
    ),
    "norm after the block": (
        lambda timm: tiny_timm_model(block_fn=timm.models.vision_transformer.ResPostBlock),
        r"blocks\.0 is a .*ResPostBlock",
    ),
    "differential attention": (lambda _: tiny_timm_model(attn_layer="diff"), r"blocks\.0\.attn is a .*DiffAttention"),
    "norm between heads and projection": (
        lambda _: tiny_timm_model(scale_attn_norm=True),
        r"blocks\.0\.attn\.norm is a .*LayerNorm",
    ),
    "gate": (gated, r"blocks\.1\.attn .*: gate is there unexpectedly"),
    "another final norm": (lambda _: replaced("norm", nn.BatchNorm1d(16)), "norm is a .*BatchNorm1d"),
    "another scale": (lambda _: replaced("blocks.0.ls2", nn.Dropout()), r"blocks\.0\.ls2 is a .*Dropout"),
    "another projection": (
        lambda _: replaced("blocks.2.attn.proj", DoubledLinear(16, 16)),
        r"blocks\.2\.attn\.proj is a .*DoubledLinear, which is not known",
    ),
    "another dropout": (
        lambda _: replaced("blocks.1.attn.proj_drop", DoubledDropout()),
        r"blocks\.1\.attn\.proj_drop is a .*DoubledDropout",
    ),
    "something after the MLP": (
        lambda _: replaced("blocks.1.drop_path2", DoubledDropout()),
        r"blocks\.1\.drop_path2 is a .*DoubledDropout",
    ),
    "one part more": (lambda _: replaced("neck", nn.Linear(16, 16)), "neck is there unexpectedly"),
    "no pooling": (lambda _: tiny_timm_model(global_pool=""), "gives tokens, not one embedding"),
    "distilled": (
        lambda timm: timm.models.deit.VisionTransformerDistilled(
            img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2
        ),
        "VisionTransformerDistilled",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_recognised_is_refused_with_its_name(timm: Any, case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(ModelError, match=words):
        TimmEncoder(make(timm), tiny_processor(SIZE))


def test_only_timms_own_models_are_accepted(timm: Any) -> None:
    assert TimmEncoder.accepts(tiny_timm_model())
    assert not TimmEncoder.accepts(nn.Linear(2, 2))
    assert not TimmEncoder.accepts(timm.create_model("test_resnet"))
