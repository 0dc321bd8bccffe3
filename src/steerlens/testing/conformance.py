"""Conformance checks of all adapters, on tiny random models.

The models are of the real classes; nothing is downloaded. `make models` writes the measured errors into `docs/`.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from steerlens.decoders import DecodeOptions
from steerlens.encoders import Encoder
from steerlens.errors import ModelError
from steerlens.testing.decoder_checks import check_decoder
from steerlens.testing.encoder_checks import check_encoder
from steerlens.testing.outcomes import CheckReport
from steerlens.zoo import Group, adapter, open_decoder, registered

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of the measurements of encoders, by name."""

MakeEncoder = Callable[..., Encoder]
"""Builds a tiny encoder; takes `dtype`."""


@dataclass(frozen=True)
class Conformance:
    """Measurements of one adapter.

    Attributes:
        group: `steerlens.encoders` or `steerlens.decoders`.
        family: name of the adapter.
        adapter: its location, `module:class`.
        models: models of an encoder's checks: native classes, or options of a class.
        errors: by precision, the largest relative error of an encoder in any check and model, or the largest difference
            of two pictures in [0,1] that a decoder should draw equally; None if it could not be measured.
        failures: descriptions of failed checks.
    """

    group: Group
    family: str
    adapter: str
    models: tuple[str, ...]
    errors: Mapping[str, float | None]
    failures: tuple[str, ...] = ()


def measure(families: Collection[str] | None = None) -> Iterator[Conformance]:
    """Checks the registered adapters in turn.

    Args:
        families: names of the families to check; by default all.

    Raises:
        ModelError: if there is no tiny model of an encoder family.
    """
    for family, place in registered("steerlens.encoders").items():
        if families is None or family in families:
            yield _encoder_row(family, place)
    for family, place in registered("steerlens.decoders").items():
        if families is None or family in families:
            yield _decoder_row(family, place)


def encoder_reports(family: str, dtype: torch.dtype) -> dict[str, CheckReport]:
    """Carries out the checks of an encoder family, by model.

    Raises:
        ModelError: if there is no tiny model of the family.
    """
    models = tiny_encoders().get(family)
    if models is None:
        raise ModelError(f"there is no tiny model of the family {family} in steerlens.testing to check it on.")
    return {name: check_encoder(make(dtype=dtype)) for name, make in models.items()}


def tiny_encoders() -> dict[str, dict[str, MakeEncoder]]:
    """Returns the builders of tiny encoders, by family and by variant."""
    from steerlens.testing import tiny_families, tiny_vit

    builders: dict[str, dict[str, MakeEncoder]] = {}
    for kind in tiny_families.MODELS:
        make = partial(tiny_families.tiny_family_encoder, kind)
        builders.setdefault(make().spec.family, {})[kind] = make
    for family, function, variants in (
        ("timm", tiny_vit.tiny_timm_encoder, tiny_vit.TIMM_VARIANTS),
        ("open_clip", tiny_vit.tiny_open_clip_encoder, tiny_vit.OPEN_CLIP_VARIANTS),
        ("open_clip_timm", tiny_vit.tiny_open_clip_timm_encoder, tiny_vit.TOWER_VARIANTS),
        ("timm", tiny_vit.tiny_eva_encoder, _named("Eva", tiny_vit.EVA_VARIANTS)),
        (
            "open_clip_timm",
            tiny_vit.tiny_open_clip_eva_encoder,
            _named("Eva", {name: tiny_vit.EVA_VARIANTS[name] for name in tiny_vit.EVA_TOWERS}),
        ),
    ):
        builders.setdefault(family, {}).update(
            {name: partial(function, **options) for name, options in variants.items()}
        )
    return builders


