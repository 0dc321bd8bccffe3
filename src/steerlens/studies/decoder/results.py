"""Figures of the decoder study as data: settings of the sweep, held against the reference."""

from dataclasses import dataclass
from typing import Annotated

from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Key, Record, StudySummary
from steerlens.studies.shared.stats import Estimate


@dataclass(frozen=True)
class SettingView(Record):
    """A setting's pictures as one encoder sees them.

    Attributes:
        rank_correlation: of one seed's ranking of heads with the reference's, mean over seeds and pictures.
        share: of the ceiling.
        agreement: mean pairwise cosine of the pictures of different seeds.
        unrelated: the same of pictures of different inputs, by the same head: the level of unrelated pictures.
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
        axis: the option in which it differs from the default; `default`, or `reference`.
        steps: denoising steps.
        passes: of the network for one picture.
        fidelity: mean cosine of decoded pictures with requested embeddings.
        own: its pictures as the encoder itself sees them.
        judged: as the outside judge sees them, or None.
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
        n_concepts: concepts among them.
        n_heads: heads of the model.
        n_decoded: N, heads of each picture whose pictures were decoded.
        seeds: of the decoder, at every setting.
        reference_seeds: of the reference.
        strength: of the steering.
        target: what pictures are compared with.
        reference: the reference; its correlation is the ceiling.
        seed_to_seed: rank correlation of two of its seeds, and the reliability of the mean of all (Spearman-Brown).
        undecoded: correlation of the ranking without decoding with the mean of all seeds of the reference.
        undecoded_ceiling: the most that a ranking without noise could reach there, the root of that mean's reliability.
        undecoded_share: the first as a share of the second.
        rows: the settings, the default one first.
        wanted: the share of the ceiling that is enough.
        reaching: settings whose share reaches it as a point estimate, the cheapest first.
        certain: those of them whose interval's lower end reaches it as well.
        cheapest_steps: the fewest steps, all else as in the default, that reach it as a point estimate; None if none.
        certain_steps: the fewest whose interval's lower end reaches it as well; None if none do.
        invented: 1 - agreement over seeds at the default setting: the part of a picture that the decoder invents.
        judge: the outside judge, or None.
        command: the command that was run, or nothing.
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

    @property
    def default(self) -> SettingRow:
        """The default setting."""
        return self.rows[0]

    @property
    def by_steps(self) -> dict[int, SettingRow]:
        """Settings that differ from the default in the number of steps alone, and the default."""
        return {row.steps: row for row in self.rows if row.axis in ("default", "steps")}
