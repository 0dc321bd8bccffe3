"""Base class of adapters for vision models of transformers: native classes, structure, blocks and preprocessing.

An adapter names the parts of a native block (`BlockParts`), the module that contains the blocks, and the readout: its
tokens, and the native norms, pooling and heads applied to them. Native classes are recognised by name, so that no
adapter imports a model before it is needed.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, cast

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from steerlens.encoders.attention import recorded_attention
from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.modules import LayerModules
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.structure import refuse_kind, refuse_unknown
from steerlens.errors import ModelError, UsageError
from steerlens.vocabulary import ClassVocabulary


@dataclass(frozen=True)
class BlockParts:
    """Names of the parts of a native block.

    Attributes:
        block_kind: class of the block, in the module of the native model.
        attention_kind: class of its attention.
        attention: name of the attention.
        projection: name of the attention's output projection.
        mlp: name of the MLP.
        others: names of its other children, which write nothing: norms, `dropout`, `drop_path`.
        scales: names of the LayerScales after attention and after the MLP, or None.
        scale_kind: class of the LayerScale, whose vector is called `lambda1`.
        drop_kind: class of the dropout modules, which act in training only.
        inputs: names of the attention's other children, its projections of queries, keys and values.
    """

    block_kind: str
    attention_kind: str
    attention: str
    projection: str
    mlp: str
    others: frozenset[str]
    scales: tuple[str, str] | None = None
    scale_kind: str = ""
    drop_kind: str = "Dropout"
    inputs: frozenset[str] = frozenset({"q_proj", "k_proj", "v_proj"})


@dataclass(frozen=True)
class Loading:
    """Recipe for loading a folder's model.

    Attributes:
        kind: name of a class of transformers.
        ignore: prefixes of weight names that may be present without being used.
        arguments: arguments of the class besides its config.
    """

    kind: str
    ignore: tuple[str, ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()


class PretrainedEncoder(NativeEncoder):
    """A vision model of transformers, wrapped, never copied; the model is put into evaluation mode.

    Args:
        model: the native model.
        processor: the image processor that belongs to it (transformers, PIL backend).
        name: its name in reports.

    Raises:
        ModelError: if the model contains modules that the adapter does not know, or takes pictures of another size than
            the processor gives.
    """

    family: ClassVar[str]
    """Name of the adapter."""
    library: ClassVar[str]
    """Description of the expected model, for messages."""
    architectures: ClassVar[tuple[str, ...]]
    """Names of the native classes that the adapter accepts."""
    wholes: ClassVar[Mapping[str, Loading]] = {}
    """Architectures of which only the vision side is loaded, and how."""
    model_types: ClassVar[Mapping[str, str]]
    """Architecture of each `model_type`, for configs that name no architecture."""
    parts: ClassVar[BlockParts]
    """Names of the parts of a native block."""
    centred: ClassVar[bool] = True
    """True if the readout ignores the mean over width of every residual."""

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        # `Any`, because the type checker cannot know the attributes of native modules; they are checked at run time.
        self.model = model.eval()
        self._native = cast(Any, model)
        self.processor = processor
        self.refuse_unknown()
        config = self.tower.config
        size = self.picture_size()
        patch = sides(config.patch_size)
        grid = (size[0] // patch[0], size[1] // patch[1])
        n_tokens = self.first_patch + grid[0] * grid[1]
        spec = EncoderSpec(
            name=name or getattr(self._native.config, "name_or_path", "") or self.family,
            family=self.family,
            n_layers=len(self.blocks),
            n_heads=config.num_attention_heads,
            width=config.hidden_size,
            embedding_size=0,
            image_size=size,
            n_tokens=n_tokens,
            patch_grid=grid,
            first_patch=self.first_patch,
            readout_tokens=self.read_tokens(n_tokens),
            centred=self.centred,
        )
        self.declare(spec)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return accepts_class(model, cls.architectures)

    @classmethod
    def loading(cls, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> Loading | None:
        """Returns the recipe for loading a folder's model, or None if this adapter does not support it.

        Args:
            config: content of its `config.json`.
            weights: shapes of its weights, by name.
        """
        named = (config.get("architectures") or [""])[0] or cls.model_types.get(config.get("model_type", ""), "")
        if named in cls.wholes:
            return cls.wholes[named]
        return Loading(named) if named in cls.architectures else None

    @property
    @abstractmethod
    def tower(self) -> Any:
        """The native module whose config gives the sizes of blocks and pictures."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""

    @property
    @abstractmethod
    def first_patch(self) -> int:
        """Index of the first image patch among the tokens."""

    @property
    def fixed_size(self) -> bool:
        """True if the model takes pictures of its config's size only."""
        return True

    @abstractmethod
    def refuse_unknown(self) -> None:
        """Checks that the model is built as the adapter expects.

        Raises:
            ModelError: if it is not; the message names the unexpected module.
        """

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """Returns the tokens that the embedding is read from, None for all: by default the class token, the first."""
        return (0,)

    def classifier(self) -> tuple[Float[Tensor, "V E"], Float[Tensor, "V"] | None] | None:
        """Returns weight and bias of the linear classifier that reads the embedding, or None without a classifier."""
        head = getattr(self._native, "classifier", None)
        return (head.weight, head.bias) if isinstance(head, nn.Linear) else None

    def class_vocabulary(self, names: Sequence[str] | None = None) -> ClassVocabulary:
        """Returns the classes of the model's own classifier, scored by its logits.

        Args:
            names: class names, in order; by default those of the model's config.

        Raises:
            UsageError: if the model has no classifier.
            ModelError: if it has another number of classes.
        """
        classifier = self.classifier()
        if classifier is None:
            raise UsageError(f"{self.spec.name} has no classifier, and so no classes.")
        weight, bias = classifier
        labels: Mapping[int, str] = self._native.config.id2label
        labelled = [labels.get(index, str(index)) for index in range(len(weight))] if names is None else names
        return ClassVocabulary(tuple(labelled), weight.detach(), None if bias is None else bias.detach())

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return [self._layer(block) for block in self.blocks]

    def _layer(self, block: Any) -> LayerModules:
        parts = self.parts
        attention = getattr(block, parts.attention)
        projection = getattr(attention, parts.projection)
        first, second = parts.scales or (parts.attention, parts.mlp)
        scaled = parts.scales is not None
        return LayerModules(
            block=block,
            attn_out=getattr(block, first),
            attn_proj=projection,
            mlp_out=getattr(block, second),
            n_heads=self.spec.n_heads,
            out_weight=projection.weight,
            out_bias=projection.bias,
            scale=getattr(block, first).lambda1 if scaled else None,
            mlp=getattr(block, parts.mlp),
            mlp_scale=getattr(block, second).lambda1 if scaled else None,
        )

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Applies the model's own image processor, which gives (B,3,height,width)."""
        pixel_values = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixel_values.to(self.device, self.dtype)}

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""
        attentions = [getattr(block, self.parts.attention) for block in self.blocks]
        return recorded_attention({attention: layer for layer, attention in enumerate(attentions)}, tokens)

    def picture_size(self) -> tuple[int, int]:
        """Returns height and width of the image processor's output.

        Raises:
            ModelError: if the model takes pictures of another size.
        """
        expected = sides(self.tower.config.image_size)
        if self.processor is None:
            return expected
        blank = Image.new("RGB", (64, 64))
        height, width = self.processor(images=[blank], return_tensors="pt")["pixel_values"].shape[-2:]
        if self.fixed_size and (height, width) != expected:
            raise ModelError(
                f"the image processor makes pictures of {_pixels((height, width))}, and the model sees "
                f"{_pixels(expected)}; give the processor that belongs to the model."
            )
        return height, width

    def refuse_children(self, path: str, module: nn.Module, known: set[str], optional: set[str] | None = None) -> None:
        """Checks that a module has the expected children and no others.

        Raises:
            ModelError: if it does not; the message names the children.
        """
        refuse_unknown(self.library, path, module, known, optional or set())

    def refuse_kind(self, path: str, module: nn.Module, *kinds: str) -> None:
        """Checks that a module has one of the named classes, of the native model's own file or of torch.

        Raises:
            ModelError: if it is not.
        """
        file = import_module(next(b for b in type(self.model).__mro__ if _is_native(b, self.architectures)).__module__)
        refuse_kind(self.library, path, module, *(getattr(file, kind, None) or getattr(nn, kind) for kind in kinds))

    def refuse_blocks(self, path: str, parts: BlockParts | None = None) -> None:
        """Checks that every block is built as `parts` says.

        An unknown part could be missing from the decomposition, so it is refused.

        Args:
            path: path of the blocks in the model.
            parts: names and classes of their parts; by default those of the adapter.

        Raises:
            ModelError: if a block is not; the message names the unexpected module.
        """
        parts = parts or self.parts
        for index, block in enumerate(self.blocks):
            where = f"{path}.{index}"
            scales = set(parts.scales or ())
            self.refuse_children(where, block, {parts.attention, parts.mlp, *parts.others, *scales})
            self.refuse_kind(where, block, parts.block_kind)
            for scale in sorted(scales):
                self.refuse_kind(f"{where}.{scale}", getattr(block, scale), parts.scale_kind)
            for drop in sorted(parts.others & {"dropout", "drop_path"}):
                self.refuse_kind(f"{where}.{drop}", getattr(block, drop), parts.drop_kind, "Identity")
            attention, where = getattr(block, parts.attention), f"{where}.{parts.attention}"
            self.refuse_children(where, attention, {*parts.inputs, parts.projection})
            self.refuse_kind(where, attention, parts.attention_kind)
            # Fine-tuning libraries wrap a layer, whose output then depends on more than its weight.
            self.refuse_kind(f"{where}.{parts.projection}", getattr(attention, parts.projection), "Linear")


def accepts_class(model: object, names: Sequence[str]) -> bool:
    """True if a model is of one of the named classes of transformers, or of a class derived from one."""
    return any(_is_native(base, names) for base in type(model).__mro__)


def sides(size: Any) -> tuple[int, int]:
    """Returns height and width, from one number for both or from two."""
    if isinstance(size, Sequence):
        height, width = cast(Sequence[int], size)
        return int(height), int(width)
    return int(size), int(size)


def _is_native(kind: type, names: Sequence[str]) -> bool:
    return kind.__name__ in names and kind.__module__.startswith("transformers.")


def _pixels(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]} pixels"
