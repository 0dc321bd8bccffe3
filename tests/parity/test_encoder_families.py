"""Every family of transformers, on tiny random models of the real classes: conformance, readouts, patterns, refusal."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from one_picture import check_rows_of_one_picture
from PIL import Image
from torch import Tensor, nn

from steerlens.encoders.prefix import record_prefix, resume
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Zero
from steerlens.lenses.logit import LogitLens
from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength
from steerlens.sites import Site
from steerlens.testing.encoder_checks import check_encoder, noise_pictures
from steerlens.testing.tiny_families import (
    MODELS,
    tiny_family_encoder,
    tiny_family_processor,
    tiny_model,
)
from steerlens.trace import Trace
from steerlens.zoo.registry import adapter_for

KINDS = sorted(MODELS)
CLASSIFIERS = [kind for kind in KINDS if "ForImageClassification" in kind]
PACKED = {kind for kind in KINDS if kind.startswith("Qwen")}
"""Classes that take all pictures as one sequence; tests/parity/test_vision_towers.py compares their patterns."""
CLOSE: Mapping[str, float] = {"rtol": 1e-5, "atol": 1e-6}


@cache
def tiny(kind: str) -> tuple[Any, Mapping[str, Tensor], Trace]:
    """An encoder, inputs and their trace; nothing may change them."""
    encoder = tiny_family_encoder(kind)
    inputs = noise_pictures(encoder)
    return encoder, inputs, encoder.trace(inputs, attention=True)


def wrap(model: nn.Module, kind: str) -> Any:
    return adapter_for(model)(model, tiny_family_processor(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_passes_the_conformance_checks(kind: str) -> None:
    report = check_encoder(tiny(kind)[0])
    report.require()
    assert report.relative_error <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_passes_the_conformance_checks_in_half_precision(kind: str) -> None:
    check_encoder(tiny_family_encoder(kind, dtype=torch.bfloat16)).require()


def projected(model: Any, inputs: Any) -> Tensor:
    return model.get_image_features(**inputs).pooler_output


def pooled(model: Any, inputs: Any) -> Tensor:
    return model(**inputs).pooler_output


def all_patches(model: Any, inputs: Any) -> Tensor:
    """A masked autoencoder that masks nothing, in whatever order it shuffles the patches."""
    model = copy.deepcopy(getattr(model, "vit", model))
    model.config.mask_ratio = model.embeddings.config.mask_ratio = 0.0
    return model(**inputs).last_hidden_state[:, 0]


def packed(tower: Any, inputs: Any) -> Tensor:
    """The mean of the residual before the merger; sorting patches within a picture does not change it."""
    patches, merge = inputs["pixel_values"], tower.config.spatial_merge_size
    B, T, _ = patches.shape
    side = int(T**0.5)
    blocks = patches.unflatten(1, (side // merge, merge, side // merge, merge)).transpose(2, 3).flatten(0, 4)
    output = tower(blocks, grid_thw=torch.tensor([[1, side, side]] * B))
    return output.last_hidden_state.unflatten(0, (B, T)).mean(dim=1)


def layer_of(tower: Any, inputs: Any, layer: int) -> Tensor:
    return tower(**inputs, output_hidden_states=True).hidden_states[layer]


NATIVE: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "CLIPVisionModelWithProjection": lambda model, inputs: model(**inputs).image_embeds,
    "CLIPModel": projected,
    "MetaClip2VisionModelWithProjection": lambda model, inputs: model(**inputs).image_embeds,
    "MetaClip2Model": projected,
    "SiglipVisionModel": pooled,
    "SiglipModel": projected,
    "Siglip2VisionModel": pooled,
    "Siglip2Model": projected,
    "ViTModel": pooled,
    "DeiTModel": pooled,
    "ViTMAEModel": all_patches,
    "ViTMAEForPreTraining": all_patches,
    "Dinov2Model": pooled,
    "Dinov2WithRegistersModel": pooled,
    "DINOv3ViTModel": pooled,
    "CLIPVisionModel": pooled,
    "Tipsv2VisionModel": pooled,
    "Tipsv2Model": projected,
    "LlavaForConditionalGeneration": lambda tower, inputs: layer_of(tower, inputs, -2)[:, 1:].mean(dim=1),
    "LlavaNextModel": lambda tower, inputs: layer_of(tower, inputs, -2)[:, 1:].mean(dim=1),
    "LlavaOnevisionForConditionalGeneration": lambda tower, inputs: layer_of(tower, inputs, -1).mean(dim=1),
    "Qwen2_5_VLForConditionalGeneration": packed,
    "Qwen2_5_VisionTransformerPretrainedModel": packed,
    "Qwen3VLModel": packed,
    "Aimv2VisionModel": pooled,
    "Aimv2Model": projected,
}
"""What each native class itself calls its image embedding."""


def test_every_class_is_held_against_what_it_gives_itself() -> None:
    assert sorted([*NATIVE, *CLASSIFIERS]) == KINDS


@pytest.mark.parametrize("kind", sorted(NATIVE))
def test_the_embedding_is_what_the_native_class_gives(kind: str) -> None:
    encoder, inputs, trace = tiny(kind)
    with torch.no_grad():
        wanted = NATIVE[kind](encoder.model, inputs)
    torch.testing.assert_close(trace.embedding, wanted, **CLOSE)
    torch.testing.assert_close(encoder.readout(trace.final).detach(), wanted, **CLOSE)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_classes_of_a_classifier_score_an_embedding_with_its_own_logits(kind: str) -> None:
    encoder, inputs, trace = tiny(kind)
    with torch.no_grad():
        logits = encoder.model(**inputs).logits
    classes = encoder.class_vocabulary()
    assert classes.names == ("tench", "goldfish", "shark", "ray", "cock")
    torch.testing.assert_close(classes.scores(trace.embedding), logits, **CLOSE)
    last = Site("resid_post", encoder.spec.n_layers - 1)
    label = LogitLens(encoder, classes).read(trace, [last], k=1)[0][0]
    assert label.name == classes.names[int(logits[0].argmax())]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_steering_a_head_moves_the_logits_as_the_definition_says(kind: str) -> None:
    encoder, inputs, trace = tiny(kind)
    site, classes = Site("head", 0, 1), encoder.class_vocabulary()
    closed = SteeringLens(encoder, Strength("s", 20.0)).embeddings(trace, [site])[:, 0]
    steered = steer_and_patch(encoder, inputs, site, 20.0)
    torch.testing.assert_close(classes.scores(closed), classes.scores(steered), rtol=1e-4, atol=1e-5)


def test_classes_can_be_named_and_only_classifiers_have_them() -> None:
    classifier, model = tiny("ViTForImageClassification")[0], tiny("ViTModel")[0]
    assert classifier.class_vocabulary(["a", "b", "c", "d", "e"]).names == ("a", "b", "c", "d", "e")
    with pytest.raises(ModelError, match="5 classes was given 1 names"):
        classifier.class_vocabulary(["a"])
    with pytest.raises(UsageError, match="has no classifier"):
        model.class_vocabulary()


@pytest.mark.parametrize("kind", sorted({*KINDS} - PACKED))
def test_recorded_patterns_are_those_that_transformers_gives_under_eager_attention(kind: str) -> None:
    encoder, inputs, trace = tiny(kind)
    model = copy.deepcopy(encoder)
    model.model.set_attn_implementation("eager")
    # Masked autoencoders shuffle patches unless they are told not to, and only some classes give their attentions.
    tower: Any = model.tower
    order = {"noise": torch.arange(4).expand(len(trace), -1)} if "MAE" in kind else {}
    if order:
        tower.config.mask_ratio = tower.embeddings.config.mask_ratio = 0.0
    with torch.no_grad():
        native = tower(**inputs, **order, output_attentions=True).attentions[: encoder.spec.n_layers]
    rows = torch.stack(native, dim=1)[:, :, :, list(encoder.readout_tokens)]
    torch.testing.assert_close(trace.attention, rows, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_passes_that_begin_in_the_middle_are_whole_passes(kind: str) -> None:
    encoder, inputs, _ = tiny(kind)
    prefix, zero = record_prefix(encoder, inputs), Zero(Site("head", 1, 0))
    rows = [2, 0, 0, 1]
    got = resume(encoder, prefix, 1, rows, [zero])
    torch.testing.assert_close(got, encoder.embed(inputs, [zero])[rows], **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_picture_share_what_comes_before_their_changes(kind: str) -> None:
    encoder, inputs, _ = tiny(kind)
    check_rows_of_one_picture(encoder, inputs, {**CLOSE})


class Doubled(nn.Linear):
    """What a library that fine-tunes puts around a layer: its weight does not say what it writes."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def block_of(model: nn.Module, kind: str, index: int = 1) -> Any:
    return wrap(model, kind).blocks[index]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_a_part_that_is_not_known_is_refused_by_its_name(kind: str) -> None:
    model = tiny_model(kind)
    block_of(model, kind).add_module("adapter", nn.Linear(32, 32))
    with pytest.raises(ModelError, match=r"\.1 is not built like .*: adapter is there unexpectedly"):
        wrap(model, kind)

    model = tiny_model(kind)
    # Of a vision-language model, the tower alone is the adapter's.
    wrap(model, kind).model.add_module("memory", nn.Linear(2, 2))
    with pytest.raises(ModelError, match="memory is there unexpectedly"):
        wrap(model, kind)

    model = tiny_model(kind)
    encoder = wrap(model, kind)
    attention = getattr(encoder.blocks[0], encoder.parts.attention)
    setattr(attention, encoder.parts.projection, Doubled(32, 32))
    with pytest.raises(ModelError, match=rf"\.0\.\w+\.{encoder.parts.projection} is a .*Doubled"):
        wrap(model, kind)

    model = tiny_model(kind)
    encoder = wrap(model, kind)
    encoder.blocks[1].__class__ = type("OwnBlock", (type(encoder.blocks[1]),), {})
    with pytest.raises(ModelError, match=r"\.1 is a .*OwnBlock"):
        wrap(model, kind)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("CLIPModel", "vision_model.post_layernorm"),
        ("CLIPModel", "visual_projection"),
        ("MetaClip2VisionModelWithProjection", "visual_projection"),
        ("Aimv2Model", "visual_projection"),
        ("SiglipVisionModel", "post_layernorm"),
        ("Siglip2VisionModel", "head"),
        ("ViTForImageClassification", "vit.layernorm"),
        ("Dinov2Model", "layernorm"),
        ("Dinov2Model", "encoder.layer.1.layer_scale1"),
        ("Dinov2WithRegistersModel", "encoder.layer.0.drop_path"),
        ("DINOv3ViTModel", "model.layer.1.drop_path"),
        ("ViTModel", "layers.1.dropout"),
        ("DINOv3ViTModel", "norm"),
        ("Aimv2VisionModel", "rms_norm"),
    ],
)
def test_a_readout_that_is_not_known_is_refused_by_its_name(kind: str, path: str) -> None:
    model: Any = tiny_model(kind)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Tanh())
    with pytest.raises(ModelError, match=rf"{name} is a torch.nn.modules.activation.Tanh, which is not known"):
        wrap(model, kind)


