"""docs/security.md says which limits there are, and names tests that exist."""

import re
from pathlib import Path

from steerlens.limits import LIMITS, variable

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_table_of_limits_is_the_one_in_the_code() -> None:
    rows = re.findall(r"\| (.+) \| ([\d,]+)(?: ([\w ]+))? \| `(\w+)` \|", PAGE)
    told = {name: (of, int(most.replace(",", "")), unit) for of, most, unit, name in rows}
    assert told == {variable(name): (limit.of, limit.default, limit.unit) for name, limit in LIMITS.items()}


def test_every_promise_is_tried_by_a_test_that_exists() -> None:
    promises = PAGE.partition("| promise |")[2].partition("\n\n")[0].splitlines()[2:]
    assert promises
    for promise in promises:
        files = re.findall(r"`(tests/[\w/]+\.py)`", promise)
        assert files and all((ROOT / file).is_file() for file in files), promise
