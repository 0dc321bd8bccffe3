"""Contact sheets of pictures, for logs and model cards."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def sheet(rows: list[list[Tensor]], gap: int = 4, zoom: int = 1) -> Image.Image:
    """Contact sheet of pictures, each float (3,H,W) in [0,1] and of the same size, with white gaps."""
    height, width = rows[0][0].shape[-2:]
    columns = max(len(row) for row in rows)
    canvas = torch.ones(3, gap + len(rows) * (height + gap), gap + columns * (width + gap))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = gap + y * (height + gap), gap + x * (width + gap)
            canvas[:, top : top + height, left : left + width] = picture.clamp(0, 1)
    pixels = (canvas * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    image = Image.frombytes("RGB", (pixels.shape[1], pixels.shape[0]), bytes(pixels.flatten().tolist()))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.LANCZOS) if zoom > 1 else image


def save_pairs(path: Path, sources: Tensor, decoded: Tensor, columns: int = 8) -> None:
    """Saves pairs (source left, decoded right), with `columns` pairs in a row.

    Args:
        path: PNG file to write.
        sources: float (N,3,H,W) in [0,1].
        decoded: float (N,3,H,W) in [0,1].
        columns: pairs in a row.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = [torch.cat([left, right], dim=-1) for left, right in zip(sources.cpu(), decoded.cpu(), strict=True)]
    sheet([pairs[start : start + columns] for start in range(0, len(pairs), columns)]).save(path, optimize=True)
