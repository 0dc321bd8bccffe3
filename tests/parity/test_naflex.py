"""SigLIP 2 on pictures that are not square, against the native model on a padded batch of different shapes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from steerlens.cli.main import main
from steerlens.encoders.siglip2 import SigLIP2Encoder
from steerlens.errors import UsageError
from steerlens.loading import load, load_encoder
from steerlens.testing.checks import check_encoder
from steerlens.testing.encoder_checks import relative
from steerlens.testing.tiny_families import tiny_family_encoder, tiny_model
from steerlens.zoo.identity import models_identity

SHAPES = ((40, 64), (90, 31), (16, 16), (200, 30), (33, 100))
KINDS = ("Siglip2VisionModel", "Siglip2Model", "Siglip2ForImageClassification")


def processor() -> Any:
    return transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=12)


def encoder_of(kind: str, shape: tuple[int, int] | None = None) -> SigLIP2Encoder:
    encoder = load_encoder(tiny_model(kind), processor(), shape=shape)
    assert isinstance(encoder, SigLIP2Encoder)
    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_alone_is_that_picture_in_a_padded_batch_with_masks_and_shapes(kind: str) -> None:
    pictures = [Image.effect_noise(shape, 90).convert("RGB") for shape in SHAPES]
    batch = processor()(images=pictures, return_tensors="pt")
    assert len({tuple(shape) for shape in batch["spatial_shapes"].tolist()}) > 2
    square = encoder_of(kind)
    with torch.no_grad():
        output = square.tower(**batch)
    for index, picture in enumerate(pictures):
        encoder = square.for_shape(*picture.size)
        rows, columns = batch["spatial_shapes"][index].tolist()
        T = rows * columns
        assert (encoder.spec.patch_grid, encoder.spec.n_tokens) == ((rows, columns), T)
        inputs = encoder.preprocess([picture])
        assert inputs["spatial_shapes"].tolist() == [[rows, columns]]
        assert torch.equal(inputs["pixel_values"][0], batch["pixel_values"][index, :T])
        assert batch["pixel_attention_mask"][index].sum() == inputs["pixel_attention_mask"].sum() == T
        trace = encoder.trace(inputs, attention=True)
        native = output.last_hidden_state[index : index + 1, :T]
        with torch.no_grad():
            assert relative(encoder.final_norm(trace.final), native) <= 1e-5
        if encoder.pools:
            assert relative(trace.embedding, output.pooler_output[index : index + 1]) <= 1e-5
        assert trace.attention.shape[-2:] == (T, T)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_passes_the_checks(shape: tuple[int, int]) -> None:
    report = check_encoder(encoder_of("Siglip2VisionModel", shape))
    report.require(whole=True)
    assert report.relative_error <= 1e-5


def test_pictures_of_another_shape_are_refused_and_other_models_have_one_shape() -> None:
    wide, high = encoder_of(KINDS[0], (90, 31)), encoder_of(KINDS[0], (31, 90))
    picture = Image.effect_noise((90, 31), 90).convert("RGB")
    with pytest.raises(UsageError, match="takes pictures of"):
        high.embed(wide.preprocess([picture]))
    with pytest.raises(UsageError, match="no pictures of 0 x 5 pixels"):
        wide.for_shape(0, 5)
    with pytest.raises(UsageError, match="sees pictures of one shape; leave shape out"):
        load_encoder(tiny_model("CLIPModel"), tiny_family_encoder("CLIPModel").processor, shape=(2, 1))
    for shape in (5, (5,), (4, 3, 2), "448x336", (0.5, 1)):
        with pytest.raises(UsageError, match="a shape is the width and the height"):
            encoder_of(KINDS[0], shape)  # type: ignore[arg-type]


def test_a_source_names_the_shape_and_indexes_remember_it(tmp_path: Path) -> None:
    tiny_model(KINDS[0]).save_pretrained(tmp_path / "naflex")
    processor().save_pretrained(tmp_path / "naflex")
    square, wide = (load_encoder(f"{tmp_path / 'naflex'}{shape}") for shape in ("", "?shape=90x31"))
    assert wide.spec.image_size == encoder_of(KINDS[0], (90, 31)).spec.image_size != square.spec.image_size
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        load_encoder(f"{tmp_path / 'naflex'}?shape=90")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.effect_noise((90, 31), 60 + number).convert("RGB").save(tmp_path / "photos" / f"{number}.png")
    index = ["neighbours", "index", str(tmp_path / "photos"), "--out", str(tmp_path / "index")]
    assert main([*index, "--encoder", f"{tmp_path / 'naflex'}?shape=90x31"]) == 0
    pair = load(tmp_path / "index")
    assert pair.encoder.spec.image_size == wide.spec.image_size
    assert models_identity(pair)["encoder"]["shape"] == list(wide.spec.image_size)
