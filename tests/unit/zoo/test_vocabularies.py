"""Vocabularies of users in every layout, and the messages where there is none."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from steerlens.cli.main import main
from steerlens.errors import ModelError, StoreError, UsageError
from steerlens.images import Picture
from steerlens.loading import load, read_vocabulary
from steerlens.sweep.look import look
from steerlens.testing.tiny import save_tiny_pair
from steerlens.vocabulary import ClassVocabulary, TextVocabulary
from steerlens.zoo import Pair
from steerlens.zoo.text import direction_of


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return load(save_tiny_pair(tmp_path_factory.mktemp("hub"), layout="hub"), dtype="float32", device="cpu")


def test_texts_of_a_file_go_through_the_pair_s_text_encoder(hub: Pair, tmp_path: Path) -> None:
    lines = [f"text number {'x' * (index % 7)} {index}" for index in range(70)]  # more than one batch, padded
    (tmp_path / "texts.txt").write_text("\ufeff" + "\n\n".join([*lines, "  ", lines[0]]), encoding="utf-8")
    found = read_vocabulary(tmp_path / "texts.txt", hub)
    assert found.names == tuple(lines) and isinstance(found, TextVocabulary)
    for index in (0, 5, 69):
        torch.testing.assert_close(found.directions()[index], hub.text_direction(lines[index]), atol=1e-5, rtol=1e-4)


def test_texts_that_the_pair_s_vocabulary_holds_keep_their_directions(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("Sun\nred apple\n")
    found = read_vocabulary(tmp_path / "texts.txt", pair)
    assert isinstance(found, TextVocabulary) and isinstance(pair.vocabulary, TextVocabulary)
    torch.testing.assert_close(found.directions(), pair.vocabulary.directions()[[4, 0]])
    (tmp_path / "texts.txt").write_text("sun\ncup\nboat\n")
    with pytest.raises(UsageError, match=r"does not hold 'cup'.* Nor does it hold 1 more"):
        read_vocabulary(tmp_path / "texts.txt", pair)


def test_the_extra_that_gives_any_text_a_direction_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'steerlens\[train\]'"):
        direction_of("cup", TextVocabulary(("cat",), torch.randn(1, 384)), None)
    with pytest.raises(UsageError) as caught:  # of no use to a vocabulary of another make
        direction_of("cup", TextVocabulary(("cat",), torch.randn(1, 12)), None)
    assert "pip" not in str(caught.value)


def test_tensors_with_names_are_read_as_texts_or_classes(pair: Pair, tmp_path: Path) -> None:
    weight, bias = torch.randn(2, 12), torch.randn(2)
    (tmp_path / "vocabulary.json").write_text(json.dumps([{"name": "a"}, {"name": "b"}]))
    save_file({"text_embeds": weight, "text_mean": weight[0] * 0.5}, tmp_path / "vocabulary.safetensors")
    texts = read_vocabulary(tmp_path, pair)
    assert isinstance(texts, TextVocabulary) and texts.names == ("a", "b") and texts.mean is not None
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b"]))
    save_file({"weight": weight, "bias": bias}, tmp_path / "classes.safetensors")
    classes = read_vocabulary(tmp_path / "classes.safetensors", pair)
    assert isinstance(classes, ClassVocabulary)
    torch.testing.assert_close(classes.scores(weight), weight @ weight.T + bias)


@pytest.mark.parametrize("tensors", [{"weight": torch.randn(2, 9)}, {"weight": torch.full((2, 12), torch.nan)}, {}])
def test_tensors_that_do_not_fit_are_refused(pair: Pair, tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    (tmp_path / "vocabulary.json").write_text('["a", "b"]')
    save_file(tensors, tmp_path / "vocabulary.safetensors")
    with pytest.raises(ModelError, match="the vocabulary"):
        read_vocabulary(tmp_path, pair)


@pytest.mark.parametrize("length", [0.0, 1e38, 1e-38, 1.0], ids=["zero", "huge", "tiny", "its mean"])
def test_a_name_without_a_direction_is_refused_and_not_compared_with_nothing(
    pair: Pair, tmp_path: Path, length: float
) -> None:
    embeds = torch.randn(3, pair.encoder.spec.embedding_size, generator=torch.Generator().manual_seed(0))
    embeds[1] *= length
    mean = {"text_mean": embeds[1].clone()} if length == 1.0 else {}
    save_file({"text_embeds": embeds, **mean}, tmp_path / "vocabulary.safetensors")
    (tmp_path / "vocabulary.json").write_text('["a", "b", "c"]')
    with pytest.raises(ModelError, match="'b' has no direction: its embedding is zero, equal to the mean, or too"):
        read_vocabulary(tmp_path, pair)


@pytest.mark.parametrize("names", ['"abc"', '[["a"], ["b"], ["c"]]', '{"a": 1, "b": 2, "c": 3}'])
def test_names_are_a_list_of_texts(pair: Pair, tmp_path: Path, names: str) -> None:
    embeds = torch.randn(3, pair.encoder.spec.embedding_size)
    save_file({"text_embeds": embeds}, tmp_path / "vocabulary.safetensors")
    (tmp_path / "vocabulary.json").write_text(names)
    with pytest.raises(ModelError, match="its JSON is no list of names"):
        read_vocabulary(tmp_path, pair)


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"\xff\xfe\x00"])
def test_files_without_texts_are_refused(pair: Pair, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(UsageError, match="the vocabulary"):
        read_vocabulary(tmp_path / "texts.txt", pair)


def test_labels_come_from_the_vocabulary_that_was_given_and_it_belongs_to_the_run(pair: Pair, tmp_path: Path) -> None:
    picture, weight = Picture.from_image(Image.new("RGB", (20, 20), "red"), "red"), torch.randn(2, 12)
    wanted = {"sites": "resid_post.2", "steps": 1, "controls": 0, "folder": tmp_path / "run"}
    atlas = look(pair, picture, vocabulary=ClassVocabulary(("a", "b"), weight), **wanted)
    assert {label.name for label in atlas.reading().labels} == {"a", "b"}
    with pytest.raises((UsageError, StoreError)):
        look(pair, picture, vocabulary=ClassVocabulary(("a", "b"), weight + 1), **wanted)


def test_the_command_line_takes_a_vocabulary_and_says_where_none_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_pair(tmp_path / "pair", layout="hub")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    (tmp_path / "texts.txt").write_text("cat\nsun\n")
    asked = ["lens", str(tmp_path / "red.png"), "--model", str(folder), "--sites", "resid_post.2", "--steps", "1"]
    assert main([*asked, "--out", str(tmp_path / "one")]) == 0
    assert "no vocabulary: pass --vocabulary FILE for labels" in capsys.readouterr().err
    asked += ["--vocabulary", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "two"), "--json"]
    assert main(asked) == 0
    told = capsys.readouterr()
    assert {label["name"] for label in json.loads(told.out)["pictures"][0]["labels"]} == {"cat", "sun"}
