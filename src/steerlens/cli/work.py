"""Estimates of `--dry-run` of studies, profiles and indexes: their work, time and memory."""

from pathlib import Path
from typing import Any

from steerlens.cli.console import emit_json, say
from steerlens.cli.estimates import rounded, size_words, time_words
from steerlens.cli.planned import Rates
from steerlens.decoders import DecodeOptions
from steerlens.studies.shared import Work


def price(work: Work, rates: Rates, out: Path, *, resumes: bool) -> dict[str, Any]:
    """Work, and estimates of time and memory, as JSON values; None where nothing is known.

    Args:
        work: the work.
        rates: times and memory of the models.
        out: folder of the results.
        resumes: whether it holds results of the same command already.
    """
    return {
        "pictures": work.pictures,
        "references": work.references,
        "heads": work.heads,
        "components": work.components,
        "encoder_passes": round(work.encoder_passes, 1),
        "pictures_to_decode": work.n_decoded,
        "decodings": [
            {
                "pictures": count,
                "steps": options.steps,
                "scheduler": options.scheduler,
                "guidance": options.guidance,
                "guidance_interval": list(options.guidance_interval),
                "size": list(options.size),
            }
            for options, count in work.decoded.items()
        ],
        "judged": work.n_decoded if work.judged else 0,
        "device": rates.device,
        "seconds": _seconds(work, rates),
        "seconds_are_measured": rates.measured,
        "weight_bytes": rates.weight_bytes,
        "host_bytes": rates.host_bytes,
        "working_bytes": rates.working_bytes,
        "download_gigabytes": rates.download_gigabytes,
        "resumes": resumes,
        "out": str(out),
    }


def tell(work: Work, rates: Rates, out: Path, *, resumes: bool, json: bool) -> int:
    """Prints the work and its estimates, and returns the exit code."""
    if json:
        emit_json(price(work, rates, out, resumes=resumes))
        return 0
    heads = f"; {work.heads} {work.components} in each" if work.heads else ""
    beside = f", and {work.references} reference pictures" if work.references else ""
    say(f"pictures: {work.pictures}{beside}{heads}")
    say(f"encoder: the work of {rounded(work.encoder_passes):g} forward passes over one picture")
    if work.decoded:
        at = f" at {len(work.decoded)} settings" if len(work.decoded) > 1 else f": {_words(next(iter(work.decoded)))}"
        say(f"decoder: at most {work.n_decoded} pictures to decode{at}")
    elif work.heads:
        say("decoder: nothing to decode")
    if work.judged:
        say(f"judge: embeds {work.n_decoded} decoded pictures too")
    seconds, device = _seconds(work, rates), rates.device
    if rates.download_gigabytes is not None:
        size = f"{rates.download_gigabytes:g} GB to download"
        say(f"time: not known before the model is on this machine ({size})")
    elif seconds is None:
        say("time: not known before the judge is loaded")
    elif rates.measured:
        say(f"time: about {time_words(seconds)} on {device}, from a few pictures tried now")
    else:
        say(f"time: about {time_words(seconds)} on {device} (within a factor of two or three)")
    if rates.weight_bytes is not None:
        working = "" if rates.working_bytes is None else f", and about {size_words(rates.working_bytes)} to decode"
        say(f"memory: {size_words(rates.weight_bytes)} for weights{working}")
    if resumes:
        say(f"{out} holds results of this command: only what is missing is computed")
    say("Nothing was computed or written.")
    return 0


def _seconds(work: Work, rates: Rates) -> float | None:
    if rates.encoder_seconds is None or rates.picture_seconds is None:
        return None
    decoding = sum(count * rates.picture_seconds(options) for options, count in work.decoded.items())
    judging = 0.0
    if work.judged:
        if rates.judge_seconds is None:
            return None
        judging = work.n_decoded * rates.judge_seconds
    return decoding + judging + work.encoder_passes * rates.encoder_seconds


def _words(options: DecodeOptions) -> str:
    size = f"{options.size[0]} x {options.size[1]} pixels"
    if options.scheduler == "none":
        return f"one pass, {size}"
    return f"{options.steps} steps of {options.scheduler}, guidance {options.guidance:g}, {size}"
