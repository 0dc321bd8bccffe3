"""`steerlens study page`: the pages of results, written from finished studies."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from steerlens.cli.console import say


@dataclass(frozen=True)
class Page:
    """Write the pages of results from finished studies: a verdict page, a page a study, their summaries and figures.

    Examples:
      steerlens study page studies --out docs
      steerlens study page studies/importance --out importance-page
    """

    studies: tyro.conf.Positional[Path]
    """A study's own folder, or a folder that holds those of several studies under their names."""

    out: Path
    """Folder for studies.md, studies/NAME.md, studies/NAME.json and images/studies/NAME-FIGURE.png."""

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.studies.page import write_page

        say(f"written: {write_page(self.studies, self.out)}")
        return 0
