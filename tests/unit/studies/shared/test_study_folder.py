"""Damaged files of a study are refused with one message; only a missing file counts as absent."""

from pathlib import Path
from typing import Any

import pytest

from steerlens.errors import StoreError, UsageError
from steerlens.studies.page import find_studies, read_pair_figures
from steerlens.studies.shared.folder import open_study, read_json

DEEP = "[" * 200_000


@pytest.mark.parametrize("content", ["null", "3", "[1]", '"text"', "{", DEEP])
def test_a_damaged_manifest_is_no_new_study(content: str, tmp_path: Path) -> None:
    part = tmp_path / "parts" / "report-0.safetensors"
    part.parent.mkdir()
    part.write_bytes(b"measured under another identity")
    manifest = tmp_path / "study.json"
    manifest.write_text(content)
    with pytest.raises(StoreError, match=r"study\.json .*; restore it from a copy, or run"), open_study(tmp_path, {}):
        pytest.fail("the folder was opened")
    assert manifest.read_text() == content


def test_only_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "study.json") is None
    assert read_json(tmp_path / "no folder" / "study.json") is None
    (tmp_path / "study.json").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        read_json(tmp_path / "study.json")
    (tmp_path / "empty.json").write_text("{}")
    assert read_json(tmp_path / "empty.json") == {}


@pytest.mark.parametrize(
    "content", ["null", "[1]", "{}", '{"choices": null}', '{"choices": [1]}', '{"choices": {"steering": 3}}', DEEP]
)
def test_damaged_choices_are_not_replaced(content: str, tmp_path: Path) -> None:
    with open_study(tmp_path / "study", {}) as folder:
        folder.freeze({"steering": {"setting": "steering rho=1"}})
        choice = tmp_path / "study" / "choice.json"
        choice.write_text(content)
        with pytest.raises(StoreError, match=r"choice\.json .*; restore it from a copy, or remove it and the parts"):
            folder.freeze({"steering": {"setting": "steering rho=1"}})
    assert choice.read_text() == content


@pytest.mark.parametrize("content", ["3", "null", "[1]"])
def test_a_page_refuses_a_manifest_that_is_no_object(content: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(StoreError, match=r"study\.json holds no JSON object"):
        find_studies(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "{}", '{"figures": null}', '{"figures": 3}', '{"figures": [1]}'])
def test_a_page_refuses_wrong_figures_of_the_pair(content: str, tmp_path: Path) -> None:
    (tmp_path / "pair.json").write_text(content)
    with pytest.raises(StoreError, match=r"pair\.json"):
        read_pair_figures(tmp_path / "pair.json")


@pytest.mark.parametrize("models", ["null", '"a pair"', "[1]", '{"pair": 3}', '{"pair": null}'])
def test_a_page_refuses_a_manifest_without_a_name_of_the_pair(models: str, tmp_path: Path) -> None:
    before = Path(__file__).parents[3] / "golden" / "before" / "overlay" / "summary.json"
    (tmp_path / "summary.json").write_bytes(before.read_bytes())
    (tmp_path / "study.json").write_text(f'{{"study": "overlay", "models": {models}}}')
    with pytest.raises(StoreError, match=r"study\.json names no pair under 'models'"):
        find_studies(tmp_path)


def test_a_study_is_of_one_precision_and_those_that_did_not_state_it_are_resumed(tmp_path: Path) -> None:
    def identity(dtype: str, texts: str = "a") -> dict[str, Any]:
        models = {"pair": "mine", "sha256": {}, "beside_files": {"encoder": {"dtype": dtype}}}
        return {"study": "profile", "models": models, "texts": texts}

    def opened(name: str, values: dict[str, Any]) -> None:
        with open_study(tmp_path / name, values):
            pass

    opened("now", identity("float32"))
    opened("now", identity("float32"))
    for other in (identity("bfloat16"), identity("float32", texts="b")):
        with pytest.raises(UsageError, match="a study with another"):
            opened("now", other)
    opened("before", {"study": "profile", "models": {"pair": "mine", "sha256": {}}})
    opened("before", identity("bfloat16"))
    with pytest.raises(UsageError, match=r"another models\.pair"):
        opened("before", {**identity("float32"), "models": {**identity("float32")["models"], "pair": "yours"}})
