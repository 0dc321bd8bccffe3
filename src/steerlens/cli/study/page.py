"""The command `steerlens study page`: writes the pages of results of finished studies."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from steerlens.cli.console import say


@dataclass(frozen=True)
class Page:
    """Write the pages of results of finished studies: a verdict page, a page per study, summaries and figures.

    Examples:
      steerlens study page studies --out docs
      steerlens study page studies/importance --out importance-page
    """

    studies: tyro.conf.Positional[Path]
    """Folder of a study, or a folder with several studies in subfolders of their names."""

    out: Path
    """Folder for studies.md, studies/NAME.md, studies/NAME.json and images/studies/NAME-FIGURE.png."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.studies.page import write_page

        say(f"written: {write_page(self.studies, self.out)}")
        return 0
