"""Run of a profile: measures, ablates, decodes, summarises and writes, part by part, so that it can be resumed."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from steerlens.decoders import Redecoded, redecode
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import eight_bit
from steerlens.lenses import read_out
from steerlens.profiles.faithfulness import Faithfulness
from steerlens.profiles.measure import (
    MEAN_PICTURES,
    PASSES,
    Axes,
    Means,
    ablation_means,
    measure_ablation,
    measure_axes,
    measure_batch,
    measure_means,
    native,
    oriented,
    steered,
    traces,
)
from steerlens.profiles.names import (
    Decompositions,
    direction_decompositions,
    measure_contributions,
    span_decompositions,
)
from steerlens.profiles.options import ProfileOptions
from steerlens.profiles.pictures import ProfilePicture, ProfilePictures, batches
from steerlens.profiles.summary import DIRECTIONS, DecodedPicture, Measurements, Profile, make_profile
from steerlens.profiles.tables import write_profile
from steerlens.progress import Progress, part_of
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared import PlannedEncoder, StudyFolder, Work, open_study, recorded_passes, single_passes
from steerlens.sweep import check_names
from steerlens.vocabulary import TextVocabulary, Vocabulary
from steerlens.zoo import Pair
from steerlens.zoo.identity import beside_files, vocabulary_identity

_CONTROLS = 64
"""Number of random directions that serve as controls for the texts of mean writes."""

_MEASURES = 2
"""Version of the measurements of a picture: 2 adds the norm of its final residual, for shares of variance."""

_DECODED = 16
"""Number of pictures decoded between two writes to disk."""

NEUTRAL, RANDOM = "neutral", "random"
"""Names of the two pictures without a head: the neutral base, and the base steered along a random direction."""


def profile_heads(
    pair: Pair,
    shown: ProfilePictures,
    options: ProfileOptions,
    folder: Path,
    vocabulary: Vocabulary | None = None,
    faithfulness: tuple[Faithfulness, ...] = (),
) -> Generator[Progress, None, Profile]:
    """Profiles heads over many pictures, and writes a folder; resumes an interrupted profile.

    Args:
        pair: encoder and decoder.
        shown: the pictures.
        options: options of the profile.
        folder: folder of the profile.
        vocabulary: texts that describe heads; by default the pair's own.
        faithfulness: figures of studies of this model, which the page shows.

    Raises:
        UsageError: if the folder contains something else, there are too few pictures, or a head does not exist.
        StoreError: if the folder cannot be written; finished parts stay.
    """
    check_profile(pair, shown, options, vocabulary)
    spec, pictures = pair.encoder.spec, shown.pictures
    words = pair.vocabulary if vocabulary is None else vocabulary
    labels = _label_directions(pair, pictures)
    with open_study(folder, profile_identity(pair, shown, options, words)) as study:
        means = yield from _means(pair.encoder, pictures, options, study)
        axes = yield from _axes(pair.encoder, pictures, options, means, study)
        values = yield from _pictures(pair.encoder, pictures, options, means, axes, labels, study)
        directions = _directions(means, axes, values)
        ablated = yield from _ablations(pair.encoder, pictures, options, labels, study)
        embeddings = _to_decode(pair.encoder, means, directions, options)
        bank = yield from _bank(pair.encoder, pictures, options, study)
        decoded = yield from _decode(pair, embeddings, options, study)
        yield Progress("summary", 0, 1)
        texts = None if words is None else _text_embeddings(pair.encoder, means, directions, options)
        names = yield from _names(pair.encoder, pictures, options, words, texts, study)
        profile = make_profile(
            Measurements(
                model=pair.name,
                spec=spec,
                pictures=pictures,
                source=shown.source,
                means=means,
                values=values,
                directions=directions,
                ablated=ablated,
                decoded=decoded,
                texts=texts,
                embeddings=bank,
                ends={
                    end: torch.stack([embeddings[f"{site}.{end}"].cpu() for site in options.heads])
                    for end in ("high", "low")
                },
                names=names,
            ),
            options.heads,
            words,
            strength=options.strength,
            n_top=options.n_top,
            n_texts=options.n_texts,
            faithfulness=faithfulness,
        )
        write_profile(study, profile, pair.provenance.to_json(), directions, values)
        yield Progress("summary", 1, 1)
        return profile


def check_profile(
    pair: Pair, shown: ProfilePictures, options: ProfileOptions, vocabulary: Vocabulary | None = None
) -> None:
    """Checks that a profile can be made; arguments as in `profile_heads`. Of a pair that is not loaded, only the sizes.

    Raises:
        UsageError: if there are too few pictures, a head does not exist, or heads cannot be ablated or named.
    """
    spec, count = pair.encoder.spec, len(shown.pictures)
    for site in options.heads:
        site.check(spec.n_layers, spec.n_heads)
    if count < 2 * options.n_top:
        raise UsageError(
            f"{count} pictures are too few for {options.n_top} top pictures per head; give at least "
            f"{2 * options.n_top}, or lower --top."
        )
    if isinstance(pair.encoder, PlannedEncoder):
        return
    if options.n_ablated:
        native(pair.encoder)
    check_names(options.names, pair.encoder, pair.vocabulary if vocabulary is None else vocabulary, options.n_texts)


def profile_work(pair: Pair, shown: ProfilePictures, options: ProfileOptions) -> Work:
    """Counts what a profile computes in all."""
    spec, count, heads = pair.encoder.spec, len(shown.pictures), len(options.heads)
    # Means, axes, measurements, embeddings of the pictures, and perhaps contributions of heads.
    passes = float(count * (PASSES + 4 + (options.names == "textspan")))
    if ablated := min(options.n_ablated, count):
        averaged = min(MEAN_PICTURES, count)
        passes += averaged + recorded_passes(spec, averaged, -(-averaged // options.batch))
        passes += ablated * (1 + 1 / spec.n_layers + recorded_passes(spec) + single_passes(spec, heads))
    decoded = 2 + heads * len(DIRECTIONS)
    return Work(count, 0, heads, passes, {options.decode: decoded})


def profile_identity(
    pair: Pair, shown: ProfilePictures, options: ProfileOptions, words: Vocabulary | None
) -> dict[str, Any]:
    """JSON values that a call must share with an earlier one to resume its profile."""
    # The names are left out at their default: profiles without them are recognised.
    left_out = ("decode", "heads", "strength", *(("names",) if options.names == "nearest" else ()))
    chosen = {key: value for key, value in asdict(options).items() if key not in left_out}
    return {
        "study": "profile",
        "measures": _MEASURES,
        "models": {
            "pair": pair.name,
            "sha256": dict(pair.provenance.sha256),
            "beside_files": beside_files(pair),
        },
        "pictures": shown.identity(),
        "options": {
            **chosen,
            "strength": str(options.strength),
            "heads": [str(site) for site in options.heads],
            "decode": options.decode.decisive(),
        },
        "vocabulary": None if words is None else list(words.names),
        "texts": vocabulary_identity(words),
    }


def _label_directions(pair: Pair, pictures: Sequence[ProfilePicture]) -> Float[Tensor, "P E"]:
    """Text direction of each picture's label; NaN if the pair's own vocabulary lacks it."""
    vocabulary = pair.vocabulary if isinstance(pair.vocabulary, TextVocabulary) else None
    rows = torch.full((len(pictures), pair.encoder.spec.embedding_size), torch.nan)
    if vocabulary is None:
        return rows
    directions = vocabulary.directions().cpu()
    for row, picture in enumerate(pictures):
        if (index := vocabulary.index(picture.concept)) is not None:
            rows[row] = directions[index]
    return rows


def _means(
    encoder: Encoder, pictures: Sequence[ProfilePicture], options: ProfileOptions, study: StudyFolder
) -> Generator[Progress, None, Means]:
    if not study.has("means"):
        means = yield from measure_means(encoder, pictures, options.batch)
        study.add("means", {"writes": means.writes, "final": means.final, "embedding": means.embedding})
    part = study.part("means")
    return Means(*(part[name].to(encoder.device) for name in ("writes", "final", "embedding")))


def _pictures(
    encoder: Encoder,
    pictures: Sequence[ProfilePicture],
    options: ProfileOptions,
    means: Means,
    axes: Axes,
    labels: Float[Tensor, "P E"],
    study: StudyFolder,
) -> Generator[Progress, None, dict[str, Tensor]]:
    chunks = batches(pictures, options.batch)
    names = [f"pictures-{number:05d}" for number in range(len(chunks))]
    yield Progress("pictures", 0, len(pictures), "pictures")
    for number, (name, chunk) in enumerate(zip(names, chunks, strict=True)):
        rows = slice(number * options.batch, number * options.batch + len(chunk))
        if not study.has(name):
            for _, trace in traces(encoder, chunk, len(chunk)):
                study.add(name, measure_batch(encoder, trace, means, axes, options.strength, labels[rows]))
        yield Progress("pictures", rows.stop, len(pictures), "pictures")
    return _joined(study, names)


def _bank(
    encoder: Encoder, pictures: Sequence[ProfilePicture], options: ProfileOptions, study: StudyFolder
) -> Generator[Progress, None, Float[Tensor, "P E"]]:
    """Embeddings of the pictures, which serve as a bank of real pictures."""
    if not study.has("bank"):
        rows: list[Tensor] = []
        yield Progress("bank", 0, len(pictures), "pictures")
        for chunk in batches(pictures, options.batch):
            rows.append(encoder.embed(encoder.preprocess([picture.open() for picture in chunk])).float().cpu())
            yield Progress("bank", sum(map(len, rows)), len(pictures), "pictures")
        study.add("bank", {"embeddings": torch.cat(rows)})
    return study.part("bank")["embeddings"]


def _joined(study: StudyFolder, names: Sequence[str]) -> dict[str, Tensor]:
    parts = [study.part(name) for name in names]
    return {key: torch.cat([part[key] for part in parts]) for key in (parts[0] if parts else ())}


def _axes(
    encoder: Encoder, pictures: Sequence[ProfilePicture], options: ProfileOptions, means: Means, study: StudyFolder
) -> Generator[Progress, None, Axes]:
    if not study.has("axes"):
        axes = yield from measure_axes(encoder, pictures, options.batch, means, options.seed)
        study.add("axes", {"axis": axes.axis, "chance": axes.chance})
    part = study.part("axes")
    return Axes(part["axis"].to(encoder.device), part["chance"].to(encoder.device))


def _directions(means: Means, axes: Axes, values: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "N R D"]]:
    """Each head's mean write, both ends of its axis and a random mixture of its writes.

    The length of the last three is the root mean square, over pictures, of the centred writes' component along them.
    """
    coordinates = values["axis"]

    def length(along: Tensor) -> Tensor:
        return (along * values["residual"]).square().mean(dim=0).sqrt()[:, None, None].to(means.writes)

    high = axes.axis * oriented(coordinates)[:, None, None].to(axes.axis) * length(coordinates)
    return {"mean": means.writes, "high": high, "low": -high, "chance": axes.chance * length(values["chance"])}


def _ablations(
    encoder: Encoder,
    pictures: Sequence[ProfilePicture],
    options: ProfileOptions,
    labels: Float[Tensor, "P E"],
    study: StudyFolder,
) -> Generator[Progress, None, dict[str, Tensor]]:
    ablated = pictures[: options.n_ablated]
    names = [f"ablation-{number:05d}" for number in range(len(ablated))]
    mean_writes: dict[Site, Tensor] | None = None
    if ablated:
        yield Progress("ablation", 0, len(ablated), "pictures")
    for number, (name, picture) in enumerate(zip(names, ablated, strict=True)):
        if not study.has(name):
            hooked = native(encoder)
            if mean_writes is None:
                mean_writes = ablation_means(hooked, pictures, options.batch, options.heads)
            label = labels[number : number + 1]
            study.add(name, measure_ablation(hooked, [picture], options.heads, mean_writes, label))
        yield Progress("ablation", number + 1, len(ablated), "pictures")
    return _joined(study, names)


def _rows_of(encoder: Encoder, heads: Sequence[Site]) -> list[int]:
    return [site.layer * encoder.spec.n_heads + site.head for site in heads]


@torch.no_grad()
def _to_decode(
    encoder: Encoder, means: Means, directions: Mapping[str, Tensor], options: ProfileOptions
) -> dict[str, Float[Tensor, "E"]]:
    """Embeddings to decode, by name: the neutral base, a random direction, and each head's directions."""
    neutral = read_out(encoder, means.final[None, None]).float()[0, 0]
    random = steered(encoder, means.final, _random_directions(means, 1, options.seed), options.strength)[0, 0]
    rows = _rows_of(encoder, options.heads)
    embeddings = {NEUTRAL: neutral, RANDOM: random}
    for name in DIRECTIONS:
        of_heads = steered(encoder, means.final, directions[name][rows][None], options.strength)[0]
        embeddings |= {f"{site}.{name}": row for site, row in zip(options.heads, of_heads, strict=True)}
    return embeddings


