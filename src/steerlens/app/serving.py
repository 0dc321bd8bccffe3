"""Serving: the explorer's server as a command, or as a thread of a notebook."""

import os
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from steerlens.app.guard import Access
from steerlens.app.opening import Opening, collection_paused
from steerlens.app.policy import Policy
from steerlens.errors import UsageError

if TYPE_CHECKING:
    from steerlens.app.explorer import Explorer
    from steerlens.atlas import Atlas
    from steerlens.zoo import Pair

OpenExplorer = Callable[[Opening], "Explorer"]
"""Opens the models on the worker's thread, and says how far it is."""

_SMALL = 128 * 128
"""Pixels of a decoded picture up to which one thread computes it as fast as several."""


def serve(
    open_explorer: OpenExplorer,
    *,
    host: str = "127.0.0.1",
    port: int = 8420,
    policy: Policy | None = None,
    names: frozenset[str] = frozenset(),
    browser: bool = True,
    say: Callable[[str], None] | None = None,
    complain: Callable[[str], None] | None = None,
) -> None:
    """Serves the explorer until it is interrupted.

    Args:
        open_explorer: opens the models; called on the worker's thread while the page answers already.
        host: address to listen on. Any but this machine alone asks visitors for the token in the printed URL.
        port: port to listen on; 0 for any free one.
        policy: what visitors may ask for; by default that of the host.
        names: further host names under which visitors open the page.
        browser: True to open the page in the browser.
        say: told the URL, once.
        complain: told why the explorer could not be opened, which the page says too.

    Raises:
        UsageError: if the extra is not installed, or the port is taken.
    """
    access = Access.of(host, public=policy is not None and policy.public, names=names)
    chosen = policy or (Policy.shared() if access.token else Policy.local())
    listening = listen(host, port)
    url = url_of(host, listening.getsockname()[1], access.token)
    if say is not None:
        say(url)
    server = _Server(open_explorer, access, chosen, alone=True, complain=complain)
    if browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    server.run(listening)


@dataclass(eq=False)
class ServerThread:
    """A server in a thread of this process; also a context manager.

    Attributes:
        url: address of the page, with its token if it has one.
        opening: the explorer, or the progress of opening it.
    """

    url: str
    opening: Opening
    _server: "_Server" = field(repr=False)
    _thread: threading.Thread = field(repr=False)

    def close(self) -> None:
        """Stops the server and its worker."""
        self._server.stop()
        self._thread.join(timeout=15)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_in_thread(
    pair: "Pair | None" = None,
    *,
    pictures: Sequence[Any] = (),
    run: "Atlas | None" = None,
    open_explorer: OpenExplorer | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    policy: Policy | None = None,
) -> ServerThread:
    """Serves the explorer from a thread, for notebooks and tests.

    Args:
        pair: the model, as `steerlens.load` returns it.
        pictures: pictures to offer on the page, `Picture`; by default those of the run, or the bundled one.
        run: finished results of the pair, which the page shows.
        open_explorer: opens models and pictures instead of both.
        host: address to listen on.
        port: port; 0 for any free one.
        policy: what visitors may ask for; by default that of this machine's user.

    Raises:
        UsageError: if the extra is not installed, the port is taken, or there is neither a pair nor `open_explorer`.
    """
    if open_explorer is None:
        if pair is None:
            raise UsageError("serve_in_thread takes a pair, as steerlens.load returns it.")
        open_explorer = _opener(pair, tuple(pictures), policy or Policy.local(), run)
    public = policy is not None and policy.public
    access = replace(Access.of(host, public=public), framed=True)
    listening = listen(host, port)
    url = url_of(host, listening.getsockname()[1], access.token)
    server = _Server(open_explorer, access, policy or Policy.local())
    thread = threading.Thread(target=server.run, args=(listening,), name="steerlens-app", daemon=True)
    thread.start()
    return ServerThread(url, server.opening, server, thread)


def _opener(pair: "Pair", pictures: Sequence[Any], policy: Policy, run: "Atlas | None") -> OpenExplorer:
    def open_explorer(opening: Opening) -> "Explorer":
        from steerlens.app.explorer import Explorer
        from steerlens.app.models import OpenModel, page_name
        from steerlens.zoo import sample_picture

        model = OpenModel(page_name(pair.name), pair, {"model": pair.name})
        explorer = Explorer([model], policy, run)
        of_run = [] if run is None else [reading.picture for reading in run.readings]
        for picture in pictures or of_run or [sample_picture()]:
            explorer.inputs.offer(picture)
        return explorer

    return open_explorer


def listen(host: str, port: int) -> socket.socket:
    """Opens the port at once, so that a taken one is reported before anything is loaded.

    Raises:
        UsageError: if there is no such address, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"port {port} of {host} cannot be used ({why}); take another --port, or --port 0.") from None
    return listening


def url_of(host: str, port: int, token: str = "") -> str:
    """Address of the page, as a browser on this machine opens it."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/{f'?token={token}' if token else ''}"


class _Server:
    """Uvicorn with a worker: started and stopped together.

    Args:
        open_explorer: opens the models.
        access: who may reach it.
        policy: what visitors may ask for.
        alone: whether the process does nothing else, so that its garbage collector may be paused.
        complain: told why the explorer could not be opened.
    """

    def __init__(
        self,
        open_explorer: OpenExplorer,
        access: Access,
        policy: Policy,
        *,
        alone: bool = False,
        complain: Callable[[str], None] | None = None,
    ) -> None:
        try:
            import uvicorn

            from steerlens.app.site import Site
            from steerlens.app.worker import Worker
        except ImportError as error:
            raise UsageError(f"the explorer needs {error.name}: pip install 'steerlens[app]'.") from None
        self.opening = Opening()
        self._open, self._alone, self._complain = open_explorer, alone, complain
        self.worker = Worker(policy.tabs, self._begin)
        site = Site(self.opening, self.worker, policy, access)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                site.application(),
                # What goes wrong inside a request is logged by the worker; a visitor who leaves is no error.
                log_level="critical",
                access_log=False,
                server_header=False,
                # Only the proxy of a Space may say who a visitor is; `Site` reads its header itself.
                proxy_headers=False,
                limit_concurrency=max(256, 4 * policy.tabs),
                timeout_graceful_shutdown=2,
                lifespan="off",
            )
        )

    def _begin(self) -> None:
        with collection_paused() if self._alone else nullcontext():
            self.opening.run(self._open_without_gradients)
        if self.opening.error and self._complain is not None:
            self._complain(self.opening.error)
        explorer = self.opening.explorer
        sizes = (
            [] if explorer is None else [model.pair.decoder.spec.defaults.size for model in explorer.models.values()]
        )
        on_cpu = explorer is not None and all(
            model.pair.encoder.device.type == "cpu" for model in explorer.models.values()
        )
        if on_cpu and sizes and all(height * width <= _SMALL for height, width in sizes):
            import torch

            torch.set_num_threads(1)

    def _open_without_gradients(self, opening: Opening) -> "Explorer":
        import torch

        # Base state of the thread: generators that take turns save and restore it in any order.
        torch.set_grad_enabled(False)
        return self._open(opening)

    def run(self, listening: socket.socket) -> None:
        """Serves until it is stopped."""
        try:
            self._uvicorn.run(sockets=[listening])
        finally:
            self.worker.close()
            listening.close()

    def stop(self) -> None:
        """Asks the server to end."""
        self._uvicorn.should_exit = True
