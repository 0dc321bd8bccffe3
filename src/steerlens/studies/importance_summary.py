"""Every figure of the importance study, from the parts that it stored and nothing else.

Scores and effects become tables (P,N) over pictures and heads. The choice of settings is made here too, on the parts of
the concepts to choose on, by one rule for both lenses: the highest mean Spearman correlation with the main effect.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.effects import ABLATIONS, Ablation, signed_effect, unsigned_effect
from steerlens.studies.importance import PAPER
from steerlens.studies.settings import LensSetting
from steerlens.studies.stats import (
    Estimate,
    correlation_estimate,
    difference_estimate,
    interaction,
    mean_correlation,
    mismatched,
    pearson,
    ratio_estimate,
    seed_reliability,
    spearman,
    within_layers,
)

Parts = Sequence[Mapping[str, Tensor]]
Scope = Literal["total", "direct"]

INPUT, TEXT, OTHER = "input", "text", "other"
"""What similarities and effects are taken towards: the input, the label's text, another picture of the concept."""


@dataclass(frozen=True)
class Effect:
    """A notion of importance.

    Attributes:
        scope: `total` (a real forward pass) or `direct` (the final residual alone).
        target: `text` or `other` for a signed effect, empty for the unsigned one.
        ablation: what replaces a write.
    """

    scope: Scope
    target: str
    ablation: Ablation

    def __str__(self) -> str:
        return f"{self.scope}, {f'signed towards {self.target}' if self.target else 'unsigned'}, {self.ablation}"

    def table(self, parts: Parts) -> Float[Tensor, "P N"]:
        """The effect of every head of every picture."""
        clean = stacked(parts, "clean")
        ablated = stacked(parts, f"{self.scope}.{self.ablation}")
        if not self.target:
            return unsigned_effect(clean, ablated)
        return signed_effect(clean, ablated, stacked(parts, self.target))


@dataclass(frozen=True)
class Choice:
    """The setting that a lens goes on with.

    Attributes:
        setting: how the lens makes embeddings.
        compare: what its pictures are compared with.
        correlation: mean Spearman correlation with the main effect on the concepts to choose on.
        candidates: the same for everything it chose from, by name.
    """

    setting: LensSetting
    compare: str
    correlation: float
    candidates: Mapping[str, float] = field(default_factory=dict[str, float])

    def __str__(self) -> str:
        return f"{self.setting}, compared with {self.compare}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "setting": str(self.setting)}


@dataclass(frozen=True)
class Row:
    """One correlation of a score with an effect.

    Attributes:
        score: the score.
        effect: the notion of importance.
        statistic: `spearman`, `pearson`, `interaction` (head and picture means removed) or `within layers`.
        estimate: mean over pictures with its interval.
        mismatched: the same score with other pictures' effects, or nan.
    """

    score: str
    effect: str
    statistic: str
    estimate: Estimate
    mismatched: float = float("nan")


@dataclass(frozen=True)
class Summary:
    """Everything that the importance study reports.

    Attributes:
        n_pictures: P.
        n_concepts: concepts among them.
        n_heads: N.
        main: the effect that choices were made for.
        choices: the frozen setting of each lens.
        rows: correlations.
        differences: paired differences, Steering Lens minus Diffusion Lens, by name.
        ceiling_share: the Steering Lens' correlation as a share of that of the exact direct effect.
        reliability: of decoded scores over seeds: (of one seed, of the mean over seeds), by score.
        attenuation: what decoding leaves of the lenses' scores.
        beats_control: for each layer, the share of (picture, head) whose steered picture comes closer to the input than
            its control's.
        effect_by_layer: mean main effect of a head, layer by layer.
        strongest: heads of the largest mean main effect, with that effect.
    """

    n_pictures: int
    n_concepts: int
    n_heads: int
    main: str
    choices: Mapping[str, Choice]
    rows: tuple[Row, ...]
    differences: Mapping[str, Estimate]
    ceiling_share: Mapping[str, Estimate]
    reliability: Mapping[str, tuple[float, float]]
    attenuation: tuple[Attenuation, ...]
    beats_control: tuple[float, ...]
    effect_by_layer: tuple[float, ...]
    strongest: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        values["choices"] = {lens: choice.to_json() for lens, choice in self.choices.items()}
        return values


def stacked(parts: Parts, name: str) -> Tensor:
    """One tensor of all parts, stacked over pictures.

    Raises:
        StoreError: if a part lacks it.
    """
    try:
        return torch.stack([part[name].float() for part in parts])
    except (KeyError, RuntimeError) as error:
        raise StoreError(f"a part of this study does not hold {name!r} like the others: {error}.") from error


def targets_of(parts: Parts) -> tuple[str, ...]:
    """The targets that every picture has, the label's text first."""
    return tuple(name for name in (TEXT, OTHER) if all(name in part for part in parts))


