"""Training data of a sparse autoencoder: values at one site of an encoder for some tokens of many pictures.

Values are stored in parts, so that an interruption loses at most one part, and read into memory for training:
pictures x tokens of a picture x D numbers of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.ahead import mapped_ahead
from steerlens.encoders import Encoder, joined_inputs
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.saes import EMBEDDING
from steerlens.sites import Site
from steerlens.training.checkpoint import load_checkpoint, save_checkpoint

Place = Site | Literal["embedding"]
"""Where a sparse autoencoder reads: a site, or the image embedding."""

Tokens = Literal["all", "cls", "patch"]
"""Tokens whose values are taken: all, the readout tokens, or image patches."""

_PART = 64
"""Pictures in a part."""


@dataclass(frozen=True)
class ValueOptions:
    """Which values to take.

    Attributes:
        place: the site, or the image embedding.
        tokens: which tokens; the image embedding has none.
        per_picture: number of tokens drawn from each picture, readout tokens first; 0 for all of them.
        seed: seed of the draw.
    """

    place: Place
    tokens: Tokens = "all"
    per_picture: int = 0
    seed: int = 0


@torch.no_grad()
def values_of(encoder: Encoder, inputs: dict[str, Tensor], options: ValueOptions, number: int) -> Float[Tensor, "N D"]:
    """Values of one batch of pictures at the site, one row a token.

    Args:
        encoder: the encoder.
        inputs: the batch.
        options: which values to take.
        number: number of the batch, which seeds the draw of tokens.
    """
    if options.place == EMBEDDING:
        return encoder.embed(inputs).float().cpu()
    site = options.place
    values = encoder.record(inputs, [site])[site].float()
    spec = encoder.spec
    read = range(spec.n_tokens) if spec.readout_tokens is None else spec.readout_tokens
    allowed = {
        "all": [*read, *(token for token in range(spec.n_tokens) if token not in read)],
        "cls": list(read),
        "patch": list(range(spec.first_patch, spec.n_tokens)),
    }[options.tokens]
    if not options.per_picture or options.per_picture >= len(allowed):
        return values[:, allowed].flatten(0, 1).cpu()
    always = list(read) if options.tokens == "all" and len(read) < options.per_picture else []
    others = torch.tensor([token for token in allowed if token not in always])
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + number)
    rows: list[Tensor] = []
    for picture in values:
        sampled = others[torch.randperm(len(others), generator=generator)[: options.per_picture - len(always)]]
        rows.append(picture[[*always, *sampled.tolist()]])
    return torch.cat(rows).cpu()


def collect_values(
    encoder: Encoder,
    pictures: Sequence[Callable[[], Image.Image]],
    options: ValueOptions,
    folder: Path,
    *,
    batch: int = 16,
    stage: str = "values",
) -> Generator[Progress, None, Float[Tensor, "N D"]]:
    """Computes values at a site over pictures, part by part, and returns them all; finished parts are read again.

    Args:
        encoder: the encoder.
        pictures: functions that open the pictures.
        options: which values to take.
        folder: folder of the parts.
        batch: number of pictures in a forward pass.
        stage: name of the stage in progress.

    Raises:
        UsageError: if there are no pictures, or the model has no such site.
    """
    if not pictures:
        raise UsageError("a sparse autoencoder needs pictures to be trained on; there are none.")
    if isinstance(options.place, Site):
        options.place.check(encoder.spec.n_layers, encoder.spec.n_heads)
    parts: list[Tensor] = []
    yield Progress(stage, 0, len(pictures), "pictures")
    for number, start in enumerate(range(0, len(pictures), _PART)):
        path = folder / f"values-{number:05d}.safetensors"
        if not path.exists():
            ready = mapped_ahead(lambda opened: encoder.preprocess([opened()]), pictures[start : start + _PART])
            rows: list[Tensor] = []
            while chunk := list(islice(ready, batch)):
                mark = number * _PART + len(rows)
                rows.append(values_of(encoder, dict(joined_inputs(chunk)), options, mark))
            save_checkpoint(path, {"values": torch.cat(rows)}, {})
        parts.append(load_checkpoint(path)[0]["values"])
        yield Progress(stage, min(start + _PART, len(pictures)), len(pictures), "pictures")
    values = torch.cat(parts)
    if not bool(values.isfinite().all()):
        raise UsageError(f"the encoder's values at {options.place} are not finite.")
    return values
