"""Save a decoder that is published as a pickle again, as a pair's folder of safetensors, beside its encoder.

    python benchmarks/unpickled_decoder.py raev2-dinov3l-k7 OUT
    steerlens lens photo.jpg --model raev2-dinov3l-k7 --local OUT

steerlens never opens pickles. This script reads one with torch's own loader of weights alone (`weights_only=True`),
which refuses anything but tensors; run it where you trust the publisher. `--weights` and `--encoder` name files that
are on this machine already. It shows the terms of use before it downloads anything. It has run on tiny copies only: the
real files could not be fetched where it was written.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from steerlens.decoders.vit_mae.network import PixelTransformer
from steerlens.zoo import Card, card
from steerlens.zoo.locating import card_files

IMAGENET: Mapping[str, Any] = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
RAEV2: Mapping[str, Any] = {
    "token_size": 1024,
    "patch_size": 16,
    "token_epsilon": 1e-5,
    "adds_mean": True,
    "pixel_mean": (0, 0, 0),
    "pixel_std": (1, 1, 1),
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "scale-rae-siglip2": {},
    "scale-rae-webssl": {"token_size": 1024, "token_affine": True, **IMAGENET},
    "raev2-dinov3l-k7": {**RAEV2, "layers": tuple(range(11, 24, 2))},
    "raev2-dinov3l-k23": {**RAEV2, "layers": tuple(range(1, 24))},
}
"""Options of each preset's network, besides the defaults."""

NORM = "layernorm."
"""Prefix of the encoder's own norm in its weights, for a decoder whose tokens pass it."""


def convert(options: Mapping[str, Any], weights: Path, encoder: Path, out: Path, side: int) -> None:
    """Writes the pair's folder.

    Args:
        options: options of `PixelTransformer`.
        weights: the published pickle.
        encoder: folder of the encoder: `config.json`, `model.safetensors` and `preprocessor_config.json`.
        out: folder of the pair.
        side: height and width of the encoder's input, in pixels.
    """
    network = PixelTransformer(**options)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    if network.token_norm.elementwise_affine:
        own = load_file(encoder / "model.safetensors")
        state |= {f"token_norm.{name}": own[NORM + name] for name in ("weight", "bias")}
    network.load_state_dict(state)
    network.save_pretrained(out / "decoder", safe_serialization=True)
    for part, names in (("image_encoder", ("config.json", "model.safetensors")), ("image_processor", ())):
        (out / part).mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(encoder / name, out / part / name)
    processor = json.loads((encoder / "preprocessor_config.json").read_text(encoding="utf-8"))
    if set(processor.get("size", {})) == {"height", "width"}:
        processor["size"] = {"height": side, "width": side}
    (out / "image_processor" / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")


def fetch(known: Card, weights: Path | None, encoder: Path | None) -> tuple[Path, Path]:
    """Downloads what was not given, after showing the terms."""
    from huggingface_hub import hf_hub_download, snapshot_download

    if weights is None or encoder is None:
        print(f"{known.name} ({known.licence}): {known.terms}", file=sys.stderr, flush=True)
    (first, files), (second, (pickled,)) = card_files(known)
    if encoder is None:
        encoder = Path(snapshot_download(first.repository, revision=first.at, allow_patterns=list(files)))
    if weights is None:
        weights = Path(hf_hub_download(second.repository, pickled, revision=second.at))
    return weights, encoder


def main() -> None:
    """Converts one preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=list(OPTIONS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="the published pickle, if it is on this machine")
    parser.add_argument("--encoder", type=Path, help="the encoder's folder, if it is on this machine")
    given = parser.parse_args()
    known = card(given.preset)
    weights, encoder = fetch(known, given.weights, given.encoder)
    given.out.mkdir(parents=True, exist_ok=True)
    convert(OPTIONS[given.preset], weights, encoder, given.out, known.defaults.size[0])


if __name__ == "__main__":
    main()
