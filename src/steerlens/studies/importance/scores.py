"""Scores of heads by the lenses, and the choice of each lens' setting.

The rule is the same for both lenses: take the candidate and the comparison with the highest mean Spearman correlation
with the main effect on the pictures of the selection. It is applied to scores of decoded pictures and, separately, to
scores of requested embeddings, so that both comparisons use settings chosen for them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.sites import Site
from steerlens.studies.shared.candidates import (
    CENTRED,
    CHOSEN,
    LENSES,
    ONE_FACTOR,
    PLAIN,
    TOTAL_LENS,
    WEAKER,
    candidate_name,
    candidate_words,
)
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PictureTables, View
from steerlens.studies.shared.oracle import ORACLES, oracle_name
from steerlens.studies.shared.partial import LAYER, NORM, layer_table
from steerlens.studies.shared.records import Record, read_value
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import mean_correlation, spearman
from steerlens.studies.shared.targets import INPUT

PLAIN_KIND, CENTRED_KIND = "plain", "centred"
ONE_FACTOR_KIND = f"{ONE_FACTOR.strength} for all"
WEAKER_KIND = str(WEAKER.strength)
UNDECODED = "not decoded"
DIRECT_EFFECT = "exact direct effect (ceiling)"
"""Name of the exact direct effect in summaries; baselines may exceed it, so readers see no ceiling (`readable`)."""
LESS_NORM = f", minus {NORM}"
"""Ending of the name of a paired difference between a Steering Lens' score and the norm of the write."""


@dataclass(frozen=True)
class ScoreChoice(Record):
    """Chosen setting of a lens.

    Attributes:
        setting: the setting.
        compare: target with which its pictures, or embeddings, are compared.
        correlation: mean Spearman correlation with the main effect on the pictures of the selection.
        candidates: the same for every candidate, by name.
    """

    setting: LensSetting
    compare: str
    correlation: float
    candidates: Mapping[str, float] = field(default_factory=dict[str, float])

    def __str__(self) -> str:
        return candidate_words(self.setting, self.compare)


