"""Results of the decoder study as data: settings of the sweep, compared with the reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from steerlens.studies.decoder.conclusion import decoder_conclusion
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Key, Record, StudySummary
from steerlens.studies.shared.stats import Estimate


@dataclass(frozen=True)
class SettingView(Record):
    """Figures of a setting from its pictures' embeddings by one encoder.

    Attributes:
        rank_correlation: correlation of a seed's ranking of heads with the reference's, mean over seeds and pictures.
        share: rank correlation as a share of the ceiling.
        agreement: mean pairwise cosine of the pictures of different seeds.
        unrelated: mean cosine of pictures of different inputs by the same head: the level of unrelated pictures.
    """

    rank_correlation: Estimate
    share: Estimate
    agreement: Estimate
    unrelated: float


@dataclass(frozen=True)
class SettingRow(Record):
    """A setting of the sweep.

    Attributes:
        name: the setting in words.
        axis: the option in which it differs from the default; else `default` or `reference`.
        steps: denoising steps.
        passes: passes of the network per picture.
        fidelity: mean cosine of decoded pictures with requested embeddings.
        own: figures from embeddings by the encoder itself.
        judged: figures from embeddings by the outside judge, or None.
    """

    name: str
    axis: str
    steps: int
    passes: int
    fidelity: Estimate
    own: Annotated[SettingView, Key("seen")]
    judged: SettingView | None = None


@dataclass(frozen=True)
class DecoderSummary(StudySummary):
    """Everything that the decoder study reports.

    Attributes:
        n_pictures: P.
        n_concepts: number of their concepts.
        n_heads: number of heads of the model.
        n_decoded: N, number of decoded heads of each picture.
        seeds: seeds of the decoder at every setting.
        reference_seeds: seeds of the reference.
        strength: strength of the steering.
        target: target with which pictures are compared.
        reference: the reference; its correlation is the ceiling.
        seed_to_seed: rank correlation of two of its seeds, and reliability of the mean over all (Spearman-Brown).
        undecoded: correlation of the ranking without decoding with the mean over all seeds of the reference.
        undecoded_ceiling: limit of that correlation for a ranking without noise, the root of the mean's reliability.
        undecoded_share: `undecoded` as a share of `undecoded_ceiling`.
        rows: the settings, the default first.
        wanted: share of the ceiling that is enough.
        reaching: settings whose share reaches it by point estimate, the cheapest first.
        certain: settings of these whose interval's lower end reaches it too.
        cheapest_steps: fewest steps, all else as by default, that reach it by point estimate; None if none do.
        certain_steps: fewest steps whose interval's lower end reaches it too; None if none do.
        invented: 1 - agreement over seeds at the default setting: the part of a picture that the decoder invents.
        judge: the outside judge, or None.
        command: the command, or empty.
        model: name of the pair; empty in summaries of earlier versions.
        baselines: correlations of norm and layer with the mean over all seeds of the reference; empty in earlier
            versions.
    """

    n_pictures: int
    n_concepts: int
    n_heads: int
    n_decoded: int
    seeds: tuple[int, ...]
    reference_seeds: tuple[int, ...]
    strength: str
    target: str
    reference: SettingRow
    seed_to_seed: tuple[float, float]
    undecoded: Annotated[Estimate, Key("asked")]
    undecoded_ceiling: Annotated[Estimate, Key("asked_ceiling")]
    undecoded_share: Annotated[Estimate, Key("asked_share")]
    rows: tuple[SettingRow, ...]
    wanted: float
    reaching: tuple[str, ...]
    certain: tuple[str, ...]
    cheapest_steps: int | None
    certain_steps: int | None
    invented: Estimate
    judge: JudgeName | None = None
    command: str = ""
    model: str = ""
    baselines: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values."""
        return decoder_conclusion(self).to_json()

    def missing(self) -> Iterator[str]:
        """Entries that the page needs and the summary lacks, in words."""
        if not self.by_steps:
            yield "settings that differ in the number of steps"
        for steps in (self.cheapest_steps, self.certain_steps):
            if steps is not None and steps not in self.by_steps:
                yield f"the setting of {steps} steps"

    @property
    def default(self) -> SettingRow:
        """The default setting."""
        return self.rows[0]

    @property
    def by_steps(self) -> dict[int, SettingRow]:
        """The default, and settings that differ from it in the number of steps alone, by that number."""
        return {row.steps: row for row in self.rows if row.axis in ("default", "steps")}
