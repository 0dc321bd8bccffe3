"""Whether an input lies in the domain of the pair, by the reference statistics of the run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from steerlens.domain import UNUSUAL, percentile

if TYPE_CHECKING:
    from steerlens.atlas.atlas import Atlas


@dataclass(frozen=True)
class DomainCheck:
    """How unusual an input and its reconstruction are among the reference pictures of the pair.

    Attributes:
        unusual: percentage of reference pictures that are less unusual than the input, in [0,100].
        fidelity_percentile: percentage of reference pictures whose reconstruction is less faithful; None if the run
            decoded with other options than the reference.
        threshold: an input is outside if `unusual` is at least this, or `fidelity_percentile` at most 100 minus this.
        reference: what the reference pictures are, in words.
        count: number of reference pictures.
    """

    unusual: float
    fidelity_percentile: float | None
    threshold: float
    reference: str
    count: int

    @property
    def outside(self) -> bool:
        """True if the input or its reconstruction is more unusual than nearly all reference pictures."""
        return self.unusual >= self.threshold or self.badly_drawn

    @property
    def badly_drawn(self) -> bool:
        """True if the reconstruction is less faithful than nearly all of the reference."""
        return self.fidelity_percentile is not None and self.fidelity_percentile <= 100 - self.threshold

    def __str__(self) -> str:
        worse = _percent(100 - (self.fidelity_percentile or 0.0))
        more = (
            f"it is more unusual than {_percent(self.unusual)} %"
            if self.unusual >= self.threshold
            else f"its reconstruction is less faithful than that of {worse} %"
            if self.badly_drawn
            else f"{self.unusual:.0f} % are less unusual"
        )
        return f"{more} of {self.count} reference pictures ({self.reference})"


def _percent(value: float) -> str:
    """A percentage with one decimal, rounded down: no picture is more unusual than all of them."""
    return f"{min(value, 99.9):.1f}"


def check_domain(atlas: "Atlas", picture: str | None = None) -> DomainCheck | None:
    """Compares an input of an atlas with the reference pictures of its pair; None if the run knows of none.

    Args:
        atlas: the run.
        picture: id or name of the input; by default the first.
    """
    reading, facts = atlas.reading(picture), atlas.manifest.get("reference")
    if reading.unusual is None or not isinstance(facts, Mapping):
        return None
    reference, clean = cast(Mapping[str, Any], facts), atlas.clean(reading.id)
    known, drawn = reference.get("fidelity"), None
    if known and clean and _plain(atlas.manifest.get("options")) == _plain(reference.get("options")):
        mean = float(np.mean([result.fidelity for result in clean]))
        drawn = percentile(mean, torch.tensor(known, dtype=torch.float64))
    return DomainCheck(reading.unusual, drawn, UNUSUAL, str(reference.get("pictures", "")), int(reference["count"]))


def _plain(options: object) -> Any:
    """Options as JSON values: a manifest in memory holds tuples where a file holds lists."""
    return json.loads(json.dumps(options))
