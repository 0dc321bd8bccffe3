"""Names of sites in a sweep: decompositions equal those of the API, are stored, and read again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import steerlens as sl
from steerlens.cli.lens.names import name_lines
from steerlens.errors import UsageError
from steerlens.images import Picture, load_picture
from steerlens.lenses import DiffusionLens, LinearAttribution
from steerlens.report.content import _labels  # pyright: ignore[reportPrivateUsage]
from steerlens.zoo.pair import Pair

SITES = "resid_post,head.1-2.*"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [load_picture(path) for path in sorted(folder.iterdir())]


def look(pair: Pair, pictures: Any, **options: Any) -> sl.Atlas:
    return sl.look(pair, pictures, sites=SITES, decode="top:1", steps=1, guidance=1.0, n_labels=2, **options)


def test_a_sum_of_texts_is_that_of_the_embedding_which_the_logit_lens_reads(
    pair: Pair, pictures: list[Picture], tmp_path: Path
) -> None:
    atlas = look(pair, pictures[:1], names="omp", folder=tmp_path / "run")
    trace = pair.encoder.trace(pair.encoder.preprocess([pictures[0].image]))
    assert pair.vocabulary is not None
    for site in ("resid_post.1", "L2H1"):
        embedding = DiffusionLens(pair.encoder).embeddings(trace, [sl.Site.parse(site)])[0, 0]
        expected = sl.omp(embedding, pair.vocabulary, 2, controls=8)
        found = atlas.reading().top_labels(site)
        assert [label.name for label in found] == [text.text for text in expected.texts]
        assert [label.score for label in found] == pytest.approx([text.weight for text in expected.texts], abs=1e-4)
        assert found[-1].explained == pytest.approx(expected.explained, abs=1e-4)
        assert found[-1].control == pytest.approx(expected.control[-1], abs=1e-4)
    again = sl.load_run(tmp_path / "run").reading()
    assert again.labels == atlas.reading().labels
    words, explained = _labels(again, sl.Site.parse("L2H1"))[-1]
    assert "random texts" in words
    title, *lines = name_lines(atlas, atlas.reading())  # the terminal
    best = atlas.ranked("steering", atlas.reading().id)[0].site
    label = atlas.reading().top_labels(best)[-1]
    assert "random texts" in title and lines[0].startswith(f"    {best.label}: ")
    assert lines[0].endswith(f"(explain {label.explained:.0%}; random texts {label.control:.0%})")
    assert explained == pytest.approx(again.top_labels("L2H1")[-1].explained, abs=1e-3)


def test_texts_that_span_a_head_are_those_of_all_inputs(pair: Pair, pictures: list[Picture]) -> None:
    atlas = look(pair, pictures, names="textspan")
    head = sl.Site.parse("L2H0")
    inputs = pair.encoder.preprocess([picture.image for picture in pictures])
    writes = LinearAttribution(pair.encoder).embeddings(pair.encoder.trace(inputs), [head])[:, 0]  # type: ignore[arg-type]
    assert pair.vocabulary is not None
    expected = sl.text_span(writes, pair.vocabulary, 2, controls=8)
    for reading in atlas.readings:
        found = reading.top_labels(head)
        assert [label.name for label in found] == [text.text for text in expected.texts]
        assert found[-1].explained == pytest.approx(expected.explained, abs=1e-4)
        assert reading.top_labels("resid_post.1")[0].explained is None  # no head: the nearest texts


def test_the_nearest_texts_are_as_before(pair: Pair, pictures: list[Picture]) -> None:
    atlas = look(pair, pictures[:1])
    labels = atlas.reading().labels
    assert not list(name_lines(atlas, atlas.reading()))
    assert all(label.explained is None and label.control is None for label in labels)


def test_names_that_cannot_be_are_refused(pair: Pair, pictures: list[Picture]) -> None:
    with pytest.raises(UsageError, match="give several pictures"):
        look(pair, pictures[:1], names="textspan")
    with pytest.raises(UsageError, match="is for heads"):
        sl.look(pair, pictures, sites="mlp_out", names="textspan")
    with pytest.raises(UsageError, match="needs texts"):
        sl.look(pair, pictures, sites=SITES, names="omp", n_labels=0)
    assert torch.is_grad_enabled()
