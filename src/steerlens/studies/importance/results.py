"""What the importance study reports, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from steerlens.studies.importance.variants import Variant
from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.scores import Choices
from steerlens.studies.shared.stats import Estimate

if TYPE_CHECKING:
    from steerlens.studies.shared.judge import JudgeName

LAYOUT = 2
"""Of the summary; pages are made of summaries of this layout alone."""


@dataclass(frozen=True)
class Row:
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
    effect: str
    statistic: str
    estimate: Estimate
    mismatched: float = float("nan")
    by_construction: bool = False


@dataclass(frozen=True)
class Difference:
    """How much better the first score tells an effect than the second: mean of paired differences over pictures.

    Attributes:
        name: what is compared.
        first: the score that should be better.
        second: the other one.
        effect: the notion of importance.
        statistic: the correlation.
        estimate: the difference with its interval.
    """

    name: str
    first: str
    second: str
    effect: str
    statistic: str
    estimate: Estimate


@dataclass(frozen=True)
class Setup:
    """What was asked of the study, as far as its reader needs to know.

    Attributes:
        model: name of the pair.
        n_chosen: pictures that settings were chosen on.
        seeds: of the decoder.
        given: the text that effects were taken towards, or nothing.
        judge: the outside judge, or None.
        command: what was run, if it was a command.
        notes: what was left out, and why.
    """

    model: str = ""
    n_chosen: int = 0
    seeds: tuple[int, ...] = ()
    given: str = ""
    judge: "JudgeName | None" = None
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Everything that the importance study reports.

    Attributes:
        layout: of this file.
        setup: what was asked for.
        n_pictures: P.
        n_concepts: concepts among them.
        n_heads: N.
        main: the effect that choices were made for.
        published: the effect that the paper's claim is about.
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

    layout: int
    setup: Setup
    n_pictures: int
    n_concepts: int
    n_heads: int
    main: str
    published: str
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

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "choices": self.choices.to_json()}
