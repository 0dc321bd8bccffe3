"""Records that training stages yield, without the events that carry them."""

from collections.abc import Iterable

from steerlens.progress import Progress
from steerlens.training.stage import StageRecord


def records_of(events: Iterable[Progress]) -> list[StageRecord]:
    """Runs stages to their end; their records."""
    return [event.payload for event in events if isinstance(event.payload, StageRecord)]
