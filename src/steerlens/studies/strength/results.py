"""Results of the strength study as data: the sweep, correlations, and the recommended strength."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Key, Record, StudySummary
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.strength.conclusion import strength_conclusion
from steerlens.studies.strength.options import Bounds
from steerlens.studies.strength.scores import DECODED, MAHALANOBIS, NEAREST


@dataclass(frozen=True)
class Typical(Record):
    """Typicality of embeddings.

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
        strength: its text form.
        kind: `rho` or `s`.
        value: its numerical value.
        rho: equivalent relative strength, median over pictures and heads.
        similarity: mean similarity, by score and then by comparison.
        fidelity: mean cosine of decoded pictures with requested embeddings.
        typicality: typicality of the steered embeddings, by kind of distance.
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
    """Correlation over heads of a score with an effect, mean over pictures.

    Attributes:
        strength: strength of the sweep.
        score: name of the score, such as `scores.DECODED`.
        compare: target with which pictures or embeddings are compared.
        effect: the notion of importance.
        statistic: `spearman`, or `interaction`: with head and picture means removed.
        estimate: the correlation with its interval.
    """

    strength: str
    score: str
    compare: str
    effect: Effect
    statistic: str
    estimate: Estimate

    @property
    def key(self) -> tuple[str, str, str, Effect, str]:
        """All attributes but the estimate."""
        return self.strength, self.score, self.compare, self.effect, self.statistic


@dataclass(frozen=True)
class BaselineRow(Record):
    """Correlation of a baseline, or of a strength's scores, with an effect.

    Attributes:
        score: name of the baseline, or strength and view.
        effect: the notion of importance.
        estimates: the raw correlation, and partial ones with norm, layer, or both held fixed.
    """

    score: str
    effect: Effect
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class StrengthCandidate(Record):
    """A strength on the concepts of the selection.

    Attributes:
        correlation: mean Spearman correlation of decoded similarity with the target and the signed effect.
        fidelity: mean fidelity, as a share of the clean pictures'.
        atypical: share of steered embeddings beyond the 95th percentile of nearest-neighbour distances.
        within: True if both satisfy the bounds.
    """

    correlation: float
    fidelity: float
    atypical: float
    within: bool


@dataclass(frozen=True)
class Recommendation(Record):
    """Strength recommended by the rule.

    Attributes:
        rule: the rule, in words.
        bounds: its conditions.
        strength: the recommended strength, or None if no strength satisfies the bounds.
        candidates: every strength of the sweep, on the concepts of the selection.
        best: the strength with the largest correlation within the bounds.
        runners_up: strengths within the bounds whose paired difference from the best has an interval that includes 0.
        decided: reason for the choice: the `correlation`, if it separates the best from all others; the `bounds`, with
            the rule's convention, if it separates the best from none; else the `convention` among the runners-up.
        correlation: correlation of the recommended strength, on the concepts to report on.
        differences: paired differences, recommended minus every other strength, on the concepts to report on.
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
        n_pictures: number of pictures to report on.
        n_concepts: number of their concepts.
        n_selection: number of pictures of the selection.
        n_selection_concepts: number of their concepts.
        n_heads: number of heads.
        n_decoded: number of decoded heads.
        n_seeds: number of seeds of the decoder.
        n_references: number of unstudied real embeddings.
        main: the signed effect.
        target: target of the signed effect.
        default: default strength of the model.
        clean_fidelity: fidelity of the unsteered pictures.
        clean_typicality: typicality of the unsteered embeddings, by kind of distance.
        points: the sweep.
        correlations: correlations of scores with effects.
        recommendation: the recommended strength.
        judge: the outside judge, or None.
        command: the command, or empty.
        model: name of the pair; empty in summaries of earlier versions.
        baselines: norm, layer and every strength, over the decoded heads; empty in summaries of earlier versions.
    """

    n_pictures: int
    n_concepts: int
    n_selection: Annotated[int, Key("n_chosen")]
    n_selection_concepts: Annotated[int, Key("n_chosen_concepts")]
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
    model: str = ""
    baselines: tuple[BaselineRow, ...] = ()

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values."""
        return strength_conclusion(self).to_json()

    def missing(self) -> Iterator[str]:
        """Entries that the page needs and the summary lacks, in words."""
        if not self.points:
            yield "the strengths of the sweep"
        for kind in (NEAREST, MAHALANOBIS):
            if kind not in self.clean_typicality:
                yield f"the typicality ({kind}) without steering"
            for point in self.points:
                if kind not in point.typicality:
                    yield f"the typicality ({kind}) of {point.strength}"
        for point in self.points:
            for compare in (INPUT, self.target):
                if compare not in point.similarity.get(DECODED, {}):
                    yield f"the similarity of {point.strength} with the {compare}, {DECODED}"

    def correlation(self, strength: str, score: str, compare: str, effect: Effect, statistic: str) -> Estimate | None:
        """Correlation of the sweep, or None if it was not measured."""
        wanted = (strength, score, compare, effect, statistic)
        return next((row.estimate for row in self.correlations if row.key == wanted), None)
