"""Report of the brightness study: lines for the terminal, bars, findings, and its page."""

from pathlib import Path

from steerlens.studies.shared.markdown import Bar, Finding, figure, interval, met
from steerlens.studies.shared.terminal import closing_lines
from toy_study.summary import BrightnessSummary


def brightness_lines(summary: BrightnessSummary, folder: Path) -> list[str]:
    """Lines of results."""
    return [f"similarity: {summary.similarity}", *closing_lines(folder)]


def brightness_bars(summary: BrightnessSummary) -> list[Bar]:
    """The similarity, with its bar."""
    return [Bar("brightness", interval(summary.similarity), "above 0", met(summary.similarity.above()))]


def brightness_findings(summary: BrightnessSummary) -> list[Finding]:
    """The similarity in words."""
    return [Finding(f"Embeddings keep {interval(summary.similarity)}.", headline=True)]


def brightness_section(summary: BrightnessSummary) -> str:
    """The command and the figure."""
    return f"    {summary.command}\n\n" + figure("Similarity", "brightness-similarity")
