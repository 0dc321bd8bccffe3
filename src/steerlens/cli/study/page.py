"""The command `steerlens study page`: writes the pages of results of finished studies."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from steerlens.cli.console import say
from steerlens.errors import UsageError


@dataclass(frozen=True)
class Page:
    """Write the pages of results of finished studies: a page per study and per model, summaries and figures.

    Several folders, one for each model, are also compared: which claims hold on all of them, on some, and on none.

    Examples:
      steerlens study page studies --out docs
      steerlens study page studies/emoji studies/dinov2-small --out docs
      steerlens study page studies/importance --out importance-page
    """

    studies: tyro.conf.Positional[tuple[Path, ...]]
    """For each model, the folder of a study, or a folder with several studies in subfolders of their names."""

    out: Path
    """Folder for studies.md, and the folders studies (pages, summaries) and images/studies."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.studies.page import write_page

        if not self.studies:
            raise UsageError("name the folder of a study, or a folder with several; one for each model.")
        say(f"written: {write_page(self.studies, self.out)}")
        return 0
