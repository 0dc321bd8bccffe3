"""`steerlens study`: a subcommand for every study in `steerlens.studies.STUDIES`, and the page of results."""

from typing import Annotated, Any, Union

import tyro

from steerlens import studies
from steerlens.cli.study.command import study_command
from steerlens.cli.study.page import Page

__all__ = ["Page", "subcommands"]


def subcommands() -> Any:
    """Subcommands of `steerlens study`, built from the table of studies."""
    commands: list[Any] = [
        Annotated[study_command(study), tyro.conf.subcommand(name=name)] for name, study in studies.STUDIES.items()
    ]
    return Union[(*commands, Annotated[Page, tyro.conf.subcommand(name="page")])]


def __getattr__(name: str) -> Any:
    # Built on access: another study may have been added to the table by then.
    if name == "Command":
        return subcommands()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
