"""Parts of the overlay study as typed data: measurements of a pair, and its trajectories."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from steerlens.studies.shared.parts import Part, TensorName, TensorNames, no_tensors


@dataclass(frozen=True, eq=False)
class References:
    """Embeddings by one encoder with which a pair's pictures are compared.

    Attributes:
        base: embedding of the base alone.
        overlay: embedding of the overlay alone.
        mean: mean embedding of the reference pictures.
    """

    base: Float[Tensor, "E"]
    overlay: Float[Tensor, "E"]
    mean: Float[Tensor, "E"]


@dataclass(frozen=True, eq=False)
class OverlayPart(Part):
    """Measurements of a pair of base and overlay; N heads, S seeds. Settings are named by their text form.

    Attributes:
        both: embedding of the base with the overlay.
        base: embedding of the base.
        overlay: embedding of the overlay alone.
        mean: mean embedding of the reference pictures.
        text: direction of the overlay's name, or None if the model does not know it.
        judged_base: embedding of the base by the judge, or None without a judge.
        judged_overlay: embedding of the overlay by the judge.
        judged_mean: mean embedding of the reference pictures by the judge.
        one_shot: true drop of the objective when each head is ablated alone.
        greedy: heads in the greedy order.
        first_order: attribution patching on the objective.
        direct: exact drop of the objective in the final residual alone.
        norm: visible norm of each head's write for the base with the overlay; older parts lack it.
        change: visible norm of the difference between that write and the head's write for the base alone.
        requested: embeddings requested from the decoder, by setting.
        decoded: decoded pictures embedded again, by setting.
        judged: the same pictures embedded by the judge.
        remainder: true drop of the objective when the error and the bias of the studied autoencoder are ablated alone;
            None for heads, and in older parts.
    """

    WHAT: ClassVar[str] = "measurements of an overlay"

    both: Annotated[Float[Tensor, "E"], TensorName("both")]
    base: Annotated[Float[Tensor, "E"], TensorName("base")]
    overlay: Annotated[Float[Tensor, "E"], TensorName("overlay")]
    mean: Annotated[Float[Tensor, "E"], TensorName("mean")]
    one_shot: Annotated[Float[Tensor, "N"], TensorName("one_shot")]
    greedy: Annotated[Int64[Tensor, "N"], TensorName("greedy")]
    first_order: Annotated[Float[Tensor, "N"], TensorName("attribution")]
    direct: Annotated[Float[Tensor, "N"], TensorName("direct")]
    text: Annotated[Float[Tensor, "E"] | None, TensorName("text", optional=True)] = None
    judged_base: Annotated[Float[Tensor, " F"] | None, TensorName("judge.base", optional=True)] = None
    judged_overlay: Annotated[Float[Tensor, " F"] | None, TensorName("judge.overlay", optional=True)] = None
    judged_mean: Annotated[Float[Tensor, " F"] | None, TensorName("judge.mean", optional=True)] = None
    norm: Annotated[Float[Tensor, "N"] | None, TensorName("norm", optional=True)] = None
    change: Annotated[Float[Tensor, "N"] | None, TensorName("change", optional=True)] = None
    remainder: Annotated[Float[Tensor, "2"] | None, TensorName("remainder", optional=True)] = None
    requested: Annotated[Mapping[str, Float[Tensor, "N E"]], TensorNames("asked.{}", str)] = field(
        default_factory=no_tensors
    )
    decoded: Annotated[Mapping[str, Float[Tensor, "S N E"]], TensorNames("made.{}", str)] = field(
        default_factory=no_tensors
    )
    judged: Annotated[Mapping[str, Float[Tensor, "S N F"]], TensorNames("judged.{}", str)] = field(
        default_factory=no_tensors
    )

    @property
    def own(self) -> References:
        """References by the encoder itself."""
        return References(self.base, self.overlay, self.mean)

    @property
    def judges(self) -> References | None:
        """References by the judge, or None without a judge."""
        if self.judged_base is None or self.judged_overlay is None or self.judged_mean is None:
            return None
        return References(self.judged_base, self.judged_overlay, self.judged_mean)


@dataclass(frozen=True, eq=False)
class TrajectoryPart(Part):
    """Trajectories of a pair, by order of heads, at K numbers of ablated heads.

    Attributes:
        embeddings: embeddings after joint ablation of each number of heads.
        retained: embeddings with all other heads ablated, along some orders; older parts lack them.
        decoded: pictures decoded along some orders, embedded again.
        pictures: the same pictures, if they were kept.
    """

    WHAT: ClassVar[str] = "trajectories"

    embeddings: Annotated[Mapping[str, Float[Tensor, "K E"]], TensorNames("way.{}", str)]
    retained: Annotated[Mapping[str, Float[Tensor, "K E"]], TensorNames("kept.{}", str)] = field(
        default_factory=no_tensors
    )
    decoded: Annotated[Mapping[str, Float[Tensor, "k E"]], TensorNames("remade.{}", str)] = field(
        default_factory=no_tensors
    )
    pictures: Annotated[Mapping[str, UInt8[Tensor, "k 3 height width"]], TensorNames("strip.{}", str)] = field(
        default_factory=no_tensors
    )

    @property
    def orders(self) -> list[str]:
        """Names of the orders, sorted, since files do not keep an order."""
        return sorted(self.embeddings)
