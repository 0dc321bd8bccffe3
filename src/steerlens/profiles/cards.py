"""Cards of heads on single inputs: a contrast pair, real pictures along the change, and names gained and lost.

    gains   P(LN(r + c (h - h̄)))    decoded, beside real pictures near it and names that it gains over the other end
    loses   P(LN(r - c (h - h̄)))    decoded; real pictures near e - (e' - e), where e' is the embedding that gains

h̄ is the head's mean write over pictures of the bank: the constant part of a write is no news about an input. These are
the candidates of the study `lenses`, which measures how far each can be trusted on a model.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from steerlens.atlas import Atlas, CardEnd, CardPicture, Cell, Faithfulness, HeadCard, InputCards, Reading
from steerlens.decoders import NeighboursDecoder, redecode
from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.images import eight_bit, load_picture, png_bytes
from steerlens.lenses import Strength
from steerlens.profiles.measure import MEAN_PICTURES, steered
from steerlens.profiles.summary import N_REAL
from steerlens.profiles.texts import TextScore, describe, text_scores
from steerlens.progress import Progress, part_of
from steerlens.runs import StoredCards, known_by, write_cards, writing_cards
from steerlens.scores import cosine_similarity
from steerlens.sites import all_heads
from steerlens.studies.shared import (
    LensSetting,
    Reference,
    along_change,
    concept_of,
    lens_embeddings,
    opposite,
    reference_of,
)
from steerlens.sweep import Job
from steerlens.trace import Trace

_N_NAMES = 6
_RANDOM_DIRECTIONS = 64
"""Random directions whose best texts decide which names stand out."""

_THUMBNAIL = 96
_TRACED = 16


def write_head_cards(
    job: Job,
    atlas: Atlas,
    folder: Path,
    bank: NeighboursDecoder,
    *,
    model: str,
    count: int = 6,
    faithfulness: tuple[Faithfulness, ...] = (),
) -> Generator[Progress, None, int]:
    """Makes the cards of the best heads of each input of a finished run, and stores them in it; keeps those it has.

    Returns the number of inputs whose cards were made.

    Args:
        job: the job of the run, with its models and options.
        atlas: the run.
        folder: its directory.
        bank: real pictures, as `checked_bank` returns them.
        model: name of the pair.
        count: heads of each input, those whose pictures are most similar to the target.
        faithfulness: measured faithfulness on this model.

    Raises:
        StoreError: if the cards cannot be written.
    """
    with writing_cards(folder):
        stored = StoredCards(folder, atlas.plan.pictures)
        keys = _keys(atlas, bank, count, faithfulness)
        left = [id for id, key in keys.items() if stored.key_of(id) != key]
        yield Progress("cards", 0, len(left), "inputs")
        if not left:
            return 0
        reference = bank_reference(job.encoder, bank)
        for done, id in enumerate(left):
            events = input_cards(job, atlas, atlas.reading(id), bank, reference, count)
            heads, chance = yield from part_of(events, "cards", done, len(left))
            source = f"{len(bank.rows):,} pictures of {bank.folder.name}"
            cards = InputCards(Path(model).name, str(atlas.plan.strength), source, chance, heads, faithfulness)
            write_cards(folder, id, cards, keys[id])
            yield Progress("cards", done + 1, len(left), "inputs")
        return len(left)


def checked_bank(job: Job, bank: NeighboursDecoder) -> NeighboursDecoder:
    """Checks that a bank serves for the cards of a job, and returns it without the job's inputs.

    Raises:
        UsageError: if the decoder reads image tokens, the sites have no head, the bank is too small, or a picture of
            it is gone.
        ModelError: if the bank was made with another encoder, or a picture of it has changed.
    """
    encoder = job.encoder
    if not any(cell.site.kind == "head" for id in job.plan.pictures for cell in job.plan.of(id)):
        raise UsageError("cards show heads, and the sites have none; leave --bank out, or add heads to --sites.")
    if job.reads_tokens:
        raise UsageError(
            f"{job.decoder.spec.name} reads image tokens, and cards of heads steer and decode image embeddings; leave "
            "--bank out."
        )
    first = encoder.embed(encoder.preprocess([load_picture(bank.files[0]).image])).float().cpu()
    same = first.shape[-1] == bank.embeddings.shape[-1] and float(cosine_similarity(first, bank.embeddings[:1])[0])
    if not same >= 0.99:
        raise ModelError(
            f"{bank.spec.name}: the index was made with {bank.encoder_name}, not with {encoder.spec.name}. Index the "
            "folder with this encoder (steerlens neighbours index)."
        )
    bank = bank.leaving_out(bank.known(picture.sha256 for picture in job.pictures.values()))
    if len(bank.rows) < 2 * N_REAL:
        raise UsageError(f"{len(bank.rows)} pictures are too few for a bank; index at least {2 * N_REAL}.")
    for row in _mean_rows(bank):
        bank.picture(row, (1, 1))
    return bank


def _mean_rows(bank: NeighboursDecoder) -> list[int]:
    """Rows at equal distances in the index."""
    places = torch.linspace(0, len(bank.rows) - 1, min(MEAN_PICTURES, len(bank.rows))).round().long().tolist()
    return [bank.rows[place] for place in places]


@torch.no_grad()
def bank_reference(encoder: Encoder, bank: NeighboursDecoder) -> Reference:
    """Means over pictures of a bank, at equal distances in the index: 64, or all of a smaller one."""
    files = [bank.files[row] for row in _mean_rows(bank)]
    traces = [
        encoder.trace(encoder.preprocess([load_picture(file).image for file in files[start : start + _TRACED]]))
        for start in range(0, len(files), _TRACED)
    ]
    return reference_of(encoder, traces, all_heads(encoder.spec.n_layers, encoder.spec.n_heads))


@torch.no_grad()
def input_cards(
    job: Job, atlas: Atlas, reading: Reading, bank: NeighboursDecoder, reference: Reference, count: int
) -> Generator[Progress, None, tuple[tuple[HeadCard, ...], float | None]]:
    """Makes the cards of one input; also returns the excess of names that chance reaches.

    Args:
        job: models and options.
        atlas: the run.
        reading: the input.
        bank: real pictures.
        reference: means over the bank.
        count: heads that get a card, best first.
    """
    encoder, strength = job.encoder, atlas.plan.strength
    sites = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    lens = atlas.ranking_lens(reading.id)
    best = [] if lens is None else [score.site for score in atlas.ranked(lens, reading.id, k=count)]
    rows = [sites.index(site) for site in best]
    if not rows:
        return (), None
    trace = encoder.trace(encoder.preprocess([job.pictures[reading.id].image]))
    gains, loses = (
        lens_embeddings(encoder, trace, sites, LensSetting("steering", sign, centred=True), reference)[0].float().cpu()
        for sign in (strength, against(strength))
    )
    names, chance = _names(job, trace, gains, loses, strength)
    clean, changed = trace.embedding[0].float().cpu(), gains[rows]
    pictures = bank.embeddings[list(bank.rows)].float()
    real = [
        along_change(first, second, pictures, N_REAL)
        for first, second in ((changed, opposite(clean, changed)), (opposite(clean, changed), changed))
    ]
    pairs = torch.cat([changed, loses[rows]])
    events = redecode(encoder, job.decoder, pairs, [atlas.plan.seeds[0]] * len(pairs), job.options, keep=True)
    decoded = yield from part_of(events, "cards", 0, len(pairs))
    if decoded.pictures is None:
        raise UsageError("the decoder returned no pictures.")
    fidelity = cosine_similarity(pairs, decoded.embeddings.float().cpu()).tolist()
    shown = eight_bit(decoded.pictures)

    def end(side: int, number: int) -> CardEnd:
        place = side * len(rows) + number
        return CardEnd(
            decoded=CardPicture(("gains", "loses")[side], fidelity[place], _png(shown[place])),
            real=tuple(_real(bank, bank.rows[row], margin) for row, margin in real[side][number]),
            names=names[side][rows[number]] if names else (),
        )

    return tuple(HeadCard(site, end(0, number), end(1, number)) for number, site in enumerate(best)), chance


def against(strength: Strength) -> Strength:
    """Strength that steers as far in the opposite direction."""
    return Strength(strength.kind, 2 - strength.value if strength.kind == "s" else -strength.value)


def _names(
    job: Job, trace: Trace, gains: Float[Tensor, "N E"], loses: Float[Tensor, "N E"], strength: Strength
) -> tuple[tuple[Sequence[tuple[TextScore, ...]], ...], float | None]:
    """Names that every head gains, and those that it loses; and the excess that chance reaches."""
    if job.vocabulary is None:
        return (), None
    generator = torch.Generator().manual_seed(0)
    base = trace.final[0].float()
    random = torch.randn((1, _RANDOM_DIRECTIONS, *base.shape), generator=generator).to(base)
    # A random direction has no length of its own: it is steered as hard as a head under rho.
    size = strength if strength.kind == "rho" else Strength("rho", 1.0)
    along, opposed = (steered(job.encoder, base, random, sign)[0].cpu() for sign in (size, against(size)))
    names, levels = list[Sequence[tuple[TextScore, ...]]](), list[float]()
    for scores, chance in (
        (text_scores(job.vocabulary, gains, loses), text_scores(job.vocabulary, along, opposed)),
        (text_scores(job.vocabulary, loses, gains), text_scores(job.vocabulary, opposed, along)),
    ):
        described, level = describe(job.vocabulary.names, scores, chance, _N_NAMES)
        names.append([tuple(name for name in texts if name.excess > 0) for texts in described])
        levels.append(level)
    return tuple(names), max(levels)


def _real(bank: NeighboursDecoder, row: int, margin: float) -> CardPicture:
    height, width = bank.spec.defaults.size
    scale = min(1.0, _THUMBNAIL / max(height, width))
    pixels = bank.picture(row, (round(scale * height), round(scale * width)))
    return CardPicture(concept_of(bank.files[row], bank.folder), margin, _png(eight_bit(pixels.clamp(0, 1)[None])[0]))


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    return png_bytes(Image.fromarray(pixels))


_OF_OTHERS = ("inputs", "plan", "directions", "vector_at")
"""Parts of a run's identity that decide nothing about the cards of one input, whose own cells are hashed with them."""


def _keys(atlas: Atlas, bank: NeighboursDecoder, count: int, faithfulness: tuple[Faithfulness, ...]) -> dict[str, str]:
    """Everything that decides the cards of each input, hashed: equal in runs that differ in their other inputs."""
    identity = {key: value for key, value in known_by(atlas.manifest).items() if key not in _OF_OTHERS}
    for part in ("encoder", "decoder"):  # without their names, which say where files were
        identity[part] = {**identity.get(part, {}), "name": ""}
    plan = atlas.plan
    shared = hashlib.sha256(bank.embeddings.numpy().tobytes())
    known = [asdict(measured) for measured in faithfulness]
    stated = [list(bank.rows), bank.folder.name, count, known, identity, str(plan.strength), plan.seeds, plan.n_layers]
    shared.update(json.dumps(["cards 2", *stated], sort_keys=True).encode())

    def key(cells: Iterable[Cell]) -> str:
        own = shared.copy()
        own.update("\n".join(cell.key for cell in cells).encode())
        return own.hexdigest()

    return {id: key(cells) for id, cells in plan.by_picture()}