def _named(native: str, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {f"{native}: {name}": options for name, options in variants.items()}


def decoder_report(family: str) -> CheckReport:
    """Carries out the checks of a decoder family, in float32.

    In half precision a picture of random weights says little: guidance amplifies rounding, which depends on the size of
    a batch.

    Raises:
        ModelError: if there is no tiny model of the family, or it cannot be built.
    """
    from steerlens.testing.tiny import tiny_encoder
    from steerlens.testing.tiny_decoders import save_tiny_decoder

    kind, encoder = adapter("steerlens.decoders", family), tiny_encoder()
    with TemporaryDirectory() as name:
        if family == "neighbours":
            return _neighbours(encoder, Path(name))
        try:
            folder = _kandinsky22(Path(name)) if family == "kandinsky-2.2" else save_tiny_decoder(family, Path(name))
            folder = folder / "decoder" if family == "vit-mae" else folder
        except KeyError as error:
            raise ModelError(f"there is no tiny model of the family {family} in steerlens.testing.") from error
        except AttributeError as error:
            raise ModelError(f"the installed libraries cannot build it: {error}") from error
        negative = kind.negative_of(encoder) if hasattr(kind, "negative_of") else encoder.zero_embedding()
        # FLUX's own size, which no config states, would take minutes.
        options = DecodeOptions(4, 2.5, "euler", (16, 16)) if family == "flux-redux" else None
        if family == "kandinsky-2.2":
            decoder = open_decoder(folder, negative, device=torch.device("cpu"), dtype=torch.float32)
        else:
            decoder = kind.from_folder(
                folder, negative, device=torch.device("cpu"), dtype=torch.float32, options=options
            )
        values, source = None, decoder.spec.tokens
        if source is not None and source.count is None:
            shape = (5, encoder.spec.n_tokens, decoder.spec.embedding_size)
            values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            if options is not None:  # FLUX reads them beside 512 tokens of the empty text
                values = 3 * values[:, :1].expand(-1, 400, -1)
        return check_decoder(decoder, values)


def _kandinsky22(folder: Path) -> Path:
    from steerlens.testing.tiny import save_tiny_pair

    return save_tiny_pair(folder, vocabulary=False) / "decoder"


def _neighbours(encoder: Encoder, folder: Path) -> CheckReport:
    from steerlens.decoders import build_index

    rng, (height, width) = np.random.default_rng(0), encoder.spec.image_size
    pictures = [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(6)]
    (folder / "pictures").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(folder / "pictures" / f"{index}.png")
    decoder = build_index(encoder, folder / "pictures", folder / "index")
    return check_decoder(decoder, encoder.embed(encoder.preprocess(pictures)))


def _encoder_row(family: str, place: str) -> Conformance:
    reports = {name: encoder_reports(family, dtype) for name, dtype in DTYPES.items()}
    failures = tuple(
        f"{model}, {dtype}: {check}"
        for dtype, by_model in reports.items()
        for model, report in by_model.items()
        for check in report.checks
        if not check.passed
    )
    errors = {
        dtype: _rounded(max(report.relative_error for report in by_model.values()))
        for dtype, by_model in reports.items()
    }
    return Conformance("steerlens.encoders", family, place, tuple(next(iter(reports.values()))), errors, failures)


def _decoder_row(family: str, place: str) -> Conformance:
    try:
        report = decoder_report(family)
    except ModelError as error:
        return Conformance("steerlens.decoders", family, place, (), {"float32": None}, (str(error),))
    failures = tuple(str(check) for check in report.checks if not check.passed)
    errors = {"float32": _rounded(report.relative_error)}
    return Conformance("steerlens.decoders", family, place, (), errors, failures)


def _rounded(error: float) -> float | None:
    # Two digits: further digits would differ between processors.
    return None if math.isnan(error) else float(f"{error:.1e}")


def write_measurements(path: Path, rows: list[Conformance], versions: Mapping[str, str]) -> None:
    """Saves measurements, with the versions of the libraries, as JSON."""
    content = {"versions": dict(versions), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_measurements(path: Path) -> tuple[list[Conformance], dict[str, str]]:
    """Reads the measurements of `write_measurements`.

    Raises:
        ModelError: if the file does not exist or contains something else.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            Conformance(
                row["group"],
                row["family"],
                row["adapter"],
                tuple(row["models"]),
                row["errors"],
                tuple(row["failures"]),
            )
            for row in content["rows"]
        ]
        return rows, cast(dict[str, str], content["versions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no measurements: {error}.") from error
