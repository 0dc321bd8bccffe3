"""A decoder for any encoder: scenes embedded once, another UNet to start from, and a pair that opens like any other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from records import records_of
from shapes import prepare_shapes
from ship_decoder import ship
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

import steerlens as sl
from steerlens.cli.doctor import checks
from steerlens.errors import ModelError, UsageError
from steerlens.scenes import PLAIN, TRAIN, SceneMaker, load_prepared, zero_shot_scenes
from steerlens.training import DecoderRecipe, Evaluation, Measurement, evaluate, export_decoder, train_decoder
from steerlens.training.embedder import copy_encoder, embed_with, opened_embedder, resized
from steerlens.training.unet import CONDITION_LAYERS, UnetSettings, make_unet, start_unet
from steerlens.vocabulary import PrototypeVocabulary
from steerlens.zoo import cards, cost_of, load_probe, locate_encoder_in, measure_fit, open_encoder

TINY = DecoderRecipe(steps=2, scenes=8, part=4, pixels=42, unet=UnetSettings(channels=(32, 32, 32), batch=4))


def save_encoder(folder: Path, width: int) -> Path:
    """A tiny `Dinov2Model` of patches of 14 pixels, meant for 56."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    sides = {"height": 56, "width": 56}
    BitImageProcessorPil(size={"shortest_edge": 64}, crop_size=sides).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_shapes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"), 16)


