"""docs/scaling.md agrees with the plans of sweeps and with its template; measured stages can be kept."""

import re
from pathlib import Path

import numpy as np
import pytest
import scaling
from PIL import Image

from steerlens.images import Picture
from steerlens.lenses.strength import Strength
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import plan_of
from steerlens.sweep.selection import Selection

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"
LAYERS, HEADS = 48, 16


@pytest.mark.parametrize(
    ("changes", "decode"), [({}, "all"), ({"controls": 0}, "all"), ({}, "top:20"), ({"controls": 2}, "all")]
)
def test_the_formula_on_the_page_is_what_is_planned(changes: dict[str, int], decode: str) -> None:
    picture = Picture.from_image(Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)), "black")
    plan = plan_of(LookOptions(**changes), [picture], LAYERS, HEADS, Strength("rho", 1.0))  # type: ignore[arg-type]
    controls, decoded = changes.get("controls", 1), Selection.parse(decode).at_most(plan.cells)
    page = PAGE.read_text(encoding="utf-8")
    assert "seeds x (layers + heads x (2 + controls)) x (passes x UNet + MoVQ + encoder)" in page
    assert decoded == LAYERS + (LAYERS * HEADS if decode == "all" else 20) * (2 + controls)
    if controls < 2:
        assert f"| {decoded:,} |" in page and f"| {1000 * decoded:,} |" in page


def test_measured_stages_can_be_kept(tmp_path: Path) -> None:
    assert "| steer 72 heads, all of them |" in scaling.kept(PAGE)
    (tmp_path / "page.md").write_text("# Nothing was measured\n")
    with pytest.raises(RuntimeError, match="no section"):
        scaling.kept(tmp_path / "page.md")


def test_the_page_is_its_template_filled_in() -> None:
    parts, seen = "", set[str]()
    for index, part in enumerate(re.split(r"\{(\w+)\}", scaling.TEMPLATE.read_text(encoding="utf-8"))):
        if index % 2 == 0:
            parts += re.escape(part)
        else:
            parts += f"(?P={part})" if part in seen else f"(?P<{part}>.*?)"
            seen.add(part)
    assert re.fullmatch(parts, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
