"""Reference statistics of pairs: measured on pictures like those of the training, and kept with the pair or the user.

A pair's folder may hold them (`domain.safetensors`). Those that a user measures for other pairs are kept in the cache,
by the hashes of the models' files.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from steerlens.decoders import clean_conditioning, decode
from steerlens.domain import DomainReference, fit_reference, reference_from_bytes, reference_to_bytes
from steerlens.encoders import EncoderSpec
from steerlens.errors import ModelError, UsageError
from steerlens.limits import read_file
from steerlens.progress import Progress
from steerlens.scores import cosine_similarity
from steerlens.storage import atomic_write, cache_folder, make_folder, storing
from steerlens.zoo.pair import Pair

REFERENCE = "domain.safetensors"
"""Name of the file in a pair's folder."""

DECODED = 200
"""Reference pictures whose reconstructions are measured."""


def seen_part(image: Image.Image, spec: EncoderSpec) -> Image.Image:
    """Returns the part of a picture that an encoder sees; all of it if the preprocessing is not known."""
    if spec.geometry is not None and spec.geometry.resize == "unknown":
        return image
    return image.crop(spec.view(image.size).visible)


def measure_reference(
    pair: Pair, images: Sequence[Image.Image], pictures: str, *, decoded: int = DECODED, batch_size: int = 32
) -> Generator[Progress, None, DomainReference]:
    """Embeds reference pictures, decodes some of them, and returns their statistics; yields progress.

    Args:
        pair: encoder and decoder.
        images: the pictures, upright and in RGB.
        pictures: what they are, in words.
        decoded: most pictures to decode, spread evenly; 0 for none.
        batch_size: pictures embedded or decoded at once.

    Raises:
        UsageError: if there are too few pictures.
    """
    encoder, embeddings = pair.encoder, list[Tensor]()
    for start in range(0, len(images), batch_size):
        batch = encoder.preprocess(images[start : start + batch_size])
        embeddings.append(encoder.embed(batch).float().cpu())
        yield Progress("embedding", min(start + batch_size, len(images)), len(images), "pictures")
    chosen = list(images[:: max(1, -(-len(images) // decoded))]) if decoded else []
    fidelity = list[Tensor]()
    for start in range(0, len(chosen), batch_size):
        inputs = encoder.preprocess(chosen[start : start + batch_size])
        conditioning = clean_conditioning(encoder, pair.decoder, inputs)
        shown = decode(pair.decoder, conditioning, [0] * len(conditioning))
        again = encoder.preprocess_tensor(shown)
        if conditioning.kind == "image_tokens":
            tokens = clean_conditioning(encoder, pair.decoder, again).values
            cosine = cosine_similarity(conditioning.values.flatten(1), tokens.flatten(1))
        else:
            cosine = cosine_similarity(conditioning.values, encoder.embed(again).to(conditioning.values))
        fidelity.append(cosine.float().cpu())
        yield Progress("decoding", min(start + batch_size, len(chosen)), len(chosen), "pictures")
    return fit_reference(
        [seen_part(image, encoder.spec) for image in images],
        torch.cat(embeddings) if embeddings else torch.zeros(0, encoder.spec.embedding_size),
        pictures,
        fidelity=torch.cat(fidelity) if fidelity else None,
        options=pair.decoder.spec.defaults.decisive(),
    )


def find_reference(folder: Path | None, sha256: Mapping[str, str], embedding_size: int) -> DomainReference | None:
    """Reads the statistics in a pair's folder, or those that the user measured; None if there are none.

    Args:
        folder: folder of the pair, or None.
        sha256: hashes of the models' files.
        embedding_size: E of the encoder.

    Raises:
        ModelError: if the file in the pair's folder is damaged, or of another encoder.
    """
    if folder is not None and (folder / REFERENCE).is_file():
        try:
            return reference_from_bytes(read_file(folder / REFERENCE, "tensors_bytes"), embedding_size)
        except (ModelError, UsageError) as error:
            raise ModelError(f"{folder / REFERENCE}: {error}") from error
    own = user_reference(sha256)
    try:
        return reference_from_bytes(read_file(own, "tensors_bytes"), embedding_size) if own.is_file() else None
    except (ModelError, UsageError, OSError):
        return None  # an older or damaged file of the cache counts as none


def user_reference(sha256: Mapping[str, str]) -> Path:
    """Returns the file of the cache for the statistics of a pair, known by the hashes of its files."""
    key = hashlib.sha256(repr(sorted(sha256.items())).encode()).hexdigest()
    return cache_folder() / "references" / f"{key}.safetensors"


def save_reference(reference: DomainReference, path: Path) -> Path:
    """Writes statistics to a file, with the folder above it, and returns its path.

    Raises:
        StoreError: if it cannot be written.
    """
    with storing(path):
        make_folder(path.parent)
    atomic_write(path, reference_to_bytes(reference))
    return path


def models_for_photographs(but: str = "") -> tuple[str, ...]:
    """Names of the cards whose decoders were trained on photographs, the smallest download first."""
    from steerlens.zoo.cards import cards

    def suits(domain: str) -> bool:
        return "photograph" in domain and "no photograph" not in domain

    fit: list[Any] = [card for card in cards().values() if suits(card.domain) and card.name != but]
    return tuple(card.name for card in sorted(fit, key=lambda card: (card.gigabytes, card.name)))
