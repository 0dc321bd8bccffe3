"""Help pages show what a reader can use: groups, flowing docstrings, and no `None`."""

import re
import shlex

import pytest

from steerlens.cli.main import COMMANDS, main, parse_command

SUBCOMMANDS = {
    "study": ("importance", "overlay", "strength", "decoder", "identification", "lenses", "page"),
    "bridge": ("fit", "show"),
    "train": ("prepare", "emoji", "classifier", "decoder", "evaluate"),
    "neighbours": ("index", "find"),
    "runs": ("show", "verify", "merge", "export", "publish"),
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
    assert "(default: )" not in text and "(default: '')" not in text


def test_examples_end_a_page_and_all_of_them_parse(capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[tuple[str, ...], list[str]] = {}
    for words in PAGES:
        _, _, section = page(*words, capsys=capsys).partition("\nExamples:\n")
        shown[words] = [line.strip() for line in section.splitlines()]
    assert shown[("lens",)][0] == "steerlens lens sample" and shown[("runs", "publish")] and shown[("app",)]
    for command in (shlex.split(line) for lines in shown.values() for line in lines):
        assert command[0] == "steerlens"
        parse_command(command[1], command[2:])


def test_a_positional_that_may_be_left_out_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: steerlens models [-h] [STR]" in page("models", capsys=capsys)


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