def test_a_processor_of_another_size_is_refused() -> None:
    wrong = tiny_family_processor("ViTModel")
    wrong.size = {"height": 24, "width": 24}
    for kind in ("ViTModel", "SiglipVisionModel", "CLIPModel", "Aimv2VisionModel"):
        model = tiny_model(kind)
        with pytest.raises(ModelError, match="makes pictures of 24 x 24 pixels, and the model sees 16 x 16 pixels"):
            adapter_for(model)(model, wrong)
    patches = tiny_family_processor("Siglip2VisionModel")
    patches.patch_size = 4
    model = tiny_model("Siglip2VisionModel")
    with pytest.raises(ModelError, match="cuts patches of 4 pixels, and the model reads patches of 8"):
        adapter_for(model)(model, patches)


def test_a_dinov2_takes_the_pictures_that_its_processor_makes() -> None:
    model, wide = tiny_model("Dinov2Model"), tiny_family_processor("Dinov2Model")
    wide.crop_size = {"height": 24, "width": 24}
    wide.size = {"shortest_edge": 24}
    encoder: Any = adapter_for(model)(model, wide)
    assert (encoder.spec.image_size, encoder.spec.patch_grid, encoder.spec.n_tokens) == ((24, 24), (3, 3), 10)
    check_encoder(encoder).require()


