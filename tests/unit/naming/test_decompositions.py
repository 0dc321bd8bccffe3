"""Texts planted in directions and writes are recovered, and explained variance equals a plain reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steerlens as sl
from steerlens.errors import UsageError
from steerlens.naming import text_directions

V, E = 60, 24


def vocabulary(seed: int = 0, size: int = V, width: int = E) -> sl.TextVocabulary:
    directions = torch.randn(size, width, generator=torch.Generator().manual_seed(seed))
    return sl.TextVocabulary(tuple(f"text {number}" for number in range(size)), directions)


def index_of(named: sl.NamedText) -> int:
    return int(named.text.split()[1])


def reference_omp(x: torch.Tensor, texts: torch.Tensor, k: int) -> tuple[list[int], torch.Tensor, list[float]]:
    """Matching pursuit with a least-squares fit from scratch at every step."""
    residual, chosen, explained, weights = x, list[int](), list[float](), torch.zeros(0)
    for _ in range(k):
        chosen.append(int((texts @ residual).abs().argmax()))
        weights = torch.linalg.lstsq(texts[chosen].T, x[:, None]).solution[:, 0]
        residual = x - texts[chosen].T @ weights
        explained.append(1 - float(residual.square().sum() / x.square().sum()))
    return chosen, weights / x.norm(), explained


def reference_text_span(writes: torch.Tensor, texts: torch.Tensor, k: int) -> tuple[list[int], list[float]]:
    """TextSpan as its paper states it: projects texts, and deflates writes and texts in the embedding space."""
    centred = writes - writes.mean(dim=0)
    total = float(centred.square().sum())
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[values > 1e-9 * values[0]]
    texts, chosen = texts @ axes.T @ axes, list[int]()
    explained: list[float] = []
    for _ in range(k):
        chosen.append(int((centred @ texts.T).var(dim=0).argmax()))
        unit = texts[chosen[-1]] / texts[chosen[-1]].norm()
        centred = centred - (centred @ unit)[:, None] * unit
        texts = texts - (texts @ unit)[:, None] * unit
        explained.append(1 - float(centred.square().sum()) / total)
    return chosen, explained


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_omp_equals_a_fit_from_scratch(seed: int, k: int) -> None:
    words = vocabulary(seed)
    x = torch.randn(E, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    found = sl.omp(x, words, k, controls=2)
    chosen, weights, explained = reference_omp(x, text_directions(words), k)
    assert [index_of(text) for text in found.texts] == chosen
    assert [text.weight for text in found.texts] == pytest.approx(weights.tolist(), abs=1e-9)
    assert [text.explained for text in found.texts] == pytest.approx(explained, abs=1e-9)
    assert sorted(found.control) == list(found.control)


def test_omp_recovers_planted_texts_with_their_signed_weights() -> None:
    words = vocabulary()
    texts = text_directions(words)
    x = 3 * texts[5] - 2 * texts[17] + texts[40]
    found = sl.omp(x, words, 8)
    weights = {index_of(text): text.weight for text in found.texts}
    assert {row for row, weight in weights.items() if abs(weight) > 1e-6} == {5, 17, 40}
    assert weights[17] == pytest.approx(-2 / float(x.norm()), abs=1e-9)
    assert found.explained == pytest.approx(1)
    assert found.beats_control
    assert "−text 17" in str(found)


def test_omp_stops_where_everything_is_explained() -> None:
    words = vocabulary()
    found = sl.omp(text_directions(words)[3], words, 5)
    assert [(text.text, text.explained) for text in found.texts] == [("text 3", pytest.approx(1))]
    assert len(found.control) == 1


def test_rows_are_decomposed_as_they_are_alone() -> None:
    words = vocabulary()
    rows = torch.randn(5, E, generator=torch.Generator().manual_seed(3))
    together = sl.omp_rows(rows, words, 4, controls=3)
    assert together == tuple(sl.omp(row, words, 4, controls=3) for row in rows)


def test_a_direction_without_meaning_seldom_beats_random_vocabularies() -> None:
    words = vocabulary(size=40)
    rows = torch.randn(200, E, generator=torch.Generator().manual_seed(9))
    beating = [found.beats_control for found in sl.omp_rows(rows, words, 3, controls=40)]
    assert sum(beating) / len(beating) < 0.25  # 0.05 of random rows each, which all share one vocabulary


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_text_span_equals_the_papers_algorithm(seed: int, k: int) -> None:
    words = vocabulary(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    writes = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    writes = writes @ torch.randn(8, E, generator=generator, dtype=torch.float64) + 3
    found = sl.text_span(writes, words, k, controls=2)
    chosen, explained = reference_text_span(writes, text_directions(words), k)
    assert [index_of(text) for text in found.texts] == chosen
    assert [text.explained for text in found.texts] == pytest.approx(explained, abs=1e-8)
    assert sum(text.weight for text in found.texts) == pytest.approx(found.explained)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_text_span_recovers_the_planted_texts(seed: int) -> None:
    # Wide enough that 60 random texts are nearly orthogonal: correlated texts hide each other.
    words, planted = vocabulary(seed, width=256), [3, 11, 29, 50]
    generator = torch.Generator().manual_seed(seed)
    amounts = torch.randn(200, 4, generator=generator, dtype=torch.float64) * torch.tensor([4.0, 3.0, 2.0, 1.5])
    constant = torch.randn(256, generator=generator, dtype=torch.float64)
    exact = amounts @ text_directions(words)[planted] + constant
    noise = 0.02 * torch.randn(200, 256, generator=generator, dtype=torch.float64)
    found = sl.text_span(exact + noise, words, 4)
    assert {index_of(text) for text in found.texts} == set(planted)
    assert found.explained > 0.95
    assert found.beats_control
    # Without noise, the span has four dimensions, which any four texts explain.
    assert {index_of(text) for text in sl.text_span(exact, words, 4).texts} == set(planted)


def test_rank_limits_the_span() -> None:
    words = vocabulary()
    writes = torch.randn(50, E, generator=torch.Generator().manual_seed(1))
    few, all_ranks = (sl.text_span(writes, words, 10, rank=rank, controls=0) for rank in (2, None))
    assert len(few.texts) == 2 and len(all_ranks.texts) == 10
    assert few.control == () and few.control_level == 0


def test_classes_are_compared_without_what_shifts_all_logits() -> None:
    weight = torch.randn(7, E, generator=torch.Generator().manual_seed(2))
    classes = sl.ClassVocabulary(tuple("abcdefg"), weight + 5)
    torch.testing.assert_close(
        text_directions(classes), text_directions(sl.ClassVocabulary(tuple("abcdefg"), weight)), atol=1e-5, rtol=1e-5
    )


def test_each_wrong_input_is_told() -> None:
    words = vocabulary()
    with pytest.raises(UsageError, match="omp_rows takes several"):
        sl.omp(torch.ones(2, E), words)
    with pytest.raises(UsageError, match="embedding size 24"):
        sl.omp(torch.ones(E + 1), words)
    with pytest.raises(UsageError, match="it points nowhere"):
        sl.omp(torch.zeros(E), words)
    with pytest.raises(sl.SteerlensError, match="not finite"):
        sl.omp(torch.full((E,), torch.nan), words)
    with pytest.raises(UsageError, match="at least one text"):
        sl.omp(torch.ones(E), words, 0)
    with pytest.raises(UsageError, match="give more"):
        sl.text_span(torch.ones(1, E), words)
    with pytest.raises(UsageError, match="no variance"):
        sl.text_span(torch.ones(9, E), words)
    with pytest.raises(UsageError, match="at least 1, not 0"):
        sl.text_span(torch.randn(9, E), words, rank=0)
    with pytest.raises(UsageError, match="embedding size 24"):
        sl.text_span(torch.randn(9, E + 2), words)
