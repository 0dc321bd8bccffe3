"""Figures of the importance study as data: correlations, paired differences, reliabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from steerlens.studies.importance.scores import Choices
from steerlens.studies.importance.variants import Variant
from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Record, StudySummary
from steerlens.studies.shared.stats import Estimate


@dataclass(frozen=True)
class Row(Record):
    """One correlation of a score with an effect.

    Attributes:
        score: the score.
        effect: the notion of importance.
        statistic: `spearman`, `pearson`, either after removing head and picture means (`interaction`, `interaction
            pearson`), or `within layers`.
        estimate: mean over pictures with its interval.
        mismatched: the same score with other pictures' effects, or nan.
        by_construction: whether an undecoded embedding is compared with the very target of the effect.
    """

    score: str
    effect: Effect
    statistic: str
    estimate: Estimate
    mismatched: float = float("nan")
    by_construction: bool = False


@dataclass(frozen=True)
class Difference(Record):
    """The paired difference of two scores' correlations with an effect, mean over pictures.

    Attributes:
        name: of the comparison.
        first: the score that should be better.
        second: the score that is subtracted.
        effect: the notion of importance.
        statistic: the correlation.
        estimate: the difference with its interval.
    """

    name: str
    first: str
    second: str
    effect: Effect
    statistic: str
    estimate: Estimate


@dataclass(frozen=True)
class Setup(Record):
    """Options of the study that its reader needs to know.

    Attributes:
        model: name of the pair.
        n_chosen: pictures on which settings were chosen.
        seeds: of the decoder.
        given: the text towards which effects were taken, or nothing.
        judge: the outside judge, or None.
        command: the command that was run, or nothing.
        notes: sentences on what was left out.
    """

    model: str = ""
    n_chosen: int = 0
    seeds: tuple[int, ...] = ()
    given: str = ""
    judge: JudgeName | None = None
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportanceSummary(StudySummary):
    """Everything that the importance study reports.

    Attributes:
        setup: options.
        n_pictures: P.
        n_concepts: concepts among them.
        n_heads: N.
        main: the effect by which settings were chosen.
        published: the effect of the paper's claim.
        choices: the frozen setting of each lens, by scores of decoded pictures and of embeddings.
        rows: correlations.
        differences: paired differences, Steering Lens minus Diffusion Lens.
        ceiling_share: the Steering Lens' correlation as a share of that of the exact direct effect; nothing if the main
            effect is that itself.
        variants: what goes beyond the paper.
        reliability: of decoded scores over seeds: (of one seed, of the mean over seeds), by score.
        attenuation: what decoding leaves of the lenses' scores.
        beats_control: the share of (picture, head) whose steered picture comes closer to the input than its control's;
            chance is a half.
        beats_by_layer: the same for each layer.
        effect_by_layer: mean main effect of a head, layer by layer.
        strongest: heads of the largest mean main effect, with that effect.
    """

    LAYOUT: ClassVar[int] = 2
    READABLE: ClassVar[tuple[int, ...]] = (2,)

    setup: Setup
    n_pictures: int
    n_concepts: int
    n_heads: int
    main: Effect
    published: Effect
    choices: Choices
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    ceiling_share: Mapping[str, Estimate]
    variants: tuple[Variant, ...]
    reliability: Mapping[str, tuple[float, float]]
    attenuation: tuple[Attenuation, ...]
    beats_control: Estimate
    beats_by_layer: tuple[float, ...]
    effect_by_layer: tuple[float, ...]
    strongest: tuple[tuple[str, float], ...]

    def row(self, score: str, effect: Effect, statistic: str = "spearman") -> Row | None:
        """The correlation of a score with an effect, or None if it was not measured."""
        wanted = (score, effect, statistic)
        return next((row for row in self.rows if (row.score, row.effect, row.statistic) == wanted), None)

    def difference(self, name: str, effect: Effect, statistic: str = "spearman") -> Difference | None:
        """A paired difference by its name, or None if it was not measured."""
        wanted = (name, effect, statistic)
        return next((row for row in self.differences if (row.name, row.effect, row.statistic) == wanted), None)
