"""Weights of FLUX.1 Redux: the embedder of image tokens, and the final norm of its image encoder."""

from pathlib import Path
from typing import Any

from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors import SafetensorError
from torch import Tensor, nn

from steerlens.errors import ModelError
from steerlens.storage import check_finite, load_tensors, open_tensors, read_json

_NORM = "post_layernorm"
"""Name of SigLIP's final norm."""

_EPSILON = 1e-6
"""Epsilon of SigLIP's norms, unless its config says otherwise."""


def read_embedder(file: Path) -> ReduxImageEncoder:
    """Reads the embedder; its sizes are those of its weights.

    Raises:
        ModelError: if the file is missing, broken, or holds something else.
    """
    try:
        weights = load_tensors(file)
        size, width = weights["redux_up.weight"].shape[1], weights["redux_down.weight"].shape[0]
        embedder = ReduxImageEncoder(size, width)
        embedder.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"image_embedder: {file} is no Redux embedder: {reason}") from error
    check_finite(embedder, "image_embedder")
    return embedder.eval()


def read_norm(folder: Path) -> nn.LayerNorm:
    """Reads the final norm of the image encoder in a folder, in float32.

    Raises:
        ModelError: if the folder holds no SigLIP.
    """
    config = read_json(folder / "config.json", "image_encoder")
    file, found = folder / "model.safetensors", dict[str, Tensor]()
    try:
        with open_tensors(file) as opened:
            for key in opened.keys():  # noqa: SIM118 (no mapping)
                if key.split(".")[-2:-1] == [_NORM]:
                    found[key.rpartition(".")[2]] = opened.get_tensor(key).float()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"image_encoder: {file} cannot be read: {error}.") from error
    if set(found) != {"weight", "bias"}:
        raise ModelError(f"image_encoder: {file} holds no {_NORM}, which every SigLIP has.")
    epsilon: Any = config.get("layer_norm_eps", _EPSILON)
    norm = nn.LayerNorm(found["weight"].shape[0], eps=float(epsilon))
    norm.load_state_dict(found)
    check_finite(norm, "image_encoder")
    return norm.requires_grad_(False).eval()
