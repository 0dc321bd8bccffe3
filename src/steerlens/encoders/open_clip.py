"""Vision towers of open_clip: its own `VisionTransformer`, and models of timm with a projection.

open_clip's own towers use `nn.MultiheadAttention`, which never calls its output projection as a module: the adapter
recomputes head values from the module's input and its `in_proj` weights. The model's own code applies the final norm,
pooling (class token, mean, attention) and the matrix `proj`.

References: G. Ilharco et al., "OpenCLIP", 2021, doi 10.5281/zenodo.5143773; M. Cherti et al., "Reproducible scaling
laws for contrastive language-image learning", arXiv 2212.07143; J. Yu et al., "CoCa", arXiv 2205.01917 (attention
pooling).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.folders import is_open_clip_folder, open_open_clip_folder
from steerlens.encoders.fused import Split, recorded_by_hooks
from steerlens.encoders.hooks import first
from steerlens.encoders.modules import LayerModules
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.structure import refuse_kind, refuse_unknown
from steerlens.encoders.timm import TimmEncoder
from steerlens.encoders.transforms import TransformEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.vocabulary import ClassVocabulary

_LIBRARY = "a VisionTransformer of open_clip"


class OpenCLIPEncoder(TransformEncoder):
    """The vision tower of an open_clip model, wrapped, never copied; it is put into evaluation mode.

    Args:
        model: a model of open_clip (its text side is left alone), or its vision tower.
        processor: its transform for evaluation (the last value that `open_clip.create_model_and_transforms` returns),
            or an image processor of transformers.
        name: its name in reports.

    Raises:
        ModelError: if the tower contains modules that this adapter does not know, or gives no single embedding.
    """

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        visual = self.model = self._visual = cast(Any, getattr(model, "visual", model)).eval()
        self.processor = processor
        _refuse_unknown(visual)
        down, across = visual.grid_size
        blocks, n_tokens = visual.transformer.resblocks, down * across + 1
        spec = EncoderSpec(
            name=name or "open_clip",
            family="open_clip",
            n_layers=len(blocks),
            n_heads=blocks[0].attn.num_heads,
            width=blocks[0].attn.embed_dim,
            embedding_size=0,
            image_size=tuple(visual.image_size),
            n_tokens=n_tokens,
            patch_grid=(down, across),
            first_patch=1,
            readout_tokens=_readout_tokens(visual, n_tokens),
        )
        self.declare(spec)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return _is_of_open_clip(model) and not _has_timm_tower(model)

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """True if a folder contains a model of this library, with either kind of tower."""
        return is_open_clip_folder(folder)

    @classmethod
    def from_folder(
        cls, folder: Path, processor: Any, *, device: torch.device, dtype: torch.dtype | None, name: str = ""
    ) -> "NativeEncoder":
        """Opens a folder laid out like open_clip's repositories on the hub.

        Args:
            folder: with `open_clip_config.json` and `open_clip_model.safetensors`.
            processor: a transform that replaces the config's, or None.
            device: device of the model.
            dtype: precision; None for float32, or half precision if it is large.
            name: its name in reports.

        Raises:
            ModelError: if the model cannot be built or loaded, or its structure is not known to this adapter.
        """
        model, transform = open_open_clip_folder(folder, device, dtype)
        kind = OpenCLIPTimmEncoder if _has_timm_tower(model) else cls
        return kind(model, transform if processor is None else processor, name)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the patch embedding; open_clip keeps norms and position embeddings in float32."""
        return self._visual.conv1.weight.dtype

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return [
            LayerModules(
                block=block,
                attn_out=block.ls_1,
                attn_proj=block.attn,
                mlp_out=block.ls_2,
                n_heads=self.spec.n_heads,
                out_weight=block.attn.out_proj.weight,
                out_bias=block.attn.out_proj.bias,
                scale=getattr(block.ls_1, "gamma", None),
                values_of=_head_values(block.attn),
                mlp=block.mlp,
                mlp_scale=getattr(block.ls_2, "gamma", None),
            )
            for block in self._visual.transformer.resblocks
        ]

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Applies the model's own final norm, pooling and projection."""
        pooled, _ = self._visual._pool(self.before_pooling(residual))
        return pooled if self._visual.proj is None else pooled @ self._visual.proj

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the image embedding of one native forward pass, not normalised."""
        # Towers for captioning return their tokens too.
        return first(self._visual(inputs["pixel_values"]))

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""
        attentions = [block.attn for block in self._visual.transformer.resblocks]
        return recorded_by_hooks([(attention, _split(attention)) for attention in attentions], tokens)


class OpenCLIPTimmEncoder(TimmEncoder):
    """A `VisionTransformer` or `Eva` of timm inside an open_clip model, with open_clip's projection after it.

    Args:
        model: a model of open_clip (its text side is left alone), or its vision tower.
        processor: as for `OpenCLIPEncoder`.
        name: its name in reports.

    Raises:
        ModelError: if the tower contains modules that this adapter does not know, or gives no single embedding.
    """

    family = "open_clip_timm"
    path = "visual.trunk"

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        super().__init__(cast(Any, getattr(model, "visual", model)), processor, name)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return _is_of_open_clip(model) and _has_timm_tower(model)

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """False always: `OpenCLIPEncoder` opens the folders of open_clip, with either kind of tower."""
        return False

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Applies timm's own norms, pooling and head, then open_clip's projection."""
        return self._tower.head(self._vit.forward_head(self._normed(residual)))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the image embedding of one native forward pass, not normalised."""
        return self._tower(inputs["pixel_values"])

    def class_vocabulary(self, names: Sequence[str] | None = None) -> ClassVocabulary:
        """Refuses: the head gives the embedding, so no classifier reads it.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.spec.name} is compared with texts; it has no classes.")

    @property
    def _tower(self) -> Any:
        return self.model

    def vision_transformer(self, model: nn.Module) -> Any:
        """Returns the trunk of the tower, whose head gives the embedding."""
        tower: Any = model
        library = "a timm tower of open_clip"
        refuse_unknown(library, "visual", tower, {"trunk", "head"})
        refuse_unknown(library, "visual.head", tower.head, (), {"drop", "proj", "mlp"})
        return tower.trunk


