"""Reports: figures and pages drawn from finished results, without computing any."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.report.colours import SEQUENTIAL, colour
    from steerlens.report.domain import advice, domain_warnings, outside_words
    from steerlens.report.embed import data_uri
    from steerlens.report.figures import render
    from steerlens.report.html import notebook_view, script_json, short_name, write_report

__all__ = [
    "SEQUENTIAL",
    "advice",
    "colour",
    "data_uri",
    "domain_warnings",
    "notebook_view",
    "outside_words",
    "render",
    "script_json",
    "short_name",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__)
