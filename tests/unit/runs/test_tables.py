"""Runs as the libraries read them that people use for tables. `make tables` installs these and runs this file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from steerlens.atlas.atlas import Atlas
from steerlens.images import Picture
from steerlens.loading import Pair
from steerlens.runs.export import export_parquet
from steerlens.runs.units import OF_NEURONS, UNIT_WORDS, UNITS
from steerlens.sweep.look import look
from steerlens.sweep.neuron_effects import MEASURED


def library(name: str) -> Any:
    """Not a part of the test environment, since together they take 300 MB."""
    return pytest.importorskip(name, reason=f"{name} is not installed (extra `tables`): run `make tables`")


@pytest.fixture(scope="module")
def finished(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Atlas]:
    folder, noise = tmp_path_factory.mktemp("runs") / "run", np.random.default_rng(0)
    pixels = [noise.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in range(2)]
    pictures = [Picture.from_image(Image.fromarray(array), f"noise-{n}") for n, array in enumerate(pixels)]
    return folder, look(pair, pictures, steps=1, sites="head.0.*", folder=folder)


def test_each_folder_of_a_run_is_one_table(finished: tuple[Path, Atlas]) -> None:
    """`pandas.read_parquet(RUN / "cells")` reads a folder by this function."""
    folder, atlas = finished
    assert pq.read_table(folder / "cells").num_rows == len(atlas.results)
    assert pq.read_table(folder / "inputs").column("name").to_pylist() == [
        pq.read_table(path).column("name")[0].as_py() for path in sorted((folder / "inputs").iterdir())
    ]
    assert pq.read_table(folder / "labels").num_rows == sum(len(reading.labels) for reading in atlas.readings)


def test_every_column_of_units_is_documented() -> None:
    assert set(UNIT_WORDS) == {*UNITS, *OF_NEURONS}
    page = (Path(__file__).parents[3] / "docs" / "tables.md").read_text()
    for name, words in UNIT_WORDS.items():
        assert f"| `{name}` | {words} |" in page
    assert f"the first {MEASURED} neurons" in page


def test_pandas_reads_the_parts_of_a_run(finished: tuple[Path, Atlas]) -> None:
    pandas, (folder, atlas) = library("pandas"), finished
    frame = pandas.read_parquet(folder / "cells")
    assert len(frame) == len(atlas.results)
    assert len(atlas.to_pandas("cells")) == len(frame)


def test_an_atlas_becomes_a_frame_of_pandas_and_of_polars(finished: tuple[Path, Atlas]) -> None:
    pandas, polars, (_, atlas) = library("pandas"), library("polars"), finished
    table = atlas.to_arrow(images=True)
    first, second = atlas.to_pandas(images=True), atlas.to_polars(images=True)
    assert isinstance(first, pandas.DataFrame) and isinstance(second, polars.DataFrame)
    assert list(first.columns) == second.columns == table.column_names
    assert len(first) == len(second) == len(table)
    steering = first[first.lens == "steering"]
    assert steering.similarity.tolist() == second.filter(polars.col("lens") == "steering")["similarity"].to_list()
    assert first.agreement.isna().all() and second["agreement"].is_null().all()
    assert second["beats_control"].dtype == polars.Boolean and second["layer"].dtype == polars.Int32
    assert first.image[0] == second["image"][0] == table["image"][0].as_py()


def test_the_datasets_library_shows_pictures(finished: tuple[Path, Atlas], tmp_path: Path) -> None:
    datasets, (folder, atlas) = library("datasets"), finished
    for _ in export_parquet(atlas, tmp_path / "all.parquet"):
        pass
    for files in (str(folder / "cells" / "*.parquet"), str(tmp_path / "all.parquet")):
        table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(table) == len(atlas.results)
        by_key = {(result.cell.picture, str(result.cell.site), result.cell.lens): result for result in atlas.results}
        for row in table:
            result = by_key[row["picture"], row["site"], row["lens"]]
            assert isinstance(row["image"], Image.Image)
            assert np.array_equal(np.array(row["image"]), result.picture)
    whole = datasets.load_dataset(str(folder), "inputs", split="train", cache_dir=str(tmp_path / "cache"))
    assert all(isinstance(row["image"], Image.Image) for row in whole)


def test_polars_queries_scores(finished: tuple[Path, Atlas]) -> None:
    polars, (folder, atlas) = library("polars"), finished
    table = polars.scan_parquet(folder / "cells" / "*.parquet").filter(polars.col("lens") == "steering")
    best = table.sort("similarity", descending=True).select("site", "similarity").collect().row(0)
    results = [result for result in atlas.results if result.cell.lens == "steering"]
    top = max(results, key=lambda result: result.similarity)
    assert best == (str(top.cell.site), top.similarity)


def test_duckdb_queries_scores(finished: tuple[Path, Atlas]) -> None:
    duckdb, (folder, atlas) = library("duckdb"), finished
    query = f"select lens, count(*), avg(similarity) from '{folder}/cells/*.parquet' group by lens order by lens"
    with duckdb.connect() as connection:
        rows = connection.sql(query).fetchall()
    for lens, count, mean in rows:
        scores = [result.similarity for result in atlas.results if result.cell.lens == lens]
        assert count == len(scores)
        assert mean == pytest.approx(np.mean(scores))
