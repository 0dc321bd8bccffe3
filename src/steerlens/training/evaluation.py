"""Evaluation of a pair on held-out pictures and scenes, which training does not use, against thresholds.

Similarity is the cosine of image embeddings; names are compared with mean-centred text embeddings. All measurements use
the exported pair, with the same encoder, lenses, interventions and decoder as every other command.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.scenes import (
    BACKGROUNDS,
    HELD_OUT,
    PLAIN,
    TRAIN,
    UNSEEN,
    PictureSet,
    SceneMaker,
    Scenes,
    load_prepared,
    zero_shot_scenes,
)
from steerlens.training.fidelity import decoder_parts
from steerlens.training.grid import save_pairs
from steerlens.training.heads import head_effects, residual_shares
from steerlens.training.measurement import Evaluation, MeasuredPair, Measurement, default_options, open_pair
from steerlens.training.metrics import rank_of
from steerlens.training.naming import naming_parts


def ground_of(pictures: Tensor) -> Tensor:
    """Finds the background whose colour is nearest to the median colour of a 3-pixel frame; int64 (N)."""
    frame = torch.ones(pictures.shape[-2:], dtype=torch.bool, device=pictures.device)
    frame[3:-3, 3:-3] = False
    colour = pictures[:, :, frame].median(dim=-1).values
    palette = torch.tensor([entry.rgb for entry in BACKGROUNDS], device=pictures.device)
    return torch.cdist(colour, palette).argmin(dim=1)


def rank_correlation(values: Tensor) -> Tensor:
    """Spearman's correlation of each row of (N,K) with the column number; float (N)."""
    ranks = values.argsort(dim=1).argsort(dim=1).double()
    columns = torch.arange(values.shape[1], dtype=torch.float64, device=values.device).expand_as(ranks)
    stacked = torch.stack([ranks, columns]) - (values.shape[1] - 1) / 2
    return (stacked[0] * stacked[1]).sum(dim=1) / (stacked[0].norm(dim=1) * stacked[1].norm(dim=1))


def naming(pair: MeasuredPair, pictures: PictureSet) -> list[Measurement]:
    """Measures zero-shot naming of held-out pictures and unseen concepts."""
    figures: list[Measurement] = []
    device = pair.names.device
    for split, label in ((HELD_OUT, "a held-out picture"), (UNSEEN, "an unseen concept")):
        rows = pictures.rows(split)
        if rows.numel() == 0:
            continue
        shown = zero_shot_scenes(SceneMaker(pictures, rows, device, PLAIN), rows)
        unit = functional.normalize(pair.embed(shown), dim=-1)
        ranks = rank_of(unit @ pair.names.T, pictures.concept[rows].to(device))
        first, fifth = float((ranks < 1).float().mean()), float((ranks < 5).float().mean())
        note = f"{rows.numel()} pictures on white, {len(pair.names)} names"
        bars = (0.30, 0.65) if split == HELD_OUT else (None, 25 / len(pair.names))
        figures.append(Measurement(f"name of {label}, top-1", first, bars[0], note=note))
        figures.append(Measurement(f"name of {label}, top-5", fifth, bars[1], note=note))
    return figures


def companions(pair: MeasuredPair, pictures: PictureSet, count: int) -> list[Measurement]:
    """Measures zero-shot naming of small, overlaid objects, with the main object's name excluded."""
    figures: list[Measurement] = []
    device = pair.names.device
    for split, bar, label in ((HELD_OUT, 0.4, "both pictures held out"), (TRAIN, None, "trained pictures, new scenes")):
        rows = pictures.rows(split)
        if rows.numel() < 2:
            continue
        maker = SceneMaker(pictures, rows, device, PLAIN)
        scenes = maker.draw(count, torch.Generator().manual_seed(9101), companions=1.0)
        has = scenes.companion >= 0
        unit = functional.normalize(pair.embed(scenes.pictures[has]), dim=-1)
        similarity = (unit @ pair.names.T).scatter(1, scenes.main[has, None], -2.0)
        ranks = rank_of(similarity, scenes.companion[has])
        value = float((ranks < 5).float().mean())
        figures.append(
            Measurement("name of the companion, top-5", value, bar, note=f"{int(has.sum())} scenes, {label}")
        )
    return figures


def held_scenes(pictures: PictureSet, device: torch.device, count: int) -> Scenes:
    """Composes scenes of held-out pictures, or of unseen concepts if there are no others."""
    rows = pictures.rows(HELD_OUT)
    rows = rows if rows.numel() > 1 else pictures.rows(UNSEEN)
    return SceneMaker(pictures, rows, device, PLAIN).draw(count, torch.Generator().manual_seed(9102))


def decoding(pair: MeasuredPair, scenes: Scenes, grid: Path | None) -> list[Measurement]:
    """Measures scenes that are embedded, decoded and embedded again: fidelity, retrieval, background, speed."""
    embeds = pair.embed(scenes.pictures)
    pair.decode(embeds[:8])
    start = time.perf_counter()
    decoded = pair.decode(embeds)
    seconds = time.perf_counter() - start
    if grid is not None:
        save_pairs(grid, scenes.pictures[:48], decoded[:48])
    cosine = functional.normalize(pair.embed(decoded), dim=-1) @ functional.normalize(embeds, dim=-1).T
    own = torch.arange(len(embeds), device=cosine.device)
    count = len(embeds)
    note = f"{count} scenes, {default_options().steps} steps, guidance {default_options().guidance:g}"
    right, ceiling = ((ground_of(shown) == scenes.background).float().mean() for shown in (decoded, scenes.pictures))
    hits = (cosine.argmax(dim=1) == own).float().mean()
    another, rate = cosine.roll(1, 0).diagonal().mean(), count / seconds
    threads = f"{torch.get_num_threads()} threads, {note}, batched"
    grounds = f"12 colours; sources reach {float(ceiling):.1%}"
    return [
        Measurement("decoded and re-encoded: mean cosine", float(cosine.diagonal().mean()), 0.75, False, note),
        Measurement("cosine with another scene's embedding", float(another), None, False, note),
        Measurement("retrieves its own source, top-1", float(hits), 0.70, note=f"among {count} held-out scenes"),
        Measurement("background colour right", float(right), 0.85, note=grounds),
        Measurement("pictures a second", rate, 10, False, threads),
    ]


