"""The error and the bias of an autoencoder in a study of its features: ablated alone and always reported.

They are no candidates of the lenses' rankings, whose components are features; but features, bias and error sum to what
the autoencoder reads, and a study that left the error out in silence would explain less than it seems to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.progress import Progress
from steerlens.saes import SparseAutoencoder
from steerlens.sites import Site
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.parts import Part
from steerlens.studies.shared.records import Record
from steerlens.studies.shared.stats import Estimate, mean_estimate

_Part = TypeVar("_Part", bound=Part)

DROP = "drop of the objective"
"""The effect of an overlay study in words."""

REMAINDERS = "error and bias"
"""Stage that measures error and bias where an earlier version left them out."""


@dataclass(frozen=True)
class Remainder(Record):
    """Effect of ablating the error or the bias of an autoencoder, compared with its features.

    Attributes:
        site: text form of the site: `error.NAME` or `bias.NAME`.
        effect: mean effect over pictures.
        strongest: mean effect of the feature with the largest.
        share: share of features with a smaller mean effect, in [0,1].
    """

    site: str
    effect: Estimate
    strongest: float
    share: float


def remainder_sites(sae: SparseAutoencoder | None) -> tuple[Site, ...]:
    """Sites of an autoencoder's error and bias; empty without one."""
    return () if sae is None else (Site("error", name=sae.name), Site("bias", name=sae.name))


def complete_parts(
    folder: StudyFolder,
    kind: type[_Part],
    names: Sequence[str],
    lacks: Callable[[_Part], bool],
    completed: Callable[[int, _Part], _Part],
    unit: str,
) -> Iterator[Progress]:
    """Measures error and bias for finished parts that lack them, and stores those parts again.

    An earlier version that did not measure them began such a study; without this, its summary would leave them out.

    Args:
        folder: folder of the study.
        kind: type of the parts.
        names: their names.
        lacks: returns True for a part without error and bias.
        completed: measures them for a part, given its place in `names`, and returns it with them.
        unit: what is measured in a part, in the plural.

    Raises:
        StoreError: if a part cannot be read or written.
        ModelError: if the encoder fails.
    """
    lacking = [place for place, name in enumerate(names) if lacks(folder.read(kind, name))]
    for done, place in enumerate(lacking):
        yield Progress(REMAINDERS, done, len(lacking), unit)
        folder.keep(names[place], completed(place, folder.read(kind, names[place])))
        yield Progress(REMAINDERS, done + 1, len(lacking), unit)


def remainders_of(
    sites: Sequence[Site],
    effects: Float[Tensor, "P 2"],
    features: Float[Tensor, "P N"],
    concepts: Sequence[str],
    draws: int,
) -> tuple[Remainder, ...]:
    """Compares the effects of error and bias with those of features.

    Args:
        sites: error and bias.
        effects: their effects on each picture.
        features: effects of the features on each picture.
        concepts: concept of each picture.
        draws: bootstrap draws of the intervals.
    """
    by_feature = features.double().nanmean(dim=0)
    rows: list[Remainder] = []
    for site, column in zip(sites, effects.unbind(dim=1), strict=True):
        mean = mean_estimate(column[:, None], concepts, draws=draws, heads=False)
        smaller = (by_feature < torch.tensor(mean.value)).double().mean()
        rows.append(Remainder(str(site), mean, float(by_feature.max()), float(smaller)))
    return tuple(rows)


def remainder_lines(remainders: Sequence[Remainder], effect: str, n_features: int, sae: str) -> list[str]:
    """Says what ablating error and bias does, or that it was not measured; nothing in a study of heads.

    Args:
        remainders: error and bias.
        effect: the effect in words.
        n_features: number of the studied features.
        sae: the autoencoder in words; empty for heads.
    """
    if sae and not remainders:
        return ["Error and bias of the autoencoder were not measured: this study was begun by an earlier version."]
    return [
        f"Ablating {row.site} alone: {row.effect} ({effect}), more than {100 * row.share:.0f} % of the {n_features} "
        f"features; the strongest feature: {row.strongest:+.2f}."
        for row in remainders
    ]
