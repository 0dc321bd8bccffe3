"""Save a trained classifier as a plain `save_pretrained` folder in float16, measured, with its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlens.scenes import HELD_OUT, PictureSet
from steerlens.training.card import describe_sources
from steerlens.training.classifier import CLASSIFIER_SETTINGS, Labels, load_classifier, measure_classifier
from steerlens.training.encoder import EncoderSettings
from steerlens.training.export import make_processor, to_half
from steerlens.training.measurement import Evaluation, Measurement

_TEXT = """---
license: [apache-2.0, cc-by-4.0, mit]
library_name: transformers
pipeline_tag: image-classification
---

# A small classifier ViT of composed scenes

`ViTForImageClassification`: 64 pixels, patches of {patch}, {layers} layers x {heads} heads, width {width},
{parameters:.1f} M parameters in float16. Made by `steerlens train classifier`, from scratch, on the scenes that the
bundled pair is trained on, with another loss and another seed and without texts: a judge that is independent of the
pair, and an encoder without a decoder to build bridges from.

Its {classes} classes are three groups, of which a scene has one each: {concepts} main objects ("red heart"), as many
companions ("with a small red heart") and {grounds} backgrounds ("on blue").

## Data

{data}

Flags, symbols and people were left out. Held out: {held} pictures of one style, whose concepts are seen in other
styles; concepts that are held out in every style are no classes.

## Recipe

{minutes:g} minutes, batch {batch}, seed {seed}: the sum of the three groups' cross-entropies, the companion's over the
scenes that have one; Muon on weight matrices, AdamW on the rest; {dropped:.0%} of the patches dropped for the first
{until:.0%} of the time; a moving average of the weights.

## Figures

{figures}

## Limits

It knows drawings of about as many things as it has classes, in three styles. Photographs mean little to it.
"""


def export_classifier(
    pictures: PictureSet,
    folder: Path,
    out: Path,
    *,
    minutes: float,
    seed: int,
    settings: EncoderSettings = CLASSIFIER_SETTINGS,
    device: str = "cpu",
) -> str:
    """Write the classifier and its card; returns the table of its held-out accuracies.

    Args:
        pictures: that it was trained on.
        folder: of the run.
        out: the classifier's folder, created if missing.
        minutes: that it was trained for.
        seed: of the run.
        settings: that it was trained with.
        device: where to measure it.

    Raises:
        SteerlensError: it is not trained, or a weight does not fit into float16.
    """
    classifier: Any = to_half(load_classifier(folder, pictures, settings))
    classifier.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    make_processor(int(classifier.config.image_size)).save_pretrained(out)
    labels, report = Labels.of(pictures), _report(measure_classifier(out, pictures, device), pictures)
    text = _TEXT.format(
        patch=settings.patch,
        layers=settings.layers,
        heads=settings.heads,
        width=settings.width,
        parameters=sum(parameter.numel() for parameter in classifier.parameters()) / 1e6,
        classes=len(labels.names),
        concepts=len(labels.concepts),
        grounds=len(labels.names) - 2 * len(labels.concepts),
        data=describe_sources(list(pictures.sources)),
        held=pictures.rows(HELD_OUT).numel(),
        minutes=minutes,
        batch=settings.batch,
        seed=seed,
        dropped=1 - settings.keep,
        until=settings.drop_until,
        figures=report.table(),
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    return report.table()


def _report(metrics: dict[str, float], pictures: PictureSet) -> Evaluation:
    held = f"{pictures.rows(HELD_OUT).numel()} pictures on white"
    scenes = "256 scenes of held-out pictures"
    rows = (
        ("held1", "name of a held-out picture, top-1", held),
        ("held5", "name of a held-out picture, top-5", held),
        ("train1", "name of a trained picture, top-1", "on white"),
        ("small5", "name of the companion, top-5", scenes),
        ("ground", "background, top-1", scenes),
    )
    return Evaluation(tuple(Measurement(what, metrics[key], note=note) for key, what, note in rows if key in metrics))
