"""A second tiny pair for the studies' tests, loaded once."""

import pytest

import steerlens
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo.pair import Pair


@pytest.fixture(scope="session")
def pair_of_many_heads(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """3 layers of 4 heads."""
    return steerlens.load(save_tiny_pair(tmp_path_factory.mktemp("pair") / "heads", heads=4))
