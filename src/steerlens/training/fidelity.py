"""Fidelity of a decoder to embeddings, for an encoder without a vocabulary of names.

Embeddings of an encoder share a large mean, so the cosine of any two is high. Fidelity is therefore measured with the
mean embedding of training scenes subtracted from both sides:

    centred cosine = cos(e' - m, e - m),    e' = encoder(decoder(e)).

*Transfer* measures how well a change of the embedding is preserved (`studies.shared.transfer`), for steps towards
another scene, and for steps along heads as the Steering Lens takes them. The study of candidate lenses measures it for
changes along all heads' writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.scenes import HELD_OUT, OUTSIDE, PLAIN, TRAIN, UNSEEN, PictureSet, SceneMaker
from steerlens.studies.shared.transfer import STEPS, transfer
from steerlens.training.grid import save_pairs
from steerlens.training.measurement import MeasuredPair, Measurement, default_options

STRENGTHS = (0.25, 0.5, 1.0, 2.0)
"""Relative strengths rho of the steps along heads."""


def _draw(pictures: PictureSet, rows: Tensor, count: int, seed: int) -> Tensor:
    """Draws plain scenes of some pictures; float (count,3,64,64)."""
    return SceneMaker(pictures, rows, "cpu", PLAIN).draw(count, torch.Generator().manual_seed(seed)).pictures


def reconstruction(
    pair: MeasuredPair,
    scenes: Tensor,
    mean: Tensor,
    what: str,
    bars: tuple[float | None, float | None, float | None] = (None, None, None),
    grid: Path | None = None,
) -> list[Measurement]:
    """Measures scenes that are embedded, decoded and embedded again.

    Args:
        pair: the pair.
        scenes: float (N,3,64,64) in [0,1].
        mean: float (E), mean embedding of training scenes.
        what: the scenes, in words.
        bars: thresholds of centred cosine, retrieval and pictures a second; None to report without a threshold.
        grid: PNG file to write, with scenes beside the pictures decoded from them.
    """
    embeds = pair.embed(scenes)
    start = time.perf_counter()
    decoded = pair.decode(embeds)
    rate = len(scenes) / (time.perf_counter() - start)
    again = pair.embed(decoded)
    if grid is not None:
        size = decoded.shape[-2:]
        shown = scenes[:48] if size == scenes.shape[-2:] else functional.interpolate(scenes[:48], size=size)
        save_pairs(grid, shown, decoded[:48])
    plain = functional.cosine_similarity(again, embeds, dim=-1).mean()
    another = functional.cosine_similarity(again, embeds.roll(1, 0), dim=-1).mean()
    table = functional.normalize(again - mean, dim=-1) @ functional.normalize(embeds - mean, dim=-1).T
    hits = (table.argmax(dim=1) == torch.arange(len(table), device=table.device)).float().mean()
    note = f"{len(scenes)} scenes, {default_options().steps} steps, guidance {default_options().guidance:g}"
    plainly = f"{note}; mean left in {float(plain):.3f}, with another scene {float(another):.3f}"
    speed = f"{torch.get_num_threads()} threads, batched"
    return [
        Measurement(
            f"{what}: re-encoded cosine, mean taken out", float(table.diagonal().mean()), bars[0], False, plainly
        ),
        Measurement(f"{what}: retrieves its own source, top-1", float(hits), bars[1], note=f"among {len(scenes)}"),
        Measurement(f"{what}: pictures a second", rate, bars[2], False, speed),
    ]


def transfer_of_steps(pair: MeasuredPair, scenes: Tensor) -> list[Measurement]:
    """Measures transfer for steps from each scene's embedding towards the next scene's.

    Args:
        pair: the pair.
        scenes: float (N,3,64,64) in [0,1].
    """
    embeds = pair.embed(scenes)
    change = embeds.roll(1, 0) - embeds
    base = pair.embed(pair.decode(embeds))
    figures: list[Measurement] = []
    for step in STEPS:
        goal = embeds + step * change
        cosine = transfer(embeds, goal, base, pair.embed(pair.decode(goal)))
        error = float(cosine.std()) / len(cosine) ** 0.5
        note = f"{len(scenes)} steps between held-out scenes, standard error {error:.3f}"
        figures.append(Measurement(f"transfer of a step of {step:g}", float(cosine.mean()), None, False, note))
    return figures


def transfer_of_heads(pair: MeasuredPair, scenes: Tensor) -> list[Measurement]:
    """Measures transfer for steps along a head's write, as the Steering Lens takes them; a head drawn for each scene.

    Args:
        pair: the pair.
        scenes: float (N,3,64,64) in [0,1].
    """
    from steerlens.lenses import SteeringLens, Strength
    from steerlens.sites import all_heads

    sites = all_heads(pair.encoder.spec.n_layers, pair.encoder.spec.n_heads)
    choice = torch.randint(len(sites), (len(scenes),), generator=torch.Generator().manual_seed(9109))
    trace = pair.encoder.trace(pair.encoder.preprocess_tensor(scenes))
    clean = trace.embedding.float()
    base, rows = pair.embed(pair.decode(clean)), torch.arange(len(scenes))
    figures: list[Measurement] = []
    for rho in STRENGTHS:
        steered = SteeringLens(pair.encoder, Strength("rho", rho)).embeddings(trace, sites).float()[rows, choice]
        cosine = transfer(clean, steered, base, pair.embed(pair.decode(steered)))
        error = float(cosine.std()) / len(cosine) ** 0.5
        note = f"{len(scenes)} heads, one a held-out scene, standard error {error:.3f}"
        figures.append(Measurement(f"transfer along a head, rho={rho:g}", float(cosine.mean()), None, False, note))
    return figures


def decoder_parts(
    pair: MeasuredPair, pictures: PictureSet, grid: Path | None, quick: bool
) -> list[Callable[[], list[Measurement]]]:
    """Measurements of a decoder, as functions to be called one after another.

    Args:
        pair: the pair.
        pictures: prepared pictures; uses those held out, and sources that training never uses.
        grid: PNG file to write, with held-out scenes beside the pictures decoded from them.
        quick: True to use a tenth of the scenes.
    """
    divisor = 10 if quick else 1
    mean = pair.embed(_draw(pictures, pictures.rows(TRAIN), 1000 // divisor, 9106)).mean(dim=0)
    held_out = pictures.rows(HELD_OUT)
    held_out = held_out if held_out.numel() > 1 else pictures.rows(UNSEEN)
    scenes = _draw(pictures, held_out, 500 // divisor, 9102)

    def reconstruct(rows: Tensor, what: str, seed: int) -> list[Measurement]:
        *fidelity, _ = reconstruction(pair, _draw(pictures, rows, 500 // divisor, seed), mean, what)
        return fidelity  # speed is the same for all pictures

    parts: list[Callable[[], list[Measurement]]] = [
        lambda: reconstruction(pair, scenes, mean, "held-out scenes", (0.60, 0.65, 20), grid),
        lambda: transfer_of_steps(pair, scenes[: 200 // divisor]),
        lambda: transfer_of_heads(pair, scenes[: 200 // divisor]),
    ]
    outside = pictures.rows(OUTSIDE)
    for index in pictures.style[outside].unique().tolist():
        rows = outside[pictures.style[outside] == index]
        what = f"{pictures.styles[index]}, never trained on"
        parts.append(lambda rows=rows, what=what: reconstruct(rows, what, 9107))
    return parts
