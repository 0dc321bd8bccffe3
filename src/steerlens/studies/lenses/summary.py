"""Choice of each lens' setting, and the summary of the study, computed from the stored parts."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.studies.lenses.conclusion import LAYER, NORM
from steerlens.studies.lenses.options import CONTRAST, PICTURE, RETRIEVAL, CandidateLens, Kind
from steerlens.studies.lenses.results import LensChoice, LensesSummary, LensRow, TransferRow
from steerlens.studies.lenses.scores import NamedScores, View
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.measurements import PicturePart
from steerlens.studies.shared.sampling import head_variance, widened
from steerlens.studies.shared.stats import (
    Estimate,
    drawn_batches,
    estimate_of,
    mean_estimate,
    of_draws,
    spearman,
)
from steerlens.studies.shared.transfer import STEPS

BOOTSTRAP = {
    False: "bootstrap over concepts",
    True: "bootstrap over concepts, and over heads within their layers",
}
"""The bootstrap in words, by whether the studied heads are a sample."""


def choose(scores: NamedScores, candidates: Mapping[Kind, Sequence[CandidateLens]]) -> dict[str, LensChoice]:
    """Chooses each lens' setting with the highest mean correlation with the effects on the selection."""
    choices: dict[str, LensChoice] = {}
    for kind, lenses in candidates.items():
        found = {lens: float(scores.correlations(lens, scores.main).nanmean()) for lens in lenses}
        best = max(found, key=lambda lens: found[lens] if found[lens] == found[lens] else -2.0)
        named = {str(lens): value for lens, value in found.items()}
        choices[kind] = LensChoice(best, found[best], named)
    return choices


def summarise(
    scores: NamedScores,
    choices: Mapping[str, LensChoice],
    *,
    n_selection: int,
    seeds: Sequence[int],
    judge: JudgeName | None = None,
    command: str = "",
    model: str = "",
) -> LensesSummary:
    """Computes everything that the study reports, with the frozen settings.

    Args:
        scores: measurements of the pictures to report on.
        choices: chosen setting of each lens.
        n_selection: number of pictures of the selection.
        seeds: seeds of the decoder.
        judge: the outside judge, or None.
        command: the command, for the page of results.
        model: name of the pair.
    """
    transfer = _transfer(scores, choices) if scores.decodes else ()
    rows = _rows(scores, choices, judged=judge is not None and scores.names.judged is not None)
    return LensesSummary(
        n_pictures=len(scores.tables),
        n_concepts=len(set(scores.concepts)),
        n_selection=n_selection,
        n_heads=len(scores.sites),
        n_studied=len(scores.columns),
        n_names=len(scores.names.words),
        names=scores.names.source,
        n_judged=len(scores.names.judged_places),
        n_bank=0 if scores.bank is None else len(scores.bank.names),
        seeds=tuple(seeds) if scores.decodes else (),
        ablation=scores.ablation,
        choices=choices,
        rows=rows,
        transfer=transfer,
        heads={
            kind: {
                scores.sites[site].label: float(values)
                for site, values in zip(scores.columns, scores.by_head(choice.setting).nanmean(dim=0), strict=True)
            }
            for kind, choice in choices.items()
        },
        judge=judge,
        command=command,
        model=model,
        bootstrap=BOOTSTRAP[scores.sampled],
    )


def _rows(scores: NamedScores, choices: Mapping[str, LensChoice], *, judged: bool) -> tuple[LensRow, ...]:
    drawn = _Drawn(scores)
    norm = drawn.baseline(scores.norm)
    picture: dict[View, Tensor] = {}
    rows: list[LensRow] = []
    for kind, choice in choices.items():
        views: list[View] = ["decoded"]
        if kind != RETRIEVAL:
            views = ["decoded", "requested"] if scores.decodes else ["requested"]
        if judged:
            views.append("judged")
        for view in views:
            values = drawn.correlations(choice.setting, view)
            if kind == PICTURE:
                picture[view] = values
            rows.append(
                LensRow(
                    kind,
                    str(choice.setting),
                    view,
                    drawn.estimate(values),
                    None if kind == PICTURE else drawn.estimate(values - picture.get(view, picture["requested"])),
                    None if view == "judged" else drawn.estimate(values - norm),
                )
            )
    rows.append(LensRow(NORM, "", "decoded", drawn.estimate(norm)))
    rows.append(LensRow(LAYER, "", "decoded", drawn.estimate(drawn.baseline(scores.layer))))
    return tuple(rows)


