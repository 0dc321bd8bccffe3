"""Making a bridge from two encoders and picture files: embed, fit, measure, and decode some pictures as a check."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from steerlens.bridges.embeddings import PairedEmbeddings, embed_both, held_out, without
from steerlens.bridges.fit import FEWEST, Choice, Fitted, Measured, fit_bridge, measure, with_decoded
from steerlens.decoders import Decoder, redecode
from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.progress import Progress
from steerlens.scores import cosine_similarity


@dataclass(frozen=True)
class BridgeOptions:
    """Options of making a bridge.

    Attributes:
        choice: kind of map, or `auto` for the best on held-out folds.
        decode: held-out pictures to decode from mapped embeddings and embed again; 0 for none.
        batch_size: pictures embedded at once.
        folds: number of folds of the cross-validation.
        seed: seed of the held-out pictures and the folds, and first seed of the decoder.
    """

    choice: Choice = "auto"
    decode: int = 0
    batch_size: int = 32
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class NewBridge:
    """A new bridge with its measured quality.

    Attributes:
        fitted: the bridge and the other candidates.
        measured: its quality on pictures that it was not fitted on.
        doubles: files left out because an earlier file has the same bytes.
        notes: messages to the user.
    """

    fitted: Fitted
    measured: Measured
    doubles: int
    notes: tuple[str, ...]


def make_bridge(
    source: Encoder,
    target: Encoder,
    paths: list[Path],
    others: list[Path] | None = None,
    *,
    decoder: Decoder | None = None,
    options: BridgeOptions | None = None,
) -> Generator[Progress, None, NewBridge]:
    """Embeds pictures with both encoders, fits a bridge between them and measures it.

    Args:
        source: the source encoder.
        target: the target encoder.
        paths: picture files to fit on.
        others: picture files to measure on; by default a fifth of `paths`, at most 500, which are then not fitted on.
        decoder: a decoder of the target's embeddings, to decode pictures with.
        options: the options.

    Raises:
        UsageError: if there are too few pictures, or `options.decode` is set without a decoder.
        PictureError: if a file is no picture.
        ModelError: if an encoder gives embeddings that are not finite or all equal.
    """
    options = options or BridgeOptions()
    if options.decode < 0 or (options.decode and decoder is None):
        raise UsageError(f"{options.decode} pictures cannot be decoded without a decoder of the target's embeddings.")
    if decoder is not None and decoder.spec.consumes != "image_embedding":
        raise ModelError(f"{decoder.spec.name} reads image tokens, which a bridge of embeddings does not give.")
    fewest = FEWEST if others is not None else -(-5 * FEWEST // 4)
    if len(paths) < fewest:
        raise UsageError(f"{len(paths)} pictures are too few for a bridge; give at least {fewest}, better thousands.")
    known = yield from embed_both(source, target, paths, batch_size=options.batch_size)
    doubles = known.doubles
    if others is None:
        known, new = held_out(known, options.seed)
    else:
        new = yield from embed_both(source, target, others, batch_size=options.batch_size, stage="embedding held-out")
        fresh = without(new, known)
        doubles += new.doubles + len(new) - len(fresh)
        new = fresh
        if len(new) < 2:
            raise UsageError("fewer than two pictures were held out that are not among those to fit on.")
    fitted = yield from fit_bridge(known.source, known.target, options.choice, folds=options.folds, seed=options.seed)
    measured = measure(fitted.bridge, new.source, new.target)
    if decoder is not None and options.decode:
        measured = yield from _decoded(fitted, measured, target, decoder, new, options)
    return NewBridge(fitted, measured, doubles, tuple(_notes(fitted, doubles)))


def _decoded(
    fitted: Fitted, measured: Measured, target: Encoder, decoder: Decoder, new: PairedEmbeddings, options: BridgeOptions
) -> Generator[Progress, None, Measured]:
    n = min(options.decode, len(new))
    own = new.target[:n]
    both = torch.cat([fitted.bridge(new.source[:n]), own])
    # A picture has the same seed for both of its embeddings.
    seeds = [options.seed + number for number in range(n)] * 2
    yield Progress("decoding", 0, len(both), "pictures")
    decoded = yield from redecode(target, decoder, both, seeds, decoder.spec.defaults)
    cosines: list[float] = cosine_similarity(decoded.embeddings, torch.cat([own, own])).tolist()
    return with_decoded(measured, cosines[:n], cosines[n:])


def _notes(fitted: Fitted, doubles: int) -> Generator[str]:
    if doubles:
        yield f"{doubles} files were left out, whose bytes were there under another name"
    if fitted.n_pictures < 2 * fitted.bridge.source_size:
        yield (
            f"{fitted.n_pictures} pictures are few for embeddings of {fitted.bridge.source_size} numbers; more will "
            "make a better bridge"
        )
