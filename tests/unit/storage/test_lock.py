"""The lock of a folder: which writers are refused, and with which message."""

import errno
import fcntl
import threading
import time
from pathlib import Path

import pytest

from steerlens.errors import StoreError
from steerlens.storage import lock
from steerlens.storage.lock import LOCK_FILE, is_being_written, only_writer


def test_a_second_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.1)
    assert not is_being_written(tmp_path)
    with only_writer(tmp_path):
        assert is_being_written(tmp_path)
        with pytest.raises(StoreError, match="another process is writing"), only_writer(tmp_path):
            pass
    assert not is_being_written(tmp_path)
    with only_writer(tmp_path):
        pass


def test_whoever_asks_does_not_keep_a_writer_out(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("a") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        timer = threading.Timer(0.2, lambda: fcntl.flock(asking, fcntl.LOCK_UN))
        timer.start()
        begun = time.monotonic()
        with only_writer(tmp_path):
            assert time.monotonic() - begun < 5
        timer.join()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_as_that(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no such thing here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=r"cannot be locked \(no such thing here\)") as refused, only_writer(tmp_path):
        pass
    assert "another process is" not in str(refused.value)
    assert not is_being_written(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"), only_writer(tmp_path / "missing"):
        pass
