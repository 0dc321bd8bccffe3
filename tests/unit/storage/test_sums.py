"""Hashes of a folder that is filled part by part."""

from pathlib import Path

import pytest

from steerlens.errors import StoreError
from steerlens.storage import OwnedFolder, check_sum, write_with_sum


def test_half_a_line_of_a_process_that_died_does_not_swallow_the_next(tmp_path: Path) -> None:
    folder = OwnedFolder(tmp_path)
    write_with_sum(folder, b"first", "first.bin")
    with (tmp_path / "SHA256SUMS").open("ab") as file:
        file.write(b"0123456789abcdef")  # the disk was full
    write_with_sum(folder, b"second", "second.bin")
    for name, data in (("first.bin", b"first"), ("second.bin", b"second")):
        check_sum(tmp_path, name, data, "measure it again")
        with pytest.raises(StoreError, match=rf"{name} .* its hash differs; measure it again"):
            check_sum(tmp_path, name, data + b"!", "measure it again")