def test_pictures_of_other_sizes_than_the_declared_one_are_refused() -> None:
    model, loose = tiny_model("Dinov2Model"), tiny_family_processor("Dinov2Model")
    loose.do_center_crop = False
    loose.size = {"shortest_edge": 16}
    encoder: Any = adapter_for(model)(model, loose)
    with pytest.raises(
        ModelError, match="gives pictures of shape \\(3, 16, 32\\), where the model sees \\(3, 16, 16\\)"
    ):
        encoder.preprocess([Image.new("RGB", (40, 20))])


def test_a_masked_autoencoder_sees_every_patch_and_is_left_as_it_was() -> None:
    encoder, inputs, trace = tiny("ViTMAEModel")
    assert encoder.spec.n_tokens == 5
    assert torch.equal(encoder.embed(inputs), trace.embedding)
    assert encoder.model.config.mask_ratio == 0.75
    with torch.no_grad():
        assert encoder.model(**inputs).last_hidden_state.shape[1] == 2  # the class token and one patch of four

    def burst(*_: Any) -> None:
        raise MemoryError("inside the forward pass")

    handle = encoder.model.layernorm.register_forward_pre_hook(burst)
    with pytest.raises(MemoryError):
        encoder.embed(inputs)
    handle.remove()
    assert encoder.model.config.mask_ratio == 0.75


