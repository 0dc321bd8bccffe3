"""Parts and summaries keep what they are given, under the names of the first version, and refuse other files."""

import json
from dataclasses import dataclass
from math import isnan, nan
from typing import Annotated

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import StoreError, UsageError
from steerlens.lenses.strength import Strength
from steerlens.studies.shared.candidates import CENTRED, NEUTRAL, ONE_FACTOR, PLAIN, diffusion_candidates
from steerlens.studies.shared.folder import rounded
from steerlens.studies.shared.measurements import PicturePart
from steerlens.studies.shared.parts import TensorNames
from steerlens.studies.shared.records import Key, Record, StudySummary
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import Estimate


def test_a_part_is_kept_under_the_names_of_the_first_version() -> None:
    one = torch.ones(2)
    part = PicturePart(
        one,
        targets={"given text": one},
        total={"mean": one},
        first_order={("mean", "given text"): one},
        requested={"candidate.steering rho=0.5 centred": one},
        rho={"s=20": one},
        decoded={("candidate.steering rho=0.5", 12): one},
        judged={("control", 0): one},
        judged_targets={"input": one},
    )
    tensors = part.to_tensors()
    assert set(tensors) == {
        "clean",
        "given text",
        "total.mean",
        "attribution.mean.given text",
        "asked.candidate.steering rho=0.5 centred",
        "rho.s=20",
        "made.candidate.steering rho=0.5.seed12",
        "judge.control.seed0",
        "judge.input",
    }
    back = PicturePart.from_tensors(tensors, "part")
    assert back.to_tensors().keys() == tensors.keys() and back.decoded.keys() == part.decoded.keys()
    with pytest.raises(StoreError, match="holds no 'clean'"):
        PicturePart.from_tensors({"text": one}, "part")
    with pytest.raises(StoreError, match=r"holds 'made\.x\.seedy', which measurements of a picture do not have"):
        PicturePart.from_tensors({"clean": one, "made.x.seedy": one}, "part")


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1), st.integers(0, 10**6))
def test_every_key_comes_back_from_its_name(name: str, seed: int) -> None:
    family = TensorNames("made.{}.seed{}", str, int)
    assert family.read(family.write((name, seed))) == (name, seed)
    assert family.read(f"asked.{name}") is None


@dataclass(frozen=True)
class Inner(Record):
    value: Annotated[float, Key("old name")]
    setting: LensSetting | None = None


@dataclass(frozen=True)
class Outer(StudySummary):
    rows: tuple[Inner, ...]
    span: tuple[float, float]
    best: int | None
    estimate: Estimate


def test_a_summary_comes_back_from_its_file() -> None:
    outer = Outer((Inner(1.5, PLAIN[0]), Inner(2.0)), (0.0, 1.0), None, Estimate(0.25, -1.0, nan))
    values = json.loads(json.dumps(rounded(outer.to_json())))
    assert values["rows"][0] == {"old name": 1.5, "setting": "steering rho=1"} and values["estimate"]["high"] is None
    back = Outer.from_json(values, "summary.json")
    assert back.rows == outer.rows and back.best is None and isnan(back.estimate.high)
    for wrong, said in (
        ({**values, "rows": [{"setting": None}]}, r"rows\[0\] lacks 'old name'"),
        ({**values, "span": [1.0]}, "span is"),
        ({**values, "best": "many"}, "best is 'many'"),
        ({**values, "rows": [{"old name": 1.0, "setting": "a guess"}]}, "is not a setting of a lens"),
        ([], "is no object"),
        ({**values, "layout": 9}, "written by another version of steerlens"),
    ):
        with pytest.raises(UsageError, match=said):
            Outer.from_json(wrong, "summary.json")


def test_a_dataclass_that_could_not_be_read_back_is_not_written() -> None:
    @dataclass(frozen=True)
    class Plain:
        value: float

    @dataclass(frozen=True)
    class Holder(Record):
        plain: Plain

    with pytest.raises(TypeError, match="Plain is no Record"):
        Holder(Plain(1.0)).to_json()


def test_a_bug_is_not_mistaken_for_a_wrong_file() -> None:
    @dataclass(frozen=True)
    class Broken(Inner):
        def __post_init__(self) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        Broken.from_json({"old name": 1.0}, "file")


@pytest.mark.parametrize("setting", [*PLAIN, *CENTRED, NEUTRAL, ONE_FACTOR, *diffusion_candidates(16)])
def test_a_setting_is_read_from_its_text(setting: LensSetting) -> None:
    assert LensSetting.parse(str(setting)) == setting
    assert LensSetting.parse("steering rho=0.1 centred neutral base") == LensSetting(
        "steering", Strength("rho", 0.1), centred=True, base="neutral"
    )
    with pytest.raises(UsageError, match="is not a setting"):
        LensSetting.parse(f"{setting} of a kind")
