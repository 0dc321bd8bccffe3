"""The page of all models is what the cards and the committed measurements say, and these cover every family."""

from pathlib import Path

import pytest

from steerlens.errors import ModelError
from steerlens.testing import catalogue
from steerlens.testing.conformance import Conformance, measure, read_measurements, tiny_encoders, write_measurements
from steerlens.zoo.cards import cards
from steerlens.zoo.registry import _OURS

DOCS = Path(__file__).parents[3] / "docs"
STALE = "run `make models` and commit what it writes"


def test_the_page_is_what_cards_and_measurements_say() -> None:
    rows, versions = read_measurements(DOCS / "conformance.json")
    assert (DOCS / "models.md").read_text(encoding="utf-8") == catalogue(rows, cards(), versions), STALE


@pytest.mark.parametrize("group", _OURS)
def test_every_registered_family_was_measured(group: str) -> None:
    rows, _ = read_measurements(DOCS / "conformance.json")
    measured = {row.family: row.adapter for row in rows if row.group == group}
    assert measured == _OURS[group], STALE  # type: ignore[index]


def test_every_encoder_family_passed_within_the_bar_in_float32_and_says_its_error_in_bfloat16() -> None:
    rows, _ = read_measurements(DOCS / "conformance.json")
    for row in rows:
        if row.group == "steerlens.encoders":
            assert not row.failures, row
            assert row.errors["float32"] is not None
            assert 0 < row.errors["float32"] <= 1e-5, row
            assert row.errors["bfloat16"] is not None
            assert 1e-5 < row.errors["bfloat16"] <= 5e-2, row


def test_every_decoder_that_the_libraries_can_build_passed() -> None:
    rows, _ = read_measurements(DOCS / "conformance.json")
    for row in rows:
        if row.group == "steerlens.decoders":
            assert not row.failures and row.errors["float32"] is not None, row


def test_what_was_measured_is_measured_again() -> None:
    (row,) = measure({"vit"})
    committed = next(row for row in read_measurements(DOCS / "conformance.json")[0] if row.family == "vit")
    assert (row.group, row.adapter, row.models, row.failures) == (
        committed.group,
        committed.adapter,
        committed.models,
        (),
    )
    for dtype, error in row.errors.items():
        before = committed.errors[dtype]
        assert error is not None
        assert before is not None
        assert 0.1 < error / before < 10  # Rounding differs from processor to processor.


def test_every_encoder_family_has_a_tiny_model(timm: object, open_clip: object) -> None:
    assert set(tiny_encoders()) == set(_OURS["steerlens.encoders"])


def test_what_does_not_pass_stands_on_the_page() -> None:
    row = Conformance("steerlens.decoders", "new", "a.b:C", (), {"float32": None}, ("cannot be built | at all",))
    page = catalogue([row], {}, {"torch": "0"})
    assert "| `new` | `b.C` | not measured |" in page
    assert "- `new`: cannot be built | at all" in page


def test_measurements_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no measurements"):
        read_measurements(tmp_path / "nothing.json")
    write_measurements(tmp_path / "some.json", [], {"torch": "0"})
    assert read_measurements(tmp_path / "some.json") == ([], {"torch": "0"})
