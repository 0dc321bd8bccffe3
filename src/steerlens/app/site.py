"""The site of the explorer: a page, its files, and the requests that it makes, as JSON and server-sent events.

Imports no model: the page answers while models are loaded.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from steerlens.app.budget import Budget
from steerlens.app.files import page_file
from steerlens.app.guard import Access, Guard
from steerlens.app.opening import Opening
from steerlens.app.policy import Policy
from steerlens.app.streams import answered, progress_answer, streamed
from steerlens.app.view import MAX_TEXT, LookRequest, UnitListRequest, View, json_object
from steerlens.app.worker import UNEXPECTED, Worker
from steerlens.errors import SteerlensError, UsageError

if TYPE_CHECKING:
    from steerlens.app.explorer import Explorer

_JSON_BYTES = 262_144
"""Bytes of the largest request that is no picture."""

_ABLATIONS = 8
"""Requests that the ablation of every head counts as."""

_TAB = 64
"""Characters of the longest name of a tab."""

_SURVEY = 4
"""Requests that a list of features or neurons counts as: it takes about as long."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(eq=False)
class Site:
    """The requests of the page.

    Attributes:
        opening: the explorer, or the progress of opening it.
        worker: the thread of the models.
        policy: what visitors may ask for.
        access: who may reach the site.
    """

    opening: Opening
    worker: Worker
    policy: Policy
    access: Access
    decodes: Budget = field(init=False)
    uploads: Budget = field(init=False)
    readings: Budget = field(init=False)

    def __post_init__(self) -> None:
        self.decodes = Budget(self.policy.decodes, "pictures")
        self.uploads = Budget(self.policy.uploads, "uploads")
        self.readings = Budget(self.policy.readings, "requests")

    def application(self) -> Guard:
        """The ASGI application."""
        routes = [
            Route("/", self._told(self.page)),
            Route("/assets/{name:path}", self.asset),
            Route("/api/state", self._told(self.state)),
            Route("/api/page", self._told(self.page_data)),
            Route("/api/input/{id}", self._told(self.input_data)),
            Route("/api/inputs", self._told(self.send), methods=["POST"]),
            Route("/api/scores", self._told(self.scores), methods=["POST"]),
            Route("/api/units", self._told(self.units), methods=["POST"]),
            Route("/api/look", self._told(self.look), methods=["POST"]),
            Route("/api/ablate", self._told(self.ablate), methods=["POST"]),
            Route("/api/ablate-all", self._told(self.ablate_all), methods=["POST"]),
            Route("/api/recipe", self._told(self.recipe), methods=["POST"]),
            Route("/api/save", self._told(self.save), methods=["POST"]),
        ]
        handlers = {Exception: _unexpected, HTTPException: _refused}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), self.access)

    async def page(self, request: Request) -> Response:
        """The page of the explorer, or of its progress while it opens."""
        explorer = self.opening.explorer
        if explorer is None:
            return page_file("loading.html") or _refusal("This page is not in the package.", 404)
        self.readings.spend(self._visitor(request))
        outcome, content = await answered(
            self.worker, f"page-{id(request)}", "page", partial(_page_html, explorer), self.policy.seconds
        )
        if outcome != "event":
            return _refusal(str(content), 500)
        return Response(content, media_type="text/html")

    async def asset(self, request: Request) -> Response:
        """A file of the page, from a fixed list."""
        return page_file(request.path_params["name"]) or _refusal("There is no such file.", 404)

    async def state(self, request: Request) -> Response:
        """Progress of the opening, and offers of the server: models, examples, limits."""
        explorer = self.opening.explorer
        state = {**self.opening.state(), "writes": self.policy.writes, "uploadBytes": self.policy.upload_bytes}
        if explorer is not None:
            state["models"] = list(explorer.models)
            state["examples"] = [{"id": entry.id, "name": entry.picture.name} for entry in explorer.inputs.examples()]
        return JSONResponse(state)

    async def page_data(self, request: Request) -> Response:
        """Data of the page for a model, as the report's `page_meta`."""
        explorer, model = self._explorer(), _query(request, "model")
        # On a public server, visitors see their own pictures alone.
        own = tuple(_query(request, "inputs").split(",")) if self.policy.public else None
        return await self._computed(request, "page", partial(_meta, explorer, model, own))

    async def input_data(self, request: Request) -> Response:
        """Data of an input, as the report's `picture_data`."""
        explorer = self._explorer()
        view = View(
            str(request.path_params["id"]),
            model=_query(request, "model"),
            target=_query(request, "target"),
            target_input=_query(request, "target_input"),
        )
        return await self._computed(request, "input", partial(_input, explorer, view))

    async def send(self, request: Request) -> Response:
        """Takes a picture from the visitor; answers with its id and name."""
        explorer = self._explorer()
        self.uploads.spend(self._visitor(request))
        data = await _body(request, self.policy.upload_bytes, "the picture")
        entry = await anyio.to_thread.run_sync(explorer.inputs.send, data, _query(request, "name") or "picture")
        return JSONResponse({"id": entry.id, "name": entry.picture.name, "note": entry.picture.note})

    async def scores(self, request: Request) -> Response:
        """Scores of all heads, MLPs and attention outputs, without decoding."""
        explorer, view = self._explorer(), View.from_json(await _json(request))
        return await self._computed(request, "scores", partial(explorer.scores, view))

    async def units(self, request: Request) -> Response:
        """The strongest features of an autoencoder, or neurons of a layer, of an input."""
        explorer, listed = self._explorer(), UnitListRequest.from_json(await _json(request))
        return await self._computed(request, "units", partial(explorer.units, listed), _SURVEY)

    async def look(self, request: Request) -> Response:
        """Numbers, preview and picture of a view, as they are ready."""
        explorer, look = self._explorer(), LookRequest.from_json(await _json(request))
        self.decodes.spend(self._visitor(request), 1 + len(look.strengths))
        return self._stream(request, "look", partial(explorer.look, look))

    async def ablate(self, request: Request) -> Response:
        """The change of the embedding, and reconstructions, without some sites."""
        explorer, view = self._explorer(), View.from_json(await _json(request))
        self.decodes.spend(self._visitor(request), 2)
        return self._stream(request, "ablate", partial(explorer.ablate, view))

    async def ablate_all(self, request: Request) -> Response:
        """The effect of every head's ablation on an input's embedding, layer by layer."""
        explorer, view = self._explorer(), View.from_json(await _json(request))
        self.readings.spend(self._visitor(request), _ABLATIONS)
        return self._stream(request, "ablate-all", partial(explorer.ablate_all, view))

    async def recipe(self, request: Request) -> Response:
        """The command and the Python code that reproduce a view."""
        from steerlens.app.saving import recipes

        explorer, view = self._explorer(), View.from_json(await _json(request))
        return await self._computed(request, "recipe", partial(recipes, explorer, view, self.policy))

    async def save(self, request: Request) -> Response:
        """Writes views as run directories."""
        from steerlens.app.saving import save

        explorer, content = self._explorer(), json_object(await _json(request), "a request")
        views = content.get("views")
        if not isinstance(views, list) or not 1 <= len(views) <= 9:
            raise UsageError("save takes the view and up to eight pins.")
        if not self.policy.writes:
            raise UsageError("this server writes nothing: copy the command, and run it on your machine.")
        chosen = [View.from_json(view) for view in views]
        self.decodes.spend(self._visitor(request), 4 * len(chosen))
        return self._stream(request, "save", partial(save, explorer, chosen))

    def _stream(self, request: Request, kind: str, make: Callable[[], Any]) -> StreamingResponse:
        return streamed(self.worker, *_tab_and_slot(request, kind), make, self.policy.seconds, _shown)

    async def _computed(self, request: Request, kind: str, compute: Callable[[], Any], tokens: int = 1) -> Response:
        self.readings.spend(self._visitor(request), tokens)
        tab, slot = _tab_and_slot(request, kind)
        outcome, content = await answered(self.worker, tab, slot, compute, self.policy.seconds)
        if outcome == "superseded":
            return _refusal("a newer request took its place.", 409)
        return JSONResponse(content) if outcome == "event" else _refusal(str(content), 400)

    def _explorer(self) -> "Explorer":
        explorer = self.opening.explorer
        if explorer is None:
            raise UsageError(self.opening.error or "the model is still being opened.")
        return explorer

    def _visitor(self, request: Request) -> str:
        """Address of the visitor; behind the proxy of a Space, the last one that it names."""
        forwarded = request.headers.get("x-forwarded-for", "") if self.policy.public else ""
        last = forwarded.rpartition(",")[2].strip()[:_TAB]
        return last or (request.client.host if request.client else "")

    @staticmethod
    def _told(handler: Handler) -> Handler:
        """The same handler, whose errors become one message."""

        async def telling(request: Request) -> Response:
            try:
                return await handler(request)
            except SteerlensError as error:
                return _refusal(str(error), 400)
            except ClientDisconnect:
                return Response(status_code=499)

        return telling


