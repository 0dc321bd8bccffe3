"""Named pictures in memory and on disk: one compact file of uint8 tensors with a split.

A *concept* is a named thing ("slice of pizza"); a *style* is one artist's or one source's drawings.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from steerlens.borders import reason
from steerlens.errors import SteerlensError
from steerlens.limits import is_special
from steerlens.storage import load_tensors, write_json

SIZE = 64
"""Side of a prepared picture in pixels."""
TRAIN, HELD_OUT, UNSEEN, OUTSIDE = 0, 1, 2, 3
"""Splits: trained on; a held-out picture of a trained concept; an unseen concept; a source never trained on."""


@dataclass(frozen=True)
class Concept:
    """One named thing; `key` tells it apart where names do not (a code point, or a file's stem)."""

    name: str
    category: str
    key: str


@dataclass(frozen=True)
class PictureSet:
    """Named pictures in memory.

    Attributes:
        pictures: uint8 (N,4,64,64), straight RGBA in [0,255].
        concept: int64 (N), index into `concepts`.
        style: int64 (N), index into `styles`.
        split: int64 (N), `TRAIN`, `HELD_OUT`, `UNSEEN` or `OUTSIDE`.
        concepts: concepts of the pictures, in vocabulary order.
        styles: names of the styles.
        sources: origins of the pictures, with licences.
        held_style: index of the style whose pictures are held out.
    """

    pictures: Tensor
    concept: Tensor
    style: Tensor
    split: Tensor
    concepts: tuple[Concept, ...]
    styles: tuple[str, ...]
    sources: tuple[dict[str, str], ...]
    held_style: int

    def rows(self, split: int) -> Tensor:
        """Returns the picture indices of a split, int64 (K)."""
        return torch.nonzero(self.split == split)[:, 0]


def to_tensor(image: Image.Image, size: int = SIZE) -> Tensor:
    """Pads a picture to a square and resizes it in premultiplied alpha: straight RGBA uint8 (4,size,size)."""
    image = image.convert("RGBA")
    side = max(image.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    raw = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).reshape(side, side, 4)
    rgba = raw.permute(2, 0, 1).float() / 255
    alpha = rgba[3:]
    premultiplied = torch.cat([rgba[:3] * alpha, alpha])[None]
    if side != size:
        premultiplied = functional.interpolate(premultiplied, size=(size, size), mode="bilinear", antialias=True)
    colour, alpha = premultiplied[0, :3], premultiplied[0, 3:]
    straight = torch.where(alpha > 1 / 512, colour / alpha.clamp_min(1 / 512), torch.zeros_like(colour))
    return (torch.cat([straight, alpha]).clamp(0, 1) * 255).round().to(torch.uint8)


def save_pictures(pictures: PictureSet, folder: Path, facts: dict[str, object]) -> None:
    """Saves pictures as `pictures.safetensors` and `pictures.json`; `facts` are further entries of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "pictures": pictures.pictures,
        "concept": pictures.concept,
        "style": pictures.style,
        "split": pictures.split,
    }
    save_file(table, folder / "pictures.safetensors")
    write_json(
        folder / "pictures.json",
        {
            "concepts": [asdict(concept) for concept in pictures.concepts],
            "styles": list(pictures.styles),
            "held_style": pictures.held_style,
            "sources": list(pictures.sources),
            **facts,
        },
    )


def load_pictures(folder: Path) -> PictureSet:
    """Loads the pictures of `save_pictures`.

    Raises:
        SteerlensError: the folder contains no prepared pictures, or their files are damaged.
    """
    if not (folder / "pictures.json").exists():
        raise SteerlensError(f"{folder} holds no prepared pictures: run `steerlens train prepare` first")
    try:
        return _read(folder)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise SteerlensError(
            f"{folder} holds damaged pictures ({reason(error)}): remove it, then run `steerlens train prepare` again."
        ) from error


def _read(folder: Path) -> PictureSet:
    if is_special(folder / "pictures.json"):  # reading would wait for it
        raise OSError("pictures.json is not a regular file")
    facts = json.loads((folder / "pictures.json").read_text())
    table = load_tensors(folder / "pictures.safetensors")
    count = len(table["pictures"])
    for name, most in (("concept", len(facts["concepts"])), ("style", len(facts["styles"])), ("split", 0)):
        if len(table[name]) != count or (most and not 0 <= int(table[name].max()) < most):
            raise ValueError(f"{name} does not fit the {count} pictures")
    return PictureSet(
        table["pictures"],
        table["concept"],
        table["style"],
        table["split"],
        tuple(Concept(**concept) for concept in facts["concepts"]),
        tuple(facts["styles"]),
        tuple(facts["sources"]),
        facts.get("held_style", len(facts["styles"]) - 1),  # older folders held out their last style
    )


def prepared_folder(data: Path) -> Path:
    """Returns the folder of prepared pictures in a data folder."""
    return data / "prepared"


def load_prepared(data: Path) -> PictureSet:
    """Loads the prepared pictures of a data folder.

    Raises:
        SteerlensError: there are none.
    """
    return load_pictures(prepared_folder(data))
