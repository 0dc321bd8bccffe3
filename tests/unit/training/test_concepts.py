"""Prototypes and text maps: fitted to synthetic embeddings of which the answer is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import steerlens as sl
from steerlens.errors import ModelError, UsageError
from steerlens.scenes import HELD_OUT, TRAIN, Concept, PictureSet
from steerlens.training.concepts import fit_prototypes, fit_text_map, write_vocabulary
from steerlens.training.metrics import rank_of
from steerlens.vocabulary import PrototypeVocabulary
from steerlens.zoo.text import MappedText, direction_of
from steerlens.zoo.vocabularies import TEXT_MAP, load_text_map, load_vocabulary

E, S, C, STYLES = 24, 384, 80, 6


@pytest.fixture(scope="module")
def world() -> tuple[torch.Tensor, PictureSet, torch.Tensor]:
    """Embeddings m + A t + style, where t are the names' texts: a map from images to texts exists, a mean hides it."""
    generator = torch.Generator().manual_seed(0)
    texts = functional.normalize(torch.randn(C, S, generator=generator) + 2, dim=-1)
    content = (texts - texts.mean(dim=0)) @ torch.randn(S, E, generator=generator) * 2
    styles = torch.randn(STYLES, E, generator=generator) * 3
    concept, style = torch.arange(C).repeat_interleave(STYLES), torch.arange(STYLES).repeat(C)
    mean = torch.randn(E, generator=generator) * 30
    embeds = mean + content[concept] + styles[style] + 0.1 * torch.randn(len(concept), E, generator=generator)
    split = torch.full_like(concept, TRAIN)
    split[(style == 0) & (concept % 2 == 0)] = HELD_OUT
    concepts = tuple(Concept(f"thing {index}", "things", str(index)) for index in range(C))
    names = tuple(f"style {index}" for index in range(STYLES))
    pictures = PictureSet(torch.zeros(len(concept), 1), concept, style, split, concepts, names, (), 0)
    return embeds, pictures, texts


def ranks(embeds: torch.Tensor, pictures: PictureSet, directions: torch.Tensor) -> torch.Tensor:
    rows = pictures.rows(HELD_OUT)
    return rank_of(functional.normalize(embeds[rows], dim=-1) @ directions.T, pictures.concept[rows])


def test_held_out_pictures_are_named_through_a_large_mean_and_styles(
    world: tuple[torch.Tensor, PictureSet, torch.Tensor],
) -> None:
    embeds, pictures, _ = world
    mean = embeds.mean(dim=0)
    vocabulary = fit_prototypes(embeds, pictures, mean)
    assert len(vocabulary.names) == C
    fitted = ranks(embeds, pictures, vocabulary.directions())
    assert float((fitted < 5).float().mean()) > 0.85
    plain = PrototypeVocabulary(vocabulary.names, vocabulary.embeddings, mean)
    assert fitted.float().mean() < ranks(embeds, pictures, plain.directions()).float().mean(), "styles count less"


def test_a_name_needs_drawings_in_two_styles(world: tuple[torch.Tensor, PictureSet, torch.Tensor]) -> None:
    embeds, pictures, _ = world
    mean = embeds[pictures.rows(TRAIN)].mean(dim=0)
    once = pictures.style == 1
    thinned = once | (pictures.concept >= 5)  # of the first five concepts one style is left
    kept = replace(
        pictures, concept=pictures.concept[thinned], style=pictures.style[thinned], split=pictures.split[thinned]
    )
    names = fit_prototypes(embeds[thinned], kept, mean).names
    assert names == tuple(concept.name for concept in pictures.concepts[5:])
    single = replace(pictures, concept=pictures.concept[once], style=pictures.style[once], split=pictures.split[once])
    assert len(fit_prototypes(embeds[once], single, mean).names) == C, "a set of one style names all its concepts"


