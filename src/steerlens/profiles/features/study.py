"""Run of feature dashboards, part by part, so that it can be resumed and its memory does not grow.

fit           how well the autoencoder fits the first pictures
activations   one pass over the pictures; its state replaces that of the pass so far every few batches
effects       one pass over batches of pictures: features whose first top picture is in the batch
features      texts, similar features, heads by weights and decoded pictures, chunk by chunk, to parquet
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.encoders import Inputs
from steerlens.errors import UsageError
from steerlens.printable import without_folders
from steerlens.profiles.features.activations import ActivationMeter, histogram_range
from steerlens.profiles.features.chunks import Chunks, Neutral
from steerlens.profiles.features.effects import FeatureReader, ablation_effects, measured_heads
from steerlens.profiles.features.fit import measured_fit
from steerlens.profiles.features.memory import give_back_freed
from steerlens.profiles.features.options import FeatureOptions, reads_values
from steerlens.profiles.features.tables import COLUMNS, FOLDER, chunk_name
from steerlens.profiles.measure import native
from steerlens.profiles.pictures import ProfilePicture, ProfilePictures, batches
from steerlens.progress import Progress
from steerlens.runs import table_bytes
from steerlens.saes import SparseAutoencoder
from steerlens.studies.shared import StudyFolder, open_study
from steerlens.sweep import SaeFit
from steerlens.vocabulary import Vocabulary
from steerlens.zoo import Pair
from steerlens.zoo.identity import beside_files, vocabulary_identity

_SAVED_EVERY = 8
"""Batches between two states of the first pass."""


@dataclass(frozen=True)
class FeatureProfile:
    """Finished dashboards, whose rows stand in parquet files.

    Attributes:
        model: name of the pair.
        sae: the autoencoder in words.
        site: where it reads.
        source: origin of the pictures, in words.
        pictures: number of pictures.
        n_features: number of features.
        dead: features that no picture activates.
        decoded: features with decoded pictures.
        fit: fit of the autoencoder to the first pictures.
        edges: edges of the histograms' bins.
        chance: excess that the best text of a meaningless direction stays below in 95 of 100 cases.
        chunks: number of parquet files.
        chunk: features in each of them, but the last.
    """

    model: str
    sae: str
    site: str
    source: str
    pictures: int
    n_features: int
    dead: int
    decoded: int
    fit: SaeFit
    edges: tuple[float, ...]
    chance: float
    chunks: int
    chunk: int

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON values."""
        return {**asdict(self), "fit": self.fit.to_json()}


