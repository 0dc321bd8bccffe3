"""Training a classifier: labels, losses, resuming, export and the command, on a tiny set of coloured shapes."""

from pathlib import Path

import pytest
import torch
from records import records_of
from shapes import TINY_ENCODER, prepare_shapes

from steerlens import scenes
from steerlens.cli.train import Classifier
from steerlens.errors import SteerlensError, UsageError
from steerlens.loading import load_encoder
from steerlens.training.checkpoint import load_checkpoint
from steerlens.training.classifier import (
    Labels,
    classify,
    label_losses,
    make_classifier,
    measure_classifier,
    train_classifier,
)
from steerlens.training.classifier_export import export_classifier
from steerlens.training.encoder import to_pixel_values
from steerlens.training.stage import Budget
from steerlens.zoo.vocabularies import class_vocabulary


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_shapes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def classifier(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported classifier, trained for long enough to tell backgrounds."""
    pictures, folder = scenes.load_prepared(prepared), tmp_path_factory.mktemp("classifier")
    records = records_of(train_classifier(pictures, folder, Budget(steps=60), TINY_ENCODER))
    assert records[-1].done
    assert records[-1].losses["loss"] < records[0].losses["loss"]
    table = export_classifier(pictures, folder, folder / "out", minutes=1, seed=1, settings=TINY_ENCODER)
    assert "name of the companion" in table
    assert table in (folder / "out" / "README.md").read_text()
    return folder / "out"


def test_classifier_opens_with_its_labels_in_three_groups(classifier: Path, prepared: Path) -> None:
    pictures = scenes.load_prepared(prepared)
    trained = {pictures.concepts[index].name for index in pictures.concept[pictures.rows(scenes.TRAIN)].tolist()}
    opened = load_encoder(classifier)
    vocabulary = class_vocabulary(opened)
    assert vocabulary is not None
    small = {f"with a small {name}" for name in trained}
    assert set(vocabulary.names) == trained | small | {f"on {ground.name}" for ground in scenes.BACKGROUNDS}
    shown = scenes.SceneMaker(pictures, pictures.rows(scenes.TRAIN), "cpu").draw(5, torch.Generator().manual_seed(2))
    inputs = opened.preprocess_tensor(shown.pictures)
    assert torch.allclose(inputs["pixel_values"], to_pixel_values(shown.pictures), atol=2 / 255)
    with torch.no_grad():
        native = opened.model(**inputs).logits
    assert torch.allclose(vocabulary.scores(opened.embed(inputs)), native, atol=1e-4)
    figures = measure_classifier(classifier, pictures)
    assert figures["ground"] > 0.5, "chance is about the share of white scenes, two in five"
    assert not any(name.startswith("unseen") for name in figures)


def test_classes_of_scenes_are_those_of_their_concepts(prepared: Path) -> None:
    pictures = scenes.load_prepared(prepared)
    labels = Labels.of(pictures)
    shown = scenes.SceneMaker(pictures, pictures.rows(scenes.TRAIN), "cpu").draw(
        16, torch.Generator().manual_seed(3), companions=1.0
    )
    has = shown.companion >= 0
    right = torch.zeros(16, len(labels.names))
    for row in range(16):
        for name in (
            pictures.concepts[int(shown.main[row])].name,
            *([f"with a small {pictures.concepts[int(shown.companion[row])].name}"] if has[row] else []),
            f"on {scenes.BACKGROUNDS[int(shown.background[row])].name}",
        ):
            right[row, labels.names.index(name)] = 1
    scores = labels.scores(right)
    assert torch.equal(scores.names.argmax(dim=1), shown.main)
    assert torch.equal(scores.companions.argmax(dim=1)[has], shown.companion[has])
    assert torch.equal(scores.backgrounds.argmax(dim=1), shown.background)
    best, worst = (float(label_losses(30 * logits, shown, labels)["loss"]) for logits in (right, -right))
    assert best < worst


def test_classifier_with_all_patches_kept_equals_the_native_forward() -> None:
    torch.manual_seed(0)
    model = make_classifier(TINY_ENCODER, ("one", "two", "three")).eval()
    pixels, everything = torch.randn(2, 3, 64, 64), torch.arange(16).expand(2, -1)
    with torch.no_grad():
        assert torch.allclose(classify(model, pixels, everything), classify(model, pixels), atol=1e-5)
        assert not torch.allclose(classify(model, pixels, everything[:, :8]), classify(model, pixels))


def test_classifier_resumed_equals_uninterrupted_and_is_not_overwritten(prepared: Path, tmp_path: Path) -> None:
    pictures = scenes.load_prepared(prepared)
    one, two = tmp_path / "one", tmp_path / "two"
    list(train_classifier(pictures, one, Budget(steps=3), TINY_ENCODER))
    for _ in train_classifier(pictures, two, Budget(steps=3), TINY_ENCODER, checkpoint_seconds=0.0):
        break
    with pytest.raises(SteerlensError, match="--resume"):
        export_classifier(pictures, two, two / "out", minutes=1, seed=1, settings=TINY_ENCODER)
    list(train_classifier(pictures, two, Budget(steps=3), TINY_ENCODER, resume=True))
    left, right = (load_checkpoint(folder / "classifier.safetensors")[0] for folder in (one, two))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
    with pytest.raises(UsageError, match="--resume"):
        Classifier(data=prepared, out=two, minutes=1).run()


def test_classifier_command_trains_and_prints_accuracies(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.training.classifier.CLASSIFIER_SETTINGS", TINY_ENCODER)
    assert Classifier(data=prepared, out=tmp_path / "run", minutes=0.002).run() == 0
    assert "background, top-1" in capsys.readouterr().out
    assert load_encoder(tmp_path / "run" / "classifier").spec.n_layers == TINY_ENCODER.layers
