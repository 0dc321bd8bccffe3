"""A folder of steerlens's own: nothing is written outside it, and nothing removed that steerlens did not write."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import StoreError
from steerlens.storage.files import atomic_write, unfinished_name
from steerlens.storage.folder import OwnedFolder, distinct_names, is_plain_name, safe_name
from steerlens.storage.lock import only_writer

OUTSIDE = ["..", ".", "", "/etc/passwd", "../victim", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[31m", "n" * 256]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    own = OwnedFolder(tmp_path / "own")
    for names in ((name,), ("inside", name), (name, "inside")):
        for write in (own.write, own.add):
            with pytest.raises(StoreError, match="cannot be the name of a file"):
                write(b"mine", *names)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_link_is_followed_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("precious")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "linked").symlink_to(tmp_path / "victim")
    (tmp_path / "own" / "file").symlink_to(tmp_path / "victim" / "file")
    (tmp_path / "own" / ".lock").symlink_to(tmp_path / "victim" / "lock")
    own = OwnedFolder(tmp_path / "own")
    for write in (own.write, own.add):
        with pytest.raises(StoreError, match="link"):
            write(b"mine", "linked", "new")
    for reach in (own.make, own.inside):
        with pytest.raises(StoreError, match="link"):
            reach("linked")
    with pytest.raises(StoreError, match="cannot write"):
        own.add(b"mine", "file")
    with pytest.raises(StoreError, match="cannot write"), only_writer(own.folder):
        pass
    own.write(b"mine", "file")  # takes the place of the link
    assert (tmp_path / "own" / "file").read_bytes() == b"mine"
    assert (tmp_path / "victim" / "file").read_text() == "precious"
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["file"]


def test_the_folder_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "own").symlink_to(tmp_path / "disk")
    OwnedFolder(tmp_path / "own").write(b"mine", "inside", "file")
    assert (tmp_path / "disk" / "inside" / "file").read_bytes() == b"mine"


def test_what_was_added_is_taken_back_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("theirs")
    own = OwnedFolder(tmp_path)
    own.add(b"1", "one", "deep", "file")
    own.add(b"2", "two", "file")
    (tmp_path / "two" / ".notes").write_text("theirs")
    with pytest.raises(StoreError, match="cannot write"):
        own.add(b"3", "before")
    own.take_back()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "before",
        "two",
        "two/.notes",
    ]


def test_half_written_files_are_known_by_names_that_no_other_program_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = [".env.local", ".my.backup", ".part.parquet.original", ".part.parquet.bak", ".a.steerlens", ".steerlens"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    with monkeypatch.context() as patch:  # a process that dies before the file has its name, and before it can tidy up
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        for name in ("part.parquet", "other.txt"):
            with pytest.raises(KeyboardInterrupt):
                atomic_write(tmp_path / name, b"half")
    left = list(OwnedFolder(tmp_path).unfinished(re.compile(r"part\.parquet")))
    assert [unfinished_name(path.name) for path in left] == ["part.parquet"]
    assert len(list(tmp_path.iterdir())) == len(theirs) + 2


@given(st.text(max_size=300))
def test_any_text_becomes_a_harmless_name(text: str) -> None:
    name = safe_name(text)
    assert is_plain_name(name)
    assert not name.startswith((".", "-"))
    assert len(name.encode()) <= 170
    assert safe_name(name) == name


def test_names_stay_readable_and_are_told_apart() -> None:
    assert safe_name("tea / cup") == "tea-cup"
    assert safe_name("../../victim") == "victim"
    assert safe_name("茶碗 №3") == "茶碗-3"
    assert safe_name("  ") == "input"
    assert safe_name("CON") != "CON"
    names = distinct_names({1: ("Cat", "aa"), 2: ("cat", "bb"), 3: ("cat", "../cc")})
    assert names == {1: "Cat", 2: "cat-bb", 3: "cat-cc"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["cat", "Cat", "cat-1", "cat-1-1", "x" * 90]), st.sampled_from(["1", "12", "2"]))
    )
)
def test_names_are_told_apart_even_if_one_is_another_with_its_mark(texts: list[tuple[str, str]]) -> None:
    names = distinct_names(dict(enumerate(texts)))
    assert len({name.casefold() for name in names.values()}) == len(texts)


def test_a_long_mark_leaves_a_name_that_a_file_system_takes() -> None:
    names = distinct_names({number: ("茶" * 90, f"{number}{'碗' * 90}") for number in range(3)})
    assert all(is_plain_name(f"{name}.png") for name in names.values()) and len(set(names.values())) == 3