def test_siglip2_makes_every_picture_square_and_cuts_padding_off() -> None:
    encoder, inputs, trace = tiny("Siglip2VisionModel")
    # The processor allows 5 patches, of which a square has 4; the fifth would be padding.
    made = encoder.preprocess([Image.new("L", (40, 10)), Image.new("RGBA", (7, 30))])
    assert {key: tuple(value.shape) for key, value in made.items()} == {
        "pixel_values": (2, 4, 192),
        "pixel_attention_mask": (2, 4),
        "spatial_shapes": (2, 2),
    }
    assert bool(made["pixel_attention_mask"].all())
    assert torch.equal(encoder.embed(inputs["pixel_values"]), trace.embedding)
    padded = tiny_family_processor("Siglip2VisionModel")(images=[Image.new("RGB", (16, 16))], return_tensors="pt")
    padded = {name: padded[name] for name in made}
    padded["pixel_values"][:, 4] = 7.0  # whatever stands where padding is
    with torch.no_grad():
        wanted = encoder.model(**padded).pooler_output
    assert padded["pixel_values"].shape[1] == 5
    torch.testing.assert_close(encoder.embed(padded), wanted, **CLOSE)
    trace = encoder.trace(padded)
    trace.check()
    torch.testing.assert_close(encoder.readout(trace.final), wanted, **CLOSE)
    masked = {**inputs, "pixel_attention_mask": torch.tensor([[1, 1, 1, 0]]).expand(3, -1)}
    seen = {**padded, "pixel_attention_mask": torch.ones(1, 5)}
    for given in (seen, masked, {**inputs, "spatial_shapes": torch.tensor([[1, 4]]).expand(3, -1)}):
        with pytest.raises(UsageError, match="takes pictures of 2 x 2 patches"):
            encoder.trace(given)


def test_a_siglip_without_a_pooling_head_is_read_from_the_mean_of_its_tokens() -> None:
    import transformers

    config = tiny_model("SiglipVisionModel").config
    config.vision_use_head = False
    model: Any = transformers.SiglipVisionModel(config)
    encoder = wrap(model, "SiglipVisionModel")
    inputs = noise_pictures(encoder)
    with torch.no_grad():
        wanted = model(**inputs).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(encoder.embed(inputs), wanted, **CLOSE)
    check_encoder(encoder).require()


@pytest.mark.parametrize("native", [False, True])
def test_an_aimv2_without_a_pooling_head_is_read_from_the_mean_of_its_tokens(native: bool) -> None:
    import transformers

    config = tiny_model("Aimv2VisionModel").config
    config.use_head, config.is_native = False, native
    model: Any = transformers.Aimv2VisionModel(config)
    encoder = wrap(model, "Aimv2VisionModel")
    assert not encoder.spec.centred
    inputs = noise_pictures(encoder)
    with torch.no_grad():
        wanted = model(**inputs).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(encoder.embed(inputs), wanted, **CLOSE)
    check_encoder(encoder).require()
