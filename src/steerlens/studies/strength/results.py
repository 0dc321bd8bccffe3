"""Figures of the strength study as data: the sweep, correlations, and the recommended strength."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Record, StudySummary
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.strength.options import Bounds


@dataclass(frozen=True)
class Typical(Record):
    """How typical embeddings are.

    Attributes:
        percentile: mean percentile among real embeddings' own distances, in [0,100]; 50 for real ones.
        beyond: share beyond the 95th percentile; 0.05 for real ones.
    """

    percentile: Estimate
    beyond: Estimate


@dataclass(frozen=True)
class SweepPoint(Record):
    """A strength of the sweep, on the concepts to report on.

    Attributes:
        strength: its name.
        kind: `rho` or `s`.
        value: its number.
        rho: the relative strength that it amounts to, median over pictures and heads.
        similarity: mean similarity, by score and then by comparison.
        fidelity: mean cosine of decoded pictures with requested embeddings.
        typicality: of the steered embeddings, by kind of distance.
    """

    strength: str
    kind: str
    value: float
    rho: float
    similarity: Mapping[str, Mapping[str, Estimate]]
    fidelity: Estimate
    typicality: Mapping[str, Typical]


@dataclass(frozen=True)
class StrengthCorrelation(Record):
    """A correlation over heads of a score with an effect, mean over pictures.

    Attributes:
        strength: of the sweep.
        score: see `scores.DECODED` and others.
        compare: what pictures or embeddings are compared with.
        effect: the notion of importance.
        statistic: `spearman`, or `interaction`: with head and picture means removed.
        estimate: with its interval.
    """

    strength: str
    score: str
    compare: str
    effect: Effect
    statistic: str
    estimate: Estimate

    @property
    def key(self) -> tuple[str, str, str, Effect, str]:
        """All but the estimate."""
        return self.strength, self.score, self.compare, self.effect, self.statistic


@dataclass(frozen=True)
class StrengthCandidate(Record):
    """A strength on the concepts of the selection.

    Attributes:
        correlation: mean Spearman correlation of decoded similarity with the target and the signed effect.
        fidelity: as a share of the clean picture's.
        atypical: share of steered embeddings beyond the 95th percentile of nearest-neighbour distances.
        within: whether both keep to the bounds.
    """

    correlation: float
    fidelity: float
    atypical: float
    within: bool


@dataclass(frozen=True)
class Recommendation(Record):
    """The strength that the rule recommends.

    Attributes:
        rule: the rule, in words.
        bounds: its conditions.
        strength: the recommended one, or None if no strength keeps to the bounds.
        candidates: every strength of the sweep, on the concepts of the selection.
        best: the largest correlation within the bounds.
        runners_up: others within the bounds whose paired difference to the best has an interval that includes 0.
        decided: what singled the strength out: the `correlation`, if it separates the best from all others; the
            `bounds`, with the rule's convention, if it separates it from none; else the `convention` among the rest.
        correlation: of the recommended strength, on the concepts to report on.
        differences: paired, recommended minus every other strength, on the concepts to report on.
    """

    rule: str
    bounds: Bounds
    strength: str | None
    candidates: Mapping[str, StrengthCandidate]
    best: str | None = None
    runners_up: tuple[str, ...] = ()
    decided: Literal["correlation", "convention", "bounds"] | None = None
    correlation: Estimate | None = None
    differences: Mapping[str, Estimate] | None = None


@dataclass(frozen=True)
class StrengthSummary(StudySummary):
    """Everything that the strength study reports; all but the choice concerns the concepts to report on.

    Attributes:
        n_pictures: pictures to report on.
        n_concepts: concepts among them.
        n_chosen: pictures of the selection.
        n_chosen_concepts: concepts among those.
        n_heads: heads.
        n_decoded: heads whose pictures were decoded.
        n_seeds: seeds of the decoder.
        n_references: unstudied real embeddings.
        main: the signed effect.
        target: of the signed effect.
        default: strength of the model.
        clean_fidelity: of the unsteered pictures.
        clean_typicality: of the unsteered embeddings, by kind of distance.
        points: the sweep.
        correlations: of scores with effects.
        recommendation: the rule's.
        judge: the outside judge, or None.
        command: the command that was run, or nothing.
    """

    n_pictures: int
    n_concepts: int
    n_chosen: int
    n_chosen_concepts: int
    n_heads: int
    n_decoded: int
    n_seeds: int
    n_references: int
    main: Effect
    target: str
    default: str
    clean_fidelity: Estimate
    clean_typicality: Mapping[str, Typical]
    points: tuple[SweepPoint, ...]
    correlations: tuple[StrengthCorrelation, ...]
    recommendation: Recommendation
    judge: JudgeName | None = None
    command: str = ""

    def correlation(self, strength: str, score: str, compare: str, effect: Effect, statistic: str) -> Estimate | None:
        """A correlation of the sweep, or None if it was not measured."""
        wanted = (strength, score, compare, effect, statistic)
        return next((row.estimate for row in self.correlations if row.key == wanted), None)
