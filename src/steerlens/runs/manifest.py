"""The manifest of a run: reads and writes its identity and facts as JSON."""

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from steerlens.atlas import Cell, Plan, RepeatedCells, cells_by_picture, compact
from steerlens.decoders import DecodeOptions, DecoderSpec, TokenSource
from steerlens.encoders import EncoderSpec, Geometry, geometry_from_json
from steerlens.errors import StoreError, UsageError
from steerlens.lenses import Strength
from steerlens.limits import read_file
from steerlens.runs.difference import first_difference
from steerlens.runs.hashes import all_listed
from steerlens.sites import Site
from steerlens.storage import atomic_write, parse_json, too_large

_Spec = TypeVar("_Spec", EncoderSpec, DecoderSpec, DecodeOptions, TokenSource, Geometry)

FORMAT = 1
"""Version of the layout of a run directory."""

BESIDE_IDENTITY = (
    "format",
    "fingerprint",
    "complete",
    "decoded",
    "provenance",
    "command",
    "geometry",
    "reference",
    "saes",
    "seconds",
    "resumed",
    "merged",
)
"""Keys of a manifest that are not part of a run's identity."""


_FACTS: Mapping[str, tuple[type, ...]] = {
    "seconds": (int, float),
    "decoded": (int,),
    "complete": (bool,),
    "resumed": (bool,),
    "provenance": (dict,),
    "inputs": (dict,),
    "plan": (dict,),
    "options": (dict,),
    "target": (dict,),
    "directions": (dict,),
    "decode": (str,),
    "saes": (dict,),
}
"""Kinds of what is used without further checks."""


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash of a run's identity: the models, options and inputs that two calls must share to add to one run."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def known_by(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Identity in a manifest: the part that two calls must share to add to one run."""
    return {key: value for key, value in manifest.items() if key not in BESIDE_IDENTITY}


