"""Vision Transformers of timm: `VisionTransformer`.

The embedding is the input of the classifier, `fc_norm(pool(norm(x)))`, computed by the model's own code with any
pooling (class token, mean, maximum, attention); the classifier's weights are a vocabulary. Queries, keys and values
come from one fused projection, `qkv`. The input of the output projection `proj`, a separate module, is the head values.

References: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; R. Wightman, "PyTorch Image
Models", 2019.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.folders import is_timm_folder, open_timm_folder
from steerlens.encoders.fused import Split, recorded_by_hooks
from steerlens.encoders.hooks import LayerModules, Recorded
from steerlens.encoders.structure import refuse_kind, refuse_unknown
from steerlens.encoders.transforms import TransformEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.vocabulary import ClassVocabulary

_LIBRARY = "a VisionTransformer of timm"


class TimmEncoder(TransformEncoder):
    """A `VisionTransformer` of timm, wrapped, never copied; the model is put into evaluation mode.

    Args:
        model: the native model.
        processor: its transform (`timm.data.create_transform`), or an image processor of transformers.
        name: its name in reports.

    Raises:
        ModelError: if the model contains modules that this adapter does not know, or gives no single embedding.
    """

    family = "timm"
    path = "the model"

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        vit = self._vit = self._trunk(model)
        _refuse_unknown(vit, self.path)
        down, across = (int(side) for side in vit.patch_embed.grid_size)
        prefix = int(vit.num_prefix_tokens)
        n_tokens = prefix + down * across
        spec = EncoderSpec(
            name=name or _name(vit),
            family=self.family,
            n_layers=len(vit.blocks),
            n_heads=vit.blocks[0].attn.num_heads,
            width=vit.embed_dim,
            embedding_size=0,
            image_size=cast(tuple[int, int], tuple(int(side) for side in vit.patch_embed.img_size)),
            n_tokens=n_tokens,
            patch_grid=(down, across),
            first_patch=prefix,
            readout_tokens=_readout_tokens(vit, n_tokens),
            centred=_centred(vit),
        )
        self.declare(spec)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return _is_of_timm(model)

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """True if a folder contains a model of this library."""
        return is_timm_folder(folder)

    @classmethod
    def from_folder(
        cls, folder: Path, processor: Any, *, device: torch.device, dtype: torch.dtype | None, name: str = ""
    ) -> "TimmEncoder":
        """Opens a folder laid out like timm's repositories on the hub.

        Args:
            folder: with `config.json` and `model.safetensors`.
            processor: a transform that replaces the config's, or None.
            device: device of the model.
            dtype: precision; None for float32, or half precision if it is large.
            name: its name in reports.

        Raises:
            ModelError: if the model cannot be built or loaded, or its structure is not known to this adapter.
        """
        model, transform = open_timm_folder(folder, device, dtype)
        return cls(model, transform if processor is None else processor, name)

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return [
            LayerModules(
                block=block,
                attn_out=block.ls1,
                attn_proj=block.attn.proj,
                mlp_out=block.ls2,
                n_heads=self.spec.n_heads,
                out_weight=block.attn.proj.weight,
                out_bias=block.attn.proj.bias,
                scale=getattr(block.ls1, "gamma", None),
            )
            for block in self._vit.blocks
        ]

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Applies the model's own final norm, pooling and norm after pooling."""
        return self._vit.forward_head(self._normed(residual), pre_logits=True)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the input of the classifier, from one native forward pass."""
        return self._vit.forward_head(self._vit.forward_features(inputs["pixel_values"]), pre_logits=True)

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""
        return recorded_by_hooks([(block.attn.qkv, _split(block.attn)) for block in self._vit.blocks], tokens)

    def class_vocabulary(self, names: Sequence[str] | None = None) -> ClassVocabulary:
        """Returns the classes of the model's own classifier, scored by its logits.

        Args:
            names: class names, in order; by default timm's names for the model's classes, or their numbers.

        Raises:
            UsageError: if the model has no classifier.
            ModelError: if it has another number of classes.
        """
        head: Any = self._vit.head
        if type(head) is not nn.Linear:
            raise UsageError(f"{self.spec.name} has no classifier (num_classes is 0).")
        bias, labels = getattr(head, "bias", None), self._labels(head.out_features) if names is None else names
        return ClassVocabulary(tuple(labels), head.weight.detach(), None if bias is None else bias.detach())

    def _labels(self, count: int) -> Sequence[str]:
        config = getattr(self._vit, "pretrained_cfg", None)
        labels = config.get("label_names") if isinstance(config, dict) else None
        named = isinstance(labels, list | tuple) and len(labels) == count
        return [str(label) for label in labels] if named and labels else [str(index) for index in range(count)]

    def _trunk(self, model: nn.Module) -> Any:
        return model

    def _normed(self, residual: Tensor) -> Tensor:
        return self._vit.norm(self.before_pooling(residual))


def _is_of_timm(model: object) -> bool:
    # Compares class names, since timm need not be installed.
    names = [f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__]
    return "timm.models.vision_transformer.VisionTransformer" in names


def _name(vit: Any) -> str:
    config = getattr(vit, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or "timm") if isinstance(config, dict) else "timm"


def _readout_tokens(vit: Any, n_tokens: int) -> tuple[int, ...] | None:
    if vit.attn_pool is None and vit.global_pool == "token":
        return (0,)
    if vit.attn_pool is None and vit.global_pool not in ("avg", "avgmax", "max"):
        raise ModelError(
            f"global_pool is {vit.global_pool!r}: the model gives tokens, not one embedding; "
            "create it with global_pool='token' or 'avg'."
        )
    prefix = 0 if vit.pool_include_prefix else int(vit.num_prefix_tokens)
    return None if prefix == 0 else tuple(range(prefix, n_tokens))


def _centred(vit: Any) -> bool:
    """True if the readout ignores the mean over width of every residual."""
    if not isinstance(vit.norm, nn.Identity):
        return isinstance(vit.norm, nn.LayerNorm)
    # A norm after pooling removes that mean only if the pooling is linear.
    linear = vit.attn_pool is None and vit.global_pool in ("token", "avg")
    return linear and isinstance(vit.fc_norm, nn.LayerNorm)


def _split(attention: Any) -> Split:
    def split(_: tuple[Any, ...], output: Any) -> tuple[Tensor, Tensor, Tensor]:
        B, T, _ = output.shape
        query, key, value = output.reshape(B, T, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        return attention.q_norm(query), attention.k_norm(key), value

    return split


def _refuse_unknown(vit: Any, where: str) -> None:
    native = import_module("timm.models.vision_transformer")
    layers = import_module("timm.layers")
    refuse_kind(_LIBRARY, where, vit, native.VisionTransformer)
    refuse_unknown(
        _LIBRARY,
        where,
        vit,
        {"patch_embed", "pos_drop", "patch_drop", "norm_pre", "blocks", "norm", "fc_norm", "head_drop", "head"},
        {"attn_pool"},
    )
    for name in ("norm", "fc_norm"):
        refuse_kind(_LIBRARY, name, getattr(vit, name), nn.Identity, nn.LayerNorm, layers.LayerNorm, layers.RmsNorm)
    for index, block in enumerate(vit.blocks):
        path = f"blocks.{index}"
        refuse_kind(_LIBRARY, path, block, native.Block)
        refuse_unknown(
            _LIBRARY, path, block, {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}
        )
        for name in ("ls1", "ls2"):
            refuse_kind(_LIBRARY, f"{path}.{name}", getattr(block, name), nn.Identity, native.LayerScale)
        refuse_kind(_LIBRARY, f"{path}.attn", block.attn, layers.Attention)
        # With a norm or a gate between pattern and projection, parts by token would not sum to the head's write.
        refuse_unknown(
            _LIBRARY,
            f"{path}.attn",
            block.attn,
            {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop"},
        )
        refuse_kind(_LIBRARY, f"{path}.attn.norm", block.attn.norm, nn.Identity)
        # Fine-tuning libraries wrap a layer, whose output then depends on more than its weight.
        refuse_kind(_LIBRARY, f"{path}.attn.proj", block.attn.proj, nn.Linear)
        refuse_kind(_LIBRARY, f"{path}.attn.proj_drop", block.attn.proj_drop, nn.Dropout)
        for name in ("drop_path1", "drop_path2"):
            refuse_kind(_LIBRARY, f"{path}.{name}", getattr(block, name), nn.Identity, layers.DropPath)
