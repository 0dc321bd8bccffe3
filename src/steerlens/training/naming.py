"""Measured naming by prototypes and by the text map of a pair whose encoder was not trained with texts.

Pictures are shown upright on white, and in scenes. None of them was used to fit: they are held-out pictures of known
concepts, sources never trained on, and concepts without any training picture, which only the text map can name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.scenes import HELD_OUT, OUTSIDE, PLAIN, UNSEEN, PictureSet, SceneMaker, zero_shot_scenes
from steerlens.training.measurement import MeasuredPair, Measurement
from steerlens.training.metrics import rank_of
from steerlens.training.text import load_texts, text_file
from steerlens.vocabulary import PrototypeVocabulary
from steerlens.zoo import MappedText


def naming_parts(
    pair: MeasuredPair, pictures: PictureSet, data: Path, divisor: int
) -> list[Callable[[], list[Measurement]]]:
    """Measurements of names, as functions to be called one after another; none for a pair without prototypes.

    Args:
        pair: the pair.
        pictures: prepared pictures.
        data: folder of the prepared pictures, with the text embeddings of their names.
        divisor: every how manieth picture to use.
    """
    vocabulary = pair.loaded.vocabulary
    if not isinstance(vocabulary, PrototypeVocabulary):
        return []
    parts = [lambda: _by_prototypes(pair, vocabulary, pictures, divisor)]
    mapped = pair.loaded.texts
    if isinstance(mapped, MappedText) and text_file(data).exists():
        parts.append(lambda: _by_text(pair, mapped, pictures, load_texts(data).names, divisor))
    return parts


def _by_prototypes(
    pair: MeasuredPair, vocabulary: PrototypeVocabulary, pictures: PictureSet, divisor: int
) -> list[Measurement]:
    places = {name: place for place, name in enumerate(vocabulary.names)}
    place = torch.tensor([places.get(concept.name, -1) for concept in pictures.concepts])
    directions = vocabulary.directions()
    figures: list[Measurement] = []
    rows = pictures.rows(HELD_OUT)[::divisor]
    known = rows[place[pictures.concept[rows]] >= 0]
    if len(known):
        label = place[pictures.concept[known]]
        figures += _figures("a held-out picture", _ranks(pair, pictures, known, directions, label), len(directions))
        maker = SceneMaker(pictures, known, "cpu", PLAIN)
        scenes = maker.draw(len(known), torch.Generator().manual_seed(9108), rows=known, companions=0.0).pictures
        ranks = rank_of(functional.normalize(pair.embed(scenes), dim=-1) @ directions.T, label)
        figures += _figures("a held-out picture in a scene", ranks, len(directions))
    for index, rows in _outside(pictures, divisor):
        known = rows[place[pictures.concept[rows]] >= 0]
        if len(known):
            ranks = _ranks(pair, pictures, known, directions, place[pictures.concept[known]])
            figures += _figures(f"a picture of {pictures.styles[index]}, never trained on", ranks, len(directions))
    return figures


def _by_text(
    pair: MeasuredPair, mapped: MappedText, pictures: PictureSet, texts: Tensor, divisor: int
) -> list[Measurement]:
    """Ranks the own name among all names, all through the text map, for concepts without a training picture."""
    directions = functional.normalize((texts - mapped.mean) @ mapped.weight, dim=-1)
    trained = torch.zeros(len(pictures.concepts), dtype=torch.bool)
    trained[pictures.concept[(pictures.split != UNSEEN) & (pictures.split != OUTSIDE)]] = True
    figures: list[Measurement] = []
    groups = [("a concept without training pictures", pictures.rows(UNSEEN)[::divisor])]
    groups += [
        (f"a new concept of {pictures.styles[index]}", rows[~trained[pictures.concept[rows]]])
        for index, rows in _outside(pictures, divisor)
    ]
    for what, rows in groups:
        if len(rows):
            ranks = _ranks(pair, pictures, rows, directions, pictures.concept[rows])
            figures += _figures(f"{what}, by text", ranks, len(directions), (5, 50))
    return figures


def _outside(pictures: PictureSet, divisor: int) -> list[tuple[int, Tensor]]:
    outside = pictures.rows(OUTSIDE)[::divisor]
    return [(index, outside[pictures.style[outside] == index]) for index in pictures.style[outside].unique().tolist()]


def _ranks(pair: MeasuredPair, pictures: PictureSet, rows: Tensor, directions: Tensor, label: Tensor) -> Tensor:
    shown = zero_shot_scenes(SceneMaker(pictures, rows, "cpu", PLAIN), rows)
    return rank_of(functional.normalize(pair.embed(shown).cpu(), dim=-1) @ directions.T, label)


def _figures(what: str, ranks: Tensor, names: int, tops: tuple[int, int] = (1, 5)) -> list[Measurement]:
    note = f"{len(ranks)} pictures, {names} names, median rank {int(ranks.median()) + 1}"
    return [
        Measurement(f"name of {what}, top-{top}", float((ranks < top).float().mean()), None, True, note) for top in tops
    ]
