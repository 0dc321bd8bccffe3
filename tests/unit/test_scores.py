"""Scores that are read next to every picture."""

import pytest
import torch

from steerlens.scores import cosine_similarity, seed_agreement, share_beaten


def test_cosine_similarity_ignores_length_and_keeps_the_sign() -> None:
    a = torch.tensor([3.0, 4.0])
    assert cosine_similarity(a, 7 * a).item() == pytest.approx(1)
    assert cosine_similarity(a, -a).item() == pytest.approx(-1)
    assert cosine_similarity(a, torch.tensor([4.0, -3.0])).item() == pytest.approx(0, abs=1e-7)


def test_half_precision_is_compared_in_float32() -> None:
    assert cosine_similarity(torch.ones(4, dtype=torch.bfloat16), torch.ones(4)).dtype == torch.float32


def test_share_beaten_counts_ties_half() -> None:
    assert share_beaten(0.5, torch.tensor([0.1, 0.5, 0.9, 0.2])) == pytest.approx(2.5 / 4)


def test_seed_agreement_is_the_mean_over_pairs() -> None:
    pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert seed_agreement(pictures) == pytest.approx(1 / 3)
    assert seed_agreement(pictures[:1]) == 1.0
