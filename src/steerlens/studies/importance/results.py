"""Results of the importance study as data: correlations, paired differences, reliabilities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from steerlens.studies.importance.conclusion import importance_conclusion
from steerlens.studies.importance.scores import PLAIN_KIND, UNDECODED, Choices
from steerlens.studies.importance.variants import Variant
from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.candidates import CHOSEN
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.oracle import ORACLES, oracle_name
from steerlens.studies.shared.partial import GIVEN
from steerlens.studies.shared.records import Key, Record, StudySummary
from steerlens.studies.shared.remainder import Remainder
from steerlens.studies.shared.stats import Estimate

STATISTICS = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "interaction": "Spearman, means removed",
    "interaction pearson": "Pearson, means removed",
    "within layers": "within layers",
}
"""Correlations of the table of scores, with their headings."""

_ORACLES = tuple(map(oracle_name, ORACLES))

POOLED = "pooled"
"""Statistic over all pictures and heads at once."""

PARTIALS = {f"given {name}": covariates for name, covariates in GIVEN.items()}
"""Partial rank correlations: statistics, with their covariates."""


@dataclass(frozen=True)
class Row(Record):
    """Correlation of a score with an effect.

    Attributes:
        score: name of the score.
        effect: the notion of importance.
        statistic: `spearman`, `pearson`, either after removing head and picture means (`interaction`, `interaction
            pearson`), `within layers`, `pooled` over pictures and heads, or a partial rank correlation: `given norm`,
            `given layer`, `given norm and layer`. Studies of earlier versions lack the last four.
        estimate: mean over pictures with its interval.
        mismatched: correlation with other pictures' effects, the null; or nan.
        by_construction: True if the score compares the requested embedding with the effect's own target.
    """

    score: str
    effect: Effect
    statistic: str
    estimate: Estimate
    mismatched: float = float("nan")
    by_construction: bool = False

    @property
    def predicts(self) -> bool:
        """True of a Spearman correlation that is no check of consistency."""
        return self.statistic == "spearman" and not self.by_construction


@dataclass(frozen=True)
class Difference(Record):
    """Paired difference of two scores' correlations with an effect, mean over pictures.

    Attributes:
        name: name of the comparison.
        first: the score that should be better.
        second: the subtracted score.
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
class TargetNull(Record):
    """A score and an effect that are turned towards other targets together.

    If they correlate as well towards the label of another picture, or a random vector, as towards the picture's own
    label, the correlation says nothing of the label: it is the angle between direct and total displacement.

    Attributes:
        score: name of the score.
        effect: the signed effect; its target is the own label.
        own: correlation towards the picture's own label.
        others: towards labels of other pictures, mean over several.
        random: towards random vectors, mean over several.
    """

    score: str
    effect: Effect
    own: Estimate
    others: Estimate
    random: Estimate


@dataclass(frozen=True)
class OracleShare(Record):
    """Correlation of a lens' decoded pictures as a share of the oracle's, with the same seed.

    Attributes:
        effect: the effect.
        score: name of the lens' score.
        oracle: name of the oracle.
        own: correlation of the lens' score.
        most: correlation of the oracle's score.
        share: `own` as a share of `most`.
        undecoded: correlation of the oracle's requested embeddings, before any decoder.
    """

    effect: Effect
    score: str
    oracle: str
    own: Estimate
    most: Estimate
    share: Estimate
    undecoded: Estimate


@dataclass(frozen=True)
class ImportanceSetup(Record):
    """Options of the study that its summary repeats.

    Attributes:
        model: name of the pair.
        n_selection: number of pictures on which settings were chosen.
        seeds: seeds of the decoder.
        given: the text that served as target for all pictures, or empty.
        judge: the outside judge, or None.
        command: the command, or empty.
        notes: sentences on left-out targets.
        decoding: False if the study ran without a decoder.
        components: `heads`, or `features` of a sparse autoencoder.
        sae: the autoencoder in words; empty for heads.
    """

    model: str = ""
    n_selection: Annotated[int, Key("n_chosen")] = 0
    seeds: tuple[int, ...] = ()
    given: str = ""
    judge: JudgeName | None = None
    command: str = ""
    notes: tuple[str, ...] = ()
    decoding: bool = True
    components: str = "heads"
    sae: str = ""


