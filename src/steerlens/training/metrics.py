"""Held-out accuracies of an encoder in training: names, companions, backgrounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, UNSEEN, PictureSet, SceneMaker, zero_shot_scenes


@dataclass(frozen=True)
class Scores:
    """Scores of an encoder for the contents of pictures; higher is likelier.

    Attributes:
        names: float (B,C), scores of the main object's concepts.
        companions: float (B,C), scores of the companion's concepts.
        backgrounds: float (B,12), scores of the backgrounds.
    """

    names: Tensor
    companions: Tensor
    backgrounds: Tensor


def rank_of(similarity: Tensor, label: Tensor) -> Tensor:
    """Counts the entries of (B,C) that score above the label; int64 (B)."""
    return (similarity > similarity.gather(1, label[:, None])).sum(dim=1)


def scene_metrics(
    score: Callable[[Tensor], Scores], pictures: PictureSet, device: torch.device | str
) -> dict[str, float]:
    """Accuracies of names, for pictures on white, and of companions and backgrounds, for scenes.

    Args:
        score: scores pictures (B,3,64,64) in [0,1].
        pictures: all pictures.
        device: device to compose scenes on.

    Returns:
        `train1`, `held1`, `unseen1`: top-1 accuracy of the name, for training pictures, held-out pictures and unseen
        concepts; `train5` etc.: top-5; `small5`: top-5 of the companion's name, with the main object's excluded;
        `ground`: top-1 of the background. Without held-out pictures, entries that need them are missing.
    """
    metrics: dict[str, float] = {}
    for key, split in (("train", TRAIN), ("held", HELD_OUT), ("unseen", UNSEEN)):
        rows = pictures.rows(split)
        if rows.numel() == 0:
            continue
        if split == TRAIN:
            rows = rows[:: max(1, rows.numel() // 200)]
        shown = zero_shot_scenes(SceneMaker(pictures, rows, device, PLAIN), rows)
        ranks = rank_of(score(shown).names, pictures.concept[rows].to(device))
        metrics |= {f"{key}1": float((ranks < 1).float().mean()), f"{key}5": float((ranks < 5).float().mean())}
    rows = pictures.rows(HELD_OUT)
    if rows.numel() > 1:
        maker = SceneMaker(pictures, rows, device, PLAIN)
        scenes = maker.draw(256, torch.Generator().manual_seed(77), companions=1.0)
        scores, has = score(scenes.pictures), scenes.companion >= 0
        small = scores.companions.scatter(1, scenes.main[:, None], -torch.inf)
        ranks = rank_of(small[has], scenes.companion[has])
        metrics["small5"] = float((ranks < 5).float().mean())
        metrics["ground"] = float((scores.backgrounds.argmax(dim=1) == scenes.background).float().mean())
    return metrics
