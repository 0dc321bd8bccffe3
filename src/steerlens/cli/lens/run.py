"""Steps of `steerlens lens`: the sweep with its progress, the report, and a summary of the best heads."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from steerlens.atlas import Atlas, DomainCheck, LensName, Reading, SiteScore
from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.lens.cards import card_lines, cards_json
from steerlens.cli.lens.engines import (
    SweepBar,
    compile_decoder,
    engine_of,
    leave_the_gpu,
    load_pair,
    pays_to_compile,
)
from steerlens.cli.lens.names import name_lines
from steerlens.cli.lens.settings import CardSettings, LensSettings
from steerlens.cli.lens.units import fit_lines, saes_json, unit_lines, units_json
from steerlens.decoders import NeighboursDecoder
from steerlens.domain import UNUSUAL
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.printable import printable
from steerlens.progress import Progress, run_to_end
from steerlens.report import advice, domain_warnings, outside_words, unordered_sentence, write_report
from steerlens.runs import load_run
from steerlens.sites import all_heads
from steerlens.sweep import Job, look_in, make_job
from steerlens.zoo import Pair, read_vocabulary


def look_and_report(settings: LensSettings, pictures: list[Picture], folder: Path, command: str) -> int:
    """Runs the sweep with progress, writes the report, and prints the best heads; returns the exit code.

    Args:
        settings: the options.
        pictures: the inputs.
        folder: run directory.
        command: the command as a text, which the run keeps and its report states.
    """
    engine = engine_of(settings)
    settings.head_cards.check()
    for picture in pictures:
        if picture.note:
            say(f"{picture.name}: {picture.note}", quiet=settings.json)
    with ProgressBar(quiet=settings.json) as progress:
        progress.stage("loading", 1)
        pair = load_pair(settings)
        for note in pair.notes:
            progress.say(note)
        if pair.provenance.domain:
            progress.say(f"domain of the decoder: {pair.provenance.domain}")
        spec = pair.encoder.spec
        directions = settings.sites.directions(spec.n_layers, spec.n_heads, spec.width)
        vocabulary = None if settings.sites.vocabulary is None else read_vocabulary(settings.sites.vocabulary, pair)
        saes = settings.sites.saes()
        progress.advance(1)
        job = make_job(
            pair, pictures, settings.look, settings.sites.target, vocabulary, directions, saes, progress.show
        )
        cards = _card_maker(settings, pair, job)
        for line in fit_lines(job):
            progress.say(line)
        if pays_to_compile(settings, pair, job.selection.at_most(job.plan.cells)):
            progress.say("compiling the denoising network, which takes a few minutes; --compile no skips this")
            compile_decoder(pair)
        if twice := len(pictures) - len(job.plan.pictures):
            progress.say(f"{twice} of the pictures are given twice: each is looked at once")
        if job.left_out:
            progress.say(_in_the_index(len(job.left_out)))
        if job.vocabulary is None:
            progress.say("no vocabulary: pass --vocabulary FILE for labels")
        source = pair.decoder.spec.tokens
        if source is not None and source.layers_after:
            last = source.last_layer(spec.n_layers)
            progress.say(
                f"{pair.name} reads the tokens after layer {last} of {spec.n_layers}: later layers are left out"
            )
        if settings.workers.engine == "ray":
            leave_the_gpu(pair)
        sweep, warned = SweepBar(progress), set[str]()

        def show(event: Progress) -> None:
            sweep.show(event)
            reading = event.payload
            if isinstance(reading, Reading) and (reading.unusual or 0.0) >= UNUSUAL:
                # At once, before hours of decoding.
                warned.add(reading.id)
                progress.say(f"WARNING: {outside_words(reading.picture.name, pair.name)}")

        atlas = run_to_end(look_in(pair, job, folder, engine, facts={"command": printable(command)}), show)
        if not sweep.begun:
            progress.say(f"every picture is in {folder} already")
        for note in [] if job.traces is None else job.traces.notes:
            progress.say(note)
        progress.stage("report", 1)
        report = write_report(atlas, folder)
        progress.advance(1)
        # After the report, so that the run has one if cards, which may take as long as the sweep, are interrupted.
        if cards is not None and run_to_end(cards(atlas, folder), progress.show):
            atlas = load_run(folder)
            progress.stage("report with cards", 1)
            report = write_report(atlas, folder, figures=False)
            progress.advance(1)
        for name, words, id in domain_warnings(atlas):
            if id not in warned:
                progress.say(f"WARNING: {outside_words(name, pair.name)}")
            progress.say(f"  {name}: {words}")
        if any(domain_warnings(atlas)):
            progress.say(f"  {advice(pair.name)}")
    if settings.json:
        emit_json(summary(atlas, report))
    else:
        _print_best_heads(atlas, report)
    return 0


def _card_maker(
    settings: LensSettings, pair: Pair, job: Job
) -> "Callable[[Atlas, Path], Generator[Progress, None, int]] | None":
    """Function that makes the cards of heads of a finished run; None without a bank.

    The bank and the studies are opened now, so that a wrong one is refused before an hour of decoding, not after it.
    """
    from steerlens.profiles import checked_bank, measured_faithfulness, write_head_cards

    cards = settings.head_cards
    if cards.bank is None:
        return None
    most = len({cell.site for cell in job.plan.of(job.plan.pictures[0]) if cell.site.kind == "head"})
    most = min(most, int(job.selection.value)) if job.selection.rule == "top" else most
    if cards.cards != CardSettings().cards and cards.cards > most:
        raise UsageError(f"--cards {cards.cards}: only {most} heads are decoded.")
    measured = measured_faithfulness(pair.name, cards.studies)
    bank = checked_bank(job, NeighboursDecoder(cards.bank))
    return partial(write_head_cards, job, bank=bank, model=pair.name, count=cards.cards, faithfulness=measured)


def summary(atlas: Atlas, report: Path) -> dict[str, Any]:
    """Scores of every site of every input under every lens, best first, as JSON values."""
    pictures: list[dict[str, Any]] = []
    for reading in atlas.readings:
        content: dict[str, Any] = {
            "name": reading.picture.name,
            "sha256": reading.picture.sha256,
            "target": reading.target,
            "clean_fidelity": [result.fidelity for result in atlas.clean(reading.id)],
            "decomposition_error": reading.decomposition_error,
            "domain": None if (check := atlas.domain(reading.id)) is None else _domain(check),
        }
        others: list[LensName] = [lens for lens in ("total", "ablation") if lens in atlas.plan.lenses]
        for lens in ("diffusion", "steering", *others):
            scores = [atlas.score(lens, site, reading.id) for site in atlas.sites(lens, reading.id)]
            ranked = sorted(scores, key=lambda score: -score.similarity)
            content[lens] = [{**asdict(score), "site": str(score.site)} for score in ranked]
        if (effects := reading.ablation_effects) is not None:
            heads = all_heads(*effects.shape)
            content["ablation_effects"] = dict(zip(map(str, heads), effects.flatten().tolist(), strict=True))
        if reading.units:
            content["units"] = units_json(reading)
        if (cards := atlas.cards.get(reading.id)) is not None:
            content["cards"] = cards_json(cards)
        content["labels"] = [{**asdict(label), "site": str(label.site)} for label in reading.labels]
        pictures.append(content)
    fits = saes_json(atlas)
    saes = {"saes": dict(fits)} if fits else {}
    return {"report": str(report), "run": str(report.parent), **saes, "pictures": pictures}


def _domain(check: DomainCheck) -> dict[str, Any]:
    return {**asdict(check), "outside": check.outside, "words": str(check)}


def _in_the_index(count: int) -> str:
    if count == 1:
        return "1 of the inputs is in the index; its own file is not shown"
    return f"{count} of the inputs are in the index; their own files are not shown"


def _print_best_heads(atlas: Atlas, report: Path) -> None:
    for reading in atlas.readings:
        clean = atlas.clean(reading.id)
        if clean:
            say(f"{reading.picture.name}: clean reconstruction, re-encoding fidelity {clean[0].fidelity:.2f}")
        if (unordered := unordered_sentence(atlas, reading)) is not None:
            say(f"  {unordered}")
        for line in unit_lines(atlas, reading):
            say(line)
        _print_best(atlas.ranked("steering", reading.id), f"steered pictures are closest to {_target_words(reading)}")
        _print_best(atlas.ranked("total", reading.id), f"total effects come closest to {_target_words(reading)}")
        _print_ablated(reading)
        for line in name_lines(atlas, reading):
            say(line)
        for line in card_lines(atlas.cards.get(reading.id)):
            say(line)
    say(f"report: {report}")


def _target_words(reading: Reading) -> str:
    """The target; if it is not the input, also the input's own similarity, with which to compare the scores."""
    if reading.target == "the input itself":
        return reading.target
    return f"{reading.target} (the input itself: {reading.target_similarity:.2f})"


def _print_ablated(reading: Reading) -> None:
    if (effects := reading.ablation_effects) is None:
        return
    ranked = sorted(all_heads(*effects.shape), key=lambda head: -float(effects[head.layer, head.head]))
    named = ", ".join(f"{head.label} {float(effects[head.layer, head.head]):.3f}" for head in ranked[:6])
    say(f"  heads without which the embedding moves most (1 - cosine, of all {len(ranked)} heads): {named}")


def _print_best(best: Sequence[SiteScore], which: str) -> None:
    if not best:
        return
    named = ", ".join(f"{score.site.label} {score.similarity:.2f}" for score in best[:6])
    beaten = [score for score in best if score.beats_control]
    controlled = f"; {len(beaten)} of {len(best)} beat their control" if best[0].control is not None else ""
    say(f"  heads whose {which}: {named}{controlled}")
