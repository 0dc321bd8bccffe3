"""Input pictures of the explorer: examples, the pictures of a run, and what visitors send, each checked like a file."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock

from steerlens.app.policy import Policy
from steerlens.errors import PictureError, UsageError
from steerlens.images import Picture, PictureInBytes, decode_picture, picture_format
from steerlens.storage import safe_name
from steerlens.sweep import picture_id

_SUFFIXES: Mapping[str, str] = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
"""Formats in which a visitor's file is kept as it came; others are kept as PNG."""


@dataclass(frozen=True, eq=False)
class InputPicture:
    """One input picture.

    Attributes:
        picture: the picture.
        file: bytes of its file, as a visitor sent them; empty for a picture that is on this machine.
        suffix: suffix of that file.
        example: whether the page offers it to everybody.
    """

    picture: Picture
    file: bytes = b""
    suffix: str = "png"
    example: bool = False

    @property
    def id(self) -> str:
        """Id of the picture in cells and addresses."""
        return picture_id(self.picture)


class InputStore:
    """Pictures by id; the least recently used picture of a visitor makes room for the next. Safe between threads.

    Args:
        policy: how many pictures are kept, and how large they may be.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy, self._lock = policy, Lock()
        # In the order in which they came, which is that of the page.
        self._by_id: dict[str, InputPicture] = {}
        self._last_use: dict[str, int] = {}
        self._uses = count()

    def offer(self, picture: Picture) -> InputPicture:
        """Adds a picture of this machine, which stays: an example, or an input of a run."""
        entry = InputPicture(picture, example=True)
        with self._lock:
            self._by_id[entry.id] = entry
        return entry

    def send(self, data: bytes, name: str) -> InputPicture:
        """Adds a picture that a visitor sent, after the checks that every file goes through.

        Args:
            data: bytes of the file.
            name: its name on the visitor's machine, of which only harmless characters are kept.

        Raises:
            PictureError: if it is truncated, corrupt, no picture, or too large.
        """
        policy = self._policy
        if not data:
            raise PictureError("the picture is empty (0 bytes).")
        if len(data) > policy.upload_bytes:
            raise PictureError(f"the picture has {len(data):,} bytes; at most {policy.upload_bytes:,} are accepted.")
        label = safe_name(Path(name.replace("\\", "/")).name.rpartition(".")[0] or name, default="picture")[:60]
        image, note = decode_picture(data, label, max_pixels=policy.upload_pixels)
        suffix = _SUFFIXES.get(picture_format(data, label), "")
        if not suffix:
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            data, suffix = buffer.getvalue(), "png"
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            known = next((entry for entry in self._by_id.values() if entry.picture.sha256 == digest), None)
            if known is not None:
                self._use(known)
                return known
            picture = Picture(self._unused(label), PictureInBytes(data, label, policy.upload_pixels), digest, note=note)
            entry = InputPicture(picture, data, suffix)
            self._by_id[entry.id] = entry
            self._use(entry)
            self._make_room()
        return entry

    def get(self, id: str) -> InputPicture:
        """Returns a picture.

        Raises:
            UsageError: if there is none of that id, or it has made room for others.
        """
        with self._lock:
            entry = self._by_id.get(id)
            if entry is None:
                raise UsageError("this picture is not on the server, or no longer: drop it on the page again.")
            self._use(entry)
            return entry

    def examples(self) -> list[InputPicture]:
        """Pictures that the page offers to everybody."""
        with self._lock:
            return [entry for entry in self._by_id.values() if entry.example]

    def all(self) -> list[InputPicture]:
        """All pictures: examples first, then those of visitors."""
        with self._lock:
            return sorted(self._by_id.values(), key=lambda entry: not entry.example)

    def _use(self, entry: InputPicture) -> None:
        self._last_use[entry.id] = next(self._uses)

    def _unused(self, name: str) -> str:
        taken = {entry.picture.name for entry in self._by_id.values()}
        numbers, unused = count(2), name
        while unused in taken:
            unused = f"{name}-{next(numbers)}"
        return unused

    def _make_room(self) -> None:
        sent = [entry for entry in self._by_id.values() if not entry.example]
        sent.sort(key=lambda entry: self._last_use[entry.id])
        size = sum(len(entry.file) for entry in sent)
        while len(sent) > 1 and (len(sent) > self._policy.inputs or size > self._policy.inputs_bytes):
            oldest = sent.pop(0)
            size -= len(oldest.file)
            del self._by_id[oldest.id], self._last_use[oldest.id]
