"""Joint ablation of many heads on real forward passes, and orders of heads by their true effects.

The same objective serves ordering and evaluation, on embeddings e minus the mean m over reference pictures:

    objective(e) = cos(e - m, overlay - m) - cos(e - m, base - m)

If the readout is a class token and every write is replaced by that for the base, ablating all heads gives the base's
own embedding, since information on the picture reaches that token only through heads.

References: A. Conmy et al., "Towards Automated Circuit Discovery" (ACDC), arXiv 2304.14997.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Hook, NativeEncoder, Prefix, native_pass, resume
from steerlens.interventions import ByRow, Intervention, Resample
from steerlens.saes import SparseAutoencoder
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared.ablation import direct_embeddings, final_residual
from steerlens.studies.shared.components import Components

RANDOM_ORDERS = 20
GREEDY_STEPS = 24
ONE_SHOT, REFERENCE, ATTRIBUTION = "one-shot effect", "greedy reference", "attribution patching"
DIRECT = "exact direct effect"


@dataclass(frozen=True, eq=False)
class Scene:
    """A pair of base and overlay, ready for joint ablation.

    Attributes:
        encoder: the encoder.
        sites: the N heads.
        prefix: the clean pass of the picture with the overlay.
        put: replacement of each head's write, on every token.
        base: embedding of the base.
        overlay: embedding of the overlay alone.
        mean: mean embedding of the reference pictures.
        batch: rows of a forward pass.
        sae: the autoencoder, if the components are its features.
    """

    encoder: NativeEncoder
    sites: tuple[Site, ...]
    prefix: Prefix
    put: Mapping[Site, Float[Tensor, "_ T D"]]
    base: Float[Tensor, "E"]
    overlay: Float[Tensor, "E"]
    mean: Float[Tensor, "E"]
    batch: int = 64
    sae: SparseAutoencoder | None = None

    @property
    def components(self) -> Components:
        """The components that are ablated."""
        return Components(self.sites, self.sae)

    def objective(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N"]:
        """Similarity of embeddings with the overlay minus that with the base, in [-2,2]."""
        return objective(embeddings, self.base, self.overlay, self.mean)

    def ablated(self, sets: Sequence[Sequence[int]]) -> Float[Tensor, "K E"]:
        """Embeddings after joint ablation of each set of heads, on passes that begin at the set's first layer.

        Repeated sets, such as all heads or none, are run once.
        """
        results = {frozenset[int](): self.prefix.embedding[0].float()}
        work = sorted({frozenset(heads) for heads in sets} - results.keys(), key=self._first_layer)
        for start in range(0, len(work), self.batch):
            rows = work[start : start + self.batch]
            changes = self._row_changes(rows)
            embeddings = resume(self.encoder, self.prefix, self._first_layer(rows[0]), [0] * len(rows), changes)
            results |= zip(rows, embeddings.float().unbind(), strict=True)
        return torch.stack([results[frozenset(heads)] for heads in sets])

    def one_more(self, taken: Sequence[int], candidates: Sequence[int]) -> Float[Tensor, "K E"]:
        """Embeddings after ablation of each candidate together with the heads already taken.

        A single pass ablates the heads already taken; the candidates' passes begin in it at their own layers. That is
        about half the work of `ablated`.
        """
        if self.sae is not None:  # all features of an autoencoder change at one place, together
            return self.ablated([[*taken, head] for head in candidates])
        changes, results = self._changes(frozenset(taken)), dict[int, Tensor]()
        now = self._pass_with(list(changes.values()))
        for layer in sorted({self.sites[head].layer for head in candidates}):
            members = [head for head in candidates if self.sites[head].layer == layer]
            later = [change for change in changes.values() if change.site.layer >= layer]
            for start in range(0, len(members), self.batch):
                rows = members[start : start + self.batch]
                own = [
                    ByRow(change.site, inner=change, rows=(place,))
                    for place, change in enumerate(self._changes([head])[head] for head in rows)
                ]
                embeddings = resume(self.encoder, now, layer, [0] * len(rows), [*later, *own])
                results |= zip(rows, embeddings.float().unbind(), strict=True)
        return torch.stack([results[head] for head in candidates])

    def _row_changes(self, rows: Sequence[Iterable[int]]) -> list[Intervention]:
        """Interventions that ablate a set of components in each row."""
        if self.sae is None:
            return [
                ByRow(change.site, inner=change, rows=tuple(place for place, row in enumerate(rows) if head in row))
                for head, change in self._changes(frozenset[int]().union(*rows)).items()
            ]
        changes: list[Intervention] = []
        for place, row in enumerate(rows):
            together = self.components.replaced_together(
                {self.sites[index]: self.put[self.sites[index]] for index in row}
            )
            changes.append(ByRow(together.site, inner=together, rows=(place,)))
        return changes

    def _first_layer(self, heads: Iterable[int]) -> int:
        return min(self.components.place(self.sites[head]).layer for head in heads)

    def _changes(self, heads: Iterable[int]) -> dict[int, Intervention]:
        return {head: Resample(self.sites[head], value=self.put[self.sites[head]]) for head in sorted(heads)}

    def _pass_with(self, changes: Sequence[Intervention]) -> Prefix:
        """The same pass under interventions, recorded so that other passes can begin at any of its layers."""
        entered: list[Tensor] = []

        def keep(args: tuple[Tensor, ...], _: Any) -> None:
            entered.append(args[0])

        blocks = [Hook(modules.block, "before", keep, "keeps the residual") for modules in self.encoder.layers()]
        with native_pass(self.encoder.model, self.encoder.spec.name, blocks):
            embedding = resume(self.encoder, self.prefix, 0, [0], changes)
        return replace(self.prefix, hidden=tuple(entered), embedding=embedding)


def objective(
    embeddings: Float[Tensor, "*N E"], base: Float[Tensor, "E"], overlay: Float[Tensor, "E"], mean: Float[Tensor, "E"]
) -> Float[Tensor, "*N"]:
    """The objective `cos(e - m, overlay - m) - cos(e - m, base - m)`."""
    centred = embeddings - mean.to(embeddings)
    return cosine_similarity(centred, overlay - mean) - cosine_similarity(centred, base - mean)


def projection(
    embeddings: Float[Tensor, "*N E"], base: Float[Tensor, "E"], both: Float[Tensor, "E"]
) -> Float[Tensor, "*N"]:
    """Projection of embeddings onto the line from the base (0) to the base with the overlay (1)."""
    line = (both - base).to(embeddings)
    return ((embeddings - base.to(embeddings)) * line).sum(dim=-1) / line.square().sum()


def points(n_heads: int) -> tuple[int, ...]:
    """Numbers of ablated heads at which trajectories are measured: about 12 in the first quarter, 9 in the others."""
    quarter = max(1, n_heads // 4)
    dense = {round(quarter * share / 12) for share in range(13)}
    return tuple(sorted(dense | {quarter + round((n_heads - quarter) * share / 9) for share in range(10)}))


def by_score(scores: Float[Tensor, "N"]) -> list[int]:
    """Indices of heads from the highest score to the lowest."""
    return scores.argsort(descending=True, stable=True).tolist()


def random_orders(n_heads: int, seed: str) -> dict[str, list[int]]:
    """Draws random orders; the seed is a text that differs from pair to pair."""
    digest = hashlib.sha256(seed.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return {f"random {n}": torch.randperm(n_heads, generator=generator).tolist() for n in range(RANDOM_ORDERS)}


def one_shot(scene: Scene) -> Float[Tensor, "N"]:
    """Measures the true drop of the objective when each head is ablated alone."""
    alone = scene.ablated([[head] for head in range(len(scene.sites))])
    return scene.objective(scene.prefix.embedding[0].float()) - scene.objective(alone)


def greedy(scene: Scene, single: Float[Tensor, "N"], steps: int = GREEDY_STEPS, pool: int = 128) -> list[int]:
    """Orders heads greedily: each step takes the head whose additional ablation lowers the objective most.

    It is a reference, not the optimum. After `steps` heads, or the quarter that the area covers, the order is that of
    the single effects.
    """
    ranked = by_score(single)
    candidates, order = ranked[:pool], list[int]()
    for _ in range(min(steps, len(candidates), max(1, len(ranked) // 4))):
        left = [head for head in candidates if head not in order]
        order.append(left[int(scene.objective(scene.one_more(order, left)).argmin())])
    return order + [head for head in ranked if head not in order]


def direct_effect(scene: Scene) -> Float[Tensor, "N"]:
    """Computes the exact drop of the objective when each head's write is replaced in the final residual alone."""
    encoder, final = scene.encoder, final_residual(scene.encoder, scene.prefix)
    changed: dict[Site, Tensor] = {}
    for group in scene.components.by_layer():
        own = scene.components.record(encoder, scene.prefix, group)
        changed |= direct_embeddings(encoder, final, own, scene.put)
    embeddings = torch.stack([changed[site][0] for site in scene.sites]).float()
    return scene.objective(scene.prefix.embedding[0].float()) - scene.objective(embeddings)


def area(values: Float[Tensor, "K"], counts: Sequence[int]) -> float:
    """Area of an objective's drop over the first quarter of the heads, divided by their number: the mean drop."""
    quarter = max(1, counts[-1] // 4)
    inside = torch.tensor([count <= quarter for count in counts])
    return (
        float(torch.trapezoid((values[0] - values[inside]).double(), torch.tensor(counts)[inside].double())) / quarter
    )