@dataclass(frozen=True)
class ImportanceSummary(StudySummary):
    """Everything that the importance study reports.

    Attributes:
        setup: options.
        n_pictures: P.
        n_concepts: number of their concepts.
        n_heads: N.
        main: the effect by which settings were chosen.
        published: the effect of the paper's claim.
        choices: frozen setting of each lens, chosen by scores of decoded pictures and of requested embeddings.
        rows: correlations.
        differences: paired differences, Steering Lens minus Diffusion Lens.
        ceiling_share: the Steering Lens' correlation as a share of the exact direct effect's; empty if the main effect
            is the exact direct effect.
        variants: changes to the Steering Lens beyond the paper.
        reliability: reliability of decoded scores over seeds (of one seed, of the mean over seeds), by score.
        attenuation: the lenses' scores before and after decoding.
        beats_control: share of (picture, head) whose steered picture is closer to the input than its control's; one
            half by chance.
        beats_by_layer: the same for each layer.
        effect_by_layer: mean main effect of a head, by layer.
        strongest: labels of the heads with the largest mean main effect, with that effect.
        n_recognised: number of pictures whose own label is among the encoder's best names; -1 if unknown.
        n_counted: number of pictures that count for effects towards labels.
        nulls: scores and effects towards other targets.
        oracle: the lenses' decoded scores as shares of the oracle's.
        remainders: effects of ablating the error and the bias of the studied autoencoder; empty for heads, and in
            studies of earlier versions.
    """

    LAYOUT: ClassVar[int] = 2
    READABLE: ClassVar[tuple[int, ...]] = (2,)

    setup: ImportanceSetup
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
    n_recognised: int = -1
    n_counted: int = -1
    nulls: tuple[TargetNull, ...] = ()
    oracle: tuple[OracleShare, ...] = ()
    remainders: tuple[Remainder, ...] = ()

    @property
    def remainder_effect(self) -> Effect:
        """The effect in which error and bias are measured."""
        return replace(self.main, scope="total")

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values."""
        words = importance_conclusion(self)
        return {} if words is None else words.to_json()

    def missing(self) -> Iterator[str]:
        """Entries that the page needs and the summary lacks, in words."""
        steering = self.leading
        attenuated = {row.score for row in self.attenuation}
        if self.setup.decoding and steering not in attenuated:
            yield f"the attenuation of {steering!r}"
        for score in dict.fromkeys((steering, f"steering, {PLAIN_KIND}")):
            if score in attenuated and score not in self.reliability:
                yield f"the reliability of {score!r}"
        for effect in (self.main, self.published):
            measured = dict.fromkeys(
                (row.score, row.statistic) for row in self.rows if row.effect == effect and row.statistic in STATISTICS
            )
            for score in dict.fromkeys((steering, *(score for score, _ in measured if score not in _ORACLES))):
                for statistic in STATISTICS:
                    if (score, statistic) not in measured:
                        yield f"the correlation ({statistic}) of {score!r} with the effect {str(effect)!r}"
            decoded = (row for row in self.rows if row.score in self.reliability and row.effect == effect)
            if self.setup.decoding and not any(row.predicts for row in decoded):
                yield f"a score of decoded pictures for the effect {str(effect)!r}"

    @property
    def leading(self) -> str:
        """Name of the Steering Lens' score on which verdicts rest: chosen if settings were chosen, decoded if any."""
        if self.setup.decoding:
            return f"steering, {CHOSEN if self.choices.decoded else PLAIN_KIND}"
        return f"steering, {CHOSEN if self.choices.undecoded else PLAIN_KIND}, {UNDECODED}"

    def row(self, score: str, effect: Effect, statistic: str = "spearman") -> Row | None:
        """Correlation of a score with an effect, or None if it was not measured."""
        wanted = (score, effect, statistic)
        return next((row for row in self.rows if (row.score, row.effect, row.statistic) == wanted), None)

    def difference(self, name: str, effect: Effect, statistic: str = "spearman") -> Difference | None:
        """Paired difference by its name, or None if it was not measured."""
        wanted = (name, effect, statistic)
        return next((row for row in self.differences if (row.name, row.effect, row.statistic) == wanted), None)