def _random_directions(means: Means, count: int, seed: int) -> Float[Tensor, "1 K R D"]:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, count, *means.final.shape), generator=generator).to(means.final)


@torch.no_grad()
def _text_embeddings(
    encoder: Encoder, means: Means, directions: Mapping[str, Tensor], options: ProfileOptions
) -> dict[str, Float[Tensor, "K E"]]:
    """Embeddings to compare texts with: the base steered along all heads' directions, and along meaningless ones."""

    def embeddings(vectors: Tensor) -> Tensor:
        return steered(encoder, means.final, vectors[None], options.strength)[0].cpu()

    return {
        "neutral": read_out(encoder, means.final[None, None]).float()[0, 0].cpu(),
        "mean.chance": embeddings(_random_directions(means, _CONTROLS, options.seed + 1)[0]),
        "high.chance": embeddings(directions["chance"]),
        "low.chance": embeddings(-directions["chance"]),
        **{name: embeddings(directions[name]) for name in DIRECTIONS},
    }


def _names(
    encoder: Encoder,
    pictures: Sequence[ProfilePicture],
    options: ProfileOptions,
    words: Vocabulary | None,
    texts: Mapping[str, Tensor] | None,
    study: StudyFolder,
) -> Generator[Progress, None, Decompositions]:
    if words is None or texts is None or options.names == "nearest":
        return {}
    if options.names == "textspan":
        contributions = yield from measure_contributions(encoder, pictures, options, study)
        return span_decompositions(contributions, words, options)
    rows = _rows_of(encoder, options.heads)
    return direction_decompositions({name: texts[name][rows] for name in DIRECTIONS}, texts["neutral"], words, options)


