"""Folder of a study: raw measurements in parts that survive a kill, and a summary computed from them alone.

study.json             models, options and inputs (the fingerprint of the study), and the chosen settings
choice.json            the chosen settings and the figures of all candidates
provenance.json        versions, machine, times; not part of the result
parts/NAME.safetensors raw measurements, one file per part, written under a temporary name and renamed
SHA256SUMS             hash of each file but study.json; studies of 0.1.0 have none
summary.json           every figure, to 4 decimals
table.parquet          one row per picture and component
figures/               SVG and PNG
"""

import json
import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.errors import StoreError, UsageError
from steerlens.limits import is_special
from steerlens.printable import json_without_folders
from steerlens.runs import fingerprint, first_difference, refuse_run
from steerlens.storage import (
    LOCK_FILE,
    OwnedFolder,
    atomic_write,
    check_sum,
    only_writer,
    parse_json,
    storing,
    write_with_sum,
)
from steerlens.studies.shared.parts import Part

_Part = TypeVar("_Part", bound=Part)


class StudyFolder:
    """Directory of a study, locked while it is open; see `open_study`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = OwnedFolder(folder)

    def has(self, part: str) -> bool:
        """True if a part is finished."""
        return self._path(part).is_file()

    def add(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Stores a finished part.

        Raises:
            StoreError: if it cannot be written; parts stored before stay.
        """
        host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_with_sum(self._own, save_tensors(host), "parts", f"{part}.safetensors")

    def part(self, part: str) -> dict[str, Tensor]:
        """Loads the tensors of a finished part.

        Raises:
            StoreError: if it cannot be read.
        """
        path = self._path(part)
        try:
            data = path.read_bytes()
            check_sum(self.folder, f"parts/{path.name}", data, _PART_ADVICE)
            return load_tensors(data)
        except (OSError, SafetensorError, ValueError) as error:
            raise StoreError(f"{path} cannot be read: {error}; {_PART_ADVICE}.") from error

    def keep(self, name: str, part: Part) -> None:
        """Stores a finished part of typed measurements.

        Raises:
            StoreError: if it cannot be written; parts stored before stay.
        """
        self.add(name, part.to_tensors())

    def read(self, kind: type[_Part], name: str) -> _Part:
        """Loads a finished part of typed measurements.

        Raises:
            StoreError: if it cannot be read, or holds other measurements.
        """
        return kind.from_tensors(self.part(name), str(self._path(name)))

    def read_all(self, kind: type[_Part], names: Iterable[str]) -> list[_Part]:
        """Loads several finished parts of a type; see `read`."""
        return [self.read(kind, name) for name in names]

    def freeze(self, choices: Mapping[str, Mapping[str, Any]], main: str | None = None) -> None:
        """Writes the chosen settings to `choice.json` and `study.json`, before measuring the reported pictures.

        Args:
            choices: choice of each lens, with `setting` and, if there were several comparisons, `compare`.
            main: the effect by which they were chosen.

        Raises:
            StoreError: if the folder holds measurements with other choices, or `choice.json` is damaged.
        """
        before = _frozen_choices(self.folder / "choice.json")
        for lens, choice in choices.items():
            changed = [
                key
                for key in ("setting", "compare")
                if key in before.get(lens, {})
                if before[lens][key] != choice.get(key)
            ]
            if changed:
                raise StoreError(
                    f"{self.folder / 'choice.json'} says that {before[lens][changed[0]]} was chosen for {lens}; now it "
                    f"would be {choice.get(changed[0])}, because the code has changed. Give another --out, or remove "
                    "that file and the parts named report-* to measure them again."
                )
        self.write_json("choice.json", ({} if main is None else {"main": main}) | {"choices": choices})
        manifest = read_json(self.folder / "study.json") or {}
        chosen = {
            lens: {key: choice[key] for key in ("setting", "compare") if key in choice}
            for lens, choice in choices.items()
        }
        if manifest.get("chosen") != chosen:
            _write_manifest(self.folder, manifest | {"chosen": chosen})

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a JSON file beside the parts; numbers are rounded to 4 decimals, nan and infinities become null.

        Raises:
            StoreError: if it cannot be written.
        """
        self.write(name, (json.dumps(rounded(values), indent=1, ensure_ascii=False) + "\n").encode())

    def write(self, name: str, data: bytes) -> Path:
        """Writes any other file and returns its path.

        Raises:
            StoreError: if it cannot be written.
        """
        return write_with_sum(self._own, data, *name.split("/"))

    def _path(self, part: str) -> Path:
        return self._own.path("parts", f"{part}.safetensors")


def rounded(value: Any) -> Any:
    """Rounds the numbers of JSON values to 4 decimals; nan and infinities, which JSON lacks, become null."""
    if isinstance(value, Mapping):
        return {str(key): rounded(inner) for key, inner in value.items()}  # type: ignore[misc]
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]  # type: ignore[misc]
    if isinstance(value, float):
        return round(value, 4) + 0.0 if math.isfinite(value) else None
    return value


@contextmanager
def open_study(folder: Path, identity: Mapping[str, Any]) -> Generator[StudyFolder]:
    """Opens the directory of a new or an unfinished study, and locks it while it is open.

    Args:
        folder: where to write.
        identity: models, options and inputs; an unfinished study resumes only if they are the same.

    Raises:
        UsageError: if the folder holds another study, or other files, or is inside a run.
        StoreError: if it cannot be written, its `study.json` is damaged, or another process is writing to it.
    """
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    shared = _without_places(plain)
    refuse_run(folder)
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder)
    with only_writer(folder):
        before = read_json(folder / "study.json")
        if before is None:
            _write_manifest(folder, {"fingerprint": fingerprint(shared), **shared})
        else:
            _check_same_study(folder, before, plain)
        yield StudyFolder(folder)


def check_folder(folder: Path, identity: Mapping[str, Any] | None) -> bool:
    """Checks, without writing, that a study could be opened in a folder; True if the folder holds it already.

    Args:
        folder: folder of the study.
        identity: as in `open_study`; None to accept any study.

    Raises:
        UsageError: if the folder holds another study, or other files.
        StoreError: if its `study.json` is damaged.
    """
    if not folder.exists():
        return False
    with storing(folder):
        _refuse_foreign(folder)
    before = read_json(folder / "study.json")
    if before is not None and identity is not None:
        _check_same_study(folder, before, json.loads(json.dumps(identity)))
    return before is not None


def _refuse_foreign(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
    if names and "study.json" not in names:
        raise UsageError(f"{folder} holds files but no study of steerlens; give another --out.")


def _without_places(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Identity whose models are named without their folders: hashes identify them, and a study is made to be shared."""
    models = {"models": json_without_folders(identity["models"])} if "models" in identity else {}
    return {**identity, **models}


