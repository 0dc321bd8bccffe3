"""Estimates of `--dry-run` for models whose cost cannot be counted from their configs: one picture is decoded.

The models are loaded, and everything that the run would check is checked. A model that is not on this machine is not
fetched: only its plan and the size of its download are printed.
"""

import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.cli.estimates import disk_bytes, existing, timed, weight_bytes
from steerlens.cli.lens.settings import LensSettings
from steerlens.decoders import DecodeOptions, clean_conditioning, decode
from steerlens.errors import ModelError, UsageError
from steerlens.sweep import Job, Selection, default_strength, encoder_passes, expected_plan, make_job, vector_place
from steerlens.zoo import Card, card_of, has_no_decoder, read_vocabulary

if TYPE_CHECKING:
    from steerlens.atlas import Plan
    from steerlens.images import Picture


def measured_price(settings: LensSettings, pictures: "list[Picture]", folder: Path) -> dict[str, Any]:
    """Estimates the cost of a run from one decoded picture; keys as in `price`, None where nothing is known.

    Raises:
        UsageError: if the settings make no sense for the model, as in a real run.
        ModelError: if the model is damaged, or not on this machine and unknown.
    """
    settings.head_cards.check()
    models = replace(settings.models, local_files_only=True)
    named = None if has_no_decoder(models.model) else card_of(models.model)
    try:
        pair = models.load()
    except ModelError:
        if named is None or not named.layers or models.local is not None or named.bundled is not None:
            raise
        return _not_here(settings, named, pictures, folder)
    spec = pair.encoder.spec
    directions = settings.sites.directions(spec.n_layers, spec.n_heads, spec.width)
    words = settings.sites.vocabulary
    vocabulary = None if words is None else read_vocabulary(words, pair)
    saes = settings.sites.saes()
    job = make_job(pair, pictures, settings.look, settings.sites.target, vocabulary, directions, saes)
    each, trace = _seconds(job)
    passes = len(pictures) + encoder_passes(
        job.plan, job.selection, spec.n_layers, spec.n_heads, job.directions, job.vector_at
    )
    decoded = job.selection.at_most(job.plan.cells) + settings.head_cards.pictures(len(pictures))
    return {
        **_described(job.plan, job.selection, job.options, settings, pictures, folder, passes),
        "device": str(pair.encoder.device),
        "dtype": str(getattr(pair.decoder, "dtype", pair.encoder.dtype)).removeprefix("torch."),
        "seconds": decoded * each + passes * trace,
        "seconds_per_picture": each,
        "weight_bytes": weight_bytes(pair.encoder, pair.decoder),
        "download_gigabytes": None,
    }


def _seconds(job: Job) -> tuple[float, float]:
    """Seconds to decode a picture and to trace one."""
    picture = next(iter(job.pictures.values()))
    started = time.perf_counter()
    inputs = job.encoder.preprocess([picture.image])
    job.encoder.trace(inputs, attention=True)
    traced = time.perf_counter() - started
    conditioning = clean_conditioning(job.encoder, job.decoder, inputs)
    options = replace(job.options, batch_size=1)
    return timed(lambda: decode(job.decoder, conditioning, [0], options)), traced


def _not_here(settings: LensSettings, card: Card, pictures: "list[Picture]", folder: Path) -> dict[str, Any]:
    """Plan of a run with a model that has to be fetched first."""
    if not card.heads:
        raise UsageError(f"{card.name} is not on this machine, and its sizes are not known; run doctor first.")
    saes = {sae.name: sae for sae in settings.sites.saes()}
    directions = {**settings.sites.directions(card.layers, card.heads), **saes}
    strength = default_strength(card)
    plan = expected_plan(settings.look, pictures, card.layers, card.heads, strength, directions=directions)
    options = settings.look.over(card.defaults.options())
    selection = Selection.parse(settings.look.decode)
    place = vector_place(settings.look, plan, card.layers)
    passes = len(pictures) + encoder_passes(plan, selection, card.layers, card.heads, directions, place)
    return {
        **_described(plan, selection, options, settings, pictures, folder, passes),
        "device": None,
        "dtype": None,
        "seconds": None,
        "seconds_per_picture": None,
        "weight_bytes": None,
        "download_gigabytes": card.gigabytes,
    }


def _described(
    plan: "Plan",
    selection: Selection,
    options: DecodeOptions,
    settings: LensSettings,
    pictures: "list[Picture]",
    folder: Path,
    passes: float,
) -> dict[str, Any]:
    on_cards = settings.head_cards.pictures(len(pictures))
    decoded = selection.at_most(plan.cells) + on_cards
    return {
        "inputs": [picture.name for picture in pictures],
        "pictures_to_decode": decoded,
        "decode": str(selection),
        "cells": {**Counter(cell.lens for cell in plan.cells), **({"cards": on_cards} if on_cards else {})},
        "sites": settings.look.sites,
        "strength": str(plan.strength),
        "seeds": list(plan.seeds),
        "steps": options.steps,
        "guidance": options.guidance,
        "guidance_interval": list(options.guidance_interval),
        "scheduler": options.scheduler,
        "size": list(options.size),
        "encoder_passes": round(passes, 1),
        "operations": None,
        "operations_per_second": None,
        "batch_size": options.batch_size,
        "working_bytes": None,
        "disk_bytes": disk_bytes(decoded, options.size),
        "disk_free_bytes": shutil.disk_usage(existing(folder)).free,
        "out": str(folder),
    }
