"""What the lenses' embeddings and pictures say of heads, and the setting that each lens chooses.

One rule for both lenses: the candidate and comparison of the highest mean Spearman correlation with the main effect, on
the concepts to choose on. It is applied twice, to the scores of decoded pictures and to those of the embeddings asked
for, so that either comparison is of settings that were chosen for it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared.candidates import CENTRED, PLAIN, PUBLISHED
from steerlens.studies.shared.notions import INPUT, OTHER, Effect, Parts, stacked, targets_of
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import mean_correlation, spearman

Seen = Literal["made", "asked", "judge"]
"""What is compared: decoded pictures, the embeddings asked for, decoded pictures as the outside judge sees them."""

PUBLISHED_NAME = f"steering, {PUBLISHED.strength} for all"
"""The score of the paper's setting."""


@dataclass(frozen=True)
class Choice:
    """The setting that a lens goes on with.

    Attributes:
        setting: how the lens makes embeddings.
        compare: what its pictures, or embeddings, are compared with.
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
class Choices:
    """The frozen settings of each lens.

    Attributes:
        decoded: chosen by scores of decoded pictures.
        asked: chosen by scores of the embeddings asked for, from the same candidates.
    """

    decoded: Mapping[str, Choice]
    asked: Mapping[str, Choice]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """JSON values, by lens."""
        named = {**self.decoded, **{f"{lens}, not decoded": choice for lens, choice in self.asked.items()}}
        return {lens: choice.to_json() for lens, choice in named.items()}


@dataclass(frozen=True)
class LensScore:
    """One score of a lens.

    Attributes:
        name: in tables.
        setting: how the lens makes embeddings.
        compare: what they are compared with.
        seen: before or after decoding, or by the judge.
    """

    name: str
    setting: LensSetting
    compare: str
    seen: Seen = "made"

    def table(self, parts: Parts) -> Float[Tensor, "P N"]:
        """The score of every head of every picture, mean of seeds.

        Raises:
            StoreError: if a part lacks what it needs.
        """
        if self.seen == "asked":
            return asked_score(parts, str(self.setting), self.compare)
        return made_scores(parts, str(self.setting), self.compare, judge=self.seen == "judge").mean(dim=0)

    def by_construction(self, effect: Effect) -> bool:
        """Whether an embedding is compared with the very target that the effect is taken towards, undecoded.

        For direct effects that is nearly the effect itself: a check of consistency, and no evidence about pictures.
        """
        return self.seen == "asked" and self.compare == effect.target


def asked_score(parts: Parts, setting: str, compare: str) -> Float[Tensor, "P N"]:
    """Similarity without decoding: the embedding asked for against the input or a target.

    Raises:
        StoreError: if a part lacks it.
    """
    return _similarity(parts, f"asked.{setting}", compare)


def made_scores(
    parts: Parts, setting: str, compare: str, *, judge: bool = False, seeds: Sequence[int] | None = None
) -> Float[Tensor, "S P N"]:
    """Similarity of the decoded pictures, seed by seed, as the encoder or the outside judge sees them.

    Args:
        parts: of the pictures.
        setting: name of the setting.
        compare: the input or a target.
        judge: whether the judge looks.
        seeds: which of them; by default all, in the order of numbers.

    Raises:
        StoreError: if a part lacks pictures of the setting or of a seed.
    """
    reference = f"judge.{compare}" if judge else compare
    names = _seed_names(parts, setting, judge)
    wanted = list(names) if seeds is None else list(seeds)
    if not wanted or not set(wanted) <= set(names):
        raise StoreError(f"a part of this study holds no pictures of {setting!r} decoded with seeds {wanted}.")
    return torch.stack([_similarity(parts, names[seed], reference) for seed in wanted])


def made_embeddings(parts: Parts, setting: str) -> Float[Tensor, "S P N E"]:
    """The decoded pictures embedded again, seed by seed.

    Raises:
        StoreError: if a part lacks them.
    """
    return torch.stack([stacked(parts, name) for name in _seed_names(parts, setting, judge=False).values()])


def common_seeds(parts: Parts, *settings: str) -> list[int]:
    """Seeds with which every one of the settings was decoded, in the order of numbers.

    Raises:
        StoreError: if there is none: pictures of other seeds are not to be compared.
    """
    found = sorted(set.intersection(*(set(_seed_names(parts, setting, judge=False)) for setting in settings)))
    if not found:
        raise StoreError(f"no seed was decoded for all of: {', '.join(settings)}.")
    return found


def _seed_names(parts: Parts, setting: str, judge: bool) -> dict[int, str]:
    pattern = re.compile(re.escape(f"{'judge' if judge else 'made'}.{setting}.seed") + r"(\d+)")
    found = {int(match[1]): name for name in parts[0] if (match := pattern.fullmatch(name))}
    if not found:
        raise StoreError(f"a part of this study holds no decoded pictures of {setting!r}.")
    return dict(sorted(found.items()))


def _similarity(parts: Parts, name: str, compare: str) -> Float[Tensor, "P N"]:
    reference = stacked(parts, "clean" if compare == INPUT else compare)
    return cosine_similarity(stacked(parts, name), reference[:, None])


def choose(parts: Parts, candidates: Sequence[LensSetting], main: Effect, *, decoded: bool = True) -> Choice:
    """The setting and comparison whose scores, of decoded pictures or not, correlate best with the main effect.

    Raises:
        StoreError: if a part lacks what it needs.
    """
    effect = main.table(parts)

    def score(setting: LensSetting, compare: str) -> Tensor:
        name = f"candidate.{setting}"
        return made_scores(parts, name, compare).mean(dim=0) if decoded else asked_score(parts, name, compare)

    found = {
        (setting, compare): mean_correlation(score(setting, compare), effect, spearman)
        for setting in candidates
        for compare in (INPUT, *targets_of(parts))
    }
    setting, compare = max(found, key=lambda key: found[key] if found[key] == found[key] else -2.0)
    named = {f"{one}, compared with {other}": value for (one, other), value in found.items()}
    return Choice(setting, compare, found[setting, compare], named)


def choose_all(
    parts: Parts, steering: Sequence[LensSetting], diffusion: Sequence[LensSetting], main: Effect
) -> Choices:
    """The choices of both lenses, for decoded pictures and for embeddings, from the same candidates.

    Raises:
        StoreError: if a part lacks what it needs.
    """
    both = {"steering": steering, "diffusion": diffusion}
    decoded, asked = (
        {lens: choose(parts, candidates, main, decoded=way) for lens, candidates in both.items()}
        for way in (True, False)
    )
    return Choices(decoded, asked)


def lens_scores(parts: Parts, choices: Choices, main: Effect) -> tuple[LensScore, ...]:
    """The lenses' scores that the study reports: chosen settings, plain ones, the paper's, and like with like.

    The paper's setting has only its undecoded score where it was not decoded.
    """
    towards = main.target or next(iter(targets_of(parts)), INPUT)
    scores: list[LensScore] = []
    for lens, choice in choices.decoded.items():
        scores.append(LensScore(f"{lens}, chosen", choice.setting, choice.compare))
    for lens, choice in choices.asked.items():
        scores.append(LensScore(f"{lens}, chosen, not decoded", choice.setting, choice.compare, "asked"))
    fixed = [(f"{setting.lens}, plain", setting, INPUT) for setting in PLAIN]
    for target in targets_of(parts):
        fixed += [(f"{setting.lens}, plain, towards {target}", setting, target) for setting in PLAIN]
    fixed += [(PUBLISHED_NAME, PUBLISHED, INPUT)]
    shown = [name for name, setting, _ in fixed if is_decoded(parts, setting)]
    for name, setting, compare in fixed:
        if name in shown:
            scores.append(LensScore(name, setting, compare))
        scores.append(LensScore(f"{name}, not decoded", setting, compare, "asked"))
    scores += [
        LensScore(f"{setting.lens}, centred, towards {towards}, not decoded", setting, towards, "asked")
        for setting in CENTRED
    ]
    for compare in judged_with(parts):
        for lens, choice in choices.decoded.items():
            if choice.compare != compare:  # what the judge's view is to be held against
                scores.append(LensScore(f"{lens}, chosen, compared with {compare}", choice.setting, compare))
            scores.append(LensScore(f"{lens}, chosen, judged with {compare}", choice.setting, compare, "judge"))
    if INPUT in judged_with(parts):
        for name, setting, compare in fixed:
            if compare == INPUT and name in shown:
                scores.append(LensScore(f"{name}, judged with {INPUT}", setting, INPUT, "judge"))
    return tuple(scores)


def is_decoded(parts: Parts, setting: LensSetting) -> bool:
    """Whether pictures of the setting were decoded, and not its embeddings alone."""
    return all(any(name.startswith(f"made.{setting}.seed") for name in part) for part in parts)


def judged_with(parts: Parts) -> tuple[str, ...]:
    """What the judge, who reads no texts, was shown beside the decoded pictures; nothing if there was no judge."""
    return tuple(name for name in (INPUT, OTHER) if all(f"judge.{name}" in part for part in parts))


def plain_scores(parts: Parts, sites: Sequence[Site]) -> dict[str, Float[Tensor, "P N"]]:
    """Scores that need no lens, by name: sizes and cosines of writes, and chance."""
    return {
        "norm of the write": stacked(parts, "norm"),
        "direct cosine": stacked(parts, "direct_cosine"),
        "random": _random(len(parts), sites),
    }


def _random(n_pictures: int, sites: Sequence[Site]) -> Float[Tensor, "P N"]:
    digest = hashlib.sha256("".join(map(str, sites)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(n_pictures, len(sites), generator=generator)
