"""Texts from files as they are shown: nothing that a terminal obeys, or that turns the direction of writing."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.cli.console import emit_json, print_table, say
from steerlens.printable import printable, without_folders
from steerlens.report.html import page_environment, script_json

HOSTILE = "cat\x1b]0;owned\x07\x9b31m\u202etxt.exe\u2066\x7f"


def is_harmless(text: str) -> bool:
    shown = {"\n", "\t", "\u200c", "\u200d"}
    return all(character in shown or unicodedata.category(character) not in ("Cc", "Cf", "Cs") for character in text)


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert is_harmless(printable(text, lines=True))
    assert "\n" not in printable(text)


def test_ordinary_texts_stay_as_they_are() -> None:
    for text in ("a cup", "茶碗", "кружка", "كوب", "👩\u200d🚀", "naïve — “quoted”"):
        assert printable(text) == text
    assert printable("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"


def test_terminal_and_pages_show_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    print_table(("NAME",), [(HOSTILE,)])
    page = page_environment().from_string("<p>{{ text }}</p>").render(text=HOSTILE)
    for shown in (capsys.readouterr().out, page, script_json({"name": [HOSTILE]})):
        assert "cat" in shown and is_harmless(str(shown))


def test_json_is_harmless_in_a_terminal_and_read_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"name": HOSTILE})
    shown = capsys.readouterr().out
    assert is_harmless(str(shown))
    assert json.loads(shown) == {"name": HOSTILE}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann/models/dino v2", "dino v2"),
        ("/home/ann/models/pair/", "pair"),
        ("~/models/pair", "pair"),
        ("../../ann/pair", "pair"),
        ("local-dir:/home/ann/clip", "local-dir:clip"),
        ("C:\\Users\\ann\\pair", "pair"),
        ("found in /home/ann/pair, and read", "found in pair, and read"),
        ("facebook/dinov2-base", "facebook/dinov2-base"),
        ("pairs/mine", "pairs/mine"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("hf-hub:org/name", "hf-hub:org/name"),
        ("yes/no, 3 / 4", "yes/no, 3 / 4"),
    ],
)
def test_texts_to_be_shared_hold_no_folders_of_this_machine(text: str, shown: str) -> None:
    assert without_folders(text) == shown
