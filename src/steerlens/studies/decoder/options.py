"""Options of the decoder study: the sweep of decoder settings and their reference."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from steerlens.decoders import DecodeOptions, SchedulerName
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.studies.shared.targets import INPUT

_WHOLE = (0.0, 1.0)


def setting_name(options: DecodeOptions) -> str:
    """Names a setting in words, without the options that all settings of a study share."""
    start, stop = options.guidance_interval
    within = "" if (start, stop) == _WHOLE else f" from {start:g} to {stop:g} of the steps"
    return f"{options.scheduler}, {options.steps} steps, guidance {options.guidance:g}{within}"


def axis_of(options: DecodeOptions, default: DecodeOptions) -> str:
    """Name of the option in which a setting differs from the default; `default` if it does not differ.

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
    """Builds the settings of a sweep: the default first, then settings that differ from it in one option each.

    Guidance intervals are left out if the default has no guidance.
    """
    settings = [default, *(replace(default, steps=count) for count in sorted(steps))]
    settings += [replace(default, guidance=scale) for scale in sorted(guidances)]
    settings += [replace(default, scheduler=name) for name in schedulers]
    if default.guidance > 1:
        settings += [replace(default, guidance_interval=interval) for interval in intervals]
    return tuple(dict.fromkeys(settings))


@dataclass(frozen=True)
class Decoding:
    """A setting and its decoder seeds.

    Attributes:
        name: name of its parts.
        setting: decoding options.
        seeds: seeds of the decoder.
    """

    name: str
    setting: DecodeOptions
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class DecoderOptions:
    """Options of the decoder study.

    Attributes:
        settings: decoding options; the first is the default, and each of the others differs from it in one option.
        strength: strength of the steering.
        target: target with which pictures are compared: `input`, `text` (the label's) or `other` (another picture of
            the concept).
        seeds: seeds of the decoder at every setting, the same for all heads.
        reference_steps: denoising steps of the reference.
        reference_seeds: number of the reference's seeds, which follow the settings' seeds, so that none is shared.
        heads: number of heads to decode, a random sample with equal shares of the layers; None for all.
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
            raise UsageError("a sweep of settings needs the default setting, and each of them once.")
        if self.default.scheduler == "none":
            raise UsageError("this decoder does not denoise: it has no steps, guidance or samplers to compare.")
        for setting in self.settings:
            axis_of(setting, self.default)
        if min(len(self.seeds), self.reference_seeds) < 2:
            raise UsageError(
                "the study needs at least 2 seeds, and at least 2 seeds of the reference, to measure their agreement."
            )

    @property
    def default(self) -> DecodeOptions:
        """The setting with which all others are compared."""
        return self.settings[0]

    @property
    def reference(self) -> DecodeOptions:
        """The default setting with many steps."""
        return replace(self.default, steps=self.reference_steps)

    def decodings(self) -> list[Decoding]:
        """All settings to decode with their seeds, the reference first."""
        after = max(self.seeds) + 1
        reference = Decoding("reference", self.reference, tuple(range(after, after + self.reference_seeds)))
        named = [
            Decoding(re.sub(r"[^\w.+-]+", "_", setting_name(setting)), setting, self.seeds) for setting in self.settings
        ]
        return [reference, *named]
