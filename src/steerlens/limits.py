"""Limits on the sizes that files may claim: one table, each with the environment variable that raises it.

A file may claim any size. Sizes are compared with these limits before memory is allocated, so that a hostile file is
refused quickly.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steerlens.errors import UsageError

_PREFIX = "STEERLENS_LIMIT_"


@dataclass(frozen=True)
class Limit:
    """A limit that a user can raise.

    Attributes:
        default: the largest accepted value.
        unit: the unit, in the plural.
        of: the limited object, for messages.
    """

    default: int
    unit: str
    of: str


LIMITS: Mapping[str, Limit] = {
    "picture_bytes": Limit(128_000_000, "bytes", "the file of a picture"),
    "picture_pixels": Limit(100_000_000, "pixels", "a picture; Pillow itself opens at most 178 million"),
    "picture_chunks": Limit(
        200_000, "chunks", "a PNG file; segments of a JPEG, blocks before the first frame of a GIF"
    ),
    "picture_scans": Limit(100, "scans", "a progressive JPEG; a tenth as many for the largest pictures"),
    "upload_bytes": Limit(20_000_000, "bytes", "a picture that a visitor sends to the explorer"),
    "upload_pixels": Limit(40_000_000, "pixels", "a picture sent to the explorer"),
    "list_bytes": Limit(64_000_000, "bytes", "a vocabulary, a tokenizer's file, an index of pictures"),
    "config_bytes": Limit(8_000_000, "bytes", "a config, an index of weights, the header of a safetensors file"),
    "manifest_bytes": Limit(256_000_000, "bytes", "the manifest of a run"),
    "card_bytes": Limit(200_000, "bytes", "a card in YAML"),
    "tensors_bytes": Limit(2_000_000_000, "bytes", "the tensors of a vocabulary, a bridge or directions"),
    "config_number": Limit(1_000_000, "", "a whole number in a config: layers, widths, vocabularies"),
    "config_side": Limit(2_048, "pixels", "a side of the pictures that a config describes"),
    "classes": Limit(200_000, "classes", "the classifier that a config describes"),
    "noise_levels": Limit(100_000, "noise levels", "the config of a scheduler"),
    "decoded_pixels": Limit(4_194_304, "pixels", "a decoded picture"),
    "steps": Limit(10_000, "denoising steps", "a decoder"),
    "seeds": Limit(10_000, "seeds", "the plan of a run"),
    "labels": Limit(100_000, "labels", "what the Logit Lens keeps of a site"),
    "units": Limit(100_000, "neurons or features", "a range of sites"),
    "sae_bytes": Limit(16_000_000_000, "bytes", "the weights of a sparse autoencoder"),
    "cells": Limit(500_000, "pictures to decode", "the plan of a run, for each input"),
    "option": Limit(1_000_000, "", "any other whole number among a command's options; seeds have none"),
}
"""Every limit by name. `STEERLENS_LIMIT_PICTURE_PIXELS=200000000` raises `picture_pixels`."""


def limit(name: str) -> int:
    """Returns a limit: the value of its environment variable, or its default.

    Raises:
        UsageError: if the variable holds no whole number from 1.
    """
    text = os.environ.get(variable(name), "")
    if not text:
        return LIMITS[name].default
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise UsageError(f"{variable(name)} is a whole number of {LIMITS[name].unit} from 1, not {text!r}.")
    return value


def variable(name: str) -> str:
    """Returns the environment variable that raises a limit."""
    return _PREFIX + name.upper()


def over_limit(name: str, value: int) -> str:
    """Describes a value over a limit, or returns an empty text; it follows a name: `cat.png has 300 scans, ...`."""
    most = limit(name)
    if value <= most:
        return ""
    number = f"{value:,}" if value < 10**18 else "a number of very many"
    unit = f" {LIMITS[name].unit}" if LIMITS[name].unit else ""
    return f"{number}{unit}, more than the {most:,} that are accepted ({variable(name)} raises the limit)"


def read_file(path: Path, name: str) -> bytes:
    """Reads an ordinary file within a limit; devices and pipes, which may be endless, are refused.

    Args:
        path: the file.
        name: name of the limit on its size.

    Raises:
        UsageError: if there is no such file, or it is a folder, not a regular file, or too large.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file.")
            if words := over_limit(name, status.st_size):
                raise UsageError(f"{path} takes {words}.")
            return file.read()
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder, not a file.") from None
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def is_special(path: Path) -> bool:
    """True for a pipe, a device, a socket or a folder, whose reading might never end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # a missing file is reported by whoever reads it
        return False


def _without_waiting(path: str, flags: int) -> int:
    # Opening a pipe that nobody writes to would block.
    return os.open(path, flags | os.O_NONBLOCK)