def depth(pair: MeasuredPair, scenes: Scenes) -> list[Measurement]:
    """Checks the Diffusion Lens: equal to the plain reconstruction at the last layer, and closer with depth."""
    from steerlens.lenses import DiffusionLens
    from steerlens.sites import Site

    trace = pair.encoder.trace(pair.encoder.preprocess_tensor(scenes.pictures))
    sites = [Site("embed"), *(Site("resid_post", layer) for layer in range(pair.encoder.spec.n_layers))]
    embeds = DiffusionLens(pair.encoder).embeddings(trace, sites).float()
    count, layers = embeds.shape[:2]
    clean = pair.embed(scenes.pictures)
    # a seed per picture, the same at every depth
    decoded = torch.stack([pair.decode(embeds[:, layer]) for layer in range(layers)], dim=1)
    gap = float((decoded[:, -1] - pair.decode(clean)).abs().max())
    back = functional.normalize(pair.embed(decoded.flatten(0, 1)), dim=-1).view(count, layers, -1)
    similarity = (back * functional.normalize(clean, dim=-1)[:, None]).sum(dim=-1)
    gap_note = f"largest gap {gap:.2g}"
    curve = " ".join(f"{float(value):.2f}" for value in similarity.mean(dim=0))
    return [
        Measurement("Diffusion Lens, last layer = reconstruction", float(gap < 0.02), 1.0, note=gap_note),
        Measurement(
            "Diffusion Lens, similarity rises with depth",
            float(rank_correlation(similarity).mean()),
            0.8,
            False,
            f"Spearman, mean over {count} scenes; mean similarity by depth: {curve}",
        ),
    ]


def heads(pair: MeasuredPair, pictures: PictureSet, count: int) -> list[Measurement]:
    """Measures whether heads matter: ablation effects on the label, and shares of the final residual."""
    rows = torch.cat([pictures.rows(HELD_OUT), pictures.rows(TRAIN)])
    chosen = rows[torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(9103))[:count]]
    count = len(chosen)
    maker = SceneMaker(pictures, chosen, pair.names.device, PLAIN)
    # the same scenes on other backgrounds, and the same objects in other scenes (position, size, angle, background)
    scenes, recoloured, redrawn = (
        maker.draw(count, torch.Generator().manual_seed(seed), rows=chosen, companions=0.0, turn_background=turn)
        for seed, turn in ((9104, 0), (9104, 5), (9105, 0))
    )
    effects = head_effects(pair.encoder, pair.names, scenes, (recoloured, redrawn))
    spec = pair.encoder.spec
    matter = effects.above.flatten(1).sum(dim=1).tolist()
    late = effects.above[:, spec.n_layers - max(1, spec.n_layers // 3) :].flatten(1).sum(dim=1).tolist()
    low, high = effects.thresholds.tolist()
    by_layer = " ".join(f"{float(value):.3f}" for value in effects.effect.sum(dim=1))
    shares = residual_shares(pair.encoder, scenes.pictures)
    note = f"{count} scenes; effect of the layer's heads on the label's cosine: {by_layer}"
    return [
        Measurement("heads that matter", matter[0], min(15, effects.effect.numel()), False, note),
        Measurement("of them in the last third", late[0], 4, False, f"control: other backgrounds, threshold {low:.2g}"),
        Measurement("heads that matter, stricter control", matter[1], None, False, "control: the same object, redrawn"),
        Measurement("of them in the last third", late[1], None, False, f"threshold {high:.2g}"),
        *(Measurement(f"share of the final residual: {name}", value) for name, value in shares.items()),
    ]


def evaluate(
    folder: Path,
    data: Path,
    *,
    device: str = "cpu",
    grid: Path | None = None,
    quick: bool = False,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluates a pair, or its decoder and names if the encoder was not trained with texts (see `fidelity`, `naming`).

    Args:
        folder: folder of the pair.
        data: folder with the prepared pictures that it was trained on.
        device: device to run on.
        grid: PNG file to write, with scenes beside the pictures decoded from them.
        quick: True to use about a tenth of the scenes.
        say: called with each figure as soon as it is measured.
    """
    pair, pictures = open_pair(folder, device), load_prepared(data)
    divisor = 10 if quick else 1
    where = pair.names.device
    figures: list[Measurement] = []
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    parts: list[Callable[[], list[Measurement]]] = [
        lambda: naming(pair, pictures),
        lambda: companions(pair, pictures, 500 // divisor),
        lambda: decoding(pair, held_scenes(pictures, where, 500 // divisor), grid),
        lambda: depth(pair, held_scenes(pictures, where, 32 // min(divisor, 4))),
        lambda: heads(pair, pictures, 128 // min(divisor, 8)),
        lambda: [Measurement("megabytes of the pair (45 at most)", size / 1e6, None, False)],
    ]
    if len(pair.names) == 0:
        parts = [*decoder_parts(pair, pictures, grid, quick), *naming_parts(pair, pictures, data, divisor)]
    for part in parts:
        for figure in part():
            figures.append(figure)
            if say is not None:
                say("  ".join(cell for cell in figure.cells() if cell))
    return Evaluation(tuple(figures))
