"""`steerlens profile --sae`: dashboards of the features of a sparse autoencoder."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.estimates import disk_bytes, existing, size_words
from steerlens.errors import UsageError

if TYPE_CHECKING:
    from steerlens.cli.profile import Command
    from steerlens.profiles import ProfilePictures
    from steerlens.profiles.features import FeatureOptions
    from steerlens.saes import SparseAutoencoder
    from steerlens.studies.shared import ModelLoader
    from steerlens.sweep import SaeFit
    from steerlens.vocabulary import Vocabulary
    from steerlens.zoo import Pair

_DECODED = 256
"""Features that are decoded by default."""


def run_features(command: "Command") -> int:
    """Runs the command and returns the exit code."""
    from steerlens.profiles.features import FeatureReader, profile_features, write_feature_page
    from steerlens.profiles.measure import native
    from steerlens.progress import Progress, run_to_end
    from steerlens.studies.shared import load_models
    from steerlens.sweep import SaeFit

    _refuse_heads(command)
    if command.dry_run:
        return _dry_run(command)
    start, settings = time.monotonic(), command.settings
    with ProgressBar(quiet=settings.json) as progress:
        progress.stage("loading", 1)
        ready = _prepare(command, load_models)
        progress.advance(1)

        def show(event: Progress) -> None:
            progress.show(event)
            if isinstance(event.payload, SaeFit):  # before hours of dashboards
                for line in _fit_lines(ready.sae, event.payload):
                    progress.say(line)

        events = profile_features(ready.pair, ready.sae, ready.shown, ready.options, command.out, ready.words)
        profile = run_to_end(events, show)
        progress.stage("page", 1)
        reader = FeatureReader(native(ready.pair.encoder), ready.sae.to(ready.pair.encoder.device))
        page = write_feature_page(profile, reader, ready.shown.pictures, command.out)
        progress.advance(1)
    if settings.json:
        emit_json({**profile.to_json(), "page": page, "seconds": time.monotonic() - start})
        return 0
    alive = profile.n_features - profile.dead
    seconds = time.monotonic() - start
    say(f"{profile.n_features} features over {profile.pictures} pictures ({profile.source}) in {seconds:.0f} s")
    say(f"{alive} active, {profile.dead} never; {profile.decoded} decoded")
    say(f"page: {page}")
    return 0


def _fit_lines(sae: "SparseAutoencoder", fit: "SaeFit") -> Iterator[str]:
    """Lines on how well the autoencoder fits the first pictures, with a warning about a poor fit."""
    yield f"{sae.name} at {sae.site}, on the first pictures: {fit.words}"
    if fit.is_poor:
        yield f"WARNING: {sae.name} FITS THESE PICTURES POORLY: its features say little about them."


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Dashboards that are ready to run."""

    pair: "Pair"
    sae: "SparseAutoencoder"
    shown: "ProfilePictures"
    options: "FeatureOptions"
    words: "Vocabulary | None"


def _prepare(command: "Command", load: "ModelLoader") -> _Prepared:
    """Checks options, and loads pictures and models; computes and writes nothing."""
    from steerlens.lenses import Strength, check_sae
    from steerlens.profiles.features import FeatureOptions
    from steerlens.saes import load_sae
    from steerlens.studies.shared import PlannedEncoder, with_steps
    from steerlens.sweep import default_strength
    from steerlens.zoo import check_vocabulary_files, read_vocabulary

    if command.sae is None:
        raise UsageError("give --sae FOLDER.")
    settings, strength = command.settings, None if command.strength is None else Strength.parse(command.strength)
    if command.vocabulary is not None:
        check_vocabulary_files(command.vocabulary)
    sae = load_sae(
        command.sae,
        site=command.sae_site,
        activation=command.sae_activation,
        apply_b_dec_to_input=command.sae_apply_b_dec or None,
    )
    shown = command.pictures()
    pair = load(settings).pair
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
    if not isinstance(pair.encoder, PlannedEncoder):
        check_sae(sae, pair.encoder.spec)
    if command.decode is not None and command.decode > sae.n_features:
        raise UsageError(f"--decode {command.decode}: there are only {sae.n_features} features in {sae.name}.")
    words = None if command.vocabulary is None else read_vocabulary(command.vocabulary, pair)
    return _Prepared(pair, sae, shown, options, words)


def _dry_run(command: "Command") -> int:
    """Prints features, passes, pictures to decode, time, memory and size; computes and writes nothing."""
    from steerlens.cli.planned import Planner
    from steerlens.cli.work import price, tell
    from steerlens.profiles.features import feature_identity, feature_work, texts_of
    from steerlens.studies.shared import check_folder

    planner = Planner()
    ready = _prepare(command, planner.load)
    words = texts_of(ready.pair, ready.options, ready.words)
    loaded = planner.is_loaded
    identity = feature_identity(ready.pair, ready.sae, ready.shown, ready.options, words) if loaded else None
    resumes = check_folder(command.out, identity)
    counted = feature_work(ready.pair.encoder.spec, ready.sae, len(ready.shown.pictures), ready.options)
    rates = planner.rates(ready.options.decode)
    # Maps have a number for every token, and the stand-in of a model that was not loaded has one token.
    memory = counted.memory_bytes if planner.is_loaded else None
    decoded = disk_bytes(counted.work.n_decoded, ready.options.decode.size)
    disk = counted.disk_bytes + decoded if planner.is_loaded else None
    free = shutil.disk_usage(existing(command.out)).free
    if command.settings.json:
        told = price(counted.work, rates, command.out, resumes=resumes)
        sizes = {"feature_bytes": memory, "disk_bytes": disk, "disk_free_bytes": free}
        emit_json({**told, "features": counted.features, **sizes})
        return 0
    say(f"features: {counted.features} of {ready.sae.name}, read at {ready.sae.site}; decoded: the strongest alone")
    if memory is None or disk is None:
        say("memory of features, disk: not known before the model is loaded")
    else:
        say(f"memory of features: about {size_words(memory)}, however many pictures there are")
        say(f"disk: about {size_words(disk)} in {command.out} ({size_words(free)} free)")
    return tell(counted.work, rates, command.out, resumes=resumes, json=False)


def _refuse_heads(command: "Command") -> None:
    """Refuses options about heads.

    Raises:
        UsageError: if there is any, naming all.
    """
    given = {
        "--heads": command.heads != "all",
        "--studies": command.studies is not None,
        "--ablate (other than 0)": command.ablate not in (0, type(command).ablate),
    }
    named = [flag for flag, is_given in given.items() if is_given]
    if named:
        raise UsageError(
            f"{', '.join(named)}: no effect with --sae, which describes features. Leave out what is about heads."
        )
