"""Names for an encoder that was not trained with texts, from pictures with names.

Two things are fitted to the embeddings of all training pictures, each upright on white. A *prototype* is the mean
embedding of a concept's pictures over styles; with the scatter of pictures around their prototypes it gives the name's
direction (`PrototypeVocabulary`). A *text map* W carries embeddings into the space of the sentence encoder,

    W = argmin Σ |W (e - m) - (t - t̄)|² + λ |W|²,

so that texts without pictures have directions too (`MappedText`). λ is chosen on concepts left out of the fit.

References: X. Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", arXiv 2111.07991.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from steerlens.errors import SteerlensError
from steerlens.progress import Progress
from steerlens.scenes import OUTSIDE, PLAIN, TRAIN, PictureSet, SceneMaker, zero_shot_scenes
from steerlens.storage import write_json
from steerlens.training.checkpoint import load_checkpoint, save_checkpoint
from steerlens.training.embedder import Embedder
from steerlens.training.metrics import rank_of
from steerlens.training.stage import StageRecord
from steerlens.vocabulary import PrototypeVocabulary, across
from steerlens.zoo import TEXT_MAP

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates of λ, over the mean eigenvalue of the embeddings' covariance."""

FOLDS = 5
"""Groups of concepts that are left out in turn to choose λ."""

SHRINKAGE = 0.3
"""Share of the mean eigenvalue added to the scatter, which has fewer pictures than it needs."""


@dataclass(frozen=True, eq=False)
class TextMap:
    """Linear map from image embeddings into the space of the sentence encoder.

    Attributes:
        weight: float (S,E), the map W.
        text_mean: float (S), mean text embedding t̄ of the names.
        penalty: the chosen λ.
        median_rank: median rank of the own name among all names, for concepts left out of the fit.
    """

    weight: Tensor
    text_mean: Tensor
    penalty: float
    median_rank: float

    def directions(self, texts: Tensor) -> Tensor:
        """Directions of text embeddings (V,S) in the embedding space; float (V,E), of unit norm."""
        return functional.normalize((texts - self.text_mean) @ self.weight, dim=-1)


def embed_pictures(
    embedder: Embedder, pictures: PictureSet, folder: Path, *, part: int = 1024, first: int = 0, stride: int = 1
) -> Iterator[Progress]:
    """Embeds every prepared picture, upright on white, in parts under `folder/concepts`; yields a record after each.

    Args:
        embedder: embedder of the pictures.
        pictures: prepared pictures of every split.
        folder: folder of the run.
        part: pictures in a part; an interrupted run loses at most one part.
        first: first part of this process.
        stride: number of processes that share the work.
    """
    start = time.monotonic()
    chunks = torch.arange(len(pictures.pictures)).split(part)
    for number in range(first, len(chunks), stride):
        path = folder / "concepts" / f"part-{number:03d}.safetensors"
        if not path.exists():
            rows = chunks[number]
            shown = zero_shot_scenes(SceneMaker(pictures, rows, "cpu", PLAIN), rows)
            save_checkpoint(path, {"embeds": embedder.embed(shown).half().cpu()}, {})
        done, seconds = number + stride >= len(chunks), time.monotonic() - start
        yield StageRecord("concepts", number + 1, seconds, (number + 1) / len(chunks), {}, done=done).progress()


def load_embeddings(folder: Path, pictures: PictureSet) -> Tensor:
    """Loads the embeddings of `embed_pictures`; float (N,E).

    Raises:
        SteerlensError: if they are missing, or those of other pictures.
    """
    parts = [load_checkpoint(path)[0]["embeds"] for path in sorted((folder / "concepts").glob("part-*.safetensors"))]
    if sum(map(len, parts)) != len(pictures.pictures):
        raise SteerlensError(
            f"{folder / 'concepts'} has embeddings of {sum(map(len, parts))} pictures, and {len(pictures.pictures)} "
            "are prepared: remove it, then continue the training with --resume."
        )
    return torch.cat(parts).float()


