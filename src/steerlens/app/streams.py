"""Streams: outcomes of the worker as server-sent events, which end with the connection.

A tab reads the answers to a request from the body of its own POST. Aborting the request, or closing the tab, closes
the connection, and that cancels the work.

References: WHATWG HTML, Server-sent events.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse

from steerlens.app.worker import Outcome, Worker
from steerlens.progress import Progress

_BEAT = 10.0
"""Seconds after which a comment shows that the connection still stands."""


def event_bytes(kind: str, content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(content, allow_nan=False, separators=(',', ':'))}\n\n".encode()


def streamed(
    worker: Worker, tab: str, slot: str, make: Callable[[], Iterator[Any]], seconds: float, answer: Callable[[Any], Any]
) -> StreamingResponse:
    """Answers a request by the events of its work.

    Args:
        worker: does the work.
        tab: the tab that asks.
        slot: a later request of the tab for the same slot replaces this one.
        make: starts the work.
        seconds: seconds that it may take.
        answer: turns an event of the work into kind and JSON values, or None to leave it out.

    Raises:
        UsageError: if too many requests wait.
    """
    loop, outcomes = asyncio.get_running_loop(), asyncio.Queue[tuple[Outcome, Any]]()

    def deliver(outcome: Outcome, content: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(outcomes.put_nowait, (outcome, content))

    ticket = worker.submit(tab, slot, make, deliver, seconds)

    async def events() -> AsyncIterator[bytes]:
        try:
            yield event_bytes("queued", {"waiting": worker.waiting})
            while True:
                try:
                    outcome, content = await asyncio.wait_for(outcomes.get(), _BEAT)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if outcome == "event":
                    shown = answer(content)
                    if shown is not None:
                        yield event_bytes(*shown)
                    continue
                yield event_bytes(outcome, {} if content is None else {"message": content})
                return
        finally:
            worker.cancel(ticket)

    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


async def answered(
    worker: Worker, tab: str, slot: str, compute: Callable[[], Any], seconds: float
) -> tuple[Outcome, Any]:
    """Waits for one short computation on the worker; returns its outcome with the result or a message.

    Raises:
        UsageError: if too many requests wait.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[tuple[Outcome, Any]] = loop.create_future()

    def settle(outcome: Outcome, content: Any) -> None:
        if not result.done():
            result.set_result((outcome, content))

    def deliver(outcome: Outcome, content: Any) -> None:
        if outcome != "done" and not loop.is_closed():
            loop.call_soon_threadsafe(settle, outcome, content)

    def work() -> Iterator[Any]:
        yield compute()

    ticket = worker.submit(tab, slot, work, deliver, seconds)
    try:
        return await result
    finally:
        worker.cancel(ticket)


def progress_answer(event: Any) -> tuple[str, Mapping[str, Any]] | None:
    """Kind and JSON values of a progress event."""
    if isinstance(event, Progress):
        return "progress", {
            "stage": event.stage,
            "done": round(event.done, 3),
            "total": event.total,
            "unit": event.unit,
        }
    return None
