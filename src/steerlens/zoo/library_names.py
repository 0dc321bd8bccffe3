"""Names of models as their libraries write them: `open_clip:NAME/TAG`, `timm:NAME.TAG`, resolved to ids of the hub.

The library says where its weights are; the files then come from the hub like those of any other encoder.
"""

import difflib
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from steerlens.errors import ModelError, UsageError

OPEN_CLIP, TIMM = "open_clip:", "timm:"

EXAMPLES = f"{OPEN_CLIP}ViT-B-16/laion2b_s34b_b88k, {TIMM}vit_small_patch14_dinov2.lvd142m"

_EXTRAS = {OPEN_CLIP: ("open_clip", "open-clip"), TIMM: ("timm", "timm")}


def is_library_name(source: str) -> bool:
    """True if a source names a model in the words of open_clip or timm."""
    return source.startswith((OPEN_CLIP, TIMM))


def hub_source(source: str) -> str:
    """Resolves a library's name of a model to the source of its files on the hub; other sources stay as they are.

    Raises:
        UsageError: if the library has no such model or pretrained weights; the message says which there are.
        ModelError: if the library is not installed, or has the weights in pickled form alone.
    """
    if source.startswith(OPEN_CLIP):
        return _of_open_clip(source.removeprefix(OPEN_CLIP))
    return _of_timm(source.removeprefix(TIMM)) if source.startswith(TIMM) else source


def _library(prefix: str) -> Any:
    module, extra = _EXTRAS[prefix]
    try:
        return import_module(module)
    except ImportError as error:
        raise ModelError(
            f"{module} is needed for names that begin with {prefix} and is not installed: pip install "
            f"'steerlens[{extra}]'. Without it, give the hub id, owner/name."
        ) from error


def _of_open_clip(name: str) -> str:
    library = _library(OPEN_CLIP)
    model, _, tag = name.partition("/")
    tags: list[str] = library.list_pretrained_tags_by_model(model)
    if not tags:
        known = sorted({known for known, _ in library.list_pretrained()})
        close = difflib.get_close_matches(model, known, n=3, cutoff=0.4)
        raise UsageError(f"open_clip has no pretrained model {model!r}{_hint(close)}.")
    if tag not in tags:
        what = f"no weights {tag!r} of" if tag else "several weights of"
        raise UsageError(f"open_clip has {what} {model}; write {OPEN_CLIP}{model}/TAG with one of {', '.join(tags)}.")
    place = str((library.get_pretrained_cfg(model, tag) or {}).get("hf_hub") or "")
    repository = place.rstrip("/")
    if repository.count("/") != 1:
        raise ModelError(
            f"open_clip:{name} has no safetensors on the hub, and pickled weights are not read. Choose another of "
            f"{', '.join(other for other in tags if other != tag)}, or load it with open_clip and pass the object: "
            "steerlens.load_encoder(model, processor)."
        )
    return f"hf-hub:{repository}"


def _of_timm(name: str) -> str:
    library = _library(TIMM)
    if name not in library.list_pretrained():
        close = difflib.get_close_matches(name, library.list_pretrained(), n=3, cutoff=0.4)
        raise UsageError(f"timm has no pretrained model {name!r}{_hint(close)}.")
    cfg: Any = library.get_pretrained_cfg(name)
    place = str(getattr(cfg, "hf_hub_id", None) or "")
    if not place:
        raise ModelError(f"timm:{name} is not on the hub; load it with timm and pass the object to load_encoder.")
    return f"{place}{name if '.' in name or not cfg.tag else f'{name}.{cfg.tag}'}" if place.endswith("/") else place


def _hint(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?"[:-1] if close else ""


_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".safetensors", ".onnx")


def is_weights_file(source: str) -> bool:
    """True if a source is named like a file of weights, which is no folder and no hub id."""
    return source.lower().endswith(_WEIGHTS)


def what_an_encoder_is(source: str) -> str:
    """Says what an encoder option takes, and how to get there from what was given.

    Args:
        source: what was given and is none of them.
    """
    forms = (
        "An encoder is a name of `steerlens models`, the folder of a model saved by its library (config.json and "
        f"safetensors), a hub id (owner/name or owner/name@commit), or a library's name: {EXAMPLES}"
    )
    name = source.rpartition("/")[2]
    if is_weights_file(name):
        return (
            f"{forms}. {name} is a file of weights alone, which does not say what model they belong to"
            f"{'' if name.lower().endswith('.safetensors') else ', and pickled files can run any code'}: load it with "
            "its own library, then save the model to a folder (model.save_pretrained(FOLDER), "
            "processor.save_pretrained(FOLDER)) and give that, or pass the object in Python: "
            "steerlens.load_encoder(model, processor)."
        )
    return f"{forms}.{_in_a_library(source)}"


def _in_a_library(name: str) -> str:
    """Names a model of an installed library, if a text without a prefix is one."""
    if find_spec("open_clip") is not None:
        tags = _library(OPEN_CLIP).list_pretrained_tags_by_model(name)
        if tags:
            return (
                f" {name} is a model of open_clip: write {OPEN_CLIP}{name}/{tags[-1]} (or {', '.join(tags[:-1][-4:])})."
            )
    if find_spec("timm") is not None:
        models = _library(TIMM).list_pretrained(f"{name}*")
        if models:
            return f" {name} is a model of timm: write {TIMM}{models[0]}."
    return ""
