"""Values of options that could be read in two ways, or in none, are refused rather than chosen for the user."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steerlens.cli.main import main
from steerlens.errors import UsageError
from steerlens.lenses.components import parse_groups
from steerlens.lenses.regions import parse_regions, parse_tokens
from steerlens.lenses.strength import Strength
from steerlens.sites import parse_sites
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions
from steerlens.sweep.selection import Selection
from steerlens.sweep.targets import resolve_target
from steerlens.zoo.sample import sample_picture

_SITES = partial(parse_sites, n_layers=4, n_heads=2)
_GROUPS = partial(parse_groups, n_layers=4, n_heads=2)
_REGIONS = partial(parse_regions, n_layers=4, n_heads=2)


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (_SITES, ["", " ", ",", "resid_post.", "head.", "heads.1", "mlp_out.1_0"]),
        (Selection.parse, ["", "all:", "top", "top:", "top:1_0", "top:-1", "top:+3", "top:2.5", "above:", "above:0_1"]),
        (Selection.parse, ["above:nan", "above:2", "TOP:3", "best:3"]),
        (Strength.parse, ["40", "", "s=", "rho=1_0", "rho=nan", "s=inf", "=4", "x=4", "s=4=5"]),
        (parse_tokens, ["", "1_0", "+3", "-1", "3.5", "All"]),
    ],
)
def test_a_value_of_no_one_meaning_is_refused(parse: Callable[[str], Any], values: list[str]) -> None:
    for value in values:
        with pytest.raises(UsageError):
            parse(value)


def test_names_and_members_of_groups_and_regions_are_all_said() -> None:
    for text in ("late=", "=head.0.0", "late", "la te=head.0.0"):
        with pytest.raises(UsageError):
            _GROUPS([text])
    for text in ("L0H0", "L0H0:", "=L0H0:0,0,4,4", "L0H0:1_0,0,12,4", ":0,0,4,4"):
        with pytest.raises(UsageError):
            _REGIONS([text])


def test_a_cache_that_cannot_keep_regions_is_refused(pair: Any) -> None:
    regions = parse_regions(["part=L1H0:0,0,8,8"], 3, pair.encoder.spec.n_heads)
    with pytest.raises(UsageError, match="cache has no effect with regions"):
        look(pair, sample_picture(), sites="", directions=regions, cache=True)


@pytest.mark.parametrize("interval", [(0.8, 0.2), (-0.1, 1.0), (0.0, 80.0), (float("nan"), 1.0)])
def test_an_interval_that_is_none_is_refused_and_not_clamped(interval: tuple[float, float], pair: Any) -> None:
    with pytest.raises(UsageError, match="guidance interval"):
        LookOptions(guidance_interval=interval).over(pair.decoder.spec.defaults)


def test_a_target_is_a_text_or_a_file_and_not_a_guess(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cup").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"could be this text or the file.*\./cup"):
        resolve_target(pair, "cup")
    with pytest.raises(UsageError, match="empty text"):
        resolve_target(pair, " ")


@pytest.mark.parametrize(
    "arguments",
    [("--out", ""), ("--out=",), ("--target", " "), ("--model", ""), ("--vocabulary", ""), ("--group", ""), ("",)],
)
def test_empty_arguments_are_refused_before_anything_is_loaded(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lens", "cup.png", *arguments]) == 2
    assert "empty" in capsys.readouterr().err
