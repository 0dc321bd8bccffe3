"""A tiny set of coloured shapes to train on: what the tests of training share."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from steerlens.scenes import BACKGROUNDS, prepare, prepared_folder
from steerlens.training.encoder import EncoderSettings
from steerlens.training.text import TextTable, save_text_table

E = 16
SHAPES = ("disc", "box", "bar", "cross", "ring", "corner", "stripe", "dot")
STYLES = {"flat": (220, 40, 40), "other": (40, 60, 220)}
TINY_ENCODER = EncoderSettings(width=32, layers=2, heads=2, patch=16, batch=6)


def embed_names(names: list[str]) -> torch.Tensor:
    """A stand-in for the text model: a unit vector a name, the same each time."""
    rows = [torch.randn(E, generator=torch.Generator().manual_seed(sum(map(ord, name)))) for name in names]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def draw_shape(name: str, colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGBA", (72, 72), (0, 0, 0, 0))
    pen, fill = ImageDraw.Draw(image), (*colour, 255)
    index = SHAPES.index(name)
    if index % 2:
        pen.rectangle((8, 8 + 3 * index, 60 - 4 * index, 60), fill=fill)
    else:
        pen.ellipse((6 + 4 * index, 6, 66, 60 - 3 * index), fill=fill)
    return image


def prepare_shapes(root: Path) -> Path:
    """Prepares the pictures in a folder for training, without a text model; returns the folder."""
    for style, colour in STYLES.items():
        (root / "own" / style).mkdir(parents=True)
        for name in SHAPES:
            draw_shape(name, colour).save(root / "own" / style / f"{name}_shape.png")
    folder = prepared_folder(root)
    found, _ = prepare(root, folder, embed_names, pictures=root / "own", held_share=0.4, unseen=1, seed=3)
    names = [concept.name for concept in found.concepts]
    grounds = [ground.name for ground in BACKGROUNDS]
    small = embed_names([f"with a small {name}" for name in names])
    save_text_table(TextTable(embed_names(names), small, embed_names(grounds)), folder / "text.safetensors")
    return root
