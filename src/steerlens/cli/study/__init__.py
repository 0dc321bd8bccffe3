"""`steerlens study`: one file a study, and the page of results."""

from typing import Annotated

import tyro

from steerlens.cli.study.decoder import Decoder
from steerlens.cli.study.importance import Importance
from steerlens.cli.study.overlay import Overlay
from steerlens.cli.study.page import Page
from steerlens.cli.study.strength import Strength

__all__ = ["Command", "Decoder", "Importance", "Overlay", "Page", "Strength"]

Command = (
    Annotated[Importance, tyro.conf.subcommand(name="importance")]
    | Annotated[Overlay, tyro.conf.subcommand(name="overlay")]
    | Annotated[Strength, tyro.conf.subcommand(name="strength")]
    | Annotated[Decoder, tyro.conf.subcommand(name="decoder")]
    | Annotated[Page, tyro.conf.subcommand(name="page")]
)
"""The subcommands of `steerlens study`."""