def _as_stated(identity: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Identity without what an earlier version did not state, so that its studies are resumed."""
    models, stated = identity.get("models"), before.get("models")
    if isinstance(models, dict) and isinstance(stated, Mapping) and _BESIDE_FILES not in stated:
        identity = {**identity, "models": {key: models[key] for key in models if key != _BESIDE_FILES}}
    return {key: value for key, value in identity.items() if key != _TEXTS or _TEXTS in before}


def _check_same_study(folder: Path, before: Mapping[str, Any], identity: dict[str, Any]) -> None:
    identity = _as_stated(identity, before)
    recorded, shared = (
        {key: value for key, value in before.items() if key not in _NOT_IDENTITY},
        _without_places(identity),
    )
    stated, marks = before.get("fingerprint"), (fingerprint(shared), fingerprint(identity))
    same = fingerprint(_without_places(recorded)) == marks[0]
    if same and stated in (*marks, fingerprint(recorded)):
        return
    if same or stated in marks:
        raise StoreError(
            f"{folder / 'study.json'} cannot be read: it was changed or damaged, and no longer states what its "
            "fingerprint was computed from; restore it from a copy, or run that study again with another --out."
        )
    key, then, now = first_difference(_without_places(recorded), shared) or ("layout", "old", "new")
    raise UsageError(
        f"{folder} holds a study with another {key}: {then} there, {now} here; "
        "give another --out, or remove that folder."
    )


_BESIDE_FILES, _TEXTS = "beside_files", "texts"
"""Entries that version 0.1.0 did not write: of the models, precision and changes in memory; of a profile, its texts."""

_NOT_IDENTITY = ("fingerprint", "chosen")
"""Keys of study.json that do not belong to the study's identity."""


def _write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=1, ensure_ascii=False)
    atomic_write(folder / "study.json", (text + "\n").encode())


def read_json(
    path: Path, advice: str = "restore it from a copy, or run that study again with another --out"
) -> dict[str, Any] | None:
    """Reads a JSON object from a file of a study; None if the file is missing, and only then.

    Args:
        path: the file.
        advice: what to do about a damaged file, for the message.

    Raises:
        StoreError: if the file cannot be read, or holds no object.
    """
    if is_special(path):  # a pipe or a device would be read without end
        raise StoreError(f"{path} cannot be read: it is not a regular file; {advice}.")
    try:
        data = path.read_bytes()
        check_sum(path.parent, path.name, data, advice)
        content = parse_json(data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}; {advice}.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no JSON object and is damaged; {advice}.")
    return cast(dict[str, Any], content)


def _frozen_choices(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Choices that `freeze` wrote, by lens; empty if it wrote none."""
    content = read_json(path, _CHOICE_ADVICE)
    if content is None:
        return {}
    choices = content.get("choices")
    if not isinstance(choices, dict) or not all(
        isinstance(choice, dict) for choice in cast(dict[str, Any], choices).values()
    ):
        raise StoreError(f"{path} holds no chosen settings by lens and is damaged; {_CHOICE_ADVICE}.")
    return cast(dict[str, dict[str, Any]], choices)


_PART_ADVICE = "remove it, and the same command measures it again"

_CHOICE_ADVICE = (
    "restore it from a copy, or remove it and the parts named report-*, and run again to choose and measure them again"
)
