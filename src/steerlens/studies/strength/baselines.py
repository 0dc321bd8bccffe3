"""Baselines of the strength study: correlations of norm and layer, and partial correlations of every strength."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from steerlens.lenses import Strength
from steerlens.studies.shared.partial import GIVEN, LAYER, NORM, RAW, DrawnCorrelations, layer_table
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.strength.results import BaselineRow
from steerlens.studies.strength.scores import DECODED, UNDECODED, UNDECODED_SAME, Half


def baseline_rows(half: Half, strengths: Sequence[Strength], layers: Sequence[int]) -> tuple[BaselineRow, ...]:
    """Correlations of norm, layer and every strength with both effects, raw and with norm and layer held fixed.

    All are taken over the decoded heads. Signed effects are compared with similarity with the target, unsigned effects
    with similarity with the input. Empty if a part lacks the norms.

    Args:
        half: measurements of the concepts to report on.
        strengths: strengths of the sweep.
        layers: layer of each head.
    """
    if any(part.norm is None for part in half.tables.parts):
        return ()
    columns = list(half.columns)
    plain = {NORM: half.tables.norm[:, columns], LAYER: layer_table([layers[at] for at in columns], len(half.tables))}
    rows: list[BaselineRow] = []
    for effect, values in half.effects().items():
        scores = dict(plain)
        for strength in strengths:
            scores |= _scores(half, strength, effect.target or INPUT)
        drawn = DrawnCorrelations(scores | {"effect": values[:, columns]}, half.concepts, draws=half.draws)
        for name in scores:
            covariates = {RAW: (), **GIVEN} if name not in plain else {RAW: ()}
            rows.append(
                BaselineRow(
                    name, effect, {words: drawn.estimate(name, "effect", own) for words, own in covariates.items()}
                )
            )
    return tuple(rows)


def _scores(half: Half, strength: Strength, compare: str) -> dict[str, Float[Tensor, "P n"]]:
    """Decoded and undecoded similarities of a strength, over the decoded heads."""
    scores = half.scores(strength, compare)
    undecoded = scores.get(UNDECODED_SAME, scores[UNDECODED])[0]
    return {f"{strength}, {DECODED}": scores[DECODED][0], f"{strength}, {UNDECODED}": undecoded}
