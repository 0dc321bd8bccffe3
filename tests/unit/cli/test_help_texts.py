"""Help pages show what a reader can use: groups, flowing docstrings, and no `None`."""

import re

import pytest

from steerlens.cli.main import COMMANDS, main

SUBCOMMANDS = {
    "study": ("importance", "overlay", "strength", "decoder", "page"),
    "bridge": ("fit", "show"),
    "train": ("prepare", "emoji", "classifier", "decoder", "evaluate"),
    "neighbours": ("index",),
    "runs": ("show", "verify", "merge", "export"),
    "cache": ("show", "clear"),
}
PAGES = [(name, *part) for name in COMMANDS for part in ([(sub,) for sub in SUBCOMMANDS.get(name, ())] or [()])]


def page(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_no_page_shows_none_or_a_default_of_a_flag(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(page(*words, capsys=capsys).split())
    assert "None" not in text
    assert "(default: False)" not in text
    assert "(default: True)" not in text
    assert "(default: )" not in text


def test_options_of_lens_come_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    text = page("lens", capsys=capsys)
    groups = re.findall(r"^ ([a-z]+(?: [a-z]+)*) +\n -{20}", text, flags=re.MULTILINE)
    assert groups == [
        *("positional arguments", "options", "model options", "site options", "lens options", "decoding options"),
        "cluster options",
    ]


def test_types_of_unset_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = page("lens", capsys=capsys)
    for words in ("--out PATH", "--steps INT", "--scheduler {ddpm,ddim,", "--guidance-interval FLOAT FLOAT"):
        assert words in text


def test_docstrings_flow(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in page("lens", capsys=capsys).splitlines()]
    # Line ends of the source used to break the text in odd places.
    at = next(number for number, line in enumerate(lines) if line.startswith("--sites"))
    assert " ".join(lines[at : at + 5]).startswith("--sites STR")
    assert all(len(line) > 40 for line in lines[at : at + 4])
