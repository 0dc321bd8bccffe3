"""Composed scenes: deterministic, labelled, and placed where they say."""

from pathlib import Path

import pytest
import torch
from shapes import prepare_shapes

from steerlens import scenes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_shapes(tmp_path_factory.mktemp("data"))


def test_scenes_are_deterministic_and_labelled(prepared: Path) -> None:
    found = scenes.load_prepared(prepared)
    maker = scenes.SceneMaker(found, found.rows(scenes.TRAIN), "cpu", scenes.STRONG)
    first, second = (maker.draw(32, torch.Generator().manual_seed(5), companions=0.5) for _ in range(2))
    assert torch.equal(first.pictures, second.pictures)
    assert torch.equal(first.companion, second.companion)
    assert first.pictures.min() >= 0
    assert first.pictures.max() <= 1
    has = first.companion >= 0
    assert 0 < int(has.sum()) < 32
    assert (first.companion[has] != first.main[has]).all()
    spoilt = maker.spoil(first.pictures, torch.Generator().manual_seed(6))
    assert spoilt.shape == first.pictures.shape
    assert not torch.equal(spoilt, first.pictures)


def test_companion_sits_in_its_corner(prepared: Path) -> None:
    found = scenes.load_prepared(prepared)
    maker = scenes.SceneMaker(found, found.rows(scenes.TRAIN), "cpu")
    generator = torch.Generator().manual_seed(8)
    rows = found.rows(scenes.TRAIN)[torch.zeros(64, dtype=torch.long)]
    batch = maker.draw(64, generator, rows=rows, companions=1.0)
    plain = maker.draw(64, torch.Generator().manual_seed(8), rows=rows, companions=0.0)
    changed = (batch.pictures - plain.pictures).abs().sum(dim=1)
    for index in torch.nonzero(batch.companion >= 0)[:, 0].tolist():
        halves = changed[index].reshape(2, 32, 2, 32).sum(dim=(1, 3)).flatten()
        assert int(halves.argmax()) == int(batch.corner[index])


def test_plain_place_is_the_identity() -> None:
    sources = torch.rand(2, 4, 64, 64)
    one = torch.ones(2)
    assert torch.allclose(scenes.place(sources, one, 0 * one, torch.zeros(2, 2), one, 64), sources, atol=1e-4)
    mirrored = scenes.place(sources, one, 0 * one, torch.zeros(2, 2), -one, 64)
    assert torch.allclose(mirrored, sources.flip(-1), atol=1e-4)
    moved = scenes.place(sources, one, 0 * one, torch.tensor([[0.5, 0.0]]).expand(2, 2), one, 64)
    assert torch.allclose(moved[..., 16:], sources[..., :48], atol=1e-4)


def test_colour_matrix_keeps_grey_and_turns_red_to_green() -> None:
    matrix = scenes.colour_matrix(torch.tensor([1 / 3]), torch.ones(1))[0]
    assert torch.allclose(matrix @ torch.ones(3), torch.ones(3), atol=1e-5)
    assert torch.allclose(matrix @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-5)
