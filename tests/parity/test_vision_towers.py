"""Towers of vision-language models against the models' own forward passes, and the choice of what is read."""

from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from steerlens.encoders.towers import TowerEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.loading import load_encoder
from steerlens.sites import Site
from steerlens.testing.checks import check_encoder
from steerlens.testing.encoder_checks import noise_pictures, relative
from steerlens.testing.tiny_families import tiny_family_encoder, tiny_family_processor, tiny_model

QWEN = ["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VisionTransformerPretrainedModel", "Qwen3VLModel"]
TOWERS = [*QWEN, "CLIPVisionModel", "Tipsv2Model", "LlavaForConditionalGeneration"]


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("readout", ["mean", 0, 3])
def test_the_embedding_is_the_mean_of_the_patches_or_one_token(kind: str, readout: Any) -> None:
    encoder = load_encoder(tiny_model(kind), tiny_family_processor(kind), readout=readout)
    assert isinstance(encoder, TowerEncoder)
    spec, inputs = encoder.spec, noise_pictures(encoder)
    last = encoder.record(inputs, [Site("resid_post", spec.n_layers - 1)]).popitem()[1]
    with torch.no_grad():
        tokens = encoder.final_norm(last)
    wanted = tokens[:, spec.first_patch :].mean(dim=1) if readout == "mean" else tokens[:, readout]
    torch.testing.assert_close(encoder.embed(inputs), wanted, rtol=1e-5, atol=1e-6)
    report = check_encoder(encoder)
    report.require()
    assert report.relative_error <= 1e-5


@pytest.mark.parametrize("readout", [True, -1, 36, "class", 1.5])
def test_a_token_that_is_not_there_is_refused(readout: Any) -> None:
    with pytest.raises(UsageError, match="readout is 'mean' or the number of a token from 0 to 35"):
        load_encoder(tiny_model(QWEN[2]), tiny_family_processor(QWEN[2]), readout=readout)


def test_a_model_that_pools_its_tokens_takes_no_readout() -> None:
    with pytest.raises(UsageError, match="pools its tokens itself"):
        load_encoder(tiny_model("CLIPModel"), tiny_family_processor("CLIPModel"), readout="mean")


@pytest.mark.parametrize("kind", QWEN)
def test_a_change_of_a_patch_enters_at_its_own_token_counted_row_by_row(kind: str) -> None:
    encoder = tiny_family_encoder(kind)
    (rows, columns), (height, width) = encoder.spec.patch_grid, encoder.spec.image_size
    assert (rows, columns, height, width) == (6, 6, 48, 48)
    black = Image.new("RGB", (width, height))
    clean = encoder.record(encoder.preprocess([black]), [Site("embed")])[Site("embed")]
    for row, column in ((0, 0), (0, 5), (1, 2), (4, 3), (5, 5)):
        marked = black.copy()
        marked.paste((255, 255, 255), (8 * column, 8 * row, 8 * column + 8, 8 * row + 8))
        changed = encoder.record(encoder.preprocess([marked]), [Site("embed")])[Site("embed")]
        differs = (changed - clean).abs().amax(dim=(0, 2)) > 1e-6
        assert differs.nonzero().flatten().tolist() == [row * columns + column]


@pytest.mark.parametrize("kind", QWEN)
def test_patterns_are_those_that_transformers_computes_within_each_window(kind: str) -> None:
    encoder = tiny_family_encoder(kind)
    inputs = noise_pictures(encoder)
    trace = encoder.trace(inputs, attention=True)
    assert trace.attention is not None
    encoder.model.set_attn_implementation("eager")
    chunks: dict[int, list[Tensor]] = {0: [], 1: []}
    module = __import__(type(encoder.model).__module__, fromlist=["eager_attention_forward"])
    plain, blocks = module.eager_attention_forward, [block.attn for block in encoder.blocks]

    def watched(attention: Any, *args: Any, **kwargs: Any) -> Any:
        output, weights = plain(attention, *args, **kwargs)
        chunks[blocks.index(attention)].append(weights[0])
        return output, weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "eager_attention_forward", watched)
        encoder.embed(inputs)
    for layer in (0, 1):
        whole = torch.block_diag(*(chunk[0] for chunk in chunks[layer]))
        B, T = len(trace), encoder.spec.n_tokens
        order = encoder.native_order()
        for picture in range(B):
            native = whole[picture * T : (picture + 1) * T, picture * T : (picture + 1) * T]
            wanted = torch.empty_like(native)
            wanted[order[:, None], order[None]] = native
            torch.testing.assert_close(trace.attention[picture, layer, 0], wanted, rtol=1e-5, atol=1e-6)