def _decode(
    pair: Pair, embeddings: Mapping[str, Float[Tensor, "E"]], options: ProfileOptions, study: StudyFolder
) -> Generator[Progress, None, dict[str, DecodedPicture]]:
    names, total = list(embeddings), len(embeddings)
    decoded: dict[str, DecodedPicture] = {}
    for number, start in enumerate(range(0, total, _DECODED)):
        part, group = f"decoded-{number:05d}", names[start : start + _DECODED]
        if not study.has(part):
            conditionings = torch.stack([embeddings[name] for name in group])
            seeds = [options.seed] * len(group)
            events = redecode(pair.encoder, pair.decoder, conditionings, seeds, options.decode, keep=True)
            study.add(part, _stored(conditionings.cpu(), (yield from part_of(events, "decoding", start, total))))
        else:
            yield Progress("decoding", start + len(group), total, "pictures")
        stored = study.part(part)
        fidelity = cosine_similarity(stored["asked"], stored["embeddings"]).tolist()
        for name, picture, value in zip(group, stored["pictures"].numpy(), fidelity, strict=True):
            decoded[name] = DecodedPicture(picture, value)
    return decoded


def _stored(conditionings: Float[Tensor, "N E"], decoded: Redecoded) -> dict[str, Tensor]:
    if decoded.pictures is None:
        raise UsageError("the decoder returned no pictures.")
    pictures: UInt8[Tensor, "N height width 3"] = torch.from_numpy(eight_bit(decoded.pictures))
    return {"asked": conditionings, "embeddings": decoded.embeddings, "pictures": pictures}
