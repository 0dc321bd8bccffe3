"""Classifier ViT on the same scenes: a second encoder that shares neither text, loss nor seed with the first.

Its linear layer has three groups of classes: the main object ("red heart"), the companion ("with a small red heart")
and the background ("on blue"); a scene has one class of each. The loss is the sum of the groups' cross-entropies, that
of the companion over the scenes with a companion. For most of the training half of the patches are dropped. The
classifier serves as a judge that is independent of the pair, and as an encoder without a decoder for bridges.

References:
    Dosovitskiy et al., An image is worth 16x16 words, 2020, arXiv 2010.11929.
    Li et al., Scaling language-image pre-training via masking (FLIP), 2022, arXiv 2212.00794.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from steerlens.errors import SteerlensError
from steerlens.progress import Progress
from steerlens.scenes import BACKGROUNDS, TRAIN, PictureSet, SceneMaker, Scenes
from steerlens.training.checkpoint import load_checkpoint
from steerlens.training.encoder import (
    NAME_SMOOTHING,
    EncoderSettings,
    draw_kept,
    in_batches,
    kept_tokens,
    to_pixel_values,
)
from steerlens.training.metrics import Scores, scene_metrics
from steerlens.training.stage import Budget, autocast, run_stage, workers_of_group

STAGE = "classifier"
CLASSIFIER_SETTINGS = EncoderSettings(heads=6)
"""Default size and training."""


@dataclass(frozen=True)
class Labels:
    """Classes of the classifier, in three consecutive groups; concepts without a training picture have no class.

    Attributes:
        concepts: int64 (K), indices of the concepts that are classes.
        n_concepts: C, number of all concepts.
        names: names of the 2 K + 12 classes.
    """

    concepts: Tensor
    n_concepts: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, pictures: PictureSet) -> Labels:
        """Classes of a set's training pictures."""
        concepts = pictures.concept[pictures.rows(TRAIN)].unique()
        shown = [pictures.concepts[index].name for index in concepts.tolist()]
        small = [f"with a small {name}" for name in shown]
        grounds = [f"on {background.name}" for background in BACKGROUNDS]
        return cls(concepts, len(pictures.concepts), (*shown, *small, *grounds))

    def groups(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Splits logits (B,2K+12) by group: float (B,K), (B,K), (B,12)."""
        count = len(self.concepts)
        name, companion, ground = logits.split([count, count, len(BACKGROUNDS)], dim=-1)
        return name, companion, ground

    def classes(self, concept: Tensor) -> Tensor:
        """Converts concepts, given by their index in the set, to indices within a group, int64 (B)."""
        return torch.searchsorted(self.concepts.to(concept.device), concept)

    def scores(self, logits: Tensor) -> Scores:
        """Converts logits (B,2K+12) to scores of all concepts; concepts without a class get the lowest score."""
        name, companion, ground = self.groups(logits)
        every = logits.new_full((2, len(logits), self.n_concepts), -torch.inf)
        every[:, :, self.concepts.to(logits.device)] = torch.stack([name, companion])
        return Scores(every[0], every[1], ground)


def make_classifier(settings: EncoderSettings, labels: tuple[str, ...]) -> nn.Module:
    """Builds a `ViTForImageClassification` with random weights, exact GELU and eager attention."""
    from transformers import ViTConfig, ViTForImageClassification

    make: Any = ViTConfig  # accepts options of the base class, which its signature does not list
    config = make(
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        image_size=64,
        patch_size=settings.patch,
        hidden_act="gelu",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        attn_implementation="eager",  # the backward pass of the CPU's fused attention is half as fast in bfloat16
    )
    return ViTForImageClassification(config)


def classify(classifier: Any, pixel_values: Tensor, kept: Tensor | None = None) -> Tensor:
    """Computes logits, float (B,V), from all patches, or only from those in `kept` (B,K)."""
    if kept is None:
        return classifier(pixel_values=pixel_values).logits
    vit = classifier.vit
    hidden = kept_tokens(vit.embeddings(pixel_values), kept)
    for layer in vit.layers:
        hidden = layer(hidden, None)
    return classifier.classifier(vit.layernorm(hidden)[:, 0])


def label_losses(logits: Tensor, scenes: Scenes, labels: Labels) -> dict[str, Tensor]:
    """Cross-entropies of the groups of classes, and their sum.

    Args:
        logits: float (B,2K+12).
        scenes: contents of the pictures.
        labels: the classes.
    """
    name, companion, ground = labels.groups(logits)
    has = scenes.companion >= 0
    small = logits.new_zeros(())
    if bool(has.any()):
        small = functional.cross_entropy(
            companion[has], labels.classes(scenes.companion[has]), label_smoothing=NAME_SMOOTHING
        )
    main = functional.cross_entropy(name, labels.classes(scenes.main), label_smoothing=NAME_SMOOTHING)
    background = functional.cross_entropy(ground, scenes.background)
    return {"loss": main + small + background, "name": main, "companion": small, "ground": background}


def train_classifier(
    pictures: PictureSet,
    folder: Path,
    budget: Budget,
    settings: EncoderSettings = CLASSIFIER_SETTINGS,
    device: torch.device | str = "cpu",
    seed: int = 1,
    resume: bool = False,
    measure_seconds: float = 180.0,
    checkpoint_seconds: float = 45.0,
) -> Iterator[Progress]:
    """Trains the classifier; its files are `classifier.*` in `folder`. See `run_stage`."""
    device, (rank, workers) = torch.device(device), workers_of_group()
    torch.manual_seed(seed)
    batch, labels = max(1, settings.batch // workers), Labels.of(pictures)
    model = make_classifier(settings, labels.names).to(device)
    maker = SceneMaker(pictures, pictures.rows(TRAIN), device, settings.augment)

    def step(step: int, share: float, generator: torch.Generator) -> dict[str, Tensor]:
        scenes = maker.draw(batch, generator, companions=settings.companions)
        pixels = to_pixel_values(maker.spoil(scenes.pictures, generator))
        kept = draw_kept(settings, batch, share, generator)
        with autocast(device):
            logits = classify(model, pixels, None if kept is None else kept.to(device))
        return label_losses(logits.float(), scenes, labels)

    def measure() -> Mapping[str, float]:
        def score(shown: Tensor) -> Scores:
            return labels.scores(in_batches(lambda pixels: classify(model, pixels), shown, device))

        return _known(scene_metrics(score, pictures, device))

    yield from run_stage(
        STAGE,
        model,
        step,
        folder,
        budget,
        settings.optimisation,
        # Far from the seeds of another run's workers, which differ by 1, so that a judge is trained on other scenes.
        seed=1000 * seed + rank,
        resume=resume,
        measure=measure,
        measure_seconds=measure_seconds,
        checkpoint_seconds=checkpoint_seconds,
    )


def load_classifier(folder: Path, pictures: PictureSet, settings: EncoderSettings = CLASSIFIER_SETTINGS) -> nn.Module:
    """Loads the trained classifier of a run, in float32 and eval mode.

    Raises:
        SteerlensError: if its training is not finished.
    """
    path = folder / f"{STAGE}.safetensors"
    if not path.exists():
        raise SteerlensError(f"{folder} has no trained {STAGE}: finish its training with --resume.")
    classifier = make_classifier(settings, Labels.of(pictures).names)
    classifier.load_state_dict(load_checkpoint(path)[0])
    return classifier.eval().requires_grad_(False)


def measure_classifier(folder: Path, pictures: PictureSet, device: str = "cpu") -> dict[str, float]:
    """Accuracies of an exported classifier through its adapter, as in `scene_metrics`, without unseen concepts.

    Raises:
        SteerlensError: if the folder contains no classifier of these pictures' concepts.
    """
    from steerlens.loading import load_encoder
    from steerlens.zoo import class_vocabulary

    encoder, labels = load_encoder(folder, device=device), Labels.of(pictures)
    vocabulary = class_vocabulary(encoder)
    if vocabulary is None or vocabulary.names != labels.names:
        raise SteerlensError(f"{folder} is not a classifier of the concepts of the prepared pictures.")

    def score(shown: Tensor) -> Scores:
        embeds = [encoder.embed(encoder.preprocess_tensor(chunk)) for chunk in shown.split(128)]
        return labels.scores(vocabulary.scores(torch.cat(embeds).float()))

    return _known(scene_metrics(score, pictures, device))


def _known(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("unseen")}
