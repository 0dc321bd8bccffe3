"""Rows of the table of features, a chunk at a time: texts, similar features, heads, decoded pictures.

alone   the feature's direction by itself: P(LN(w)), w = W_dec[i] as it enters the residual stream (Diffusion Lens)
added   the mean picture steered along it: P(LN(r̄ + c w)) (Steering Lens); of the image embedding, ē + c w
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from steerlens.decoders import redecode
from steerlens.images import eight_bit, png_bytes
from steerlens.lenses import read_out
from steerlens.naming import omp_rows
from steerlens.profiles.features.activations import ActivationMeter
from steerlens.profiles.features.effects import FeatureReader, best_heads
from steerlens.profiles.features.options import FeatureOptions
from steerlens.profiles.measure import steered
from steerlens.profiles.texts import chance_level, text_scores
from steerlens.progress import run_to_end
from steerlens.runs import image_value
from steerlens.scores import cosine_similarity
from steerlens.vocabulary import Vocabulary
from steerlens.zoo import Pair

_SIMILAR = 6
"""Similar features named for each."""

_SAMPLE = 512
"""Features whose mean scores texts are compared with, and random directions for the level of chance."""


@dataclass(frozen=True, eq=False)
class Neutral:
    """The mean picture: mean final residual of the readout tokens, and mean embedding."""

    final: Float[Tensor, "R D"]
    embedding: Float[Tensor, "E"]


class FeatureEffects(Protocol):
    """Effects of every feature on its first top picture; see `study.Effects`."""

    @property
    def moved(self) -> Float[Tensor, "F"]:
        """Movement of the embedding under ablation."""
        ...

    @property
    def control(self) -> Float[Tensor, "F"]:
        """Movement when a random direction of equal size is taken out."""
        ...

    @property
    def heads(self) -> Float[Tensor, "F L H"]:
        """What each earlier head adds to the pre-activation."""
        ...


@dataclass(frozen=True, eq=False)
class Chunks:
    """Maker of the rows of any features.

    Attributes:
        pair: encoder and decoder.
        reader: the autoencoder on its encoder.
        options: options of the dashboards.
        meter: activations of all features.
        neutral: the mean picture.
        effects: effects of all features.
        words: texts that describe features, or None.
    """

    pair: Pair
    reader: FeatureReader
    options: FeatureOptions
    meter: ActivationMeter
    neutral: Neutral
    effects: FeatureEffects
    words: Vocabulary | None

    @cached_property
    def decoded(self) -> frozenset[int]:
        """Features to decode: those with the largest sum of activations."""
        count = min(self.options.n_decoded, int((self.meter.total > 0).sum()))
        return frozenset(self.meter.total.topk(count).indices.tolist())

    @cached_property
    def base(self) -> Float[Tensor, "E"]:
        """Embedding of the mean picture."""
        if self.reader.sae.reads_embedding:
            return self.neutral.embedding
        return read_out(self.pair.encoder, self.neutral.final[None, None]).detach().float()[0, 0]

    @cached_property
    def _unit_rows(self) -> Float[Tensor, "F D"]:
        return normalize(self.reader.sae.W_dec.float(), dim=-1)

    @cached_property
    def _usual_scores(self) -> Float[Tensor, "V"]:
        """Mean score of every text over a sample of features."""
        generator = torch.Generator().manual_seed(self.options.seed)
        sample = torch.randperm(self.reader.sae.n_features, generator=generator)[:_SAMPLE]
        return self._scores(self.added(sample)).mean(dim=0)

    @cached_property
    def chance(self) -> float:
        """Excess that the best text of a random direction stays below in 95 of 100 cases; 0 without texts."""
        if self.words is None:
            return 0.0
        generator = torch.Generator().manual_seed(self.options.seed + 1)
        random = torch.randn(_SAMPLE, self.reader.rows(torch.tensor([0])).shape[-1], generator=generator)
        return chance_level(self._scores(self._steered(random.to(self.base))))

    @torch.no_grad()
    def alone(self, features: Int[Tensor, "N"]) -> Float[Tensor, "N E"]:
        """Embeddings of the features by themselves; of the image embedding, as long as the mean embedding."""
        rows = self.reader.rows(features).float()
        if self.reader.sae.reads_embedding:
            return normalize(rows, dim=-1) * self.base.norm()
        residuals = rows[:, None].expand(-1, len(self.neutral.final), -1)
        return read_out(self.pair.encoder, residuals[None].to(self.pair.encoder.dtype))[0].float()

    def added(self, features: Int[Tensor, "N"]) -> Float[Tensor, "N E"]:
        """Embeddings of the mean picture steered along the features."""
        return self._steered(self.reader.rows(features).float())

    @torch.no_grad()
    def _steered(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        if self.reader.sae.reads_embedding:
            strength = self.options.strength
            sizes = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            factor = strength.value * self.base.norm() / sizes if strength.kind == "rho" else strength.value - 1
            return self.base + factor * rows
        residuals = rows[:, None].expand(-1, len(self.neutral.final), -1)
        return steered(self.pair.encoder, self.neutral.final, residuals[None], self.options.strength)[0]

    def _scores(self, embeddings: Float[Tensor, "N E"]) -> Float[Tensor, "N V"]:
        if self.words is None:
            return embeddings.new_zeros(len(embeddings), 0)
        return text_scores(self.words, embeddings.cpu(), self.base.cpu())

    @torch.no_grad()
    def rows(self, features: Int[Tensor, "N"]) -> list[dict[str, Any]]:
        """Makes the rows of some features."""
        added = self.added(features)
        texts, named = self._texts(added), self._named(added)
        similar = (self._unit_rows[features] @ self._unit_rows.T).cpu()
        similar[torch.arange(len(features)), features] = -1
        near = similar.topk(min(_SIMILAR, similar.shape[1] - 1), dim=1)
        layers = self.reader.head_layers
        weights = self.reader.head_weights(features).norm(dim=-1).float().cpu()
        by_weights, measured = (
            list(best_heads(scores, layers.start)) for scores in (weights, self.effects.heads[features])
        )
        pictures = self._decoded(features, added)
        densities, means, meter = self.meter.densities(), self.meter.means(), self.meter
        return [
            {
                "feature": feature,
                "density": float(densities[feature]),
                "pictures": int(meter.in_pictures[feature]),
                "mean": float(means[feature]),
                "largest": float(meter.values[0, feature]),
                "effect": _number(self.effects.moved[feature]),
                "effect_control": _number(self.effects.control[feature]),
                "histogram": meter.histogram[:, feature].tolist(),
                "tops": self._tops(feature),
                "texts": texts[place],
                "names": named[place],
                "similar": [
                    {"feature": other, "cosine": cosine}
                    for other, cosine in zip(near.indices[place].tolist(), near.values[place].tolist(), strict=True)
                ],
                "heads_by_weights": [{"head": head, "value": value} for head, value in by_weights[place]],
                "heads_measured": [
                    {"head": head, "value": value} for head, value in measured[place] if meter.active[feature] > 0
                ],
                **pictures.get(feature, {}),
            }
            for place, feature in enumerate(features.tolist())
        ]

    def _tops(self, feature: int) -> list[dict[str, Any]]:
        return [
            {"picture": picture, "value": value, "heat": self.meter.heat[rank, feature].numpy().tobytes()}
            for rank, (picture, value) in enumerate(
                zip(self.meter.tops[:, feature].tolist(), self.meter.values[:, feature].tolist(), strict=True)
            )
            if picture >= 0
        ]

    def _texts(self, added: Float[Tensor, "N E"]) -> list[list[dict[str, Any]]]:
        if self.words is None:
            return [[] for _ in added]
        scores = self._scores(added)
        best = (scores - self._usual_scores).topk(min(self.options.n_texts, scores.shape[1]), dim=1)
        return [
            [
                {"text": self.words.names[index], "score": float(scores[row, index]), "excess": excess}
                for index, excess in zip(indices, values, strict=True)
            ]
            for row, (indices, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        ]

    def _named(self, added: Float[Tensor, "N E"]) -> list[str | None]:
        if self.words is None or self.options.names != "omp":
            return [None] * len(added)
        return [
            str(decomposition)
            for decomposition in omp_rows(added - self.base, self.words, self.options.n_texts, seed=self.options.seed)
        ]

    def _decoded(self, features: Int[Tensor, "N"], added: Float[Tensor, "N E"]) -> dict[int, dict[str, Any]]:
        places = [place for place, feature in enumerate(features.tolist()) if feature in self.decoded]
        if not places:
            return {}
        chosen = features[places]
        embeddings = torch.cat([self.alone(chosen), added[places]])
        seeds = [self.options.seed] * len(embeddings)
        events = redecode(self.pair.encoder, self.pair.decoder, embeddings, seeds, self.options.decode, keep=True)
        decoded = run_to_end(events)
        if decoded.pictures is None:
            return {}
        fidelity = cosine_similarity(embeddings.cpu(), decoded.embeddings).tolist()
        images = [png_bytes(Image.fromarray(array)) for array in eight_bit(decoded.pictures)]
        rows: dict[int, dict[str, Any]] = {}
        for number, feature in enumerate(chosen.tolist()):
            rows[feature] = {}
            for name, place in (("alone", number), ("added", number + len(chosen))):
                rows[feature][f"{name}_image"] = image_value(images[place], f"{feature}-{name}.png")
                rows[feature][f"{name}_fidelity"] = fidelity[place]
        return rows


def _number(value: Float[Tensor, ""]) -> float | None:
    return None if bool(value.isnan()) else float(value)
