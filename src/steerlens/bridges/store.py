"""Bridges on disk: a folder with the map and a card of its encoders and its quality.

bridge.safetensors   the parts of the map
card.yaml            both encoders with the hashes of their files, the pictures, the measured quality, versions
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from steerlens.bridges.fit import Candidate, Fitted, Measured
from steerlens.bridges.maps import Bridge, bridge_from
from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.limits import read_file
from steerlens.storage import OwnedFolder, read_yaml
from steerlens.zoo import LocatedEncoder, file_hashes, is_folder, library_versions

FORMAT = 2
"""Version of the folder's layout."""

_TENSORS, _CARD = "bridge.safetensors", "card.yaml"


@dataclass(frozen=True)
class End:
    """One of the two encoders of a bridge, as recorded in its card.

    Attributes:
        source: a card's name, the path of a folder, or a hub id with its commit.
        name: its name when the bridge was fitted.
        family: name of its adapter.
        embedding_size: size of its embeddings.
        sha256: hashes of the files of its weights and its preprocessing, by component and file name.
    """

    source: str
    name: str
    family: str
    embedding_size: int
    sha256: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class StoredBridge:
    """A bridge with its card.

    Attributes:
        bridge: the map, float32, on the host.
        source: the source encoder.
        target: the target encoder.
        measured: its quality on pictures that it was not fitted on.
        candidates: the candidates of the fit.
        pictures: origin of the pictures and number of fitted pictures; JSON.
        sha256: hash of the map's file.
    """

    bridge: Bridge
    source: End
    target: End
    measured: Measured
    candidates: tuple[Candidate, ...]
    pictures: Mapping[str, Any]
    sha256: str


def end_of(located: LocatedEncoder, encoder: Encoder) -> End:
    """Builds the card's entry of an opened encoder."""
    spec = encoder.spec
    return End(located.source, spec.name, spec.family, spec.embedding_size, file_hashes(located.files))


def check_end(end: End, located: LocatedEncoder) -> None:
    """Checks that a located encoder has the files that a bridge was fitted with.

    Raises:
        ModelError: if a file of its weights or preprocessing differs.
    """
    check_hashes(end, file_hashes(located.files), located.folder)


def check_hashes(end: End, hashes: Mapping[str, str], where: str | Path) -> None:
    """Checks that hashes are those of the encoder that a bridge was fitted with.

    Raises:
        ModelError: if a hash differs; the message names the files.
    """
    other = sorted(name for name in {*end.sha256, *hashes} if end.sha256.get(name) != hashes.get(name))
    if other:
        raise ModelError(
            f"{where} is not the encoder that the bridge was fitted with: {', '.join(other)} "
            f"{'differs' if len(other) == 1 else 'differ'}. Give the one that it was fitted with, or fit anew."
        )


def save_bridge(
    folder: Path,
    fitted: Fitted,
    measured: Measured,
    source: End,
    target: End,
    pictures: Mapping[str, Any],
) -> None:
    """Writes a bridge and its card.

    Args:
        folder: created if needed.
        fitted: the bridge.
        measured: its quality on other pictures.
        source: the source encoder.
        target: the target encoder.
        pictures: origin of the pictures; JSON values.

    Raises:
        UsageError: if the folder holds files already.
        StoreError: if it cannot be written.
    """
    refuse_used(folder)
    data = save_tensors({name: tensor.cpu().contiguous() for name, tensor in fitted.bridge.tensors().items()})
    card = {
        "format": FORMAT,
        "kind": fitted.chosen,
        "source": asdict(source),
        "target": asdict(target),
        "pictures": {"fitted": fitted.n_pictures, **pictures},
        "measured": asdict(measured),
        "candidates": [asdict(candidate) for candidate in fitted.candidates],
        "sha256": hashlib.sha256(data).hexdigest(),
        "versions": library_versions(),
    }
    own = OwnedFolder(folder)
    own.write(data, _TENSORS)
    plain = json.loads(json.dumps(card))  # turns mappings of any kind into dictionaries, which YAML can write
    # The card is written last: it makes the folder a bridge.
    own.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100).encode(), _CARD)


def refuse_used(folder: Path) -> None:
    """Checks that nothing would be overwritten.

    Raises:
        UsageError: if the folder contains files, or is not a folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty; give another --out, or remove it.")


def read_bridge(folder: str | Path) -> StoredBridge:
    """Reads a bridge from its folder.

    Raises:
        UsageError: if there is no bridge.
        ModelError: if it is broken, or its card belongs to another map.
    """
    folder = Path(folder)
    if not (is_folder(folder) and (folder / _CARD).is_file()):
        raise UsageError(
            f"{folder} holds no bridge (there is no {_CARD} in it); make one with: steerlens bridge fit --from ENCODER "
            "--to ENCODER --images DIR --out DIR"
        )
    card = cast(dict[str, Any], read_yaml(folder / _CARD))
    read = _CARD
    try:
        data = read_file(folder / _TENSORS, "tensors_bytes")
        if card["format"] != FORMAT:
            raise ModelError(f"{folder} was written by another version of steerlens (format {card['format']}).")
        digest = hashlib.sha256(data).hexdigest()
        if card["sha256"] != digest:
            raise ModelError(
                f"{folder / _TENSORS} is damaged, or not the map that {_CARD} was written for; fit the bridge again."
            )
        read = _TENSORS
        bridge = bridge_from(card["kind"], load_tensors(data))
        read = _CARD
        source, target = End(**card["source"]), End(**card["target"])
        measured = Measured(**card["measured"])
        candidates = tuple(Candidate(**entry) for entry in card["candidates"])
        pictures: Mapping[str, Any] = card["pictures"]
    except (OSError, UsageError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the bridge in {folder} cannot be read: {read}: {reason}.") from error
    sizes = (source.embedding_size, target.embedding_size)
    if sizes != (bridge.source_size, bridge.target_size):
        raise ModelError(
            f"{folder}: the card says embeddings of sizes {sizes}, the map takes {bridge.source_size} to "
            f"{bridge.target_size}."
        )
    return StoredBridge(bridge, source, target, measured, candidates, pictures, digest)


def parts_of(folder: str | Path) -> tuple[str, str]:
    """Reads the sources of the target's pair and of the source encoder, to estimate costs, without opening either."""
    stored = read_bridge(folder)
    return stored.target.source, stored.source.source
