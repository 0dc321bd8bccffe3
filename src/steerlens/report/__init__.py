"""Reports: figures and pages drawn from finished results, without computing any."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.report.colours import SEQUENTIAL, colour
    from steerlens.report.content import page_meta, picture_data
    from steerlens.report.domain import advice, domain_warnings, outside_words
    from steerlens.report.embed import data_uri
    from steerlens.report.figures import render
    from steerlens.report.html import Linked, notebook_view, report_page, script_json, short_name, write_report
    from steerlens.report.ordering import unordered_sentence
    from steerlens.report.units import sae_lines, unit_data

__all__ = [
    "SEQUENTIAL",
    "Linked",
    "advice",
    "colour",
    "data_uri",
    "domain_warnings",
    "notebook_view",
    "outside_words",
    "page_meta",
    "picture_data",
    "render",
    "report_page",
    "sae_lines",
    "script_json",
    "short_name",
    "unit_data",
    "unordered_sentence",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__)
