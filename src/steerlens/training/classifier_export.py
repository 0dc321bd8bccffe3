"""Export of a trained classifier as a `save_pretrained` folder in float16, with its accuracies in a model card."""

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
{parameters:.1f} M parameters in float16. Trained from scratch by `steerlens train classifier` on the scenes that the
bundled pair is trained on, but with another loss, another seed and without texts. It serves as a judge that is
independent of the pair, and as an encoder without a decoder for bridges.

Its {classes} classes form three groups: {concepts} main objects ("red heart"), as many companions ("with a small red
heart") and {grounds} backgrounds ("on blue"). A scene has one class of each.

## Data

{data}

Flags, symbols and people were left out. Held out: {held} pictures of one style, whose concepts are seen in other
styles; concepts that are held out in every style have no class.

## Recipe

{minutes:g} minutes, batch {batch}, seed {seed}: the sum of the three groups' cross-entropies, that of the companion
over scenes with a companion; Muon on weight matrices, AdamW on the rest; {dropped:.0%} of the patches dropped for the
first {until:.0%} of the time; a moving average of the weights.

## Figures

{figures}

## Limits

It knows drawings of its classes in three styles. It was not trained on photographs.
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
    """Writes the classifier and its card; returns the table of its held-out accuracies.

    Args:
        pictures: prepared pictures that it was trained on.
        folder: folder of the run.
        out: folder of the classifier, created if missing.
        minutes: duration of its training.
        seed: seed of the run.
        settings: settings of its training.
        device: device to evaluate it on.

    Raises:
        SteerlensError: if it is not trained, or a weight does not fit into float16.
    """
    classifier: Any = to_half(load_classifier(folder, pictures, settings))
    classifier.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors makes files readable by their owner only
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
    held_out = f"{pictures.rows(HELD_OUT).numel()} pictures on white"
    scenes = "256 scenes of held-out pictures"
    rows = (
        ("held1", "name of a held-out picture, top-1", held_out),
        ("held5", "name of a held-out picture, top-5", held_out),
        ("train1", "name of a trained picture, top-1", "on white"),
        ("small5", "name of the companion, top-5", scenes),
        ("ground", "background, top-1", scenes),
    )
    return Evaluation(tuple(Measurement(name, metrics[key], note=note) for key, name, note in rows if key in metrics))
