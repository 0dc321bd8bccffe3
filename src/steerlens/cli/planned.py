"""Models of a dry run: loaded if they are small, and otherwise stand-ins with their sizes; nothing is fetched."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from steerlens.cli.estimates import timed, weight_bytes
from steerlens.decoders import DecodeOptions, DecoderSpec, default_batch_size, redecode
from steerlens.devices import choose_device, decoder_dtype, parse_dtype
from steerlens.encoders import Encoder, EncoderSpec
from steerlens.errors import ModelError
from steerlens.progress import run_to_end
from steerlens.studies.shared import (
    PlannedDecoder,
    PlannedEncoder,
    PlannedTexts,
    StudyModels,
    StudySettings,
    checked_pair,
    is_undecoded,
    load_judge,
    load_study_pair,
)
from steerlens.zoo import (
    Card,
    Cost,
    Pair,
    UncountedError,
    card_of,
    cost_of,
    default_options,
    locate_encoder,
    probe_flops,
    sample_picture,
)

_BATCH, _QUICK_SECONDS = 16, 0.5
"""Pictures of a batch that is timed, if a single picture takes no longer than so many seconds."""


@dataclass(frozen=True)
class Rates:
    """How long the models take, and the memory that they need; None where it is not known.

    Attributes:
        device: name of the device.
        encoder_seconds: seconds of a forward pass over one picture.
        picture_seconds: seconds to decode a picture with given options and to embed it again.
        judge_seconds: seconds to embed a picture with the outside judge; 0 without a judge.
        weight_bytes: memory of the weights on the device.
        host_bytes: further memory of weights on the host.
        working_bytes: memory of decoding a batch.
        measured: whether the times were measured on the models themselves.
        download_gigabytes: size of the download, for a model that is not on this machine.
    """

    device: str | None = None
    encoder_seconds: float | None = None
    picture_seconds: Callable[[DecodeOptions], float] | None = None
    judge_seconds: float | None = 0.0
    weight_bytes: int | None = None
    host_bytes: int = 0
    working_bytes: int | None = None
    measured: bool = False
    download_gigabytes: float | None = None


@dataclass
class Planner:
    """Loads the models of a dry run, or stands in for those that are large or not on this machine.

    A pair whose cost can be counted from its configs is not loaded, unless it comes with the package.

    Attributes:
        settings: the settings that the models were loaded for.
        models: the models, after `load`.
        cost: cost of a pair that was counted.
        card: card of a pair that was not loaded.
    """

    settings: StudySettings = field(default_factory=StudySettings)
    models: StudyModels | None = None
    cost: Cost | None = None
    card: Card | None = None

    def load(self, settings: StudySettings, judge: str | None = None, *, decoder: bool = True) -> StudyModels:
        """Returns the pair that the settings name, or a stand-in, and the judge; see `ModelLoader`."""
        self.settings = settings
        card = None if settings.model.startswith("bridge:") else card_of(settings.model)
        if not decoder or card is None or card.bundled is not None or card.folder is not None:
            pair = load_study_pair(settings, decoder=decoder, local_files_only=True)
            self.models = StudyModels(pair, load_judge(judge, settings, local_files_only=True))
            return self.models
        try:
            self.cost = cost_of(
                settings.model,
                device=settings.device,
                dtype=settings.dtype,
                local=settings.local,
                encoder=settings.encoder,
                local_files_only=True,
            )
        except UncountedError:
            try:
                pair = load_study_pair(settings, local_files_only=True)
                self.models = StudyModels(pair, load_judge(judge, settings, local_files_only=True))
                return self.models
            except ModelError:
                if not (card.layers and card.heads) or settings.local is not None or settings.encoder is not None:
                    raise
        self.card = card
        layers, heads = (card.layers, card.heads) if self.cost is None else (self.cost.n_layers, self.cost.n_heads)
        pair = checked_pair(_stand_in(card, layers, heads, self.cost), settings)
        self.models = StudyModels(pair, None if judge is None else _planned_judge(judge))
        return self.models

    @property
    def is_loaded(self) -> bool:
        """True if the models themselves were loaded."""
        return self.models is not None and self.card is None

    def rates(self, options: DecodeOptions | None) -> Rates:
        """Measures the models on one picture, or estimates from what was counted.

        Args:
            options: options of the picture that is decoded; None to decode nothing.
        """
        if self.models is None:
            return Rates()
        if self.card is None:
            return _measured(self.models, options)
        if self.cost is None:
            return Rates(judge_seconds=None, download_gigabytes=self.card.gigabytes)
        cost, device = self.cost, choose_device(self.settings.device)
        dtype = parse_dtype(self.settings.dtype)
        speed = probe_flops(device, dtype)
        size = cost.size if options is None else options.size
        batch = (options and options.batch_size) or cost.batch or default_batch_size(size, cost.scale, device)
        return Rates(
            device=str(device),
            encoder_seconds=cost.encoder_flops / speed,
            picture_seconds=lambda options: cost.picture_flops(options) / speed,
            judge_seconds=0.0 if self.models.judge is None else None,
            weight_bytes=cost.bytes,
            host_bytes=cost.host_bytes,
            working_bytes=cost.working_bytes(batch, size, decoder_dtype(device, dtype).itemsize),
        )


def _measured(models: StudyModels, options: DecodeOptions | None) -> Rates:
    pair, judge = models.pair, models.judge
    embedding = pair.encoder.embed(pair.encoder.preprocess([sample_picture().image]))

    def decode(count: int) -> object:
        rows = embedding.expand(count, -1)
        return run_to_end(redecode(pair.encoder, pair.decoder, rows, list(range(count)), options or pair_options))

    pair_options = pair.decoder.spec.defaults
    each = None if options is None or is_undecoded(pair) else _seconds_each(decode)

    def picture_seconds(other: DecodeOptions) -> float:
        if each is None or options is None:
            return 0.0
        return each * (other.passes / options.passes if options.scheduler != "none" else 1.0)

    parts = [pair.encoder, pair.decoder, *([] if judge is None else [judge])]
    return Rates(
        device=str(pair.encoder.device),
        encoder_seconds=encoder_rates(pair.encoder).encoder_seconds,
        picture_seconds=picture_seconds,
        judge_seconds=0.0 if judge is None else encoder_rates(judge).encoder_seconds,
        weight_bytes=weight_bytes(*parts),
        measured=True,
    )


def encoder_rates(encoder: Encoder) -> Rates:
    """Measures an encoder alone on one picture."""
    image = sample_picture().image
    return Rates(
        device=str(encoder.device),
        encoder_seconds=_seconds_each(lambda count: encoder.embed(encoder.preprocess([image] * count))),
        picture_seconds=lambda _: 0.0,
        weight_bytes=weight_bytes(encoder),
        measured=True,
    )


def _seconds_each(run: Callable[[int], object]) -> float:
    """Seconds for each picture, in a batch if one picture is quick."""
    alone = timed(lambda: run(1))
    return alone if alone > _QUICK_SECONDS else min(alone, timed(lambda: run(_BATCH)) / _BATCH)


def _stand_in(card: Card, n_layers: int, n_heads: int, cost: Cost | None) -> Pair:
    size = card.embedding_size
    options = default_options(card, card.defaults.size if cost is None else cost.size)
    encoder = EncoderSpec(
        name=card.name,
        family="",
        n_layers=n_layers,
        n_heads=n_heads,
        width=size,
        embedding_size=size,
        image_size=(0, 0),
        n_tokens=1,
        patch_grid=(0, 0),
        first_patch=1,
        readout_tokens=(0,),
    )
    decoder = DecoderSpec(card.name, card.family, cast(Any, card.consumes), size, options)
    planned: tuple[Any, Any] = PlannedEncoder(encoder), PlannedDecoder(decoder)
    return Pair(card.name, *planned, card=card, texts=PlannedTexts(size))


def _planned_judge(name: str) -> Encoder:
    """Checks that there may be a judge of this name, without fetching it."""
    with suppress(ModelError):  # the run fetches it
        locate_encoder(name, local_files_only=True, config_only=True)
    spec = EncoderSpec(name, "", 1, 1, 1, 1, (0, 0), 1, (0, 0), 1, (0,))
    stand_in: Any = PlannedEncoder(spec)
    return stand_in
