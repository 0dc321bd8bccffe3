"""Views from browsers: what is no view is refused with a message, and what is one comes back the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.app import View
from steerlens.app.view import LookRequest
from steerlens.errors import UsageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)

FIELDS = st.sampled_from([*View.__dataclass_fields__, "path", "__class__"])


@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_anything_is_a_view_or_refused_with_a_message(content: dict[str, object]) -> None:
    for read in (View.from_json, LookRequest.from_json):
        try:
            view = read({"view": content} if read is LookRequest.from_json else content)
        except UsageError as error:
            assert str(error)
        else:
            assert view is not None


def test_a_view_survives_the_way_to_the_browser_and_back() -> None:
    view = View("abc", members=("head.1.2", "mlp_out.3"), patches=(0, 4), strength="s=-3.5", seed=7, guidance=1.5)
    assert View.from_json(json.loads(json.dumps(view.to_json()))) == view
    assert View("abc").to_json() == {"input": "abc"}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("site", "../../etc/passwd", "no site"),
        ("strength", "rho=nan", "not a strength"),
        ("strength", "1", "not a strength"),
        ("seed", -1, "seeds"),
        ("seed", True, "whole number"),
        ("steps", 10**9, "steps"),
        ("guidance", float("inf"), "number"),
        ("patches", [-1], "counted from 0"),
        ("members", ["head.0.0"] * 5000, "at most"),
        ("target", "a" * 301, "longer"),
        ("target", "a\x00", "no text"),
        ("lens", "magnifying", "no lens"),
        ("path", "/etc/passwd", "no field"),
    ],
)
def test_what_makes_no_sense_is_named(field: str, value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        View.from_json({"input": "abc", field: value})
