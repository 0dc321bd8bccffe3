"""Measurements of one picture, and those of many pictures as tables (P,N) over pictures and heads."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.scores import cosine_similarity
from steerlens.studies.shared.ablation import ABLATIONS, Ablation
from steerlens.studies.shared.parts import Part, TensorName, TensorNames, no_tensors
from steerlens.studies.shared.targets import INPUT, OTHER, RECOGNISED, TARGETS

Scope = Literal["total", "direct"]
"""Scope of an effect: a real forward pass, or the final residual alone."""

Viewer = Literal["encoder", "judge"]
"""Encoder of decoded pictures: the encoder whose embeddings were decoded, or the outside judge."""

View = Literal["decoded", "requested", "judged"]
"""Embeddings that are compared: of decoded pictures, requested from the decoder, or of pictures by the judge."""

CONTROL = "control"
"""Name under which random directions are decoded."""

_JUDGED_TARGETS = (INPUT, OTHER)


@dataclass(frozen=True, eq=False)
class PicturePart(Part):
    """Measurements of one picture.

    N heads; E is the width of the encoder's embedding, F of the judge's. Settings are named by their text form.

    Attributes:
        clean: embedding of the picture.
        targets: targets of signed effects, by name.
        total: embeddings after each head's ablation on a real forward pass, by ablation.
        direct: the same with the write replaced in the final residual alone.
        first_order: attribution patching, by ablation and target.
        norm: visible norm of each head's write.
        direct_cosine: cosine of each write with the final residual.
        name_rank: number of vocabulary names that fit the picture better than its own label; None if unknown.
        requested: embeddings requested from the decoder, by setting.
        rho: relative strength equivalent to a setting's strength, by setting.
        decoded: decoded pictures embedded again, by setting and seed.
        judged: the same pictures embedded by the judge.
        judged_targets: embeddings by the judge of the picture (`input`) and of another of its concept (`other`).
        remainder: embeddings after ablating the error and the bias of the studied autoencoder on a real forward pass,
            by ablation; empty for heads, and in parts of earlier versions.
    """

    WHAT: ClassVar[str] = "measurements of a picture"

    clean: Annotated[Float[Tensor, "E"], TensorName("clean")]
    targets: Annotated[Mapping[str, Float[Tensor, "E"]], TensorNames("{}", TARGETS)] = field(default_factory=no_tensors)
    total: Annotated[Mapping[str, Float[Tensor, "N E"]], TensorNames("total.{}", ABLATIONS)] = field(
        default_factory=no_tensors
    )
    direct: Annotated[Mapping[str, Float[Tensor, "N E"]], TensorNames("direct.{}", ABLATIONS)] = field(
        default_factory=no_tensors
    )
    first_order: Annotated[
        Mapping[tuple[str, str], Float[Tensor, "N"]], TensorNames("attribution.{}.{}", ABLATIONS, TARGETS)
    ] = field(default_factory=dict[tuple[str, str], Tensor])
    norm: Annotated[Float[Tensor, "N"] | None, TensorName("norm", optional=True)] = None
    direct_cosine: Annotated[Float[Tensor, "N"] | None, TensorName("direct_cosine", optional=True)] = None
    name_rank: Annotated[Float[Tensor, ""] | None, TensorName("name_rank", optional=True)] = None
    requested: Annotated[Mapping[str, Float[Tensor, "N E"]], TensorNames("asked.{}", str)] = field(
        default_factory=no_tensors
    )
    rho: Annotated[Mapping[str, Float[Tensor, "N"]], TensorNames("rho.{}", str)] = field(default_factory=no_tensors)
    decoded: Annotated[Mapping[tuple[str, int], Float[Tensor, "n E"]], TensorNames("made.{}.seed{}", str, int)] = field(
        default_factory=dict[tuple[str, int], Tensor]
    )
    judged: Annotated[Mapping[tuple[str, int], Float[Tensor, "n F"]], TensorNames("judge.{}.seed{}", str, int)] = field(
        default_factory=dict[tuple[str, int], Tensor]
    )
    judged_targets: Annotated[Mapping[str, Float[Tensor, " F"]], TensorNames("judge.{}", _JUDGED_TARGETS)] = field(
        default_factory=no_tensors
    )

    remainder: Annotated[Mapping[str, Float[Tensor, "2 E"]], TensorNames("remainder.{}", ABLATIONS)] = field(
        default_factory=no_tensors
    )

    def views(self, viewer: Viewer) -> Mapping[tuple[str, int], Tensor]:
        """Decoded pictures embedded by one of the encoders."""
        return self.judged if viewer == "judge" else self.decoded


_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class PictureTables:
    """Measurements of P pictures, stacked; every method raises `StoreError` if a part lacks its tensor.

    Attributes:
        parts: one part per picture.
    """

    parts: Sequence[PicturePart]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def clean(self) -> Float[Tensor, "P E"]:
        """Embeddings of the pictures."""
        return stacked([part.clean for part in self.parts], "clean")

    @property
    def norm(self) -> Float[Tensor, "P N"]:
        """Visible norms of the writes."""
        return stacked([part.norm for part in self.parts], "norm")

    @property
    def direct_cosine(self) -> Float[Tensor, "P N"]:
        """Cosines of the writes with the final residual."""
        return stacked([part.direct_cosine for part in self.parts], "direct cosine")

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that every picture has: a given text, the label's text, another picture."""
        return tuple(name for name in TARGETS if all(name in part.targets for part in self.parts))

    @property
    def ablations(self) -> tuple[Ablation, ...]:
        """Ablations that were measured."""
        return tuple(name for name in ABLATIONS if name in self.parts[0].total)

    @property
    def judged_targets(self) -> tuple[str, ...]:
        """Targets that the judge, which reads no texts, has embedded; empty without a judge."""
        return tuple(name for name in _JUDGED_TARGETS if all(name in part.judged_targets for part in self.parts))

    @property
    def recognised(self) -> tuple[int, ...] | None:
        """Rows of the pictures that the encoder recognises; None if that is unknown.

        A picture whose label the vocabulary lacks has no rank, and is not recognised. Parts of earlier versions have no
        rank either; they are told by the settings that they lack too.
        """
        ranked = [part for part in self.parts if part.name_rank is not None]
        others = [part for part in self.parts if part.name_rank is None]
        if not ranked or any(part.requested.keys() != ranked[0].requested.keys() for part in others):
            return None
        ranks = [part.name_rank for part in self.parts]
        return tuple(row for row, rank in enumerate(ranks) if rank is not None and float(rank) < RECOGNISED)

    def rows(self, rows: Sequence[int]) -> "PictureTables":
        """Copy with some of the pictures."""
        return PictureTables([self.parts[row] for row in rows])

    def only(self, targets: Sequence[str]) -> "PictureTables":
        """Copy with these targets alone; other pictures of the study may lack the remaining targets."""
        return PictureTables(
            [
                replace(part, targets={name: tensor for name, tensor in part.targets.items() if name in targets})
                for part in self.parts
            ]
        )

    def compared(self, name: str, viewer: Viewer = "encoder") -> Float[Tensor, "P E"]:
        """The input or a target, embedded by one of the encoders, for comparison."""
        if viewer == "judge":
            return self._of(lambda part: part.judged_targets, name, f"{name} as the judge sees it")
        return self.clean if name == INPUT else self._of(lambda part: part.targets, name, f"target {name}")

    def ablated(self, scope: Scope, ablation: Ablation) -> Float[Tensor, "P N E"]:
        """Embeddings after each head's ablation."""
        return self._of(
            lambda part: part.total if scope == "total" else part.direct, ablation, f"{scope} effects of {ablation}"
        )

    def remainder(self, ablation: Ablation) -> Float[Tensor, "P 2 E"] | None:
        """Embeddings after ablation of the autoencoder's error and bias; None if not all pictures have them."""
        if not all(ablation in part.remainder for part in self.parts):
            return None
        return self._of(lambda part: part.remainder, ablation, f"error and bias under {ablation}")

    def first_order(self, ablation: Ablation, target: str) -> Float[Tensor, "P N"]:
        """Attribution patching of an ablation, towards a target."""
        return self._of(
            lambda part: part.first_order, (ablation, target), f"attribution of {ablation} towards {target}"
        )

    def requested(self, setting: object) -> Float[Tensor, "P N E"]:
        """Embeddings that a setting requests from the decoder."""
        return self._of(lambda part: part.requested, str(setting), f"embeddings of {str(setting)!r}")

    def rho(self, setting: object) -> Float[Tensor, "P N"]:
        """Relative strengths equivalent to a setting's strength."""
        return self._of(lambda part: part.rho, str(setting), f"relative strengths of {str(setting)!r}")

    def seeds(self, *settings: object, viewer: Viewer = "encoder") -> list[int]:
        """Seeds with which all of the settings were decoded, in ascending order.

        Raises:
            StoreError: if there are none, since pictures of different seeds cannot be compared.
        """
        views = self.parts[0].views(viewer)
        common = set.intersection(
            *({seed for name, seed in views if name == str(setting)} for setting in settings),
        )
        if not common:
            words = " and ".join(repr(str(setting)) for setting in settings)
            raise StoreError(f"a part of this study holds no decoded pictures of {words} with the same seed.")
        return sorted(common)

    def decoded(
        self, setting: object, *, viewer: Viewer = "encoder", seeds: Sequence[int] | None = None
    ) -> Float[Tensor, "S P n E"]:
        """Decoded pictures embedded again, by seed.

        Args:
            setting: the setting or its name.
            viewer: the encoder that embeds them.
            seeds: seeds to take; by default all, in ascending order.
        """
        own = self.seeds(setting, viewer=viewer)
        return torch.stack(
            [
                self._of(
                    lambda part: part.views(viewer),
                    (str(setting), seed),
                    f"pictures of {str(setting)!r} decoded with seed {seed}",
                )
                for seed in (own if seeds is None else seeds)
            ]
        )

    def is_decoded(self, setting: object) -> bool:
        """True if pictures of a setting were decoded; otherwise only its embeddings are stored."""
        return all(any(name == str(setting) for name, _ in part.decoded) for part in self.parts)

    def is_requested(self, setting: object) -> bool:
        """True if a setting's embeddings are stored in all parts; older parts lack settings that were added later."""
        return all(str(setting) in part.requested for part in self.parts)

    def requested_scores(self, setting: object, compare: str) -> Float[Tensor, "P N"]:
        """Similarity of requested embeddings with the input or a target."""
        return cosine_similarity(self.requested(setting), self.compared(compare)[:, None])

    def decoded_scores(
        self, setting: object, compare: str, *, viewer: Viewer = "encoder", seeds: Sequence[int] | None = None
    ) -> Float[Tensor, "S P n"]:
        """Similarity of decoded pictures with the input or a target, by seed; see `decoded`."""
        views = self.decoded(setting, viewer=viewer, seeds=seeds)
        return cosine_similarity(views, self.compared(compare, viewer)[:, None])

    def _of(self, family: Callable[[PicturePart], Mapping[_Key, Tensor]], key: _Key, what: str) -> Tensor:
        return stacked([family(part).get(key) for part in self.parts], what)


def stacked(tensors: Sequence[Tensor | None], what: str) -> Tensor:
    """Stacks a tensor of all parts over pictures, in float32.

    Args:
        tensors: one tensor per part, None where it is missing.
        what: name of the tensor, for the message.

    Raises:
        StoreError: if a part lacks the tensor, or the shapes differ.
    """
    present = [tensor.float() for tensor in tensors if tensor is not None]
    if len(present) < len(tensors) or len({tensor.shape for tensor in present}) != 1:
        raise StoreError(f"the parts of this study differ in {what}: it is missing, or of another shape, in one part.")
    return torch.stack(present)
