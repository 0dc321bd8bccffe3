"""`steerlens profile --sae`: dashboards of the features of a sparse autoencoder."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.errors import UsageError

if TYPE_CHECKING:
    from steerlens.cli.profile import Command

_DECODED = 256
"""Features that are decoded by default."""


def run_features(command: "Command") -> int:
    """Runs the command and returns the exit code."""
    from steerlens.lenses import Strength
    from steerlens.profiles.features import FeatureOptions, FeatureReader, profile_features, write_feature_page
    from steerlens.profiles.measure import native
    from steerlens.progress import run_to_end
    from steerlens.saes import load_sae
    from steerlens.studies.shared import load_study_pair, with_steps
    from steerlens.sweep import default_strength
    from steerlens.zoo import read_vocabulary

    _refuse_heads(command)
    if command.sae is None:
        raise UsageError("give --sae FOLDER.")
    start, settings = time.monotonic(), command.settings
    with ProgressBar(quiet=settings.json) as progress:
        progress.stage("loading", 1)
        sae = load_sae(command.sae, site=command.sae_site)
        shown = command.pictures()
        pair = load_study_pair(settings)
        strength = None if command.strength is None else Strength.parse(command.strength)
        options = FeatureOptions(
            decode=with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance),
            strength=strength or default_strength(pair.card),
            n_top=command.top,
            n_texts=command.texts,
            n_decoded=_DECODED if command.decode is None else command.decode,
            ablate=command.ablate > 0,
            names=command.names,
            seed=settings.seed,
        )
        words = None if command.vocabulary is None else read_vocabulary(command.vocabulary, pair)
        progress.advance(1)
        events = profile_features(pair, sae, shown, options, command.out, words)
        profile = run_to_end(events, progress.show)
        progress.stage("page", 1)
        reader = FeatureReader(native(pair.encoder), sae.to(pair.encoder.device))
        page = write_feature_page(profile, reader, shown.pictures, command.out)
        progress.advance(1)
    if settings.json:
        emit_json({**asdict(profile), "page": page, "seconds": time.monotonic() - start})
        return 0
    fidelity = ", ".join(f"{name} {value:.2f}" for name, value in profile.fidelity.items())
    say(f"{profile.sae} at {profile.site}: {fidelity}")
    if not profile.fidelity["explained variance"] >= 0.5:
        say("WARNING: a poor fit: the autoencoder explains less than half of the variance, so features say little")
    alive = profile.n_features - profile.dead
    seconds = time.monotonic() - start
    say(f"{profile.n_features} features over {profile.pictures} pictures ({profile.source}) in {seconds:.0f} s")
    say(f"{alive} active, {profile.dead} never; {profile.decoded} decoded")
    say(f"page: {page}")
    return 0


def _refuse_heads(command: "Command") -> None:
    """Refuses options about heads, and a dry run, which counts profiles of heads alone.

    Raises:
        UsageError: if there is any, naming all.
    """
    if command.dry_run:
        raise UsageError("--dry-run does not count profiles of features (--sae); try few pictures first: --count 16.")
    given = {"--heads": command.heads != "all", "--studies": command.studies is not None}
    named = [flag for flag, is_given in given.items() if is_given]
    if named:
        raise UsageError(
            f"{', '.join(named)}: no effect with --sae, which describes features. Leave out what is about heads."
        )