def test_directions_do_not_depend_on_the_mean_being_subtracted() -> None:
    generator = torch.Generator().manual_seed(1)
    prototypes, mean = torch.randn(9, E, generator=generator), torch.randn(E, generator=generator) * 20
    vocabulary = PrototypeVocabulary(tuple("abcdefghi"), prototypes + mean, mean)
    torch.testing.assert_close(vocabulary.directions() @ mean, torch.zeros(9), atol=1e-4, rtol=0)
    torch.testing.assert_close(vocabulary.directions().norm(dim=-1), torch.ones(9))
    embeds = torch.randn(5, E, generator=generator) + mean
    assert torch.equal(vocabulary.scores(embeds).argsort(dim=-1), vocabulary.scores(embeds - mean).argsort(dim=-1))
    with pytest.raises(ModelError, match="needs the mean"):
        PrototypeVocabulary(("a",), prototypes[:1])


def test_a_text_map_names_concepts_without_pictures(world: tuple[torch.Tensor, PictureSet, torch.Tensor]) -> None:
    embeds, pictures, texts = world
    hidden = replace(pictures, split=torch.where(pictures.concept >= C - 8, HELD_OUT, pictures.split))
    mean = embeds[hidden.rows(TRAIN)].mean(dim=0)
    fitted = fit_text_map(embeds, hidden, texts, mean)
    rows = torch.nonzero(hidden.concept >= C - 8)[:, 0]
    unit = functional.normalize(embeds[rows], dim=-1)
    found = rank_of(unit @ fitted.directions(texts).T, hidden.concept[rows])
    assert found.float().median() < 0.2 * C, "chance is half of the names"
    assert fitted.median_rank < 0.3 * C
    torch.testing.assert_close(fitted.weight @ functional.normalize(mean, dim=0), torch.zeros(S), atol=1e-4, rtol=0)


def test_what_is_written_is_read(world: tuple[torch.Tensor, PictureSet, torch.Tensor], tmp_path: Path) -> None:
    embeds, pictures, texts = world
    mean = embeds.mean(dim=0)
    vocabulary, fitted = fit_prototypes(embeds, pictures, mean), fit_text_map(embeds, pictures, texts, mean)
    write_vocabulary(tmp_path, vocabulary, fitted)
    read = load_vocabulary(tmp_path, E)
    assert isinstance(read, PrototypeVocabulary) and read.names == vocabulary.names
    cosine = (read.directions() * vocabulary.directions()).sum(dim=-1)
    assert float(cosine.min()) > 0.999
    mapped = load_text_map(tmp_path, E, read)
    assert mapped is not None
    torch.testing.assert_close(mapped.weight, fitted.weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(ModelError, match="does not fit embeddings of size 12"):
        load_text_map(tmp_path, 12, None)
    tensors = load_file(tmp_path / "vocabulary.safetensors")
    save_file({**tensors, "precision": torch.zeros(3, 3)}, tmp_path / "vocabulary.safetensors")
    with pytest.raises(ModelError, match="shape"):
        load_vocabulary(tmp_path, E)
    (tmp_path / TEXT_MAP).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be read"):
        load_text_map(tmp_path, E, None)


def test_any_text_has_a_direction_through_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, mean = torch.randn(S, E, generator=generator), torch.randn(S, generator=generator)
    vocabulary = PrototypeVocabulary(("cat",), torch.randn(1, E, generator=generator), torch.zeros(E))
    mapped = MappedText(weight, mean, vocabulary)
    texts = torch.randn(1, S, generator=generator)
    monkeypatch.setattr("steerlens.zoo.text.sentence_folder", lambda: Path("here"))
    monkeypatch.setattr("steerlens.zoo.text.SentenceEncoder.embed", lambda *_: texts)
    # The similarity of an embedding with the direction is that of its image under the map with the text.
    embed = torch.randn(E, generator=generator)
    wanted = (weight @ embed) @ (texts[0] - mean)
    got = direction_of("a dog", vocabulary, mapped) @ embed
    assert float(got) == pytest.approx(float(wanted / ((texts[0] - mean) @ weight).norm()), rel=1e-4)
    torch.testing.assert_close(direction_of("CAT", vocabulary, mapped), vocabulary.directions()[0])
    monkeypatch.setattr("steerlens.zoo.text.sentence_folder", lambda: None)
    with pytest.raises(UsageError, match=r"does not hold 'a dog'.*pip install 'steerlens\[train\]'"):
        direction_of("a dog", vocabulary, mapped)


def test_the_vocabulary_is_public() -> None:
    assert sl.TextVocabulary in PrototypeVocabulary.__mro__
