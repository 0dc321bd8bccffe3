"""Tables of an atlas: every score and every decoded picture, row by row."""

import io
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from steerlens.atlas import Atlas
from steerlens.atlas.tables import COLUMN_WORDS
from steerlens.errors import UsageError
from steerlens.sites import Site
from steerlens.sweep.look import look


@pytest.fixture(scope="module")
def atlas(pair: Any) -> Atlas:
    noise = np.random.default_rng(0).random((2, 40, 40, 3))
    return look(pair, noise, steps=2, strength="rho=0.5", sites="resid_post,head.1.*", n_seeds=2)


def test_a_row_for_each_score_with_the_numbers_of_the_atlas(atlas: Atlas) -> None:
    rows = atlas.to_arrow().to_pylist()
    assert len(rows) == 2 * (3 + 2 + 2)
    for row in rows:
        score = atlas.score(row["lens"], row["site"], row["id"])
        for name in ("similarity", "steered_similarity", "fidelity", "agreement", "rho", "control", "beats_control"):
            assert row[name] == getattr(score, name)
    assert [row["picture"] for row in rows[::7]] == ["picture", "picture-2"]
    assert all(row["label"] for row in rows)


def test_heads_that_were_not_decoded_have_their_score(pair: Any) -> None:
    noise = np.random.default_rng(1).random((1, 40, 40, 3))
    atlas = look(pair, noise, steps=1, sites="head.1-2.*", decode="top:1")
    rows = [row for row in atlas.to_arrow(images=True).to_pylist() if row["lens"] == "steering"]
    assert len(rows) == 2 * atlas.encoder.n_heads
    shown = [row for row in rows if row["similarity"] is not None]
    assert len(shown) == 1 and shown[0]["image"] is not None
    scores = atlas.score_map("steering", decoded=False)
    for row in rows:
        assert row["steered_similarity"] == pytest.approx(scores[row["layer"], row["head"]])
    empty = next(row for row in rows if row["similarity"] is None)
    assert all(empty[name] is None for name in ("fidelity", "control", "beats_control", "agreement", "image"))
    assert all(row["agreement"] is None for row in rows)  # one seed has nothing to agree with
    assert len(atlas.to_arrow("cells")) == len(atlas.results)


def test_every_column_is_documented(atlas: Atlas) -> None:
    columns = {*atlas.to_arrow(images=True).column_names, *atlas.to_arrow("cells", images=True).column_names}
    assert columns == set(COLUMN_WORDS)
    page = (Path(__file__).parents[3] / "docs" / "tables.md").read_text()
    for name, words in COLUMN_WORDS.items():
        assert f"| `{name}` |" in page and words in page
        assert f"`{name}`" in (Atlas.to_arrow.__doc__ or "")


def test_a_row_for_each_decoded_picture(atlas: Atlas) -> None:
    rows = atlas.to_arrow("cells", images=True).to_pylist()
    assert len(rows) == len(atlas.results)
    for row, result in zip(rows, atlas.results, strict=True):
        assert (row["seed"], row["draw"], row["lens"]) == (result.cell.seed, result.cell.draw, result.cell.lens)
        assert row["similarity"] == result.similarity
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]))), result.picture)


def test_pictures_of_scores_are_those_of_the_first_seed(atlas: Atlas) -> None:
    score = atlas.ranked("steering")[0]
    cells = atlas.cells("steering", score.site)
    assert np.array_equal(np.asarray(score.image), cells[0].picture)
    assert len(score.images) == 2
    rows = atlas.to_arrow(images=True).to_pylist()
    row = next(row for row in rows if row["site"] == str(score.site) and row["lens"] == "steering")
    assert row["image"] == cells[0].png


def test_other_rows_and_missing_libraries_are_told(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'scores' or 'cells'"):
        atlas.to_arrow("rows")  # type: ignore[arg-type]
    monkeypatch.setattr("steerlens.atlas.tables.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "polars", None)
    for convert in (atlas.to_pandas, atlas.to_polars):
        with pytest.raises(UsageError, match="pip install"):
            convert()


def test_polars_gets_the_table(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    polars = ModuleType("polars")
    polars.from_arrow = lambda table: table  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "polars", polars)
    assert isinstance(atlas.to_polars(), pa.Table)


@pytest.mark.skipif(find_spec("pandas") is None, reason="runs once pandas is installed: pip install pandas")
def test_pandas_keeps_numbers_and_truth_values(atlas: Atlas) -> None:
    frame = atlas.to_pandas()
    assert frame[frame.lens == "steering"].beats_control.map(type).eq(bool).all()
    assert len(frame) == len(atlas.to_arrow())


def test_reprs_are_short_whatever_they_hold(atlas: Atlas, pair: Any) -> None:
    trace = pair.encoder.trace(pair.encoder.preprocess([atlas.reading().picture.image]), attention=True)
    score = atlas.score("steering", Site("head", 1, 0))
    for value in (
        pair,
        atlas,
        atlas.reading(),
        atlas.results[0],
        score,
        trace,
        pair.vocabulary,
        atlas.reading().picture,
    ):
        assert len(repr(value)) < 200
        assert "tensor" not in repr(value)