@dataclass(frozen=True)
class Choices(Record):
    """Frozen settings of each lens.

    Attributes:
        decoded: chosen by scores of decoded pictures, by lens; empty in a study without a decoder or a selection.
        undecoded: chosen by scores of requested embeddings, from the same candidates; empty without a selection.
    """

    decoded: Mapping[str, ScoreChoice]
    undecoded: Mapping[str, ScoreChoice]

    @property
    def by_name(self) -> dict[str, ScoreChoice]:
        """All choices; the names of undecoded choices say so."""
        return {**self.decoded, **{f"{lens}, {UNDECODED}": choice for lens, choice in self.undecoded.items()}}

    def to_json(self) -> dict[str, Any]:
        """JSON values, by name."""
        return {name: choice.to_json() for name, choice in self.by_name.items()}

    @classmethod
    def from_json(cls, values: Any, where: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            StoreError: if the values do not describe choices.
        """
        named: dict[str, ScoreChoice] = read_value(Mapping[str, ScoreChoice], values, where)
        sides = [{lens: f"{lens}{ending}" for lens in LENSES} for ending in ("", f", {UNDECODED}")]
        for side in sides:
            if (missing := set(side.values()) - named.keys()) and len(missing) < len(side):
                raise StoreError(f"{where} lacks the choice of {min(missing)}.")
        chosen = [{lens: named[name] for lens, name in side.items() if name in named} for side in sides]
        return cls(chosen[0], chosen[1])


@dataclass(frozen=True)
class LensScore:
    """A score of a lens.

    Attributes:
        kind: `chosen`, `plain`, `centred`, or one factor for all heads.
        setting: setting of the lens.
        compare: target with which embeddings are compared.
        view: embeddings that are compared: decoded, requested or judged.
        qualifier: part of its name that describes the comparison.
    """

    kind: str
    setting: LensSetting
    compare: str
    view: View = "decoded"
    qualifier: str = ""

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.name_of(self.setting.lens)

    @property
    def label(self) -> str:
        """Name without the lens."""
        words = (self.kind, self.qualifier, UNDECODED if self.view == "requested" else "")
        return ", ".join(word for word in words if word)

    def name_of(self, lens: str, kind: str = "") -> str:
        """Name of the same score of another lens, or of another kind."""
        return f"{lens}, {LensScore(kind or self.kind, self.setting, self.compare, self.view, self.qualifier).label}"

    def table(self, tables: PictureTables) -> Float[Tensor, "P N"]:
        """The score of every head on every picture, mean over seeds.

        Raises:
            StoreError: if a part lacks the embeddings.
        """
        if self.view == "requested":
            return tables.requested_scores(self.setting, self.compare)
        viewer = "judge" if self.view == "judged" else "encoder"
        return tables.decoded_scores(self.setting, self.compare, viewer=viewer).mean(dim=0)

    def by_construction(self, effect: Effect) -> bool:
        """True if the score compares the requested embedding with the effect's own target.

        For direct effects that is nearly the effect itself: a check of consistency, and no evidence about pictures.
        """
        return self.view == "requested" and self.compare == effect.target


def choose(
    tables: PictureTables, candidates: Sequence[LensSetting], main: Effect, *, view: View = "decoded"
) -> ScoreChoice:
    """Chooses the setting and comparison whose scores correlate best with the main effect.

    Raises:
        StoreError: if a part lacks the embeddings.
    """
    effect = main.table(tables)

    def score(setting: LensSetting, compare: str) -> Tensor:
        name = candidate_name(setting)
        if view == "decoded":
            return tables.decoded_scores(name, compare).mean(dim=0)
        return tables.requested_scores(name, compare)

    correlations = {
        (setting, compare): mean_correlation(score(setting, compare), effect, spearman)
        for setting in candidates
        for compare in (INPUT, *tables.targets)
    }
    best = max(correlations, key=lambda key: correlations[key] if correlations[key] == correlations[key] else -2.0)
    named = {candidate_words(*key): correlation for key, correlation in correlations.items()}
    return ScoreChoice(*best, correlations[best], named)


def choose_all(
    tables: PictureTables, steering: Sequence[LensSetting], diffusion: Sequence[LensSetting], main: Effect
) -> Choices:
    """Chooses settings of both lenses, for decoded pictures and for requested embeddings, from the same candidates.

    Without pictures to choose on, nothing is chosen; without decoded pictures, only settings for embeddings are.

    Raises:
        StoreError: if a part lacks the embeddings.
    """
    if len(tables) == 0:
        return Choices({}, {})
    candidates = dict(zip(LENSES, (steering, diffusion), strict=True))
    decoded = tables.is_decoded(candidate_name(steering[0]))
    return Choices(
        {lens: choose(tables, settings, main) for lens, settings in candidates.items()} if decoded else {},
        {lens: choose(tables, settings, main, view="requested") for lens, settings in candidates.items()},
    )


def lens_scores(tables: PictureTables, choices: Choices, main: Effect) -> tuple[LensScore, ...]:
    """Scores that the study reports: chosen settings, plain settings, one factor for all heads, and like with like.

    Without `extras`, one factor for all heads has an undecoded score only.
    """
    towards = main.target or next(iter(tables.targets), INPUT)
    scores = [LensScore(CHOSEN, choice.setting, choice.compare) for choice in choices.decoded.values()]
    scores += [LensScore(CHOSEN, choice.setting, choice.compare, "requested") for choice in choices.undecoded.values()]
    fixed = [LensScore(PLAIN_KIND, setting, INPUT) for setting in PLAIN]
    fixed += [
        LensScore(PLAIN_KIND, setting, target, qualifier=f"towards {target}")
        for target in tables.targets
        for setting in PLAIN
    ]
    fixed.append(LensScore(ONE_FACTOR_KIND, ONE_FACTOR, INPUT))
    if tables.is_requested(WEAKER):
        fixed.append(LensScore(WEAKER_KIND, WEAKER, INPUT))
    for score in fixed:
        if tables.is_decoded(score.setting):
            scores.append(score)
        scores.append(LensScore(score.kind, score.setting, score.compare, "requested", score.qualifier))
    scores += [LensScore(CENTRED_KIND, setting, towards, "requested", f"towards {towards}") for setting in CENTRED]
    return (*scores, *_judged_scores(tables, choices, fixed))


def _judged_scores(tables: PictureTables, choices: Choices, fixed: Sequence[LensScore]) -> list[LensScore]:
    """Scores by the judge, and the encoder's scores with which they are compared."""
    scores: list[LensScore] = []
    for compare in tables.judged_targets:
        for choice in choices.decoded.values():
            if choice.compare != compare:
                scores.append(LensScore(CHOSEN, choice.setting, compare, qualifier=f"compared with {compare}"))
            scores.append(LensScore(CHOSEN, choice.setting, compare, "judged", f"judged with {compare}"))
    if INPUT in tables.judged_targets:
        scores += [
            LensScore(score.kind, score.setting, INPUT, "judged", f"judged with {INPUT}")
            for score in fixed
            if score.compare == INPUT and tables.is_decoded(score.setting)
        ]
    return scores


def plain_scores(tables: PictureTables, sites: Sequence[Site]) -> dict[str, Float[Tensor, "P N"]]:
    """Scores that nothing chooses, by name: norms and cosines of writes, layers, total effects, and random scores.

    The first two are the baselines that a lens has to beat.
    """
    return {
        NORM: tables.norm,
        LAYER: layer_table([site.layer for site in sites], len(tables)),
        "direct cosine": tables.direct_cosine,
        **total_scores(tables),
        "random": _random(len(tables), sites),
    }


def total_scores(tables: PictureTables) -> dict[str, Float[Tensor, "P N"]]:
    """Scores of the Total Lens without decoding, by name; empty if a part lacks them.

    Similarity of `e_total(h, s)` with the input or a target, where `s` adds as much as the final residual (rho=1). The
    plain Steering Lens makes the same change and freezes everything after it. For the Total Lens, the ablation of a
    head is the same real forward pass at another factor, `s = 0`: in a model linear in `s`, both would move the
    embedding along one line, in opposite ways. The correlation says how far the amplified head tells about the missing
    one; the length of its change is that of `rho`, and not of the effect.
    """
    if not tables.is_requested(TOTAL_LENS):
        return {}
    compared = {f"total, {PLAIN_KIND}, {UNDECODED}": INPUT}
    compared |= {f"total, {PLAIN_KIND}, towards {target}, {UNDECODED}": target for target in tables.targets}
    return {name: tables.requested_scores(TOTAL_LENS, compare) for name, compare in compared.items()}


def oracle_scores(tables: PictureTables, effect: Effect, *, decoded: bool = True) -> dict[str, Float[Tensor, "P N"]]:
    """Scores of the decoded true effect, by name; empty if a part lacks them. See `shared.oracle`.

    They are compared with the effect's own target. For the unsigned effect, that is the input: similarity if all heads
    move the embedding equally far, else distance.

    Args:
        tables: measurements.
        effect: the effect that they should predict.
        decoded: False for the requested embeddings.
    """
    scores: dict[str, Tensor] = {}
    for kind in ORACLES:
        name = oracle_name(kind)
        if not tables.is_decoded(name):
            continue
        compare = effect.target or INPUT
        own = tables.decoded_scores(name, compare).mean(dim=0) if decoded else tables.requested_scores(name, compare)
        scores[name] = 1 - own if kind == "one factor" and not effect.target else own
    return scores


def _random(n_pictures: int, sites: Sequence[Site]) -> Float[Tensor, "P N"]:
    digest = hashlib.sha256("".join(map(str, sites)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(n_pictures, len(sites), generator=generator)
