"""Estimates of `steerlens lens --dry-run`: cells, and their approximate time, memory and disk space."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.cli.console import emit_json, say
from steerlens.cli.estimates import disk_bytes, existing, size_words, time_words
from steerlens.cli.models import lines_of_dry_run

if TYPE_CHECKING:
    from steerlens.cli.lens.settings import LensSettings
    from steerlens.images import Picture


def dry_run(settings: "LensSettings", pictures: "list[Picture]", folder: Path) -> int:
    """Estimates the cost of a run, prints it, and returns the exit code.

    Models of the paper's kind are counted from their configs; for others, one picture is decoded and timed.
    """
    from steerlens.zoo import UncountedError

    try:
        estimate = price(settings, pictures, folder)
    except UncountedError:
        from steerlens.cli.lens.measured import measured_price

        estimate = measured_price(settings, pictures, folder)
    if settings.json:
        emit_json(estimate)
        return 0
    cells = ", ".join(f"{count} {lens}" for lens, count in estimate["cells"].items())
    every = sum(estimate["cells"].values())
    of_all = "" if estimate["decode"] == "all" else f" of {every} ({estimate['decode']})"
    inputs = "1 input" if len(pictures) == 1 else f"{len(pictures)} inputs"
    say(f"{estimate['pictures_to_decode']} pictures to decode{of_all} for {inputs}")
    say(f"{every} in all: {cells}" if of_all else f"lenses: {cells}")
    if settings.models.encoder is None and settings.models.neighbours is None:
        for line in lines_of_dry_run(settings.models.model, local=settings.models.local is not None):
            say(line)
    say(f"sites: {estimate['sites']}; strength: {estimate['strength']}; seeds: {estimate['seeds']}")
    if estimate["encoder_passes"] > len(pictures):
        say(
            f"encoder: the work of {estimate['encoder_passes']:.0f} forward passes, for total effects and ablations; a "
            "pass begins at the layer that is changed"
        )
    size = f"{estimate['size'][0]} x {estimate['size'][1]} pixels"
    how = (
        "one pass"
        if estimate["scheduler"] == "none"
        else f"{estimate['steps']} steps of {estimate['scheduler']}, guidance {estimate['guidance']:g}"
    )
    operations = estimate["operations"]
    say(f"decoder: {how}, {size}" + ("" if operations is None else f"; about {operations:.1g} operations in all"))
    if (download := estimate.get("download_gigabytes")) is not None:
        say(f"time: not known before the model is on this machine ({download:g} GB to download)")
    elif "seconds_per_picture" in estimate:
        say(f"time: about {time_words(estimate['seconds'])} on {estimate['device']}, from one picture decoded now")
    else:
        say(f"time: about {time_words(estimate['seconds'])} on {estimate['device']} (within a factor of two or three)")
    if estimate["weight_bytes"] is not None:
        working = estimate["working_bytes"]
        batch = (
            "" if working is None else f", and about {size_words(working)} to decode {estimate['batch_size']} at once"
        )
        host = f" ({size_words(estimate['host_bytes'])} more on the host)" if estimate.get("host_bytes") else ""
        say(f"memory: {size_words(estimate['weight_bytes'])} for weights{host}{batch}")
    say(
        f"disk: about {size_words(estimate['disk_bytes'])} in {folder} ({size_words(estimate['disk_free_bytes'])} free)"
    )
    return 0


def price(settings: "LensSettings", pictures: "list[Picture]", folder: Path) -> dict[str, Any]:
    """Estimates the cost of a run, as JSON values; nothing is loaded or written.

    Raises:
        UsageError: if the settings make no sense for the model, as in a real run.
    """
    from steerlens.decoders import default_batch_size
    from steerlens.devices import choose_device, decoder_dtype, parse_dtype
    from steerlens.errors import UsageError
    from steerlens.lenses import check_sae_site
    from steerlens.sweep import (
        Selection,
        check_names_of,
        default_strength,
        encoder_passes,
        expected_plan,
        refuse_tokens,
        refuse_unused_in_decoding,
        vector_place,
    )
    from steerlens.zoo import (
        card_of,
        check_vocabulary_files,
        cost_of,
        default_options,
        estimate_seconds,
        probe_flops,
    )

    models, look = settings.models, settings.look
    pictures = list({picture.sha256: picture for picture in pictures}.values())
    check_names_of(look, len(pictures))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder.")
    settings.workers.refuse_unused()
    settings.head_cards.check()
    if models.model.startswith("bridge:"):
        from steerlens.bridges import parts_of

        target, source = parts_of(models.model.removeprefix("bridge:"))
        models = replace(models, model=target, encoder=models.encoder or source)
    if models.neighbours is not None:
        models = replace(models, model=str(models.neighbours))
    card, device = card_of(models.model), choose_device(models.device)
    cost = cost_of(
        models.model,
        device=device,
        dtype=models.dtype,
        local=models.local,
        encoder=models.encoder,
        local_files_only=models.local_files_only,
        precision=models.precision,
        offload=models.offload,
    )
    if settings.sites.vocabulary is not None:
        check_vocabulary_files(settings.sites.vocabulary)
    saes = {sae.name: sae for sae in settings.sites.saes()}
    for sae in saes.values():
        check_sae_site(sae, cost.n_layers, cost.n_heads)
    directions = {**settings.sites.directions(cost.n_layers, cost.n_heads), **saes}
    strength = default_strength(card)
    plan = expected_plan(look, pictures, cost.n_layers, cost.n_heads, strength, directions=directions)
    if card is None or card.consumes == "image_embedding":
        refuse_tokens(look, models.model)
    defaults = default_options(card, cost.size)
    refuse_unused_in_decoding(look, defaults, models.model)
    options = look.over(defaults)
    speed = probe_flops(device, parse_dtype(models.dtype))
    precision = decoder_dtype(device, parse_dtype(models.dtype))
    batch = options.batch_size or cost.batch or default_batch_size(options.size, cost.scale, device)
    selection = Selection.parse(look.decode)
    on_cards = settings.head_cards.pictures(len(pictures))
    decoded = selection.at_most(plan.cells) + on_cards
    passes = len(pictures) + encoder_passes(
        plan, selection, cost.n_layers, cost.n_heads, directions, vector_place(look, plan, cost.n_layers)
    )
    seconds = estimate_seconds(cost, speed, pictures=decoded, options=options, traces=passes)
    return {
        "inputs": [picture.name for picture in pictures],
        "pictures_to_decode": decoded,
        "decode": str(selection),
        "cells": {**Counter(cell.lens for cell in plan.cells), **({"cards": on_cards} if on_cards else {})},
        "sites": look.sites,
        "strength": str(plan.strength),
        "seeds": list(plan.seeds),
        "steps": options.steps,
        "guidance": options.guidance,
        "guidance_interval": list(options.guidance_interval),
        "scheduler": options.scheduler,
        "size": list(options.size),
        "device": str(device),
        "dtype": str(precision).removeprefix("torch."),
        "encoder_passes": round(passes, 1),
        "operations": decoded * cost.picture_flops(options) + passes * cost.encoder_flops,
        "operations_per_second": speed,
        "seconds": seconds,
        "precision": models.precision,
        "weight_bytes": cost.bytes,
        "host_bytes": cost.host_bytes,
        "batch_size": batch,
        "working_bytes": cost.working_bytes(batch, options.size, precision.itemsize),
        "disk_bytes": disk_bytes(decoded, options.size),
        "disk_free_bytes": shutil.disk_usage(existing(folder)).free,
        "out": str(folder),
    }
