"""The decoder study: what does a decoder add to what it is asked for, and how many steps are worth their time?

The same steered embeddings of a few pictures are decoded with several seeds at every setting of a sweep: step counts,
guidance scales, samplers, guidance in a part of the steps. The reference is the default setting with many steps and
seeds of its own. This file measures: it stores embeddings, nothing derived from them; `decoder_summary.py` makes every
figure from the stored parts.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from steerlens.decoders.base import DecodeOptions, SchedulerName
from steerlens.decoders.redecoding import shown_pictures
from steerlens.encoders.base import Encoder
from steerlens.errors import UsageError
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.progress import Progress, part_of
from steerlens.sites import Site, all_heads
from steerlens.studies.importance.measure import judged_targets, redecode_jobs, subject_targets
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.notions import INPUT
from steerlens.studies.shared.stratified import stratified_heads
from steerlens.studies.shared.subjects import Subject
from steerlens.zoo.pair import Pair

PICTURES = "pictures"
"""The part that holds the pictures to look at."""

_SHOWN_HEADS, _SHOWN_SEEDS = 4, 3
_WHOLE = (0.0, 1.0)


def setting_name(options: DecodeOptions) -> str:
    """A setting in words, without what all settings of a study share."""
    start, stop = options.guidance_interval
    within = "" if (start, stop) == _WHOLE else f" from {start:g} to {stop:g} of the steps"
    return f"{options.scheduler}, {options.steps} steps, guidance {options.guidance:g}{within}"


def axis_of(options: DecodeOptions, default: DecodeOptions) -> str:
    """The option in which a setting differs from the default one; `default` if it does not.

    Raises:
        UsageError: if it differs in several.
    """
    changed = [field.name for field in fields(options) if getattr(options, field.name) != getattr(default, field.name)]
    if len(changed) > 1:
        raise UsageError(f"{setting_name(options)} differs from the default in several options: {', '.join(changed)}.")
    return changed[0] if changed else "default"


def sweep(
    default: DecodeOptions,
    steps: Sequence[int],
    guidances: Sequence[float],
    schedulers: Sequence[SchedulerName],
    intervals: Sequence[tuple[float, float]] = (),
) -> tuple[DecodeOptions, ...]:
    """Settings that differ from the default, which comes first, in one option each.

    Intervals are left out where there is no guidance that they could confine.
    """
    found = [default, *(replace(default, steps=count) for count in sorted(steps))]
    found += [replace(default, guidance=scale) for scale in sorted(guidances)]
    found += [replace(default, scheduler=name) for name in schedulers]
    if default.guidance > 1:
        found += [replace(default, guidance_interval=interval) for interval in intervals]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class DecoderOptions:
    """What the study measures.

    Attributes:
        settings: how to decode; the first is the default, and each of the others differs from it in one option.
        strength: how hard heads are steered.
        target: what pictures are compared with: `input`, `text` (the label's) or `other` (a picture of the concept).
        seeds: seeds of the decoder at every setting, the same for all heads.
        reference_steps: denoising steps of the reference.
        reference_seeds: how many seeds it has: those that come after the settings' own, so that none is shared.
        heads: heads of each picture, a random sample with its share of every layer; None for all.
    """

    settings: tuple[DecodeOptions, ...]
    strength: Strength
    target: str = INPUT
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    reference_steps: int = 100
    reference_seeds: int = 4
    heads: int | None = 24

    def __post_init__(self) -> None:
        if not self.settings or len(set(self.settings)) < len(self.settings):
            raise UsageError("a sweep of settings needs the default one, and each of them once.")
        if self.default.scheduler == "none":
            raise UsageError("this decoder does not denoise: it has no steps, guidance or samplers to compare.")
        for setting in self.settings:
            axis_of(setting, self.default)
        if min(len(self.seeds), self.reference_seeds) < 2:
            raise UsageError(
                "the study needs at least 2 seeds, and at least 2 of the reference, to tell how they agree."
            )

    @property
    def default(self) -> DecodeOptions:
        """The setting that all others are compared with."""
        return self.settings[0]

    @property
    def reference(self) -> DecodeOptions:
        """The default setting with many steps."""
        return replace(self.default, steps=self.reference_steps)

    def work(self) -> list[tuple[str, DecodeOptions, tuple[int, ...]]]:
        """What is decoded of every picture: the reference first, each with the name of its parts and its seeds."""
        after = max(self.seeds) + 1
        reference = ("reference", self.reference, tuple(range(after, after + self.reference_seeds)))
        named = [(re.sub(r"[^\w.+-]+", "_", setting_name(one)), one, self.seeds) for one in self.settings]
        return [reference, *named]


def study_heads(pair: Pair, options: DecoderOptions) -> tuple[Site, ...]:
    """The heads whose pictures are decoded."""
    sites = all_heads(pair.encoder.spec.n_layers, pair.encoder.spec.n_heads)
    return tuple(sites[place] for place in stratified_heads(sites, options.heads, options.seeds[0]))


def subject_part(subject: Subject) -> str:
    """The name of the part that holds what a subject's pictures are made from and compared with."""
    return f"subject-{subject.id}"


def decoded_part(name: str, subject: Subject) -> str:
    """The name of the part that holds a subject's pictures of one setting."""
    return f"{name}-{subject.id}"


def measure(
    pair: Pair, subjects: Sequence[Subject], options: DecoderOptions, judge: Encoder | None, folder: StudyFolder
) -> Iterator[Progress]:
    """Decodes every picture's heads at every setting; progress counts passes of the decoder's network.

    A subject's part holds `clean`, `asked` (N,E), and its targets; that of a setting `made` (S,N,E), with a judge
    `judge` (S,N,F), and `seconds` for one picture, decoded and embedded.

    Raises:
        UsageError: if a target is not there for a subject.
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    heads, work = study_heads(pair, options), options.work()
    cost = {name: setting.passes * len(seeds) * len(heads) for name, setting, seeds in work}
    total = sum(cost.values()) * len(subjects)
    done = sum(cost[name] * folder.has(decoded_part(name, subject)) for name, _, _ in work for subject in subjects)
    yield Progress("decoding", done, total, "passes")
    for subject in subjects:
        if not folder.has(subject_part(subject)):
            folder.add(subject_part(subject), _asked(pair, subject, heads, options, judge))
        asked = folder.part(subject_part(subject))["asked"]
        for name, setting, seeds in work:
            if folder.has(decoded_part(name, subject)):
                continue
            started = time.perf_counter()
            decoding = redecode_jobs(pair, [("", seed, asked) for seed in seeds], setting, judge)
            made = yield from part_of(decoding, "decoding", done, total, "passes", scale=setting.passes)
            done += cost[name]
            seconds = (time.perf_counter() - started) / (len(seeds) * len(heads))
            sides = ("made", "judge") if judge is not None else ("made",)
            tensors = {side: torch.stack([made[f"{side}..seed{seed}"] for seed in seeds]) for side in sides}
            folder.add(decoded_part(name, subject), tensors | {"seconds": torch.tensor(seconds)})


def _asked(
    pair: Pair, subject: Subject, heads: Sequence[Site], options: DecoderOptions, judge: Encoder | None
) -> dict[str, Tensor]:
    trace = pair.encoder.trace(pair.encoder.preprocess([subject.image]))
    found = {
        "clean": trace.embedding[0].float(),
        "asked": SteeringLens(pair.encoder, options.strength).embeddings(trace, heads)[0].float(),
    }
    if options.target != INPUT:
        found |= subject_targets(pair, subject)
    return found | judged_targets(judge, subject)


def measure_pictures(pair: Pair, subject: Subject, options: DecoderOptions, folder: StudyFolder) -> Iterator[Progress]:
    """Decodes a few heads of one picture with some seeds, at the default setting and as the reference, to look at.

    The part holds `default` and `reference` (heads, seeds, height, width, 3) and `heads`, their places in the sample.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    yield Progress("pictures", 0, 1)
    if not folder.has(PICTURES):
        asked = folder.part(subject_part(subject))["asked"]
        places = torch.linspace(0, len(asked) - 1, min(_SHOWN_HEADS, len(asked))).round().long()
        reference, default = options.work()[:2]
        tensors = {"heads": places}
        for kind, (_, setting, seeds) in (("default", default), ("reference", reference)):
            shown = seeds[:_SHOWN_SEEDS]
            rows = asked[places].repeat_interleave(len(shown), dim=0)
            pictures = shown_pictures(pair.decoder, rows, [*shown] * len(places), setting)
            tensors[kind] = pictures.unflatten(0, (len(places), len(shown)))
        folder.add(PICTURES, tensors)
    yield Progress("pictures", 1, 1)
