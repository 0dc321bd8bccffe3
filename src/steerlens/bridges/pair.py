"""`bridge:PATH`: an encoder through a bridge, with the decoder of the encoder that the bridge leads to."""

from dataclasses import replace
from pathlib import Path

import torch

from steerlens.bridges.encoder import BridgedEncoder
from steerlens.bridges.store import StoredBridge, check_end, check_hashes, read_bridge
from steerlens.decoders.base import Decoder, check_fit
from steerlens.encoders.base import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.loading import load
from steerlens.zoo.encoders import find_encoder, open_encoder
from steerlens.zoo.pair import Pair
from steerlens.zoo.provenance import encoder_provenance

_OF_ENCODER = ("image_encoder/", "image_processor/")


def load_bridged(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool = False,
    local: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    decoder: Decoder | None = None,
) -> Pair:
    """Loads the encoder that a bridge leads from, and the decoder of the one that it leads to.

    Vocabulary, texts and the decoder's idea of "no condition" are the target's, in whose space the embeddings are.

    Args:
        path: folder of the bridge.
        device: as in `load`.
        dtype: as in `load`.
        local_files_only: never use the network.
        local: where the target's pair is now, if it is not where it was.
        encoder: where the encoder that the bridge leads from is now, if it is not where it was.
        decoder: another decoder of the target's embeddings.

    Raises:
        UsageError: if there is no bridge, or no such device or precision.
        ModelError: if either encoder is not the one that the bridge was fitted with, the target has no decoder, or the
            decoder reads image tokens.
    """
    if isinstance(encoder, Encoder):
        raise UsageError(
            "a bridge belongs to the very weights that it was fitted with: give the encoder's folder or hub id, of "
            "which that can be checked, or wrap the object yourself with BridgedEncoder."
        )
    stored = read_bridge(path)
    found = find_encoder(encoder or stored.source.source, local_files_only=local_files_only)
    check_end(stored.source, found)
    target = load(
        stored.target.source,
        device=device,
        dtype=dtype,
        local_files_only=local_files_only,
        local=local,
        decoder=decoder,
    )
    if target.decoder.spec.consumes != "image_embedding":
        raise ModelError(f"{target.name}: its decoder reads image tokens, which a bridge of embeddings does not give.")
    check_hashes(stored.target, _own_files(target), target.name)
    source = open_encoder(found, device=device, dtype=dtype, name=stored.source.name)
    bridged = BridgedEncoder(source, stored.bridge, name=f"{stored.source.name} through a bridge to {target.name}")
    check_fit(target.decoder.spec, bridged.spec)
    return replace(
        target,
        name=f"bridge:{path}",
        encoder=bridged,
        # What the card says of the decoder holds; the target's own weights, which it lists, are not in this pair.
        card=None if target.card is None else replace(target.card, configs=None),
        provenance=_provenance(target, bridged, stored, path),
        notes=(*target.notes, _note(stored)),
    )


def _own_files(target: Pair) -> dict[str, str]:
    return {name: digest for name, digest in target.provenance["sha256"].items() if name.startswith(_OF_ENCODER)}


def _provenance(target: Pair, bridged: BridgedEncoder, stored: StoredBridge, path: str | Path) -> dict[str, object]:
    hashes: dict[str, str] = target.provenance["sha256"]
    others = {f"target/{name}" if name.startswith(_OF_ENCODER) else name: digest for name, digest in hashes.items()}
    return {
        **target.provenance,
        "name": f"bridge:{path}",
        "encoder": {**encoder_provenance(bridged.source, None), "source": stored.source.source},
        "sha256": {**stored.source.sha256, "bridge/bridge.safetensors": stored.sha256, **others},
    }


def _note(stored: StoredBridge) -> str:
    measured = stored.measured
    return (
        f"embeddings go over a bridge ({stored.bridge.kind}); on pictures it was not fitted on, cosine "
        f"{measured.cosine:.2f} with {stored.target.name}'s own (mean embedding: {measured.baseline:.2f}), retrieval "
        f"{measured.retrieval:.0%} of {measured.n_retrieved}"
    )
