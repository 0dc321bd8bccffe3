"""Vocabularies and the Logit Lens that reads them."""

import pytest
import torch

from steerlens.errors import ModelError, UsageError
from steerlens.lenses.logit import LogitLens
from steerlens.sites import Site
from steerlens.testing.tiny import tiny_encoder
from steerlens.vocabulary import ClassVocabulary, TextVocabulary, Vocabulary

NAMES = ("Red apple", "green apple", "cat")
TEXTS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 5.0]])


def test_scores_are_cosines_and_do_not_depend_on_norms() -> None:
    vocabulary = TextVocabulary(NAMES, TEXTS)
    embeddings = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, -4.0]])
    wanted = torch.tensor([[1.0, 1 / 50**0.5, 1 / 5**0.5], [-1 / 5**0.5, -1 / 10**0.5, -1.0]])
    torch.testing.assert_close(vocabulary.scores(embeddings), wanted)
    torch.testing.assert_close(vocabulary.scores(embeddings * 17), wanted)


def test_the_mean_is_taken_from_texts_before_they_are_compared() -> None:
    vocabulary = TextVocabulary(NAMES, TEXTS, mean=torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(vocabulary.directions(), torch.eye(3))


def test_scores_of_half_precision_embeddings_are_in_float32() -> None:
    scores = TextVocabulary(NAMES, TEXTS).scores(TEXTS.to(torch.bfloat16))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.diagonal(), torch.ones(3), rtol=1e-2, atol=0)


def test_a_text_is_found_whatever_its_case() -> None:
    vocabulary = TextVocabulary(NAMES, TEXTS)
    torch.testing.assert_close(vocabulary.direction("RED APPLE"), vocabulary.directions()[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("apple", "does not hold 'apple'; close to it: Red apple, green apple"),
        ("grean aple", "close to it: green apple"),
        ("zzzz", r"the vocabulary of 3 texts does not hold 'zzzz'\."),
    ],
)
def test_a_text_that_is_not_there_is_refused_with_what_comes_close(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TextVocabulary(NAMES, TEXTS).direction(name)


def test_names_and_embeddings_of_different_number_are_refused() -> None:
    with pytest.raises(ModelError, match="a vocabulary of 3 names has 2 text embeddings"):
        TextVocabulary(NAMES, TEXTS[:2])
    with pytest.raises(ModelError, match="a classifier of 2 classes was given 3 names"):
        ClassVocabulary(NAMES, TEXTS[:2])


def test_classes_are_scored_by_their_logits() -> None:
    embeddings = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(ClassVocabulary(NAMES, TEXTS).scores(embeddings), torch.tensor([[5.0, 9.0, 15.0]]))
    biased = ClassVocabulary(NAMES, TEXTS, bias=torch.tensor([1.0, 0.0, -1.0]))
    torch.testing.assert_close(biased.scores(embeddings), torch.tensor([[6.0, 9.0, 14.0]]))


def test_both_kinds_are_vocabularies() -> None:
    kinds: list[Vocabulary] = [TextVocabulary(NAMES, TEXTS), ClassVocabulary(NAMES, TEXTS)]
    assert all(kind.names == NAMES for kind in kinds)


def test_the_logit_lens_gives_the_best_labels_of_every_site_of_every_picture() -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)))
    names = tuple(f"text {index}" for index in range(7))
    vocabulary = TextVocabulary(names, torch.randn(7, 12, generator=torch.Generator().manual_seed(3)))
    lens, sites = LogitLens(encoder, vocabulary), [Site("resid_post", 2), Site("head", 0, 1)]
    scores = lens.scores(trace, sites)
    torch.testing.assert_close(scores[:, 0], vocabulary.scores(trace.embedding), rtol=1e-5, atol=1e-6)
    read = lens.read(trace, sites, k=3)
    assert [[(label.site, label.rank) for label in picture] for picture in read] == [
        [(site, rank) for site in sites for rank in (1, 2, 3)]
    ] * 2
    for picture, labels in enumerate(read):
        for label in labels:
            ordered = scores[picture, sites.index(label.site)].sort(descending=True)
            assert label.name == names[int(ordered.indices[label.rank - 1])]
            assert label.score == float(ordered.values[label.rank - 1])


def test_more_labels_than_there_are_gives_all_of_them() -> None:
    encoder = tiny_encoder()
    trace = encoder.trace(torch.zeros(1, 3, 16, 16))
    lens = LogitLens(encoder, ClassVocabulary(("a", "b"), torch.randn(2, 12)))
    assert len(lens.read(trace, [Site("embed")], k=50)[0]) == 2