def profile_features(
    pair: Pair,
    sae: SparseAutoencoder,
    shown: ProfilePictures,
    options: FeatureOptions,
    folder: Path,
    vocabulary: Vocabulary | None = None,
) -> Generator[Progress, None, FeatureProfile]:
    """Describes every feature over many pictures, and writes a folder; resumes an interrupted profile.

    Args:
        pair: encoder and decoder.
        sae: a sparse autoencoder of the encoder.
        shown: the pictures.
        options: options of the dashboards.
        folder: folder of the profile.
        vocabulary: texts that describe features; by default the pair's own.

    Raises:
        UsageError: if the folder contains something else, or the autoencoder belongs to another model.
        StoreError: if the folder cannot be written; finished parts stay.
    """
    reader = FeatureReader(native(pair.encoder), sae.to(pair.encoder.device))
    _check_fit(reader)
    words = texts_of(pair, options, vocabulary)
    with open_study(folder, feature_identity(pair, sae, shown, options, words)) as study:
        fit = yield from measured_fit(reader, shown.pictures, options.batch, study)
        meter, neutral = yield from _activations(reader, shown.pictures, options, study)
        effects = yield from _effects(reader, shown.pictures, options, meter, study)
        chunks = Chunks(pair, reader, options, meter, neutral, effects, words)
        count = -(-sae.n_features // options.chunk)
        yield Progress("features", 0, sae.n_features, "features")
        for number in range(count):
            if not (folder / FOLDER / chunk_name(number)).is_file():
                features = torch.arange(number * options.chunk, min(sae.n_features, (number + 1) * options.chunk))
                rows = chunks.rows(features)
                study.write(f"{FOLDER}/{chunk_name(number)}", table_bytes(COLUMNS, rows))
                give_back_freed()
            done = min(sae.n_features, (number + 1) * options.chunk)
            yield Progress("features", done, sae.n_features, "features")
        profile = FeatureProfile(
            model=without_folders(pair.name),
            sae=sae.name,
            site=str(sae.site),
            source=shown.source,
            pictures=len(shown.pictures),
            n_features=sae.n_features,
            dead=int((meter.active == 0).sum()),
            decoded=len(chunks.decoded),
            fit=fit,
            edges=tuple(meter.edges()),
            chance=chunks.chance,
            chunks=count,
            chunk=options.chunk,
        )
        study.write_json("summary.json", profile.to_json())
        return profile


def texts_of(pair: Pair, options: FeatureOptions, vocabulary: Vocabulary | None) -> Vocabulary | None:
    """Returns the texts that describe features: those given, or the pair's own; None if there are to be none."""
    return None if not options.n_texts else pair.vocabulary if vocabulary is None else vocabulary


def _check_fit(reader: FeatureReader) -> None:
    site, spec, sae = reader.sae.site, reader.encoder.spec, reader.sae
    if isinstance(site, str):
        width = spec.embedding_size
    else:
        site.check(spec.n_layers, spec.n_heads)
        head = spec.width // spec.n_heads
        width = spec.width if sae.space == "residual" or site.kind != "head" else head
    if sae.width != width:
        raise UsageError(
            f"sparse autoencoder {sae.name} has width {sae.width}, and {spec.name} has width {width} at {site}: it was "
            "trained on another model or at another site."
        )


def feature_identity(
    pair: Pair, sae: SparseAutoencoder, shown: ProfilePictures, options: FeatureOptions, words: Vocabulary | None
) -> dict[str, Any]:
    """JSON values that a call must share with an earlier one to resume its profile.

    Args:
        pair: encoder and decoder.
        sae: the autoencoder.
        shown: the pictures.
        options: options of the dashboards.
        words: texts that describe features; None for none.
    """
    chosen = {key: value for key, value in asdict(options).items() if key not in ("decode", "strength")}
    return {
        "study": "features",
        "models": {
            "pair": pair.name,
            "sha256": dict(pair.provenance.sha256),
            "beside_files": beside_files(pair),
        },
        "sae": {"name": sae.name, "identity": sae.identity},
        "pictures": shown.identity(),
        "options": {**chosen, "strength": str(options.strength), "decode": options.decode.decisive()},
        "vocabulary": None if words is None else list(words.names),
        "texts": vocabulary_identity(words),
    }


def _inputs(reader: FeatureReader, chunk: Sequence[ProfilePicture]) -> Inputs:
    return reader.encoder.preprocess([picture.open() for picture in chunk])


def _activations(
    reader: FeatureReader, pictures: Sequence[ProfilePicture], options: FeatureOptions, study: StudyFolder
) -> Generator[Progress, None, tuple[ActivationMeter, Neutral]]:
    """First pass: activations, and the mean final residual."""
    chunks = batches(pictures, options.batch)
    state = study.part("activations") if study.has("activations") else {}
    meter = ActivationMeter.from_state(state) if state else None
    final = state.get("final", torch.zeros(0))
    embedding = state.get("embedding", torch.zeros(0))
    yield Progress("activations", 0 if meter is None else int(meter.pictures), len(pictures), "pictures")
    for number, chunk in enumerate(chunks):
        done = number * options.batch + len(chunk)
        if meter is not None and int(meter.pictures) >= done:
            continue
        inputs = _inputs(reader, chunk)
        values, last = reader.values(inputs)
        if meter is None:
            norm = reader.sae.W_dec.norm(dim=-1).mean().clamp_min(1e-12)
            largest = histogram_range(values) / float(norm)
            meter = ActivationMeter(reader.sae.n_features, values.shape[1], options.n_top, largest)
            final, embedding = torch.zeros(last.shape[1:]), torch.zeros(reader.encoder.spec.embedding_size)
        meter.add(reader.sae.encode(values))
        final = final + last.sum(dim=0).cpu()
        embedding = embedding + reader.encoder.readout(last.to(reader.encoder.dtype)).float().sum(dim=0).cpu()
        if done == len(pictures) or (number + 1) % _SAVED_EVERY == 0:
            study.add("activations", {**meter.state(), "final": final, "embedding": embedding})
        give_back_freed()
        yield Progress("activations", done, len(pictures), "pictures")
    if meter is None:
        raise UsageError("there are no pictures to describe features over.")
    device = reader.encoder.device
    neutral = Neutral((final / len(pictures)).to(device), (embedding / len(pictures)).to(device))
    return meter, neutral


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of every feature on its first top picture.

    Attributes:
        moved: `1 - cos` of the embedding when the feature is ablated; NaN if it was not.
        control: the same of a random direction of equal size; NaN in parts of earlier versions.
        heads: what each earlier head adds to its pre-activation; no column for the image embedding.
    """

    moved: Float[Tensor, "F"]
    control: Float[Tensor, "F"]
    heads: Float[Tensor, "F L H"]


def _effects(
    reader: FeatureReader,
    pictures: Sequence[ProfilePicture],
    options: FeatureOptions,
    meter: ActivationMeter,
    study: StudyFolder,
) -> Generator[Progress, None, Effects]:
    """Second pass: ablation and heads, for the features whose first top picture is in a batch."""
    F, H = reader.sae.n_features, reader.encoder.spec.n_heads
    moved, control = torch.full((2, F), torch.nan)
    heads = torch.zeros(F, len(reader.head_layers), H)
    first, strongest = meter.tops[0], meter.heat[0].argmax(dim=-1)
    yield Progress("effects", 0, len(pictures), "pictures")
    for number, chunk in enumerate(batches(pictures, options.batch)):
        start, name = number * options.batch, f"effects-{number:05d}"
        if not study.has(name):
            features = ((first >= start) & (first < start + len(chunk))).nonzero()[:, 0]
            study.add(name, _batch_effects(reader, chunk, features, first - start, strongest, options))
        part = study.part(name)
        moved[part["features"]] = part["moved"]
        if "control" in part:
            control[part["features"]] = part["control"]
        heads[part["features"]] = part["heads"].float()
        give_back_freed()
        yield Progress("effects", start + len(chunk), len(pictures), "pictures")
    return Effects(moved, control, heads)


def _batch_effects(
    reader: FeatureReader,
    chunk: Sequence[ProfilePicture],
    features: Int[Tensor, "N"],
    first: Int[Tensor, "F"],
    strongest: Int[Tensor, "F"],
    options: FeatureOptions,
) -> dict[str, Tensor]:
    layers = len(reader.head_layers)
    nothing = torch.zeros(len(features), layers, reader.encoder.spec.n_heads)
    if not len(features):
        empty = torch.zeros(0)
        return {"features": features, "moved": empty, "control": empty.clone(), "heads": nothing.half()}
    inputs, rows, places = _inputs(reader, chunk), first[features], strongest[features]
    moved, control = torch.full((2, len(features)), torch.nan)
    divisors = torch.ones(len(features))
    if reads_values(reader.sae, options):
        values, _ = reader.values(inputs)
        normalisation = reader.sae.normalisation.affine(values)
        divisors = normalisation.divisor[..., 0].expand(values.shape[:-1])[rows, places].cpu()
        if options.ablate:
            activations = reader.sae.encode(values)
            undone = normalisation.multiplier.to(values)
            moved, control = (
                ablation_effects(reader, inputs, features, rows, activations, undone, control=random)
                for random in (False, True)
            )
    tokens = torch.tensor(reader.tokens)[places]
    heads = measured_heads(reader, inputs, features, rows, tokens, divisors) if layers else nothing
    return {"features": features, "moved": moved.clone(), "control": control.clone(), "heads": heads.half()}
