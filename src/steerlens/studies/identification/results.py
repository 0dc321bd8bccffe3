"""Results of the identification study as data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steerlens.studies.identification.conclusion import identification_conclusion
from steerlens.studies.identification.scores import LENSES, STEERING
from steerlens.studies.shared.conclusion import Conclusion
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.measurements import View
from steerlens.studies.shared.records import Record, StudySummary
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import INPUT

VIEW_WORDS: Mapping[str, str] = {"decoded": "decoded", "requested": "not decoded", "judged": "decoded, judged"}
"""Views in words."""


@dataclass(frozen=True)
class Identification(Record):
    """How often the own write is recognised, for one lens and one kind of embeddings.

    Attributes:
        lens: `steering`, `steering, neutral base` or `diffusion`.
        view: `decoded` pictures, `requested` embeddings, or pictures as the outside judge sees them (`judged`).
        compare: the picture with which similarities are taken: the `input`, or an `other` of its concept.
        share: share of the same head's writes for other pictures that are farther from it than the own; chance is 0.5.
        by_layer: the same by layer, in the order of the summary's `layers`.
        own_against_random: share of own writes that are closer to it than a random direction, steered as strongly.
        foil_against_random: the same for writes for other pictures.
        rank: mean rank of the own among the candidates, from 1.
        first: share of own writes that are closest of all candidates; chance is 1 / candidates.
        candidates: mean number of candidates, the own included.
        random_by_layer: `own_against_random` by layer; empty without the control, and in earlier versions.
    """

    lens: str
    view: View
    compare: str
    share: Estimate
    by_layer: tuple[Estimate, ...]
    own_against_random: Estimate | None
    foil_against_random: Estimate | None
    rank: Estimate
    first: Estimate
    candidates: float
    random_by_layer: tuple[Estimate, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Lens, view and comparison."""
        return self.lens, self.view, self.compare


@dataclass(frozen=True)
class IdentificationSummary(StudySummary):
    """Everything that the identification study reports.

    Attributes:
        n_pictures: number of pictures.
        n_concepts: number of their concepts.
        n_heads: number of the encoder's heads.
        layers: layers of the studied heads.
        n_studied: number of the studied heads.
        n_foils: other pictures whose writes were decoded for each picture.
        strength: strength of the own write.
        seeds: seeds of the decoder; empty if nothing was decoded.
        rows: results of every lens, view and comparison.
        heads: share of each head, by its label, in the main row.
        fidelity: mean cosine of own decoded pictures with their requested embeddings; None if nothing was decoded.
        difference: Steering Lens minus Diffusion Lens in the main view, paired over pictures and heads.
        judge: the outside judge, or None.
        command: the command, or empty.
        model: name of the pair.
        bootstrap: the bootstrap of the intervals, in words; in earlier versions, over concepts alone.
    """

    n_pictures: int
    n_concepts: int
    n_heads: int
    layers: tuple[int, ...]
    n_studied: int
    n_foils: int
    strength: str
    seeds: tuple[int, ...]
    rows: tuple[Identification, ...]
    heads: Mapping[str, float]
    fidelity: Estimate | None
    difference: Estimate
    judge: JudgeName | None = None
    command: str = ""
    model: str = ""
    bootstrap: str = "bootstrap over concepts"

    @property
    def conclusion(self) -> Conclusion:
        """Plain sentences and a next step."""
        return identification_conclusion(self)

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values."""
        return self.conclusion.to_json()

    def row(self, lens: str, view: str, compare: str = INPUT) -> Identification | None:
        """Result of a lens, or None if it was not measured."""
        return next((row for row in self.rows if row.key == (lens, view, compare)), None)

    @property
    def main(self) -> Identification:
        """The Steering Lens with the input: decoded, or requested embeddings if nothing was decoded."""
        return next(row for row in self.rows if row.key == (STEERING, self.main_view, INPUT))

    @property
    def main_view(self) -> View:
        """Embeddings of the main row."""
        return "decoded" if self.seeds else "requested"

    def missing(self) -> Iterator[str]:
        """Entries that the page needs and the summary lacks, in words."""
        for lens in LENSES:
            for view in dict.fromkeys((self.main_view, "requested")):
                row = self.row(lens, view)
                if row is None:
                    yield f"the result of {lens}, {VIEW_WORDS[view]}"
                elif len(row.by_layer) != len(self.layers):
                    yield f"the layers of {lens}, {VIEW_WORDS[view]}"