def _shown(event: Any) -> tuple[str, Mapping[str, Any]] | None:
    progress = progress_answer(event)
    return progress or (event.kind, event.content)


def _page_html(explorer: "Explorer") -> str:
    from steerlens.app.page import explorer_page

    return explorer_page(explorer)


def _meta(explorer: "Explorer", model: str, inputs: tuple[str, ...] | None) -> dict[str, Any]:
    from steerlens.app.page import live_meta

    return live_meta(explorer, model, inputs)


def _input(explorer: "Explorer", view: View) -> dict[str, Any]:
    from steerlens.app.page import live_input

    return live_input(explorer, view)


def _refusal(message: str, status: int) -> JSONResponse:
    return JSONResponse({"error": message}, status)


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    words = {404: "there is nothing at this address.", 405: "this address takes another method."}
    return _refusal(words.get(status, "this request cannot be answered."), status)


async def _unexpected(request: Request, error: Exception) -> Response:
    return _refusal(UNEXPECTED, 500)


def _query(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if len(value) > MAX_TEXT:
        raise UsageError(f"{name} is longer than {MAX_TEXT} characters.")
    return value


def _tab_and_slot(request: Request, kind: str) -> tuple[str, str]:
    tab = request.headers.get("x-steerlens-tab", "")[:_TAB]
    slot = request.headers.get("x-steerlens-slot", "")[:_TAB]
    return tab or f"{id(request)}", f"{kind} {slot or id(request)}"


async def _body(request: Request, most: int, what: str) -> bytes:
    """Bytes of a request, refused as soon as they are too many."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:18]) > most:
        raise UsageError(f"{what} is larger than {most:,} bytes.")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise UsageError(f"{what} is larger than {most:,} bytes.")
    return bytes(data)


async def _json(request: Request) -> object:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UsageError("this request is sent as application/json.")
    data = await _body(request, _JSON_BYTES, "the request")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise UsageError("the request is no JSON.") from None


def _no_constant(name: str) -> object:
    raise ValueError(name)