def _is_of_open_clip(model: object) -> bool:
    # Compares class names, since open_clip need not be installed.
    return any(base.__module__.partition(".")[0] == "open_clip" for base in type(model).__mro__)


def _has_timm_tower(model: object) -> bool:
    return type(getattr(model, "visual", model)).__name__ == "TimmModel"


def _heads(attention: Any, hidden: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values, each (B,H,T,d), as `nn.MultiheadAttention` computes them internally."""
    parts = functional.linear(hidden, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    return query, key, value


def _split(attention: Any) -> Split:
    return lambda args, _: _heads(attention, args[0])


def _head_values(attention: Any) -> Any:
    def values_of(args: tuple[Any, ...]) -> Float[Tensor, "B T D"]:
        attended = functional.scaled_dot_product_attention(*_heads(attention, args[0]))
        return attended.transpose(1, 2).flatten(2)

    return values_of


def _readout_tokens(visual: Any, n_tokens: int) -> tuple[int, ...] | None:
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise ModelError(
            "visual.attn_pool_contrastive: open_clip itself calls this pair of pooling layers untested, and it gives "
            "tokens instead of one embedding."
        )
    if visual.pool_type not in ("tok", "avg"):
        raise ModelError(f"visual.pool_type is {visual.pool_type!r}: the model gives tokens, not one embedding.")
    if visual.attn_pool is not None:
        return None
    return (0,) if visual.pool_type == "tok" else tuple(range(1, n_tokens))


def _refuse_unknown(visual: Any) -> None:
    native = import_module("open_clip.transformer")
    norms = (native.LayerNorm, native.LayerNormFp32)
    refuse_kind(_LIBRARY, "visual", visual, native.VisionTransformer)
    refuse_unknown(
        _LIBRARY,
        "visual",
        visual,
        {"conv1", "patch_dropout", "ln_pre", "transformer", "ln_post"},
        {"attn_pool", "attn_pool_contrastive"},
    )
    refuse_kind(_LIBRARY, "visual.ln_post", visual.ln_post, *norms)
    refuse_kind(_LIBRARY, "visual.transformer", visual.transformer, native.Transformer)
    refuse_unknown(_LIBRARY, "visual.transformer", visual.transformer, {"resblocks"})
    if visual.attn_pool is not None:
        refuse_kind(_LIBRARY, "visual.attn_pool", visual.attn_pool, native.AttentionalPooler)
        refuse_kind(_LIBRARY, "visual.attn_pool.ln_k", visual.attn_pool.ln_k, *norms)
    for index, block in enumerate(visual.transformer.resblocks):
        path = f"visual.transformer.resblocks.{index}"
        refuse_kind(_LIBRARY, path, block, native.ResidualAttentionBlock)
        refuse_unknown(_LIBRARY, path, block, {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"})
        for name in ("ls_1", "ls_2"):
            refuse_kind(_LIBRARY, f"{path}.{name}", getattr(block, name), nn.Identity, native.LayerScale)
        attention = block.attn
        refuse_kind(_LIBRARY, f"{path}.attn", attention, nn.MultiheadAttention)
        plain = attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
        if not (plain and attention.batch_first):
            raise ModelError(
                f"{path}.attn is not built like {_LIBRARY}: it has keys of its own, separate projections, or the batch "
                "as its second dimension."
            )
