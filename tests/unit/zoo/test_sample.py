"""The sample picture: commands mean it by `sample`, unless there is a file of that name."""

from pathlib import Path

import pytest
from PIL import Image

from steerlens.errors import UsageError
from steerlens.zoo import is_sample, named_picture, sample_picture


def test_sample_is_the_picture_of_the_package_unless_a_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_picture(Path("sample")).sha256 == sample_picture().sha256
    with pytest.raises(UsageError):
        named_picture(Path("elsewhere/sample"))
    Image.new("RGB", (3, 3), (9, 0, 0)).save(tmp_path / "sample", "PNG")
    assert not is_sample(Path("sample")) and named_picture(Path("sample")).image.size == (3, 3)
