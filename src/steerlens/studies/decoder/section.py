"""Page of the decoder study: settings of the sweep, agreement over seeds, and rankings compared with the reference."""

from steerlens.studies.decoder.results import DecoderSummary, SettingRow, SettingView
from steerlens.studies.shared.markdown import figure, interval, judged_by, resampled, signed, table


def decoder_section(summary: DecoderSummary) -> str:
    """Writes the page of the study below its findings."""
    reference, default = summary.reference, summary.default
    single, whole = summary.seed_to_seed
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_decoded} of "
        f"{summary.n_heads} heads, steered with {summary.strength} and decoded with {len(summary.seeds)} "
        f"seeds at every setting. Heads are ranked by similarity with the {summary.target}, one seed at a time, and "
        f"compared with the reference ({reference.name}, {len(summary.reference_seeds)} other seeds, mean over all "
        "but one). The reference's *self-agreement* is the rank correlation of a reference seed with the mean over the "
        "other seeds. "
        f"{resampled(summary.n_concepts)}\n",
        *judged_by(summary.judge),
        f"    {summary.command or 'steerlens study decoder --data DATA --out studies/decoder'}\n",
        figure("Rank correlation, agreement and fidelity over the number of steps", "decoder-steps"),
        "## Settings of the sweep\n",
        _settings(summary),
        f"The rankings of two reference seeds correlate by {signed(single) or 'undefined'}; the mean over all of "
        f"them has a reliability of {signed(whole) or 'undefined'} (Spearman-Brown). The ranking without decoding, "
        f"which has no seed noise, correlates with that mean by {interval(summary.undecoded)}. A ranking without noise "
        f"could reach at most the root of the reliability, {interval(summary.undecoded_ceiling)}; the share of this "
        f"limit is {interval(summary.undecoded_share)}.\n",
        *_baselines(summary),
        "At the default setting, pictures of different inputs agree by "
        f"{signed(default.own.unrelated) or 'undefined'}.\n",
        figure("Every setting of the sweep", "decoder-settings"),
        figure("The same embeddings with other seeds", "decoder-seeds"),
    ]
    return "\n".join(lines)


def _settings(summary: DecoderSummary) -> str:
    judged = summary.reference.judged is not None
    headings = ["setting", "passes"]
    for viewer in ("", ", judged") if judged else ("",):
        headings += [f"{what}{viewer}" for what in ("rank correlation", "share of the self-agreement", "agreement")]
    return table(
        [*headings, "fidelity"],
        [_cells(row, _marked(row, summary), judged=judged) for row in (*summary.rows, summary.reference)],
    )


def _marked(row: SettingRow, summary: DecoderSummary) -> str:
    if row is summary.reference:
        return f"{row.name} (reference)"
    return f"{row.name} (default)" if row is summary.default else row.name


def _cells(row: SettingRow, name: str, *, judged: bool) -> list[str]:
    views: list[SettingView | None] = [row.own, row.judged] if judged else [row.own]
    cells = [name, str(row.passes)]
    for view in views:
        estimates = (None,) * 3 if view is None else (view.rank_correlation, view.share, view.agreement)
        cells += map(interval, estimates)
    return [*cells, interval(row.fidelity)]


def _baselines(summary: DecoderSummary) -> list[str]:
    """Sentence on what needs neither lens nor decoder."""
    if not summary.baselines:
        return []
    words = ", ".join(f"{name} {interval(estimate)}" for name, estimate in summary.baselines.items())
    return [f"Without a lens, correlations with the same mean are: {words}.\n"]
