"""Shared by the benchmarks: both sides timed in one process, in turn, so that a busy machine slows both down."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from steerlens.encoders.clip import CLIPEncoder
from steerlens.testing.tiny import tiny_processor

SIZES: Mapping[str, Mapping[str, Any]] = {
    "emoji": {
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "projection_dim": 384,
        "image_size": 64,
        "patch_size": 8,
    },
    "small-24-layers": {
        "hidden_size": 192,
        "num_hidden_layers": 24,
        "num_attention_heads": 6,
        "projection_dim": 384,
        "image_size": 64,
        "patch_size": 8,
    },
    "vit-l-14": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "projection_dim": 768},
    "vit-b-16": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 512,
        "patch_size": 16,
    },
    "vit-bigg-14": {
        "hidden_size": 1664,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "intermediate_size": 8192,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
}
"""Encoders of real sizes; what is not said is 224 x 224 pixels, patches of 14, and an MLP four times as wide."""


def random_encoder(size: str, device: str, dtype: torch.dtype) -> CLIPEncoder:
    """An encoder of a real size with random weights."""
    entries: dict[str, Any] = {"image_size": 224, "patch_size": 14, **SIZES[size]}
    entries.setdefault("intermediate_size", 4 * entries["hidden_size"])
    torch.manual_seed(0)
    model: Any = CLIPVisionModelWithProjection(CLIPVisionConfig(**entries)).to(device, dtype)
    return CLIPEncoder(model, tiny_processor(entries["image_size"]), name=f"{size} (random weights)")


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""On a machine that other work keeps busy, the processor's own time with OMP_NUM_THREADS=1 is the steadier figure."""


def interleaved(sides: Mapping[str, Callable[[], object]], repeats: int, clock: str = "wall") -> dict[str, float]:
    """Median seconds of each side over repeats taken in turn, after one round that is not counted."""
    now = CLOCKS[clock]
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, call in sides.items():
            _wait()
            start = now()
            call()
            _wait()
            if repeat:
                taken[name].append(now() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def machine(device: str) -> str:
    """One line about where a figure was measured."""
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    return f"{where}; Python {platform.python_version()}, torch {torch.__version__}"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