def check_fingerprint(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Checks that a manifest still states what its fingerprint was computed from.

    Raises:
        StoreError: if it was changed since it was written, by hand or by damage.
    """
    # Earlier versions may have begun any other run, and computed its fingerprint from another form of the identity.
    if all_listed(folder) and fingerprint(known_by(manifest)) != manifest.get("fingerprint"):
        raise StoreError(
            f"{folder / 'manifest.json'} cannot be read: it was changed or damaged, and no longer states what its "
            "fingerprint was computed from. Put back a copy of it, or run again with another --out."
        )


def identity_as_now(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Converts a stored identity to this version's form; earlier versions named every cell of every picture."""
    with readable_run(folder):
        return {**identity, "plan": plan_to_json(plan_from_json(identity["plan"]))} if "plan" in identity else identity


def comparable(identity: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Part of a run's identity that can be compared with another run.

    Names of models are left out, because they only say where files were, while hashes identify them. If an earlier
    version wrote the other identity, facts about models that it lacks are left out too, so that such a run can be
    resumed if everything it states agrees.

    Args:
        identity: identity of the run.
        other: identity of the other run.
    """
    models, other_models = identity.get("models"), other.get("models")
    if not isinstance(models, Mapping) or not isinstance(other_models, Mapping):
        return dict(identity)
    new = "processor" in other_models.get("encoder", {})
    every_file = {**models.get("sha256", {}), **other_models.get("sha256", {})}
    if new or any(name.startswith("image_encoder/") for name in every_file):
        named = [part for part in ("encoder", "decoder") if isinstance(identity.get(part), Mapping)]
        specs = {part: {**identity[part], "name": ""} for part in named}
        identity = {**identity, **specs}
    if new:
        return dict(identity)
    less = {part: _only(other_models[part], models[part]) for part in ("encoder", "decoder") if part in other_models}
    files, other_files = models.get("sha256", {}), other_models.get("sha256", {})
    added = [name for name in files if name.endswith("/processor_config.json") and name not in other_files]
    return {**identity, "models": {**less, "sha256": {name: files[name] for name in files if name not in added}}}


def _only(keys: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys}


def identity_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Finds the first difference between two identities: its name and both values; None if they are equal.

    The plan is compared last, because most other differences change the plan too.
    """
    # The identity of a run that decodes everything has no such key.
    before, after = ({"decode": "all", **identity} for identity in (first, second))
    plans = before.pop("plan", None), after.pop("plan", None)
    return first_difference(before, after) or first_difference(*plans, "plan")


@contextmanager
def readable_run(folder: Path) -> Generator[None]:
    """Turns the errors of reading a damaged run into one clear message.

    Raises:
        StoreError: if anything is missing or broken.
    """
    try:
        yield
    except KeyError as error:
        raise StoreError(f"the run in {folder} cannot be read: its manifest has no {error}.") from error
    except (AttributeError, TypeError, ValueError, OSError, TypeCheckError) as error:
        raise StoreError(f"the run in {folder} cannot be read: {error}.") from error


def is_complete(manifest: Mapping[str, Any], cells: int) -> bool:
    """True if a run with this many cells is complete; a part may have been removed since its manifest said so."""
    if not manifest.get("complete"):
        return False
    decoded = manifest.get("decoded")
    return cells == (len(plan_from_json(manifest["plan"])) if decoded is None else decoded)


def spec_to_json(spec: EncoderSpec | DecoderSpec) -> dict[str, Any]:
    """Spec as JSON values, without the geometry, which the manifest stores separately."""
    values = json.loads(json.dumps(asdict(spec)))
    tokens = values.get("tokens")
    if tokens is not None and tokens["layers"] is None:  # as earlier versions wrote it, whose runs resume
        del tokens["layers"]
    return {name: value for name, value in values.items() if name != "geometry"}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plan as JSON values; cells that all pictures share are named once."""
    same = plan.cells if isinstance(plan.cells, RepeatedCells) else None
    return {
        "strength": str(plan.strength),
        "seeds": list(plan.seeds),
        "n_layers": plan.n_layers,
        **({} if same is None else {"pictures": list(same.pictures)}),
        "cells": [cell.key for cell in (plan.cells if same is None else same.each)],
    }


def plan_from_json(values: Mapping[str, Any]) -> Plan:
    """Reads a plan, including plans of earlier versions, which named every cell of every picture."""
    cells = tuple(_cell_of(key) for key in values["cells"])
    all_cells = (
        RepeatedCells(tuple(values["pictures"]), cells) if "pictures" in values else cells_by_picture(compact(cells))
    )
    seeds, n_layers = _check_kind(values["seeds"], list[int]), _check_kind(values["n_layers"], int)
    return Plan(all_cells, Strength.parse(values["strength"]), tuple(seeds), n_layers)


def _cell_of(key: Any) -> Cell:
    picture, lens, site, strength, seed, draw = key.split("|")
    parsed = Strength.parse(strength) if strength else None
    return Cell(picture, lens, Site.parse(site), parsed, int(seed), int(draw))


def encoder_spec(values: Mapping[str, Any], geometry: Mapping[str, Any] | None = None) -> EncoderSpec:
    """Reads the spec of an encoder.

    Args:
        values: output of `spec_to_json`.
        geometry: geometry of pictures, which earlier versions did not write.
    """
    tokens = values["readout_tokens"]
    tuples: dict[str, Any] = {
        "image_size": tuple(values["image_size"]),
        "patch_grid": tuple(values["patch_grid"]),
        "readout_tokens": None if tokens is None else tuple(tokens),
        "geometry": None if geometry is None else _typed(geometry_from_json(geometry)),
    }
    return _typed(EncoderSpec(**{**values, **tuples}))


def decoder_spec(values: Mapping[str, Any]) -> DecoderSpec:
    """Reads the spec of a decoder; fields that earlier versions did not write get their default."""
    defaults: dict[str, Any] = dict(values["defaults"])
    defaults["size"] = tuple(defaults["size"])
    defaults["guidance_interval"] = tuple(defaults.get("guidance_interval", (0.0, 1.0)))
    tokens = values.get("tokens")
    layers = None if tokens is None or tokens.get("layers") is None else tuple(tokens["layers"])
    given: dict[str, Any] = {**(tokens or {}), "layers": layers}
    source = None if tokens is None else _typed(TokenSource(**given))
    fields: dict[str, Any] = {**values, "defaults": _typed(DecodeOptions(**defaults)), "tokens": source}
    return _typed(DecoderSpec(**fields))


def _typed(spec: _Spec) -> _Spec:
    """Checks a spec from a manifest: every field of its kind, sizes positive and within the limits on configs.

    Raises:
        ValueError: if a field is not; the message names it.
    """
    for name, kind in get_type_hints(type(spec)).items():
        value = getattr(spec, name)
        try:
            _check_kind(value, kind)
        except TypeCheckError as error:
            raise ValueError(f"its {name!r} is of the wrong kind: {error}") from None
        sizes = value if isinstance(value, tuple) else (value,)
        if name in _SIZES and any(size < 1 for size in sizes):
            raise ValueError(f"its {name!r} is {value}, not positive")
    plain = {name: value for name, value in asdict(spec).items() if not isinstance(value, dict)}
    if words := too_large({name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}):
        raise ValueError(f"it says {words}")
    return spec


def _check_kind(value: Any, kind: Any) -> Any:
    return check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)


_SIZES = frozenset(
    {
        "n_layers",
        "n_heads",
        "width",
        "embedding_size",
        "image_size",
        "n_tokens",
        "patch_grid",
        "steps",
        "size",
        "window",
    }
)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a run atomically.

    Raises:
        StoreError: if it cannot be written.
    """
    atomic_write(folder / "manifest.json", (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a run.

    Raises:
        UsageError: if the folder contains no run.
        StoreError: if it cannot be read, or another version of steerlens wrote it.
    """
    manifest = stored_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} is not a run of steerlens: it contains no manifest.json.")
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{folder} was written by another version of steerlens (format {manifest.get('format')}).")
    return manifest


def stored_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest in a folder, of any version; None if there is none.

    Raises:
        StoreError: if it cannot be read.
    """
    path = folder / "manifest.json"
    try:
        manifest = parse_json(read_file(path, "manifest_bytes")) if path.is_file() else None
    except (UsageError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {str(error).rstrip('.')}.") from error
    if manifest is not None and not isinstance(manifest, dict):
        raise StoreError(f"{path} cannot be read: it contains no manifest.")
    facts = {} if manifest is None else cast(dict[str, Any], manifest)
    for key in facts.keys() & _FACTS.keys():
        value, kinds = facts[key], _FACTS[key]
        if (value is not None or dict in kinds) and (
            not isinstance(value, kinds) or (isinstance(value, float) and not isfinite(value))
        ):
            raise StoreError(f"{path} cannot be read: its {key!r} is of the wrong kind.")
    named = {"target": [facts.get("target", {})], "inputs": list(facts.get("inputs", {}).values())}
    for key, entries in named.items():
        if not all(isinstance(entry, dict) and _texts_only(cast(dict[str, Any], entry)) for entry in entries):
            raise StoreError(f"{path} cannot be read: its {key!r} is of the wrong kind.")
    return manifest


def _texts_only(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in entry.values())