def fit_prototypes(embeds: Tensor, pictures: PictureSet, mean: Tensor) -> PrototypeVocabulary:
    """Fits a prototype to every concept with a training picture that is drawn in two styles or more.

    Concepts drawn in one style alone are mostly clip art, which artists name as they like. If no concept
    has two styles, as in a set of one style, every concept gets a prototype.

    Args:
        embeds: float (N,E), embeddings of the pictures.
        pictures: the pictures; only those of the training split are used.
        mean: float (E), mean embedding of training scenes.
    """
    rows = pictures.rows(TRAIN)
    concept, own = pictures.concept[rows], embeds[rows]
    counts = torch.bincount(concept, minlength=len(pictures.concepts))
    named = pictures.split != OUTSIDE
    drawn = torch.stack([pictures.concept[named], pictures.style[named]]).unique(dim=1)[0]
    styles = torch.bincount(drawn, minlength=len(pictures.concepts))
    common = styles >= min(2, int(styles.max()))
    sums = torch.zeros(len(counts), embeds.shape[1]).index_add_(0, concept, own)
    prototypes = sums / counts.clamp_min(1)[:, None]
    around = own - prototypes[concept]
    scatter = around.T @ around / len(around)
    size = len(scatter)
    ridge = SHRINKAGE * scatter.trace().clamp_min(1e-12) / size * torch.eye(size)
    inverse = torch.linalg.inv(scatter.double() + ridge.double()).float()
    known = torch.nonzero((counts > 0) & common)[:, 0]
    names = tuple(pictures.concepts[index].name for index in known.tolist())
    return PrototypeVocabulary(names, prototypes[known], mean, inverse * size / inverse.trace())


def fit_text_map(embeds: Tensor, pictures: PictureSet, texts: Tensor, mean: Tensor) -> TextMap:
    """Fits the map into text space by ridge regression on the training pictures, with the λ that names left-out ones.

    Args:
        embeds: float (N,E), embeddings of the pictures.
        pictures: the pictures; only those of the training split are used.
        texts: float (C,S), text embeddings of all concepts' names.
        mean: float (E), mean embedding of training scenes.
    """
    rows = pictures.rows(TRAIN)
    concept = pictures.concept[rows]
    known = concept.unique()
    text_mean = texts[known].mean(dim=0)
    targets = functional.normalize(texts - text_mean, dim=-1)
    # Components along the mean are removed, so that a direction says nothing of the mean.
    axis = functional.normalize(mean, dim=0)
    centred = embeds[rows] - mean
    inputs = centred - (centred @ axis)[:, None] * axis
    folds = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))].chunk(FOLDS)

    def left_out(penalty: float) -> Tensor:
        ranks: list[Tensor] = []
        for fold in folds:
            inside = torch.isin(concept, fold)
            weight = _ridge(inputs[~inside], targets[concept[~inside]], penalty)
            directions = across(targets @ weight, mean)
            unit = functional.normalize(embeds[rows][inside], dim=-1)
            ranks.append(rank_of(unit @ directions.T, concept[inside]))
        return torch.cat(ranks).float() + 1

    scores = {penalty: left_out(penalty) for penalty in PENALTIES}
    best = min(scores, key=lambda penalty: float(scores[penalty].log().mean()))
    return TextMap(_ridge(inputs, targets[concept], best), text_mean, best, float(scores[best].median()))


def _ridge(inputs: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Ridge regression from inputs (N,E) to targets (N,S); float (S,E)."""
    covariance = (inputs.T @ inputs / len(inputs)).double()
    size = len(covariance)
    ridge = penalty * covariance.trace() / size * torch.eye(size, dtype=torch.float64)
    return torch.linalg.solve(covariance + ridge, (inputs.T @ targets / len(inputs)).double()).T.float()


def write_vocabulary(out: Path, vocabulary: PrototypeVocabulary, text_map: TextMap | None) -> None:
    """Writes prototypes, and the text map if there is one, into a pair's folder, in float16."""
    tensors = {"prototypes": vocabulary.embeddings, "mean": vocabulary.mean, "precision": vocabulary.precision}
    table = {name: tensor.half().contiguous() for name, tensor in tensors.items() if tensor is not None}
    files = {"vocabulary.safetensors": table}
    if text_map is not None:
        mapped = {"weight": text_map.weight, "text_mean": text_map.text_mean}
        files[TEXT_MAP] = {name: tensor.half().contiguous() for name, tensor in mapped.items()}
    for file, content in files.items():
        save_file(content, out / file)
        (out / file).chmod(0o644)  # safetensors makes files readable by their owner only
    write_json(out / "vocabulary.json", list(vocabulary.names))
