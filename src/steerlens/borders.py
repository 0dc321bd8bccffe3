"""Borders to native code: any exception of a foreign library becomes one `ModelError`.

There are two: building and loading a model, and running it (preprocessing, forward pass, sampling step). The message
names the operation and quotes the library; the original exception is the cause.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from steerlens.errors import ModelError, SteerlensError, UsageError

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED", "ALLOCATION_FAILED")
"""Messages of allocators without an exception of their own: MPS, CPUs, cuBLAS and cuDNN."""

_LONGEST = 300
"""Longest quotation of a library's message, in characters."""


@contextmanager
def native_errors(doing: str, *passing: type[Exception]) -> Generator[None]:
    """Turns what a library raises into one `ModelError`; the library's exception becomes its cause.

    Errors of steerlens pass unchanged, and so do interrupts and a lack of memory, which callers answer with smaller
    batches.

    Args:
        doing: the failed operation and its model: the beginning of the message.
        passing: further exceptions that pass unchanged.

    Raises:
        ModelError: if anything else is raised inside.
    """
    try:
        yield
    except (SteerlensError, *passing):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ModelError(f"{doing}: {reason(error)}.") from error


_MIXED = ContextVar("mixed precision on purpose", default=False)
"""True inside `mixed_precision`, in its thread alone."""


@contextmanager
def mixed_precision(device: torch.device) -> Generator[None]:
    """Autocast to bfloat16 that models accept: for training, where embeddings are rounded to float16 anyway.

    Args:
        device: where the models are.
    """
    before = _MIXED.set(True)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        _MIXED.reset(before)


def refuse_autocast(device: torch.device, name: str, *, inside: bool = False) -> None:
    """Checks that torch computes in the precision of a model's weights.

    Under autocast, sums and products of one pass would have several precisions, none of them that of the results.

    Args:
        device: where the model is.
        name: its name in messages.
        inside: True if its forward pass is running, so that the model itself turned autocast on.

    Raises:
        UsageError: if autocast is on for the device, and not by `mixed_precision`.
    """
    if _autocast_on(device.type) and not _MIXED.get():
        lower = str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")
        if inside:
            raise UsageError(
                f"{name}: its own forward turns torch.autocast on, and would compute parts of it in {lower}, as a "
                "launcher of mixed-precision training makes it do. Give the model without that wrapper (accelerate: "
                f"unwrap_model(model, keep_fp32_wrapper=False)); for speed, load it in {lower} (dtype)."
            )
        raise UsageError(
            f"{name}: torch.autocast is on, and would compute parts of it in {lower}. Call steerlens outside of it "
            f"(with torch.autocast({device.type!r}, enabled=False)); for speed, load the model in {lower} (dtype)."
        )


def _autocast_on(device_type: str) -> bool:
    try:
        return torch.is_autocast_enabled(device_type)
    except RuntimeError:  # of devices that know no autocast, such as meta
        return False


def reason(error: BaseException) -> str:
    """Returns an exception's message in one line, without its full stop, or the name of its class if it has none."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rpartition(" ")[0] + " ..."
    name = type(error).__name__
    if not text:
        return name
    # The text of a KeyError or an AttributeError alone does not tell what went wrong.
    plain = isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    return (text if plain else f"{name}: {text}").rstrip(".")


def out_of_memory(error: BaseException) -> bool:
    """True if an exception says that memory ran out, on a GPU or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)
