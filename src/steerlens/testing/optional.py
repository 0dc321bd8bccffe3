"""Making timm and open_clip importable without a torchvision build for the installed torch."""

import sys
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch


def add_optional_libraries(folder: Path | None = None) -> None:
    """Makes the libraries of a folder importable, and torchvision with them if it is installed.

    Registries have torchvision for CUDA only. Without its compiled part, everything that timm and open_clip use works,
    but its import needs the schemas of two operators that the compiled part defines. A program that does not declare
    them first cannot even import transformers if it finds such a torchvision; hence the separate folder.

    Args:
        folder: folder of the libraries; by default `optional` in this Python environment, where `make test` puts them.
    """
    folder = Path(sys.prefix) / "optional" if folder is None else folder
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    with suppress(OSError):
        torch.ops.load_library(Path(spec.origin).parent / "_C.so")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("torchvision")