def asked_score(parts: Parts, setting: str, compare: str) -> Float[Tensor, "P N"]:
    """Similarity without decoding: the embedding asked for against the input or a target."""
    return _similarity(parts, f"asked.{setting}", compare)


def made_scores(parts: Parts, setting: str, compare: str, *, judge: bool = False) -> Float[Tensor, "S P N"]:
    """Similarity of the decoded pictures, seed by seed, as the encoder or the outside judge sees them."""
    reference = f"judge.{compare}" if judge else compare
    return torch.stack([_similarity(parts, name, reference) for name in _seeds(parts, setting, judge)])


def made_embeddings(parts: Parts, setting: str) -> Float[Tensor, "S P N E"]:
    """The decoded pictures embedded again, seed by seed."""
    return torch.stack([stacked(parts, name) for name in _seeds(parts, setting, judge=False)])


def _seeds(parts: Parts, setting: str, judge: bool) -> list[str]:
    prefix = f"{'judge' if judge else 'made'}.{setting}.seed"
    seeds = sorted(name for name in parts[0] if name.startswith(prefix))
    if not seeds:
        raise StoreError(f"a part of this study holds no decoded pictures of {setting!r}.")
    return seeds


def _similarity(parts: Parts, name: str, compare: str) -> Float[Tensor, "P N"]:
    reference = stacked(parts, "clean" if compare == INPUT else compare)
    return cosine_similarity(stacked(parts, name), reference[:, None])


def choose(parts: Parts, candidates: Sequence[LensSetting], main: Effect) -> Choice:
    """The setting and comparison whose decoded scores correlate best with the main effect."""
    effect = main.table(parts)
    compares = (INPUT, *targets_of(parts))
    found = {
        (setting, compare): mean_correlation(
            made_scores(parts, f"candidate.{setting}", compare).mean(dim=0), effect, spearman
        )
        for setting in candidates
        for compare in compares
    }
    setting, compare = max(found, key=lambda key: found[key] if found[key] == found[key] else -2.0)
    named = {f"{one}, compared with {other}": value for (one, other), value in found.items()}
    return Choice(setting, compare, found[setting, compare], named)


def score_tables(
    parts: Parts, sites: Sequence[Site], choices: Mapping[str, Choice], main: Effect
) -> dict[str, Float[Tensor, "P N"]]:
    """Every score of the study by name, higher meaning that the head should matter more."""
    tables: dict[str, Tensor] = {}
    for lens, choice in choices.items():
        tables[f"{lens}, chosen"] = made_scores(parts, str(choice.setting), choice.compare).mean(dim=0)
        tables[f"{lens}, chosen, not decoded"] = asked_score(parts, str(choice.setting), choice.compare)
    for setting in PAPER:
        tables[f"{setting.lens}, plain"] = made_scores(parts, str(setting), INPUT).mean(dim=0)
        tables[f"{setting.lens}, plain, not decoded"] = asked_score(parts, str(setting), INPUT)
    if all("judge.input" in part for part in parts):
        for setting in PAPER:
            tables[f"{setting.lens}, plain, judged"] = made_scores(parts, str(setting), INPUT, judge=True).mean(dim=0)
        for lens, choice in choices.items():
            if choice.compare != TEXT:
                judged = made_scores(parts, str(choice.setting), choice.compare, judge=True)
                tables[f"{lens}, chosen, judged"] = judged.mean(dim=0)
    tables["norm of the write"] = stacked(parts, "norm")
    tables["direct cosine"] = stacked(parts, "direct_cosine")
    target = main.target or targets_of(parts)[0]
    tables["attribution patching"] = stacked(parts, f"attribution.{main.ablation}.{target}")
    tables["random"] = _random(len(parts), sites)
    return tables


