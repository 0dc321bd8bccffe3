"""The manifest of a run: its identity and its facts as JSON, written and read."""

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steerlens.atlas.plan import Cell, Plan, RepeatedCells, compact
from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.encoders.base import EncoderSpec
from steerlens.encoders.geometry import geometry_from_json
from steerlens.errors import StoreError, UsageError
from steerlens.lenses.strength import Strength
from steerlens.runs.difference import first_difference
from steerlens.sites import Site
from steerlens.storage.files import atomic_write

FORMAT = 1
"""Version of the layout of a run directory."""

BESIDE_IDENTITY = (
    "format",
    "fingerprint",
    "complete",
    "decoded",
    "provenance",
    "geometry",
    "seconds",
    "resumed",
    "merged",
)
"""Keys of a manifest that are no part of a run's identity."""


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash of a run's identity: the models, options and inputs that two calls must share to add to one run."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def known_by(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The identity in a manifest: the part that two calls must share to add to one run."""
    return {key: value for key, value in manifest.items() if key not in BESIDE_IDENTITY}


def identity_as_now(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of a stored run as this version writes it; earlier ones named every cell of every picture."""
    with readable_run(folder):
        return {**identity, "plan": plan_to_json(plan_from_json(identity["plan"]))} if "plan" in identity else identity


def comparable(identity: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is known by, as far as it can be compared with another run.

    Names of models are left out: they say where the files lay, and hashes say which they are. So is what the identity
    of the other run, if an earlier version wrote it, does not say of the models: such runs go on where all that they
    say agrees.

    Args:
        identity: what a run is known by.
        other: what the other one is known by.
    """
    models, held = identity.get("models"), other.get("models")
    if not isinstance(models, Mapping) or not isinstance(held, Mapping):
        return dict(identity)
    new = "processor" in held.get("encoder", {})
    hashed = any(name.startswith("image_encoder/") for name in {**models.get("sha256", {}), **held.get("sha256", {})})
    if new or hashed:
        named = [part for part in ("encoder", "decoder") if isinstance(identity.get(part), Mapping)]
        specs = {part: {**identity[part], "name": ""} for part in named}
        identity = {**identity, **specs}
    if new:
        return dict(identity)
    less = {part: _only(held[part], models[part]) for part in ("encoder", "decoder") if part in held}
    files, said = models.get("sha256", {}), held.get("sha256", {})
    added = [name for name in files if name.endswith("/processor_config.json") and name not in said]
    return {**identity, "models": {**less, "sha256": {name: files[name] for name in files if name not in added}}}


def _only(keys: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys}


def identity_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first difference of two identities: its name and both values; None if they are equal.

    The plan comes last: most other differences make another plan too.
    """
    # A run that decodes everything does not say so.
    first, second = ({"decode": "all", **held} for held in (one, other))
    plans = first.pop("plan", None), second.pop("plan", None)
    return first_difference(first, second) or first_difference(*plans, "plan")


@contextmanager
def readable_run(folder: Path) -> Generator[None]:
    """Turns errors of reading a damaged run into one clear message.

    Raises:
        StoreError: if anything is missing or broken.
    """
    try:
        yield
    except KeyError as error:
        raise StoreError(f"the run in {folder} cannot be read: its manifest has no {error}.") from error
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise StoreError(f"the run in {folder} cannot be read: {error}.") from error


def is_complete(manifest: Mapping[str, Any], cells: int) -> bool:
    """Whether a run with so many cells is complete; a part may have been removed since its manifest said so."""
    if not manifest.get("complete"):
        return False
    decoded = manifest.get("decoded")
    return cells == (len(plan_from_json(manifest["plan"])) if decoded is None else decoded)


def spec_to_json(spec: EncoderSpec | DecoderSpec) -> dict[str, Any]:
    """A spec as JSON values, without the geometry of pictures, which is no size and is kept apart."""
    values = json.loads(json.dumps(asdict(spec)))
    return {name: value for name, value in values.items() if name != "geometry"}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values; cells that every picture has are named once."""
    same = plan.cells if isinstance(plan.cells, RepeatedCells) else None
    return {
        "strength": str(plan.strength),
        "seeds": list(plan.seeds),
        "n_layers": plan.n_layers,
        **({} if same is None else {"pictures": list(same.pictures)}),
        "cells": [cell.key for cell in (plan.cells if same is None else same.each)],
    }


def plan_from_json(values: Mapping[str, Any]) -> Plan:
    """Reads a plan, also one of an earlier version, which named every cell of every picture."""
    cells = tuple(_cell_of(key) for key in values["cells"])
    held = RepeatedCells(tuple(values["pictures"]), cells) if "pictures" in values else compact(cells)
    return Plan(held, Strength.parse(values["strength"]), tuple(values["seeds"]), values["n_layers"])


def _cell_of(key: Any) -> Cell:
    picture, lens, site, strength, seed, draw = key.split("|")
    parsed = Strength.parse(strength) if strength else None
    return Cell(picture, lens, Site.parse(site), parsed, int(seed), int(draw))


def encoder_spec(values: Mapping[str, Any], geometry: Mapping[str, Any] | None = None) -> EncoderSpec:
    """Reads the spec of an encoder.

    Args:
        values: what `spec_to_json` wrote.
        geometry: of pictures, which earlier versions did not write.
    """
    tokens = values["readout_tokens"]
    tuples: dict[str, Any] = {
        "image_size": tuple(values["image_size"]),
        "patch_grid": tuple(values["patch_grid"]),
        "readout_tokens": None if tokens is None else tuple(tokens),
        "geometry": None if geometry is None else geometry_from_json(geometry),
    }
    return EncoderSpec(**{**values, **tuples})


def decoder_spec(values: Mapping[str, Any]) -> DecoderSpec:
    """Reads the spec of a decoder; what earlier versions did not write has its default."""
    defaults: dict[str, Any] = dict(values["defaults"])
    defaults["size"] = tuple(defaults["size"])
    defaults["guidance_interval"] = tuple(defaults.get("guidance_interval", (0.0, 1.0)))
    tokens = values.get("tokens")
    source = None if tokens is None else TokenSource(**tokens)
    fields: dict[str, Any] = {**values, "defaults": DecodeOptions(**defaults), "tokens": source}
    return DecoderSpec(**fields)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a run, whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    atomic_write(folder / "manifest.json", (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        UsageError: if the folder holds no run.
        StoreError: if it cannot be read, or another version of steerlens wrote it.
    """
    manifest = stored_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} holds no run of steerlens: there is no manifest.json in it.")
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{folder} was written by another version of steerlens (format {manifest.get('format')}).")
    return manifest


def stored_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder, of any version; None if there is none.

    Raises:
        StoreError: if it cannot be read.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
    if manifest is not None and not isinstance(manifest, dict):
        raise StoreError(f"{path} cannot be read: it holds no manifest.")
    return manifest
