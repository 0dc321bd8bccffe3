"""Choice of each lens' setting, and the summary of the study, computed from the stored parts."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.studies.lenses.conclusion import LAYER, NORM
from steerlens.studies.lenses.options import CONTRAST, PICTURE, RETRIEVAL, CandidateLens, Kind
from steerlens.studies.lenses.results import LensChoice, LensesSummary, LensRow, TransferRow
from steerlens.studies.lenses.scores import NamedScores, View
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.stats import Estimate, mean_estimate
from steerlens.studies.shared.transfer import STEPS


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
    )


def _rows(scores: NamedScores, choices: Mapping[str, LensChoice], *, judged: bool) -> tuple[LensRow, ...]:
    norm = scores.baseline(scores.norm)
    picture: dict[View, Tensor] = {}
    rows: list[LensRow] = []
    for kind, choice in choices.items():
        views: list[View] = ["decoded"]
        if kind != RETRIEVAL:
            views = ["decoded", "requested"] if scores.decodes else ["requested"]
        if judged:
            views.append("judged")
        for view in views:
            values = scores.correlations(choice.setting, view)
            if kind == PICTURE:
                picture[view] = values
            rows.append(
                LensRow(
                    kind,
                    str(choice.setting),
                    view,
                    _estimate(scores, values),
                    None if kind == PICTURE else _estimate(scores, values - picture.get(view, picture["requested"])),
                    None if view == "judged" else _estimate(scores, values - norm),
                )
            )
    rows.append(LensRow(NORM, "", "decoded", _estimate(scores, norm)))
    rows.append(LensRow(LAYER, "", "decoded", _estimate(scores, scores.baseline(scores.layer))))
    return tuple(rows)


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


def _estimate(scores: NamedScores, values: Float[Tensor, "P"]) -> Estimate:
    """Mean over pictures with its interval over draws of concepts; heads and names are no samples."""
    return mean_estimate(values[:, None].to(torch.float64), scores.concepts, draws=scores.draws, heads=False)


def _table(scores: NamedScores, table: Float[Tensor, "P n"]) -> Estimate:
    return _estimate(scores, table.mean(dim=1))
