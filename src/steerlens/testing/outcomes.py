"""Outcomes of checks: measured errors, allowed errors, and failures."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from steerlens.errors import ModelError, SteerlensError


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: the statement that the check tests.
        error: the measured error; nan if the check could not be completed.
        allowed: the largest error that passes.
        detail: the failure, or the reason why nothing was measured; else empty.
        relative: whether the error is a relative error of numbers in the model's own precision; others count faults,
            or compare precisions.
        measured: whether there was anything to measure; if not, the check says nothing about the adapter.
    """

    name: str
    error: float
    allowed: float
    detail: str = ""
    relative: bool = True
    measured: bool = True

    @property
    def passed(self) -> bool:
        """True if the error is allowed (nan is not), or nothing was measured."""
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
        subject: name of the checked adapter.
        checks: one outcome per check, in order.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True if no check failed; see `unmeasured` for checks that were not carried out."""
        return all(check.passed for check in self.checks)

    @property
    def unmeasured(self) -> tuple[Check, ...]:
        """The checks that could not be carried out."""
        return tuple(check for check in self.checks if not check.measured)

    @property
    def relative_error(self) -> float:
        """The largest measured relative error; nan if a check could not be completed."""
        errors = [check.error for check in self.checks if check.relative and check.measured]
        return math.nan if any(map(math.isnan, errors)) else max(errors, default=math.nan)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {check}" for check in self.checks)])

    def require(self, *, whole: bool = False) -> None:
        """Raises if a check failed.

        Args:
            whole: whether every check must also have been carried out.

        Raises:
            ModelError: if a check failed, or with `whole` was not carried out; the message lists all outcomes.
        """
        if not self.passed or (whole and self.unmeasured):
            raise ModelError(f"the adapter does not pass its checks.\n{self}")


Measured = float | tuple[float | None, str]
"""An error, optionally with a note; None with the reason if nothing can be measured."""


class PlannedCheck(NamedTuple):
    """A check to carry out: the fields of `Check`, and a function that measures the error."""

    name: str
    allowed: float
    measure: Callable[[], Measured]
    relative: bool = True


def carry_out(subject: str, planned: Iterable[PlannedCheck]) -> CheckReport:
    """Carries out checks in turn; a check that raises has failed."""
    outcomes: list[Check] = []
    for name, allowed, measure, relative in planned:
        try:
            measured = measure()
        # An exception of a plug-in is an outcome of its check, and does not end the others.
        except Exception as error:
            detail = f"raised {type(error).__name__}: {error}"
            outcomes.append(Check(name, math.nan, allowed, detail, relative))
        else:
            error, detail = measured if isinstance(measured, tuple) else (measured, "")
            outcomes.append(
                Check(name, math.nan if error is None else error, allowed, detail, relative, error is not None)
            )
    return CheckReport(subject, tuple(outcomes))


def faults(conditions: dict[str, bool]) -> Measured:
    """Counts and lists faults.

    Args:
        conditions: for each description of a fault, whether it is present.
    """
    wrong = [description for description, present in conditions.items() if present]
    return float(len(wrong)), "; ".join(wrong)


def refusals(calls: Sequence[tuple[type[SteerlensError], Callable[[], Any]]]) -> Measured:
    """Counts calls that do not raise the expected error with a message of one line."""
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
