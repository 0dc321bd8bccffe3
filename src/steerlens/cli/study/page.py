"""`steerlens study page`: the pages of results, written from finished studies."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from steerlens.cli.console import say


@dataclass(frozen=True)
class Page:
    """Write the page of results from finished studies: a markdown page, their summaries and figures.

    Example: steerlens study page studies --out docs
    """

    studies: tyro.conf.Positional[Path]
    """Folder that holds the studies' folders: importance, overlay, strength, decoder, as far as they ran."""

    out: Path
    """Folder for studies.md, studies/NAME.json and images/studies/NAME-FIGURE.png."""

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.studies.page import write_page

        say(f"written: {write_page(self.studies, self.out)}")
        return 0
