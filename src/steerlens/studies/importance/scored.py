"""Scores of the importance study with their correlations, raw, partial and pooled, and the lenses' differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from steerlens.sites import Site
from steerlens.studies.importance.results import PARTIALS, POOLED, Difference, Row
from steerlens.studies.importance.scores import (
    DIRECT_EFFECT,
    LESS_NORM,
    PLAIN_KIND,
    Choices,
    LensScore,
    lens_scores,
    oracle_scores,
    plain_scores,
)
from steerlens.studies.shared.candidates import CHOSEN
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.partial import LAYER, NORM, DrawnCorrelations
from steerlens.studies.shared.pooled import pooled_estimate
from steerlens.studies.shared.stats import (
    Correlation,
    correlation_estimate,
    difference_estimate,
    interaction,
    interaction_pearson,
    mismatched,
    pearson,
    spearman,
    within_layers,
)
from steerlens.studies.shared.targets import INPUT

CEILING, ATTRIBUTION = DIRECT_EFFECT, "attribution patching"

FEWER_DRAWS = 5
"""Factor by which figures that no verdict uses take fewer bootstrap draws."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the counted pictures, and their statistics.

    Attributes:
        tables: measurements of the pictures.
        concepts: concept of each picture.
        sites: the heads.
        scores: scores by name, those of lenses and those without.
        lens: the lenses' scores by name.
        draws: bootstrap draws.
        drawn: correlations between scores over common draws.
    """

    tables: PictureTables
    concepts: Sequence[str]
    sites: Sequence[Site]
    scores: Mapping[str, Float[Tensor, "P N"]]
    lens: Mapping[str, LensScore]
    draws: int
    drawn: DrawnCorrelations

    @property
    def has_choices(self) -> bool:
        """True if settings were chosen."""
        return any(score.kind == CHOSEN for score in self.lens.values())

    @property
    def statistics(self) -> dict[str, Correlation]:
        """Correlations without covariates, by name."""
        return {
            "spearman": spearman,
            "pearson": pearson,
            "interaction": interaction,
            "interaction pearson": interaction_pearson,
            "within layers": within_layers([site.layer for site in self.sites]),
        }

    def against(self, effect: Effect) -> dict[str, Tensor]:
        """The scores, with two estimates of the effect: attribution patching and the exact direct effect."""
        scores, first_order = dict(self.scores), effect.first_order(self.tables)
        if first_order is not None:
            scores[ATTRIBUTION] = first_order
        if effect.scope == "total":
            scores[CEILING] = Effect("direct", effect.target, effect.ablation).table(self.tables)
        return scores

    def table_rows(self, effect: Effect, oracle: bool) -> list[Row]:
        """Rows of an effect of the main table: raw, pooled and partial rank correlations.

        Args:
            effect: the effect.
            oracle: True if the oracle decoded the displacement of this effect.
        """
        values, truth = effect.table(self.tables), str(effect)
        self.drawn.add(truth, values)
        scores = self.against(effect) | (oracle_scores(self.tables, effect) if oracle else {})
        rows: list[Row] = []
        for name, score in scores.items():
            own = f"{name}, {truth}" if name not in self.scores else name
            self.drawn.add(own, score)
            marked = name in self.lens and self.lens[name].by_construction(effect)
            rows += [
                Row(name, effect, statistic, self.drawn.estimate(own, truth, covariates), by_construction=marked)
                for statistic, covariates in {"spearman": (), **PARTIALS}.items()
                if not (statistic != "spearman" and name in (NORM, LAYER) and name in covariates)
            ]
            pooled = pooled_estimate(score, values, self.concepts, draws=max(1, self.draws // FEWER_DRAWS))
            rows.append(Row(name, effect, POOLED, pooled, by_construction=marked))
        return rows

    def table_differences(self, effect: Effect) -> list[Difference]:
        """Steering minus Diffusion Lens for an effect of the main table, raw and given the baselines."""
        compared = {
            score.label: (score.name, second)
            for score in self.lens.values()
            if score.setting.lens == "steering" and score.kind in (CHOSEN, PLAIN_KIND) and score.view != "judged"
            if score.compare in (INPUT, effect.target) or score.kind == CHOSEN
            if (second := score.name_of("diffusion")) in self.lens
        }
        truth = str(effect)
        self.drawn.add(truth, effect.table(self.tables))
        rows = [
            Difference(label, *names, effect, statistic, self.drawn.difference(*names, truth, covariates))
            for label, names in compared.items()
            for statistic, covariates in {"spearman": (), **PARTIALS}.items()
        ]
        return rows + [
            Difference(f"{label}{LESS_NORM}", own, NORM, effect, "spearman", self.drawn.difference(own, NORM, truth))
            for label, (own, _) in compared.items()
        ]

    def rows(self, effect: Effect, statistics: Mapping[str, Correlation], draws: int, *, null: bool) -> list[Row]:
        """Rows of an effect: every score, every statistic.

        Args:
            effect: the effect.
            statistics: correlations by name.
            draws: bootstrap draws.
            null: True to correlate with other pictures' effects too.
        """
        values = effect.table(self.tables)
        return [
            Row(
                name,
                effect,
                statistic,
                correlation_estimate(score, values, self.concepts, correlation=correlation, draws=draws),
                mismatched(score, values, correlation) if null else float("nan"),
                name in self.lens and self.lens[name].by_construction(effect),
            )
            for name, score in self.against(effect).items()
            for statistic, correlation in statistics.items()
        ]

    def difference(self, name: str, first: str, second: str, effect: Effect, statistic: str) -> Difference:
        """Paired difference of two scores' correlations with an effect."""
        estimate = difference_estimate(
            self.scores[first],
            self.scores[second],
            effect.table(self.tables),
            self.concepts,
            correlation=self.statistics[statistic],
            draws=self.draws,
        )
        return Difference(name, first, second, effect, statistic, estimate)


def score_pictures(
    tables: PictureTables, concepts: Sequence[str], sites: Sequence[Site], choices: Choices, main: Effect, draws: int
) -> Scored:
    """Computes all scores of some pictures.

    Raises:
        StoreError: if the parts do not fit the choices.
    """
    lens = {score.name: score for score in lens_scores(tables, choices, main)}
    scores = {name: score.table(tables) for name, score in lens.items()} | plain_scores(tables, sites)
    return Scored(tables, concepts, sites, scores, lens, draws, DrawnCorrelations(scores, concepts, draws=draws))
