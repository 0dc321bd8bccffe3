"""The explorer of a decoder of image tokens: scores before decoding are those of its cells."""

from dataclasses import replace
from pathlib import Path

import pytest

from steerlens.app import Explorer, View
from steerlens.app.answers import Answer
from steerlens.app.models import OpenModel
from steerlens.app.view import LookRequest
from steerlens.loading import load
from steerlens.testing.tiny_decoders import save_tiny_decoder
from steerlens.zoo import sample_picture


@pytest.fixture(scope="module", params=["rae-dinov2", "ip-adapter-plus-sd15"])
def explorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    folder: Path = save_tiny_decoder(request.param, tmp_path_factory.mktemp("tokens") / "tiny")
    explorer = Explorer([OpenModel("tokens", load(folder, dtype="float32", device="cpu"))])
    explorer.inputs.offer(sample_picture())
    return explorer


def test_scores_are_those_of_the_cells(explorer: Explorer, sample: str) -> None:
    view = View(sample, strength="rho=2")
    scores = explorer.scores(view)
    spec = explorer.model().pair.encoder.spec
    assert [len(row) for row in scores["heads"]] == [spec.n_heads] * spec.n_layers
    for site, score in (("head.0.0", scores["heads"][0][0]), ("mlp_out.0", scores["mlps"][0])):
        (numbers, *_) = explorer.look(LookRequest(replace(view, site=site), refine=False))
        assert isinstance(numbers, Answer) and numbers.content["undecoded"] == pytest.approx(score, abs=1e-3)
    assert scores["input"] == pytest.approx(1, abs=1e-4)
    weaker = explorer.scores(replace(view, strength="rho=0"))
    assert weaker["heads"][0][0] == pytest.approx(1, abs=1e-4) and scores["heads"][0][0] < 1


def test_a_picture_is_a_target_and_parts_after_the_tokens_have_no_score(explorer: Explorer, sample: str) -> None:
    scores = explorer.scores(View(sample, target_input=sample))
    source = explorer.model().pair.decoder.spec.tokens
    assert source is not None
    reached = source.last_layer(explorer.model().pair.encoder.spec.n_layers)
    assert [value is not None for value in scores["mlps"]] == [layer <= reached for layer in range(len(scores["mlps"]))]
