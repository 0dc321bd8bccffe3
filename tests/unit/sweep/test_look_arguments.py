"""The arguments of `look`: explicit, the same as the options of a sweep, and wrong ones are answered."""

import inspect
import io
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.sweep.bar import shown
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions

QUICK: dict[str, Any] = {"steps": 1, "sites": "head.0.*", "controls": 0}
NOISE = np.random.default_rng(0).random((40, 40, 3))


def test_every_option_of_a_sweep_is_an_argument_with_the_same_default_and_a_line_of_help() -> None:
    parameters = inspect.signature(look).parameters
    for option in fields(LookOptions):
        assert parameters[option.name].default == option.default, option.name
    for name in parameters:
        assert f"        {name}: " in (look.__doc__ or "").replace("**", ""), name


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("stength", "'strength'"),
        ("seeds", "'n_seeds'"),
        ("lens", "'lenses'"),
        ("out", "'folder'"),
        ("device", "steerlens.load"),
        ("qqq", "it takes pictures, target"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(pair: Any, name: str, answer: str) -> None:
    with pytest.raises(UsageError, match=answer):
        look(pair, NOISE, **{name: 1})  # type: ignore[arg-type]


def test_sites_and_strengths_may_be_values_or_texts(pair: Any) -> None:
    texts = look(pair, NOISE, steps=1, sites="L0H1,mlp_out.2", strength="rho=0.5", lenses="steering")
    values = look(
        pair,
        torch.from_numpy(NOISE).permute(2, 0, 1),
        steps=1,
        sites=[Site("head", 0, 1), "mlp_out.2"],
        strength=Strength("rho", 0.5),
        lenses=["steering"],
    )
    assert texts.plan.cells == values.plan.cells
    assert texts.score("steering", "L0H1").similarity == values.score("steering", Site("head", 0, 1)).similarity
    with pytest.raises(UsageError, match="no lens 'stering'"):
        look(pair, NOISE, lenses="stering", **QUICK)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rho=40"):
        look(pair, NOISE, strength=40, **QUICK)  # type: ignore[arg-type]


def test_a_target_may_be_a_picture_in_memory(pair: Any) -> None:
    image = Image.fromarray((NOISE * 255).astype(np.uint8))
    atlas = look(pair, [NOISE, NOISE], target=image, **QUICK)
    assert [reading.target for reading in atlas.readings] == ["the picture target"]  # equal pictures are one input
    assert atlas.reading().target_similarity == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "nearby"}, "names must be nearest, textspan, omp, not 'nearby'"),
        ({"target": [NOISE, NOISE]}, "one picture or text, not 2 pictures"),
        ({"sites": None}, "sites are Sites or texts"),
        ({"vocabulary": ["cat"]}, "not a list"),
        ({"saes": ["folder"]}, "load_sae"),
        ({"workers": 2}, "Workers"),
        ({"directions": [NOISE]}, "a mapping of names"),
    ],
)
def test_values_of_another_kind_are_refused_before_anything_is_computed(
    pair: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        look(pair, NOISE, **{**QUICK, **options})


def test_progress_is_a_function_a_bar_or_nothing(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Progress] = []
    look(pair, NOISE, progress=events.append, **QUICK)
    assert events
    look(pair, NOISE, progress=False, **QUICK)
    look(pair, NOISE, **QUICK)  # nobody watches a captured stream
    assert capsys.readouterr().err == ""
    look(pair, NOISE, progress=True, **QUICK)
    assert "decoding: 100%" in capsys.readouterr().err


def test_a_bar_is_shown_where_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    with shown(None) as on_progress:
        assert on_progress is not None
        on_progress(Progress("tracing", 1, 2, "pictures"))
        on_progress(Progress("decoding", 3, 4, "pictures"))
    assert "3/4" in terminal.getvalue()
