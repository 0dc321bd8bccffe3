"""Words of the page of results: numbers, intervals and tables as markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def interval(estimate: Json | None) -> str:
    """An estimate with its 95 % interval, as text."""
    if estimate is None or estimate.get("value") is None:
        return "undefined"
    low, high = estimate.get("low"), estimate.get("high")
    bounds = "" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]"
    return f"{estimate['value']:+.2f}{bounds}"


def excludes(estimate: Json, value: float = 0.0) -> bool:
    """Whether an estimate's interval lies wholly on one side of a value."""
    low, high = estimate.get("low"), estimate.get("high")
    return estimate.get("value") is not None and low is not None and high is not None and (low > value or high < value)


def above(estimate: Json, value: float = 0.0) -> bool:
    """Whether an estimate's interval lies wholly above a value."""
    return excludes(estimate, value) and estimate["value"] > value


def at_least(first: Json, second: Json) -> bool:
    """Whether one estimate is no smaller than another one, both being defined."""
    return None not in (first["value"], second["value"]) and first["value"] >= second["value"]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def signed(value: float | None) -> str:
    """A number with its sign, or nothing where it is undefined."""
    return "" if value is None else f"{value:+.2f}"


def percent(estimate: Json) -> str:
    """An estimate of a share, as text."""
    return "undefined" if estimate["value"] is None else f"{estimate['value']:.0%}"