def test_windows_of_qwen_are_the_models_own() -> None:
    """Six by six patches, windows of four by four: a corner of the picture sees sixteen patches, the last one four."""
    trace = tiny_family_encoder(QWEN[1]).trace(noise_pictures(tiny_family_encoder(QWEN[1])), attention=True)
    assert trace.attention is not None
    seen = (trace.attention[0, 0, 0] > 0).sum(dim=-1).view(6, 6)
    assert seen[0, 0] == seen[3, 3] == 16
    assert seen[0, 5] == seen[5, 0] == 8
    assert seen[5, 5] == 4


@pytest.mark.parametrize("kind", QWEN)
def test_the_merger_reads_the_residual_that_the_trace_ends_with(kind: str) -> None:
    encoder = tiny_family_encoder(kind)
    inputs = noise_pictures(encoder)
    last = encoder.record(inputs, [Site("resid_post", 1)])[Site("resid_post", 1)]
    native = list[Tensor]()
    handle = encoder.model.merger.register_forward_hook(lambda _, args, __: native.append(args[0]))
    encoder.embed(inputs)
    handle.remove()
    assert torch.equal(encoder.packed(last), native[0])
    assert torch.equal(encoder.arranged(native[0]), last)


def test_the_square_follows_the_processors_limits() -> None:
    model = tiny_model(QWEN[2])
    for least, most, side in (
        (56 * 56, 10**7, 448),
        (48 * 48, 48 * 48, 48),
        (100, 100 * 100, 96),
        (600**2, 10**7, 608),
    ):
        size = {"shortest_edge": least, "longest_edge": most}
        processor = transformers.Qwen2VLImageProcessorPil(patch_size=8, size=size)
        assert load_encoder(model, processor).spec.image_size == (side, side)
    with pytest.raises(ModelError, match="blocks of 2, and the model reads 8 and 2"):
        load_encoder(model, transformers.Qwen2VLImageProcessorPil(patch_size=16))


def test_the_layers_that_a_language_model_does_not_read_are_no_part_of_the_encoder() -> None:
    encoder = tiny_family_encoder("LlavaForConditionalGeneration")
    assert (encoder.spec.n_layers, len(encoder.model.encoder.layers)) == (2, 3)
    assert encoder.spec.readout_tokens == (1, 2, 3, 4)
    model = tiny_model("LlavaForConditionalGeneration")
    for layer, depth, many in ((-1, 3, False), (-3, 1, True), (1, 1, False), (3, 3, True)):
        model.config.vision_feature_layer = [layer] if many else layer
        changed = load_encoder(model, tiny_family_processor("LlavaForConditionalGeneration"))
        assert changed.spec.n_layers == depth
        inputs = noise_pictures(changed)
        with torch.no_grad():
            hidden = model.model.vision_tower(**inputs, output_hidden_states=True).hidden_states[layer]
        assert relative(changed.embed(inputs), hidden[:, 1:].mean(dim=1)) <= 1e-5


@pytest.mark.parametrize(("layer", "words"), [([-2, -5], "reads no single layer"), (0, "no single"), (-9, "no single")])
def test_a_language_model_that_reads_several_layers_is_refused(layer: Any, words: str) -> None:
    model = tiny_model("LlavaForConditionalGeneration")
    model.config.vision_feature_layer = layer
    with pytest.raises(ModelError, match=words):
        load_encoder(model, tiny_family_processor("LlavaForConditionalGeneration"))


def test_a_tower_of_another_kind_is_refused_by_its_name() -> None:
    model = tiny_model("LlavaForConditionalGeneration")
    model.model.vision_tower = tiny_model("Dinov2Model")
    with pytest.raises(ModelError, match="its vision tower is a dinov2, which is not known"):
        load_encoder(model, tiny_family_processor("LlavaForConditionalGeneration"))
