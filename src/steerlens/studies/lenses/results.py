"""Results of the study of candidate lenses as data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steerlens.studies.lenses.conclusion import NORM, lenses_conclusion
from steerlens.studies.lenses.options import KINDS, PICTURE, RETRIEVAL, CandidateLens
from steerlens.studies.lenses.scores import View
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.conclusion import Conclusion
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Record, StudySummary
from steerlens.studies.shared.stats import Estimate


@dataclass(frozen=True)
class LensChoice(Record):
    """Chosen setting of a lens.

    Attributes:
        setting: the setting.
        correlation: its correlation with the effects on the pictures of the selection.
        candidates: the same for every candidate, by its text form.
    """

    setting: CandidateLens
    correlation: float
    candidates: Mapping[str, float]


@dataclass(frozen=True)
class LensRow(Record):
    """Correlation of a lens' scores with the effects, over heads, mean over names and pictures.

    Attributes:
        name: the lens, or a baseline.
        setting: text form of its setting; empty for a baseline.
        view: embeddings that are scored: `decoded`, `requested` or `judged`.
        correlation: the correlation.
        over_picture: paired difference from one picture with the same view; None for one picture itself.
        over_norm: paired difference from the norm of the write; None for the norm itself, and for the judge.
    """

    name: str
    setting: str
    view: View
    correlation: Estimate
    over_picture: Estimate | None = None
    over_norm: Estimate | None = None

    @property
    def label(self) -> str:
        """Setting and view, in words; a baseline's name."""
        if not self.setting:
            return f"baseline: {self.name}"
        seen = {"decoded": "decoded", "requested": "not decoded", "judged": "judged"}[self.view]
        return self.setting if self.name == RETRIEVAL and self.view == "decoded" else f"{self.setting}, {seen}"


@dataclass(frozen=True)
class TransferRow(Record):
    """How much of a requested change of the embedding decoded pictures return.

    Attributes:
        kind: towards another `scene`, or along a head's write (`head`).
        name: the step or the setting.
        size: mean norm of the change, as a share of the mean distance between two scenes.
        transfer: cosine between the requested and the returned change; see `studies.shared.transfer`.
    """

    kind: Literal["scene", "head"]
    name: str
    size: float
    transfer: Estimate


@dataclass(frozen=True)
class LensesSummary(StudySummary):
    """Everything that the study of candidate lenses reports; all but the choices concerns the concepts to report on.

    Attributes:
        n_pictures: number of pictures to report on.
        n_concepts: number of their concepts.
        n_selection: number of pictures of the selection.
        n_heads: number of the encoder's heads.
        n_studied: number of the studied heads.
        n_names: number of names.
        names: origin of their directions, in words.
        n_judged: number of names that the judge knows.
        n_bank: number of real pictures; 0 without a bank.
        seeds: seeds of the decoder; empty if nothing was decoded.
        ablation: replacement of a head's write in the total effect.
        choices: chosen setting of each lens.
        rows: correlations of lenses and baselines.
        transfer: transfer of steps towards scenes, and of changes along heads' writes.
        heads: of each lens, the correlation over names of every head, by its label, mean over pictures.
        judge: the outside judge, or None.
        command: the command, or empty.
        model: name of the pair.
        bootstrap: the bootstrap of the intervals, in words; in earlier versions, over concepts alone.
    """

    n_pictures: int
    n_concepts: int
    n_selection: int
    n_heads: int
    n_studied: int
    n_names: int
    names: str
    n_judged: int
    n_bank: int
    seeds: tuple[int, ...]
    ablation: Ablation
    choices: Mapping[str, LensChoice]
    rows: tuple[LensRow, ...]
    transfer: tuple[TransferRow, ...]
    heads: Mapping[str, Mapping[str, float]]
    judge: JudgeName | None = None
    command: str = ""
    model: str = ""
    bootstrap: str = "bootstrap over concepts"

    @property
    def decodes(self) -> bool:
        """False of a study of requested embeddings alone (--no-decoder)."""
        return bool(self.seeds)

    @property
    def conclusion(self) -> Conclusion:
        """Plain sentences and a next step."""
        return lenses_conclusion(self)

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values."""
        return self.conclusion.to_json()

    def row(self, name: str, view: str = "decoded") -> LensRow | None:
        """Row of a lens or baseline, or None if it was not measured; without a decoder, of requested embeddings."""
        if not self.decodes and name in KINDS[:2]:
            view = "requested"
        return next((row for row in self.rows if (row.name, row.view) == (name, view)), None)

    def missing(self) -> Iterator[str]:
        """Entries that the page needs and the summary lacks, in words."""
        for name in KINDS[:2]:
            if name not in self.choices:
                yield f"the choice of {name}"
            if self.row(name) is None:
                yield f"the correlation of {name}"
        if self.row(NORM) is None:
            yield f"the correlation of the {NORM}"

    @property
    def picture(self) -> LensRow:
        """One picture, with which the other lenses are compared: decoded, if anything was."""
        return next(row for row in (self.row(PICTURE),) if row is not None)
