"""Fake atlases of every shape that a report or an app must show, without a model and in milliseconds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from steerlens.atlas import (
    Atlas,
    CardEnd,
    CardPicture,
    Cell,
    CellResult,
    Effect,
    Faithfulness,
    HeadCard,
    InputCards,
    LensName,
    Reading,
    TextScore,
    make_plan,
)
from steerlens.decoders import DecodeOptions, DecoderSpec
from steerlens.encoders import EncoderSpec
from steerlens.images import Picture, png_bytes
from steerlens.lenses import Label, Strength
from steerlens.sites import Site, layer_sites, parse_sites

_NAMES = ("red apple", "cat <3", "tea & cake", "boat", "moon")


def fake_atlas(
    names: Sequence[str] = ("apple",),
    *,
    layers: int = 3,
    heads: int = 2,
    sites: str = "resid_post,heads",
    vectors: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    lenses: Sequence[LensName] = ("diffusion", "steering"),
    controls: int = 1,
    foils: int = 0,
    effects: Sequence[Effect] = ("direct",),
    strength: str = "rho=1",
    vocabulary: bool = True,
    attention: bool = True,
    target: str = "the input itself",
    size: int = 16,
    grid: int = 4,
) -> Atlas:
    """An atlas of random numbers and pictures, equal for equal arguments.

    Args:
        names: names of the input pictures.
        layers: L.
        heads: H.
        sites: sites, as for `--sites`.
        vectors: names of the user's directions.
        seeds: decoder seeds.
        lenses: lenses of the run.
        controls: random directions per steered site.
        foils: writes for other inputs per steered site.
        effects: effects of steering.
        strength: steering strength.
        vocabulary: whether there are Logit Lens labels.
        attention: whether attention was kept.
        target: description of the target of similarities.
        size: side of the decoded pictures in pixels.
        grid: patches along a side.
    """
    rng = np.random.default_rng(0)
    chosen = [*parse_sites(sites, layers, heads), *(Site("vector", name=name) for name in vectors)]
    ids = [f"{index:012x}" for index in range(len(names))]
    plan = make_plan(
        ids,
        chosen,
        layers,
        strength=Strength.parse(strength),
        seeds=seeds,
        lenses=lenses,
        controls=controls,
        foils=foils,
        effects=effects,
    )
    options = DecodeOptions(steps=2, guidance=3.0, scheduler="dpm++", size=(size, size))
    tokens = grid * grid + 1
    return Atlas(
        encoder=EncoderSpec("fake/encoder", "clip", layers, heads, 8, 6, (64, 64), tokens, (grid, grid), 1, (0,)),
        decoder=DecoderSpec("fake/decoder", "kandinsky-2.2", "image_embedding", 6, options),
        plan=plan,
        readings=tuple(
            Reading(
                picture=Picture.from_image(_image(rng, 64), name),
                id=id,
                embedding=torch.randn(6, generator=torch.Generator().manual_seed(0)),
                target=target,
                target_similarity=1.0 if target == "the input itself" else 0.25,
                labels=_labels(rng, [*layer_sites("resid_post", layers), *chosen]) if vocabulary else (),
                attention=_attention(rng, (layers, heads), tokens) if attention else None,
                write_norms=torch.from_numpy(rng.random((layers, heads)) / 10).float(),
                direct_similarity=torch.from_numpy(rng.normal(0, 0.1, (layers, heads))).float(),
                decomposition_error=1e-7,
            )
            for id, name in zip(ids, names, strict=True)
        ),
        results=tuple(_result(rng, cell, size) for cell in plan.cells),
        manifest={"format": 1, "complete": True, "model": "fake", "versions": {"torch": "0"}, "seconds": 1.5},
    )


def with_cards(atlas: Atlas, *, heads: int = 3, real: int = 2, side: int = 16) -> Atlas:
    """The atlas with cards of the best heads of each input.

    Args:
        atlas: the atlas.
        heads: heads with a card.
        real: real pictures at each end.
        side: side of a card's pictures, in pixels.
    """
    rng = np.random.default_rng(1)

    def end(name: str) -> CardEnd:
        shown = CardPicture(name, 0.5, png_bytes(_image(rng, side)))
        texts = (TextScore(name, 0.2, 0.1, True), TextScore("<other> & text", 0.1, 0.05, False))
        return CardEnd(shown, (shown,) * real, texts)

    def cards(id: str) -> InputCards:
        sites = [score.site for score in atlas.ranked("steering", id, k=heads)]
        measured = Faithfulness("contrast pair", "a measure", 0.4, 0.3, 0.5, {sites[0].label: 0.25}, 9)
        some = tuple(HeadCard(site, end("Gained"), end("Lost")) for site in sites)
        return InputCards("tiny", "rho=1", "20 pictures", 0.1, some, (measured,))

    return replace(atlas, cards={reading.id: cards(reading.id) for reading in atlas.readings})


def _labels(rng: np.random.Generator, sites: Sequence[Site]) -> tuple[Label, ...]:
    return tuple(
        Label(site, rank + 1, _NAMES[index], 0.5 - 0.1 * rank)
        for site in dict.fromkeys(sites)
        for rank, index in enumerate(rng.permutation(len(_NAMES))[:3])
    )


def _attention(rng: np.random.Generator, heads: tuple[int, int], tokens: int) -> torch.Tensor:
    return torch.from_numpy(rng.dirichlet(np.ones(tokens), heads)).half()


def _image(rng: np.random.Generator, size: int) -> Image.Image:
    """Draws two soft blobs of random colour."""
    y, x = np.mgrid[0:size, 0:size] / size
    picture = np.ones((size, size, 3)) * rng.uniform(0.6, 1, 3)
    for _ in range(2):
        (a, b), colour = rng.uniform(0.2, 0.8, 2), rng.random(3)
        blob = np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.05)[..., None]
        picture = picture * (1 - blob) + colour * blob
    return Image.fromarray((picture * 255).astype(np.uint8))


def _result(rng: np.random.Generator, cell: Cell, size: int) -> CellResult:
    centre = {"diffusion": 0.2, "control": 0.45, "total_control": 0.45, "foil": 0.5}.get(cell.lens, 0.6)
    if cell.site.kind == "resid_post":
        centre = 0.6
    similarity, fidelity = np.clip(rng.normal((centre, 0.6), 0.15), -1, 1).tolist()
    return CellResult(
        cell=cell,
        rho=0.0 if cell.lens == "diffusion" else 1.0,
        file=png_bytes(_image(rng, size)),
        conditioning=torch.from_numpy(rng.normal(size=6)).float(),
        reencoded=torch.from_numpy(rng.normal(1, 1, size=6)).float(),
        similarity=similarity,
        steered_similarity=float(np.clip(similarity + 0.05, -1, 1)),
        fidelity=fidelity,
        direct_cosine=0.9 if cell.lens in ("total", "ablation") else None,
        change_cosine=float(rng.uniform(-0.5, 1)) if cell.lens in ("total", "ablation") else None,
    )
