"""Reports: figures and pages drawn from finished results, without computing any."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.report.colours import SEQUENTIAL, colour
    from steerlens.report.embed import data_uri
    from steerlens.report.figures import render
    from steerlens.report.html import notebook_view, script_json, short_name, write_report

__all__ = [
    "SEQUENTIAL",
    "colour",
    "data_uri",
    "notebook_view",
    "render",
    "script_json",
    "short_name",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__)
