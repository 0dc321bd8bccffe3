"""Pairs named `bridge:PATH`: an encoder through a bridge, with the decoder of the bridge's target."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from steerlens.bridges.encoder import BridgedEncoder
from steerlens.bridges.store import StoredBridge, check_end, check_hashes, read_bridge
from steerlens.decoders import check_fit
from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.zoo import LocatedEncoder, Pair, Provenance, encoder_provenance, locate_encoder, open_encoder

_SCHEME = "bridge:"
_OF_ENCODER = ("image_encoder/", "image_processor/")


@dataclass(frozen=True, eq=False)
class FoundBridge:
    """A bridge whose source encoder is on this machine, with the weights that it was fitted with.

    Attributes:
        folder: the user's path of the bridge.
        stored: the bridge and its card.
        encoder: location of its source encoder.
    """

    folder: str
    stored: StoredBridge
    encoder: LocatedEncoder

    @property
    def target_source(self) -> str:
        """Source of the target's pair."""
        return self.stored.target.source

    def lead_to(
        self, target: Pair, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> Pair:
        """Opens the source encoder through the bridge, with the target's decoder.

        Vocabulary, texts and "no condition" are the target's, in whose space the embeddings are.

        Args:
            target: the loaded pair of the target encoder.
            device: as in `load`.
            dtype: as in `load`.

        Raises:
            UsageError: if there is no such device or precision.
            ModelError: if the target's encoder has other weights than the bridge was fitted with, or its decoder reads
                image tokens.
        """
        if target.decoder.spec.consumes != "image_embedding":
            raise ModelError(
                f"{target.name}: its decoder reads image tokens, which a bridge of embeddings does not give."
            )
        stored = self.stored
        check_hashes(stored.target, _own_files(target), target.name)
        source = open_encoder(self.encoder, device=device, dtype=dtype, name=stored.source.name)
        bridged = BridgedEncoder(source, stored.bridge, name=f"{stored.source.name} through a bridge to {target.name}")
        check_fit(target.decoder.spec, bridged.spec)
        return replace(
            target,
            name=f"{_SCHEME}{self.folder}",
            encoder=bridged,
            # The card describes the decoder; the target's own weights, which it lists, are not in this pair.
            card=None if target.card is None else replace(target.card, configs=None),
            provenance=_provenance(target, bridged, stored, self.folder),
            notes=(*target.notes, _note(stored)),
        )


def bridge_folder(source: str | Path) -> str | None:
    """Returns the folder in `bridge:FOLDER`; None for any other source."""
    text = str(source)
    return text.removeprefix(_SCHEME) if text.startswith(_SCHEME) else None


def find_bridge(
    folder: str | Path, encoder: Encoder | str | Path | None = None, *, local_files_only: bool = False
) -> FoundBridge:
    """Reads a bridge and locates its source encoder.

    Args:
        folder: folder of the bridge.
        encoder: current source of that encoder, if it was moved.
        local_files_only: never use the network.

    Raises:
        UsageError: if there is no bridge, or an encoder is given as an object.
        ModelError: if the encoder has other weights than the bridge was fitted with.
    """
    if isinstance(encoder, Encoder):
        raise UsageError(
            "a bridge belongs to the very weights that it was fitted with: give the encoder's folder or hub id, of "
            "which that can be checked, or wrap the object yourself with BridgedEncoder."
        )
    stored = read_bridge(folder)
    located = locate_encoder(encoder or stored.source.source, local_files_only=local_files_only)
    check_end(stored.source, located)
    return FoundBridge(str(folder), stored, located)


def _own_files(target: Pair) -> dict[str, str]:
    return {name: digest for name, digest in target.provenance.sha256.items() if name.startswith(_OF_ENCODER)}


def _provenance(target: Pair, bridged: BridgedEncoder, stored: StoredBridge, folder: str) -> Provenance:
    hashes = target.provenance.sha256
    others = {f"target/{name}" if name.startswith(_OF_ENCODER) else name: digest for name, digest in hashes.items()}
    return replace(
        target.provenance,
        name=f"{_SCHEME}{folder}",
        encoder=encoder_provenance(bridged.source, stored.source.source),
        sha256={**stored.source.sha256, "bridge/bridge.safetensors": stored.sha256, **others},
    )


def _note(stored: StoredBridge) -> str:
    measured = stored.measured
    return (
        f"embeddings go over a bridge ({stored.bridge.kind}); on pictures it was not fitted on, cosine "
        f"{measured.cosine:.2f} with {stored.target.name}'s own (mean embedding: {measured.baseline:.2f}), retrieval "
        f"{measured.retrieval:.0%} of {measured.n_retrieved}"
    )
