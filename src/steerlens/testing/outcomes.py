"""Outcomes of checks: what was measured, what is allowed, and what went wrong."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from steerlens.errors import ModelError, SteerlensError


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what is true of the adapter if it passed.
        error: what was measured; nan if the check could not be carried out to its end.
        allowed: the largest error that passes.
        detail: what went wrong, or why nothing was measured; else empty.
        relative: whether the error is a relative error of numbers in the model's own precision; others count faults,
            or compare precisions.
        measured: whether there was anything to measure; a check without that says nothing of the adapter, and why.
    """

    name: str
    error: float
    allowed: float
    detail: str = ""
    relative: bool = True
    measured: bool = True

    @property
    def passed(self) -> bool:
        """True if nothing is wrong: the error is within what is allowed (nan is not), or nothing was measured."""
        return not self.measured or self.error <= self.allowed

    def __str__(self) -> str:
        if not self.measured:
            return f"NOT MEASURED {self.name}: {self.detail}"
        mark = "ok    " if self.passed else "FAILED"
        detail = f"  ({self.detail})" if self.detail else ""
        return f"{mark} {self.name}: {self.error:.2g}, allowed {self.allowed:.2g}{detail}"


@dataclass(frozen=True)
class CheckReport:
    """The outcomes of all checks of one adapter.

    Attributes:
        subject: name of what was checked.
        checks: one outcome a check, in order.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True if no check failed; see `unmeasured` for those that were not carried out at all."""
        return all(check.passed for check in self.checks)

    @property
    def unmeasured(self) -> tuple[Check, ...]:
        """The checks that could not be carried out on what was given; nothing is known of what they are about."""
        return tuple(check for check in self.checks if not check.measured)

    @property
    def relative_error(self) -> float:
        """The largest relative error that was measured; nan if a check could not be carried out to its end."""
        errors = [check.error for check in self.checks if check.relative and check.measured]
        return math.nan if any(map(math.isnan, errors)) else max(errors, default=math.nan)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {check}" for check in self.checks)])

    def require(self, *, whole: bool = False) -> None:
        """Makes sure that no check failed.

        Args:
            whole: whether every check has to have been carried out, too.

        Raises:
            ModelError: if one failed, or with `whole` was not carried out; the message holds all outcomes.
        """
        if not self.passed or (whole and self.unmeasured):
            raise ModelError(f"the adapter does not pass its checks.\n{self}")


Measured = float | tuple[float | None, str]
"""An error, with a note where there is something to say; None where nothing can be measured, with the reason."""


class Measurement(NamedTuple):
    """A check that is still to be carried out; the fields are those of `Check`, and what measures the error."""

    name: str
    allowed: float
    measure: Callable[[], Measured]
    relative: bool = True


def carry_out(subject: str, measurements: Iterable[Measurement]) -> CheckReport:
    """Carries out check after check; one that raises has failed."""
    outcomes: list[Check] = []
    for name, allowed, measure, relative in measurements:
        try:
            measured = measure()
        # Whatever a plug-in raises is an outcome of the check, not the end of all checks.
        except Exception as error:
            detail = f"raised {type(error).__name__}: {error}"
            outcomes.append(Check(name, math.nan, allowed, detail, relative))
        else:
            error, detail = measured if isinstance(measured, tuple) else (measured, "")
            outcomes.append(
                Check(name, math.nan if error is None else error, allowed, detail, relative, error is not None)
            )
    return CheckReport(subject, tuple(outcomes))


def faults(found: dict[str, bool]) -> Measured:
    """The number of things that are wrong, and which they are.

    Args:
        found: by description, whether it is so.
    """
    wrong = [what for what, is_so in found.items() if is_so]
    return float(len(wrong)), "; ".join(wrong)


def refusals(calls: Sequence[tuple[type[SteerlensError], Callable[[], Any]]]) -> Measured:
    """The number of calls that do not raise the error that they should, in one line that says something."""
    missed: list[str] = []
    for kind, call in calls:
        try:
            call()
        except kind as error:
            if not 10 <= len(str(error)) <= 500 or "\n" in str(error):
                missed.append(f"a {kind.__name__} should say in one line what is wrong, not {str(error)!r}")
        except Exception as error:
            missed.append(f"{type(error).__name__} in place of {kind.__name__}: {error}")
        else:
            missed.append(f"nothing raised in place of {kind.__name__}")
    return float(len(missed)), "; ".join(missed)