@pytest.fixture(scope="module")
def run(data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first scenes, gone on with, and exported."""
    folder = tmp_path_factory.mktemp("run")
    stopped = train_decoder(str(encoder), data, folder, TINY)
    next(stopped)
    stopped.close()
    first = folder / "scenes" / "part-000.safetensors"
    written = first.stat().st_mtime_ns
    with pytest.raises(UsageError, match="--resume"):
        next(train_decoder(str(encoder), data, folder, TINY))
    records = records_of(train_decoder(str(encoder), data, folder, TINY, resume=True))
    assert [record.stage for record in records if record.done] == ["scenes", "concepts", "unet"]
    assert {"cosine", "centred", "retrieval64"} <= records[-1].metrics.keys()
    assert first.stat().st_mtime_ns == written, "scenes that are embedded are not embedded again"
    assert len(list((folder / "scenes").glob("part-*.safetensors"))) == 2
    export_decoder(data, folder, folder / "pair", TINY)
    return folder


def test_the_pair_opens_with_the_encoder_at_the_size_it_was_trained_for(run: Path, encoder: Path) -> None:
    pair = sl.load(run / "pair")
    assert pair.encoder.spec.image_size == (42, 42)
    assert pair.encoder.spec.embedding_size == pair.decoder.spec.embedding_size == 16
    pictures = torch.rand(3, 3, 64, 64)
    embeds = embed_with(pair.encoder, pictures)
    assert torch.allclose(embeds, opened_embedder(run / "encoder", "cpu").embed(pictures), atol=1e-3)
    original = sl.load_encoder(str(encoder))
    assert original.spec.image_size == (56, 56), "the encoder itself is left as it was"
    manifest = json.loads((run / "pair" / "manifest.json").read_text())
    assert manifest["steps"] == 2
    assert manifest["encoder"]["source"] == str(encoder)
    assert set(manifest["encoder"]["sha256"]) == {"model.safetensors"}
    assert pair.card is not None and pair.decoder.spec.defaults.steps == pair.card.defaults.steps == 6


def test_names_of_the_pictures_are_prototypes(run: Path, data: Path) -> None:
    pair, pictures = sl.load(run / "pair", device="cpu", dtype="float32"), load_prepared(data)
    assert isinstance(pair.vocabulary, PrototypeVocabulary)
    rows = pictures.rows(TRAIN)
    trained = pictures.concept[rows].unique().tolist()
    assert pair.vocabulary.names == tuple(pictures.concepts[index].name for index in trained)
    shown = zero_shot_scenes(SceneMaker(pictures, rows, "cpu", PLAIN), rows)
    embeds = embed_with(pair.encoder, shown)
    own = embeds[pictures.concept[rows] == trained[0]].mean(dim=0)
    torch.testing.assert_close(pair.vocabulary.embeddings[0], own, atol=2e-2, rtol=2e-2)
    assert pair.vocabulary.scores(embeds).shape == (len(rows), len(trained))
    name = pair.vocabulary.names[1]
    torch.testing.assert_close(pair.text_direction(name), pair.vocabulary.directions()[1])


def test_a_finished_run_trains_no_more(run: Path, data: Path, encoder: Path) -> None:
    before = (run / "unet.safetensors").stat().st_mtime_ns
    records = records_of(train_decoder(str(encoder), data, run, TINY, resume=True))
    assert records[-1].done and records[-1].step == 2
    assert (run / "unet.safetensors").stat().st_mtime_ns == before


def test_another_encoder_starts_from_the_same_unet(run: Path, data: Path, tmp_path: Path) -> None:
    """Only the layers that read the embedding change size; all others start where the first UNet ended."""
    wider = save_encoder(tmp_path / "wider", 24)
    recipe = replace(TINY, pixels=None, steps=1)
    init = str(run / "unet.safetensors")
    records = records_of(train_decoder(str(wider), data, tmp_path / "run", recipe, init=init))
    assert records[-1].done
    torch.manual_seed(1)
    unet = make_unet(recipe.unet, 24)
    fresh = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    start_unet(unet, run / "unet.safetensors")
    given = make_unet(recipe.unet, 16)
    start_unet(given, run / "unet.safetensors")
    for name, tensor in unet.state_dict().items():
        if name.startswith(CONDITION_LAYERS) and name.endswith("weight"):
            assert torch.equal(tensor, fresh[name]), name
        else:
            assert torch.equal(tensor, given.state_dict()[name]), name


def test_weights_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another architecture"):
        start_unet(make_unet(UnetSettings(channels=(32, 64, 64)), 16), run / "unet.safetensors")
    with pytest.raises(UsageError, match="another architecture"):
        start_unet(make_unet(TINY.unet, 16), run / "autoencoder.safetensors")
    with pytest.raises(UsageError, match="is missing"):
        start_unet(make_unet(TINY.unet, 16), tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="finish it"):
        export_decoder(tmp_path, tmp_path, tmp_path / "pair", TINY)


def test_preprocessing_is_set_to_a_size_without_cropping() -> None:
    clip = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    square = {"height": 112, "width": 112}
    assert resized(clip, 112) == {"size": {"shortest_edge": 112}, "crop_size": square, "resample": 3}
    assert resized({"size": {"height": 384, "width": 384}}, 112) == {"size": square}
    assert resized(clip, None) == clip
    with pytest.raises(UsageError, match="has no size"):
        resized({}, 112)


def test_an_encoder_without_preprocessing_takes_no_size(encoder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    copy_encoder(str(encoder), bare)
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match="cannot be set"):
        copy_encoder(str(bare), tmp_path / "out", 28)


def test_a_decoder_is_evaluated_with_its_names(run: Path, data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = evaluate(run / "pair", data, quick=True, grid=tmp_path / "grid.png", say=said.append)
    names = [figure.name for figure in report.figures]
    assert names[0] == "held-out scenes: re-encoded cosine, mean taken out"
    assert "transfer of a step of 0.5" in names
    assert len(said) == len(names)
    assert {"transfer along a head, rho=1", "name of a held-out picture, top-5"} <= set(names)
    assert not report.passed, "two steps train nothing"
    assert (tmp_path / "grid.png").exists()


@pytest.fixture
def shipped(run: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The decoder put into a package's folder, with a card that names its encoder on the hub."""
    (tmp_path / "about.md").write_text("# A tiny decoder\n\nThese weights are random.\n")
    (tmp_path / "figures.json").write_text(json.dumps(Evaluation((Measurement("a figure", 0.5, 0.4),)).to_dict()))
    ship(run / "pair", tmp_path / "shipped", tmp_path / "about.md", tmp_path / "figures.json")
    known = replace(
        cards()["dinov2-small"], name="tiny-dinov2", bundled=str(tmp_path / "shipped"), reencoding_cosine=0.01
    )
    monkeypatch.setattr("steerlens.zoo.sources.cards", lambda: {"tiny-dinov2": known})
    return tmp_path / "shipped"


def test_a_decoder_of_the_package_takes_its_encoder_from_a_folder(shipped: Path, encoder: Path, run: Path) -> None:
    assert not (shipped / "image_encoder").exists()
    pair, whole = (
        sl.load("tiny-dinov2", local=encoder, device="cpu", dtype="float32"),
        sl.load(run / "pair", device="cpu", dtype="float32"),
    )
    assert pair.encoder.spec.image_size == (42, 42), "the preprocessing is that of the decoder's training"
    assert pair.notes == ()
    pictures = torch.rand(2, 3, 64, 64)
    assert torch.equal(
        pair.encoder.embed(pair.encoder.preprocess_tensor(pictures)),
        whole.encoder.embed(whole.encoder.preprocess_tensor(pictures)),
    )
    assert isinstance(pair.vocabulary, PrototypeVocabulary)
    parts = {name.partition("/")[0] for name in pair.provenance.sha256}
    assert {"image_encoder", "image_processor", "unet", "movq"} <= parts
    # Alone, for studies without a decoder and for indexes, the encoder sees pictures of the same size.
    alone = open_encoder(locate_encoder_in("tiny-dinov2", encoder), device="cpu", dtype="float32")
    assert alone.spec.image_size == (42, 42)


def test_its_cost_is_counted_at_the_size_of_its_pictures(shipped: Path, encoder: Path, run: Path) -> None:
    given, own = cost_of("tiny-dinov2", local=encoder, device="cpu"), cost_of(run / "pair", device="cpu")
    assert given.unet_flops == own.unet_flops
    assert given.encoder_flops < own.encoder_flops, "42 pixels, where the encoder's own config says 56"


def test_weights_of_another_file_are_noted_and_measured(shipped: Path, tmp_path: Path) -> None:
    other = save_encoder(tmp_path / "other", 16)
    model = Dinov2Model.from_pretrained(other)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(other)
    pair = sl.load("tiny-dinov2", local=other, device="cpu", dtype="float32")
    assert len(pair.notes) == 1 and "steerlens doctor tiny-dinov2" in pair.notes[0]
    picture = sl.sample_picture()
    probe = load_probe(shipped)
    assert probe is not None and len(probe.scenes) == 24
    last = next(check for check in checks(pair, picture, folder=shipped) if "fits" in check.name)
    assert "another file" in last.detail and "at least" in last.detail
    assert measure_fit(pair.encoder, pair.decoder, probe).agreement < 0.9


def test_doctor_finds_the_decoder_fitting_with_the_weights_of_its_training(shipped: Path, encoder: Path) -> None:
    pair = sl.load("tiny-dinov2", local=encoder, device="cpu", dtype="float32")
    probe = load_probe(shipped)
    assert probe is not None
    fit = measure_fit(pair.encoder, pair.decoder, probe)
    assert fit.agreement == pytest.approx(1, abs=1e-3) and fit.fit == pytest.approx(probe.figure, abs=0.02)


def test_a_missing_encoder_is_named(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="holds no encoder; give a folder with"):
        sl.load("tiny-dinov2", local=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="--local FOLDER, with"):
        sl.load("tiny-dinov2", local_files_only=True)
    shutil.rmtree(shipped)
    with pytest.raises(ModelError, match="missing from this installation"):
        sl.load("tiny-dinov2")


def test_the_card_says_what_the_weights_are(shipped: Path) -> None:
    text = (shipped / "README.md").read_text()
    assert "# A tiny decoder" in text and "These weights are random." in text
    assert json.loads((shipped / "manifest.json").read_text())["encoder"]["sha256"]["model.safetensors"] in text
    assert "| a figure | 50.0% | 40.0% | met |" in text
    assert "text_map.safetensors" not in text and "decoded.png" not in text, "neither is there"