class _Drawn:
    """Correlations on every draw of pictures and heads, the same draws for all lenses.

    Heads are drawn within their layers if the studied heads are a sample of the encoder's. Tables have a row of all
    pictures and heads, and one of each draw.

    Args:
        scores: the measurements.
    """

    def __init__(self, scores: NamedScores) -> None:
        self._scores = scores
        everything = torch.arange(len(scores.concepts))[None], torch.arange(len(scores.columns))[None]
        drawn = drawn_batches(
            scores.concepts, len(scores.columns), draws=scores.draws, heads=scores.sampled, layers=scores.layers
        )
        self._batches = [everything, *drawn]

    def correlations(self, lens: CandidateLens, view: View) -> Float[Tensor, "draws P"]:
        """Correlations of a lens, of each drawn picture."""
        return self._of(lambda part: self._scores.sides(self._scores.score(lens, part, view), part, view))

    def baseline(self, table: Float[Tensor, "P n"]) -> Float[Tensor, "draws P"]:
        """Correlations of a score that is equal for all names."""
        rows = iter(table)
        return self._of(lambda part: self._scores.sides(next(rows)[:, None], part, "decoded"))

    def estimate(self, values: Float[Tensor, "draws P"]) -> Estimate:
        """Mean over pictures, with its interval over draws."""
        means = values.nanmean(dim=1)
        return estimate_of(float(means[0]), means[1:].double())

    def _of(
        self, sides: Callable[[PicturePart], tuple[Float[Tensor, "T n"], Float[Tensor, "T n"]]]
    ) -> Float[Tensor, "draws P"]:
        columns = torch.cat([own for _, own in self._batches])
        pictures = torch.cat([own for own, _ in self._batches])
        # Without a draw of heads, all rows are equal.
        used = columns if self._scores.sampled else columns[:1]
        each: list[Tensor] = []
        for part in self._scores.tables.parts:
            score, effect = sides(part)
            names = torch.arange(len(effect)).expand(len(used), -1)
            each.append(of_draws(spearman, score.expand_as(effect), effect, names, used).nanmean(dim=1))
        return torch.stack(each, dim=1).expand(len(columns), -1).gather(1, pictures)


def _transfer(scores: NamedScores, choices: Mapping[str, LensChoice]) -> tuple[TransferRow, ...]:
    steps = {step: scores.transfer_of_step(step) for step in STEPS}
    apart = float(steps[1.0][1].mean())  # a whole step leads to another scene
    rows = [
        TransferRow(
            "scene", f"{step:g} of the way to another scene", float(sizes.mean()) / apart, _table(scores, values)
        )
        for step, (values, sizes) in steps.items()
    ]
    for kind in (PICTURE, CONTRAST):
        lens = choices[kind].setting
        size = float(scores.sizes_of_changes(lens).mean()) / apart * (2 if kind == CONTRAST else 1)
        rows.append(TransferRow("head", str(lens), size, _table(scores, scores.transfer_to_heads(lens))))
    return tuple(rows)


def _table(scores: NamedScores, table: Float[Tensor, "P n"]) -> Estimate:
    """Mean of a table with its interval over draws of concepts, widened by the spread of a sample of heads."""
    drawn = mean_estimate(table.double().mean(dim=1, keepdim=True), scores.concepts, draws=scores.draws, heads=False)
    left_out = 1 - len(scores.columns) / len(scores.sites)
    by_head = table.shape[1] == len(scores.columns)
    return widened(drawn, left_out * head_variance(table, scores.layers)) if by_head else drawn
