"""Model card of a pair: its parts, data, recipe, figures and limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steerlens.scenes import HELD_OUT, UNSEEN, load_prepared
from steerlens.training.measurement import Evaluation, default_options
from steerlens.training.pipeline import Recipe
from steerlens.training.text import load_texts

_TEXT = """---
license: [apache-2.0, cc-by-4.0, mit]
library_name: steerlens
pipeline_tag: image-to-image
---

# A small CLIP-style ViT and its unCLIP decoder

Trained from scratch by `steerlens.training`: a Vision Transformer that maps a 64 x 64 picture into the space of a
sentence encoder, and a diffusion decoder that turns such an embedding back into a picture. It serves for
interpretability research: small enough for a laptop without a GPU, trained enough for its parts to be meaningful.

| part | class | size |
| --- | --- | --- |
| `image_encoder/` | `CLIPVisionModelWithProjection` | {encoder} |
| `decoder/unet/` | `UNet2DConditionModel` | {unet} |
| `decoder/movq/` | `VQModel`, spatial norms, used unquantised | {movq} |
| `decoder/scheduler/` | `DDPMScheduler` | scaled linear, v-prediction |
| `vocabulary.*` | {names} names | all-MiniLM-L6-v2 embeddings, their mean |

## Use

Embeddings are decoded without normalisation. The figures below are for DPM-Solver++ with {steps} steps and guidance
{guidance:g}; the unconditional embedding is the encoder's embedding of all-zero `pixel_values`. Zero-shot similarity is
`cosine(image_embeds, text_embeds - text_mean)`; any text embedded with all-MiniLM-L6-v2 can serve as a label.

## Data

{data}

Flags, symbols and people were left out. Held out: {held} pictures of one style (whose concepts are seen in other
styles) and {unseen} pictures of concepts not seen in any style; concepts with a near-duplicate, by name or picture,
are never held out. Scenes are composed on the fly: an object on one of 12 background colours (two in five white),
jittered in scale, position and angle; some scenes have a second, small object near a corner.

## Recipe

{recipe}

## Figures

{figures}

![Held-out scenes, each beside the picture decoded from its embedding](decoded.png)

Each pair shows a scene of held-out pictures (left) and the picture decoded from its embedding alone (right).

## Limits

- It knows drawings of about a thousand objects, in three styles. It was not trained on photographs.
- The decoder invents detail that the embedding does not contain; look at several seeds.
- It easily confuses faces of the same family, clocks and other near-duplicates.
- It inherits the gaps of its sources; people, flags and symbols were removed on purpose.
"""


def _millions(path: Path) -> str:
    total = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return f"{total / 2 / 1e6:.1f} M parameters, float16"


def describe_sources(sources: list[dict[str, Any]]) -> str:
    """Sources of the pictures and their licences, as a markdown list."""
    if not sources:
        return "Your own pictures; state their licence here."
    trained = [source for source in sources if source.get("use", "training") == "training"]
    lines = [
        f"- {source['attribution']}: `{source['package']}` {source['version']}, {source['licence']}"
        for source in trained
    ]
    return "\n".join(["Openly licensed art, named by Unicode or by file names:", "", *lines])


def _recipe(recipe: dict[str, Any]) -> str:
    encoder, unet = recipe["encoder"], recipe["unet"]
    shares = recipe["encoder_share"], recipe["autoencoder_share"]
    return "\n".join(
        [
            f"{recipe['minutes']:g} minutes of training in total, seed {recipe['seed']}.",
            "",
            f"1. Encoder ({shares[0]:.0%} of the time): Muon on weight matrices, AdamW on the rest; contrast with "
            "composed text targets, cross-entropy over names, companions and backgrounds, and a thumbnail painted from "
            f"the embedding; {1 - encoder['keep']:.0%} of the patches dropped for the first "
            f"{encoder['drop_until']:.0%} of the time; colours, styles, scales, blur and noise augmented.",
            f"2. Autoencoder ({shares[1]:.0%}): squared, absolute and edge losses; latents brought to unit variance.",
            f"3. UNet (the rest): v-prediction on {recipe['scenes']} cached scenes, batch {unet['batch']}, "
            f"{unet['drop']:.0%} of the conditions dropped, moving average of the weights. No loss passes through the "
            "encoder, so that pictures show the content of an embedding and are not optimised for the encoder.",
        ]
    )


def write_card(pair: Path, data: Path, recipe: Recipe | None, report: Evaluation | None) -> None:
    """Writes `README.md` of a pair.

    Args:
        pair: folder of the pair, with a manifest.
        data: folder with the prepared pictures.
        recipe: recipe of the pair; unused if the manifest has one.
        report: figures of the pair; None if it was not evaluated.
    """
    from dataclasses import asdict

    manifest = json.loads((pair / "manifest.json").read_text())
    facts = manifest.get("recipe") or asdict(recipe or Recipe())
    pictures, texts = load_prepared(data), load_texts(data)
    text = _TEXT.format(
        encoder=_millions(pair / "image_encoder"),
        unet=_millions(pair / "decoder" / "unet"),
        movq=_millions(pair / "decoder" / "movq"),
        names=len(texts.names),
        steps=default_options().steps,
        guidance=default_options().guidance,
        data=describe_sources(list(pictures.sources)),
        held=pictures.rows(HELD_OUT).numel(),
        unseen=pictures.rows(UNSEEN).numel(),
        recipe="\n\n".join(text for text in (_recipe(facts), manifest.get("notes", "")) if text),
        figures="Not measured." if report is None else report.table(),
    )
    if not (pair / "decoded.png").exists():
        lines = text.split("\n")
        text = "\n".join(line for line in lines if "decoded.png" not in line and "Each pair shows" not in line)
    (pair / "README.md").write_text(text, encoding="utf-8")