def _random(n_pictures: int, sites: Sequence[Site]) -> Float[Tensor, "P N"]:
    digest = hashlib.sha256("".join(map(str, sites)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(n_pictures, len(sites), generator=generator)


CEILING = "exact direct effect (ceiling)"


def summarise(
    parts: Parts,
    concepts: Sequence[str],
    sites: Sequence[Site],
    choices: Mapping[str, Choice],
    main: Effect,
    *,
    draws: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> Summary:
    """Everything that the study reports.

    Args:
        parts: of the pictures to report on.
        concepts: of those pictures.
        sites: the heads.
        choices: the frozen setting of each lens.
        main: the effect that they were chosen for.
        draws: bootstrap draws.
        progress: told each score that is done.
    """
    tables = score_tables(parts, sites, choices, main)
    layers = [site.layer for site in sites]
    statistics = {
        "spearman": spearman,
        "pearson": pearson,
        "interaction": interaction,
        "within layers": within_layers(layers),
    }
    rows: list[Row] = []
    for effect in all_effects(parts, main.ablation):
        values = effect.table(parts)
        ceiling = {CEILING: Effect("direct", effect.target, effect.ablation).table(parts)}
        here = tables | (ceiling if effect.scope == "total" else {})
        used = statistics if effect == main else {"spearman": spearman}
        for name, score in here.items():
            for statistic, correlation in used.items():
                estimate = correlation_estimate(score, values, concepts, correlation=correlation, draws=draws)
                null = mismatched(score, values, correlation) if effect == main else float("nan")
                rows.append(Row(name, str(effect), statistic, estimate, null))
            if progress is not None:
                progress(f"{effect}: {name}")
    values, ceiling = main.table(parts), Effect("direct", main.target, main.ablation).table(parts)
    pairs = [("chosen", "chosen"), ("plain", "plain"), ("chosen, not decoded", "chosen, not decoded")]
    differences = {
        f"{first}; {statistic}": difference_estimate(
            tables[f"steering, {first}"],
            tables[f"diffusion, {second}"],
            values,
            concepts,
            correlation=correlation,
            draws=draws,
        )
        for first, second in pairs
        for statistic, correlation in (("spearman", spearman), ("interaction", interaction))
    }
    share = {
        name: ratio_estimate(tables[f"steering, {name}"], ceiling, values, concepts, draws=draws)
        for name in ("chosen", "plain", "chosen, not decoded")
    }
    effects = values.mean(dim=0)
    strongest = effects.argsort(descending=True)[:10].tolist()
    by_layer = [
        float(effects[[i for i, site in enumerate(sites) if site.layer == n]].mean()) for n in sorted(set(layers))
    ]
    return Summary(
        n_pictures=len(parts),
        n_concepts=len(set(concepts)),
        n_heads=len(sites),
        main=str(main),
        choices=choices,
        rows=tuple(rows),
        differences=differences,
        ceiling_share=share,
        reliability=_reliability(parts, choices),
        attenuation=_attenuation(parts, choices, values, concepts, draws),
        beats_control=_beats_control(parts, sites),
        effect_by_layer=tuple(by_layer),
        strongest=tuple((sites[index].label, float(effects[index])) for index in strongest),
    )


def all_effects(parts: Parts, ablation: Ablation) -> tuple[Effect, ...]:
    """Every notion of importance that was measured: the main ablation's in full, of the others the total effects."""
    targets = ("", *targets_of(parts))
    found = [Effect(scope, target, ablation) for scope in ("total", "direct") for target in targets]
    others: list[Ablation] = [name for name in ABLATIONS if name != ablation and f"total.{name}" in parts[0]]
    return (*found, *(Effect("total", target, other) for other in others for target in targets))


def _reliability(parts: Parts, choices: Mapping[str, Choice]) -> dict[str, tuple[float, float]]:
    found = {
        f"{lens}, chosen": seed_reliability(made_scores(parts, str(choice.setting), choice.compare))
        for lens, choice in choices.items()
    }
    plain = {f"{setting.lens}, plain": seed_reliability(made_scores(parts, str(setting), INPUT)) for setting in PAPER}
    return found | plain


def _attenuation(
    parts: Parts, choices: Mapping[str, Choice], effect: Float[Tensor, "P N"], concepts: Sequence[str], draws: int
) -> tuple[Attenuation, ...]:
    named = {f"{lens}, chosen": (str(choice.setting), choice.compare) for lens, choice in choices.items()}
    named |= {f"{setting.lens}, plain": (str(setting), INPUT) for setting in PAPER}
    return tuple(
        attenuation(
            name,
            asked_score(parts, setting, compare),
            made_scores(parts, setting, compare),
            effect,
            fidelity_table(stacked(parts, f"asked.{setting}"), made_embeddings(parts, setting)),
            concepts,
            draws=draws,
        )
        for name, (setting, compare) in named.items()
    )


def _beats_control(parts: Parts, sites: Sequence[Site]) -> tuple[float, ...]:
    """Same seed, same strength: the head's picture against the random direction's, in the plain setting."""
    head = made_scores(parts, str(PAPER[0]), INPUT)[0]
    control = made_scores(parts, "control", INPUT)[0]
    beats = (head > control).float()
    layers = sorted({site.layer for site in sites})
    return tuple(float(beats[:, [i for i, site in enumerate(sites) if site.layer == n]].mean()) for n in layers)


def table_rows(
    parts: Parts,
    pictures: Sequence[tuple[str, str]],
    sites: Sequence[Site],
    choices: Mapping[str, Choice],
    main: Effect,
) -> list[dict[str, Any]]:
    """One row a picture and head, with every score and effect: the table that others can work with.

    Args:
        parts: of the pictures to report on.
        pictures: id and concept of each.
        sites: the heads.
        choices: the frozen settings.
        main: the main effect.
    """
    columns = score_tables(parts, sites, choices, main)
    columns |= {f"effect: {effect}": effect.table(parts) for effect in all_effects(parts, main.ablation)}
    return [
        {"picture": id, "concept": concept, "site": str(site), "layer": site.layer, "head": site.head}
        | {name: float(values[row, column]) for name, values in columns.items()}
        for row, (id, concept) in enumerate(pictures)
        for column, site in enumerate(sites)
    ]
