"""Sparse autoencoders: a value of the model as a sum of few features, a bias and an error.

    x = Σ_i f_i(x) m(x) W_dec[i]  +  m(x) b_dec + shift(x)  +  error(x)

f are the activations (`steerlens.saes.activations`); m and shift undo the normalisation of the input
(`steerlens.saes.normalisation`) and are 1 and 0 without one. The identity holds in the model's own space by definition
of the error, which is what the autoencoder fails to explain.

References: T. Bricken et al., "Towards Monosemanticity", 2023; H. Cunningham et al., arXiv 2309.08600.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.saes.activations import Activation, TopK, converted, of_features, tensors_of
from steerlens.saes.normalisation import Normalisation
from steerlens.sites import Site

EMBEDDING: Literal["embedding"] = "embedding"
"""Place of an autoencoder of image embeddings, after the model's projection; not the site `embed`."""

TrainedOn = Literal["cls", "patch", "all", "unknown"]
"""Tokens that an autoencoder was trained on."""

Space = Literal["residual", "head_values"]
"""What is read at a head or an attention output: the write itself, or the head values before the output projection."""

_NUMBERS = 1 << 25
"""Activations computed at once (128 MB in float32), which bounds the memory of encoding many tokens."""


@dataclass(frozen=True, eq=False)
class Split:
    """Values at a site as features, bias and error; `SparseAutoencoder.sum` adds them up to the values again.

    Attributes:
        indices: active features of each token, strongest first; 0 where a token has fewer than K.
        activations: their activations; 0 where a token has fewer than K.
        multiplier: a feature adds `activation * multiplier * W_dec[index]`; 1 without normalisation of the input.
        bias: the autoencoder's bias in the space of the values.
        error: what the autoencoder does not explain.
    """

    indices: Int[Tensor, "*T K"]
    activations: Float[Tensor, "*T K"]
    multiplier: Float[Tensor, "*T 1"]
    bias: Float[Tensor, "*T D"]
    error: Float[Tensor, "*T D"]


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A sparse autoencoder of the values at one site.

    Attributes:
        name: its name in sites: feature i is `feature.NAME.i`.
        site: where it reads: a point of the residual stream, an attention output, an MLP's output or a head, or the
            image embedding.
        W_enc: encoder weights.
        W_dec: decoder weights, a row a feature.
        b_enc: encoder bias.
        b_dec: decoder bias.
        activation: activation function.
        apply_b_dec_to_input: whether `b_dec` is subtracted from the input of the encoder.
        normalisation: normalisation of the input.
        trained_on: tokens that it was trained on.
        space: whether it reads head values instead of what they write.
    """

    name: str
    site: Site | Literal["embedding"]
    W_enc: Float[Tensor, "D F"]
    W_dec: Float[Tensor, "F D"]
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "D"]
    activation: Activation
    apply_b_dec_to_input: bool = False
    normalisation: Normalisation = field(default_factory=Normalisation)
    trained_on: TrainedOn = "unknown"
    space: Space = "residual"

    def __post_init__(self) -> None:
        Site("feature", name=self.name, index=0)  # refuses a name that cannot be one
        if self.W_enc.ndim != 2 or 0 in self.W_enc.shape:
            raise ModelError(f"sparse autoencoder {self.name}: W_enc has shape {tuple(self.W_enc.shape)}, not (D,F).")
        D, F = self.W_enc.shape
        for name, shape in (("W_dec", (F, D)), ("b_enc", (F,)), ("b_dec", (D,))):
            tensor: Tensor = getattr(self, name)
            if tensor.shape != shape:
                raise ModelError(
                    f"sparse autoencoder {self.name}: {name} has shape {tuple(tensor.shape)}, where W_enc of shape "
                    f"{(D, F)} calls for {shape}."
                )
        self._check_place()
        if self.trained_on not in get_args(TrainedOn):
            raise UsageError(f"trained_on is one of {', '.join(get_args(TrainedOn))}, not {self.trained_on!r}.")
        try:
            self.activation.check(F)
        except ModelError as error:
            raise ModelError(f"sparse autoencoder {self.name}: {error}") from None
        for name, tensor in self.tensors().items():
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"sparse autoencoder {self.name}: {name} holds values that are NaN or infinite.")

    def _check_place(self) -> None:
        reads = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head")
        if self.site != EMBEDDING and self.site.kind not in reads:
            raise UsageError(
                f"sparse autoencoder {self.name}: {self.site} is not a place that it can read; name resid_pre.N, "
                f"resid_mid.N, resid_post.N, attn_out.N, mlp_out.N, head.N.H or {EMBEDDING}."
            )
        at_heads = isinstance(self.site, Site) and self.site.kind in ("attn_out", "head")
        if self.space not in get_args(Space) or (self.space == "head_values" and not at_heads):
            raise UsageError(f"sparse autoencoder {self.name}: {self.space} cannot be read at {self.site}.")

    def __repr__(self) -> str:
        return (
            f"SparseAutoencoder({self.name}: {self.n_features} features of {self.site}, width {self.width}, "
            f"{self.activation.name})"
        )

    @property
    def width(self) -> int:
        """D, the width of what it reads."""
        return self.W_enc.shape[0]

    @property
    def n_features(self) -> int:
        """F, the number of features."""
        return self.W_enc.shape[1]

    @property
    def reads_embedding(self) -> bool:
        """True if it reads the image embedding."""
        return self.site == EMBEDDING

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, those of activation and normalisation included."""
        own = {name: getattr(self, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
        mean = {} if self.normalisation.mean is None else {"mean": self.normalisation.mean}
        return {**own, **tensors_of(self.activation), **mean}

    @cached_property
    def identity(self) -> str:
        """A text that is equal for autoencoders that compute the same: a hash of weights, activation and place."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        plain = {name: value for name, value in vars(self.activation).items() if not isinstance(value, Tensor)}
        norm = (self.normalisation.kind, self.normalisation.factor)
        settings = (str(self.site), self.space, self.activation.name, plain, self.apply_b_dec_to_input, norm)
        digest.update(repr(settings).encode())
        return digest.hexdigest()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SparseAutoencoder":
        """Returns the autoencoder on a device and in a precision."""

        def convert(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        mean = self.normalisation.mean
        return replace(
            self,
            **{name: convert(getattr(self, name)) for name in ("W_enc", "W_dec", "b_enc", "b_dec")},
            activation=converted(self.activation, convert),
            normalisation=replace(self.normalisation, mean=None if mean is None else convert(mean)),
        )

    def feature(self, index: int) -> Site:
        """Returns the site of a feature.

        Raises:
            UsageError: if there is no such feature.
        """
        if not 0 <= index < self.n_features:
            raise UsageError(f"{self.name} has features 0 to {self.n_features - 1}; there is no feature {index}.")
        return Site("feature", name=self.name, index=index)

    def check_site(self, site: Site) -> Site:
        """Returns a feature's site if this autoencoder has it.

        Raises:
            UsageError: if the site is no feature of it.
        """
        if site.kind != "feature" or site.name != self.name:
            raise UsageError(f"{site} is not a feature of the sparse autoencoder {self.name}.")
        return self.feature(site.index)

    def encode(
        self, x: Float[Tensor, "*T D"], features: Int[Tensor, "N"] | None = None
    ) -> Float[Tensor, "*T F"] | Float[Tensor, "*T N"]:
        """Computes the activations of all features, or of some; gradients flow.

        Args:
            x: the values.
            features: the features; None for all.

        Raises:
            UsageError: if the values have another width.
        """
        x = self._values(x)
        shift, divisor, _ = self.normalisation.affine(x)
        normal = x if self.normalisation.kind == "none" else (x - shift) / divisor
        if self.apply_b_dec_to_input:
            normal = normal - self.b_dec
        if features is None:
            return self.activation(normal @ self.W_enc, self.b_enc)
        features = features.to(self.W_enc.device)
        some = of_features(self.activation, features)
        if some is None:  # the k largest are chosen among all
            return self.activation(normal @ self.W_enc, self.b_enc)[..., features]
        return some(normal @ self.W_enc[:, features], self.b_enc[features])

    def decode(
        self, activations: Float[Tensor, "*T F"], x: Float[Tensor, "*T D"] | None = None
    ) -> Float[Tensor, "*T D"]:
        """Reconstructs values from activations.

        Args:
            activations: the output of `encode`, changed or not.
            x: the values that were encoded, which undo a normalisation by norm or layer.

        Raises:
            UsageError: if the normalisation depends on `x`, which was not given.
        """
        if x is None and self.normalisation.reads_input:
            raise UsageError(
                f"{self.name} normalises each input ({self.normalisation.kind}): decode(activations, x) needs the "
                "values that were encoded."
            )
        plain = activations.to(self.W_dec) @ self.W_dec + self.b_dec
        shift, _, multiplier = self.normalisation.affine(plain if x is None else self._values(x))
        return plain if self.normalisation.kind == "none" else plain * multiplier + shift

    @torch.no_grad()
    def split(self, x: Float[Tensor, "*T D"]) -> Split:
        """Splits values into active features, bias and error, which sum to the values.

        Raises:
            UsageError: if the values have another width.
        """
        x = self._values(x)
        rows = x.reshape(-1, self.width)
        parts = [self._split_rows(part) for part in rows.split(self._rows_at_once)] or [self._split_rows(rows)]
        K = max(part.indices.shape[1] for part in parts)

        def join(name: str) -> Tensor:
            tensors: list[Tensor] = [getattr(part, name) for part in parts]
            if name in ("indices", "activations"):
                tensors = [torch.nn.functional.pad(tensor, (0, K - tensor.shape[1])) for tensor in tensors]
            return torch.cat(tensors).reshape(*x.shape[:-1], -1)

        return Split(*(join(name) for name in ("indices", "activations", "multiplier", "bias", "error")))

    @property
    def _rows_at_once(self) -> int:
        return max(1, _NUMBERS // self.n_features)

    def _split_rows(self, x: Float[Tensor, "N D"]) -> Split:
        activations = self.encode(x)
        counts = (activations != 0).sum(dim=-1)
        K = int(counts.max()) if len(x) else 0
        negative = isinstance(self.activation, TopK) and not self.activation.rectify
        strengths, indices = (activations.abs() if negative else activations).topk(K, dim=-1)
        indices = torch.where(strengths > 0, indices, torch.zeros_like(indices))
        if negative:
            strengths = activations.gather(-1, indices) * (strengths > 0)
        shift, _, multiplier = self.normalisation.affine(x)
        bias = multiplier * self.b_dec + shift
        split = Split(indices, strengths, multiplier, bias, x)
        # From the same sum as `sum` takes, so that rounding does not enter the identity.
        return replace(split, error=x - (self.explained(split) + bias))

    def encoded_in_parts(self, x: Float[Tensor, "N D"]) -> Iterator[tuple[slice, Float[Tensor, "n F"]]]:
        """Yields the activations of many rows, a bounded number at a time, each with the rows' place.

        Raises:
            UsageError: if the values have another width.
        """
        for start in range(0, len(x), self._rows_at_once):
            rows = slice(start, min(start + self._rows_at_once, len(x)))
            yield rows, self.encode(x[rows])

    @torch.no_grad()
    def writes(self, split: Split) -> Float[Tensor, "*T K D"]:
        """Computes what each active feature of a split adds to the values: `activation * multiplier * W_dec[index]`."""
        return (split.activations * split.multiplier)[..., None] * self.W_dec[split.indices]

    @torch.no_grad()
    def sum(self, split: Split) -> Float[Tensor, "*T D"]:
        """Adds up features, bias and error of a split."""
        return self.explained(split) + split.bias + split.error

    def explained(self, split: Split) -> Float[Tensor, "*T D"]:
        """Adds up the writes of a split's active features, without holding each of them."""
        K = split.indices.shape[-1]
        if not K:
            return torch.zeros_like(split.error)
        bags = torch.nn.functional.embedding_bag(
            split.indices.reshape(-1, K), self.W_dec, per_sample_weights=split.activations.reshape(-1, K), mode="sum"
        )
        return bags.reshape(split.error.shape) * split.multiplier

    def _values(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.width,):
            raise UsageError(
                f"sparse autoencoder {self.name} reads values of width {self.width}, not {tuple(x.shape)[-1:]}: it "
                "belongs to another model or another site."
            )
        return x.to(self.W_enc)
