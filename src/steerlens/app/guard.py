"""The guard: which requests reach the server at all, and the headers of every answer.

Loopback servers accept only requests that name a loopback host, so a page elsewhere cannot reach them by a name that
resolves to 127.0.0.1 (DNS rebinding). Requests that change something or compute must come from the server's own page.
Servers on another host ask for a token besides, which the URL carries once and a cookie afterwards.

References: W3C, Content Security Policy Level 3; Fetch Metadata Request Headers.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "steerlens-token"

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))

_NOTEBOOKS = "http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:*"


@dataclass(frozen=True)
class Access:
    """Who may reach a server.

    Attributes:
        host: address that the server listens on.
        token: what other hosts must show; empty for none.
        names: further host names under which the page may be opened, such as that of a Space.
        framed: whether pages of this machine (notebooks) may show it in a frame.
        frames: further origins whose pages may show it in a frame.
    """

    host: str = "127.0.0.1"
    token: str = ""
    names: frozenset[str] = frozenset()
    framed: bool = False
    frames: str = ""

    @classmethod
    def of(cls, host: str, *, public: bool = False, names: frozenset[str] = frozenset()) -> "Access":
        """Access to a server on a host: with a token unless it is loopback or public."""
        token = "" if public or is_loopback(host) else secrets.token_urlsafe(24)
        return cls(host, token, names, frames="https://huggingface.co" if public else "")

    def knows(self, host: str) -> bool:
        """True if a `Host` header names this server.

        An address in numbers cannot be rebound, so a server on another host accepts any; a loopback server accepts
        loopback alone.
        """
        name = _host_name(host)
        if not name:
            return False
        if name in _LOCAL or name in self.names:
            return True
        if is_loopback(self.host):
            return False
        return name in (self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()) or _is_address(name)

    @property
    def policy(self) -> str:
        """The Content-Security-Policy of every page: nothing from elsewhere, no inline script."""
        frames = " ".join(filter(None, ("'self'", _NOTEBOOKS if self.framed else "", self.frames)))
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
            f"media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors {frames}"
        )


def is_loopback(host: str) -> bool:
    """True if a host is this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """Name of a `Host` header, without its port; empty if it is none."""
    if not host or any(character in host for character in "/@\\ \t#?"):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


@dataclass(eq=False)
class Guard:
    """ASGI middleware that refuses requests which do not come from the server's own page.

    Attributes:
        app: the guarded application.
        access: who may reach it.
    """

    app: ASGIApp
    access: Access = field(default_factory=Access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, self._with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers, access = Headers(scope=scope), self.access
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not access.knows(hosts[0]):
            return PlainTextResponse("This server is not known by this host name.", 421)
        origins = headers.getlist("origin")
        if len(origins) > 1 or (origins and not self._is_own(origins[0], hosts[0])):
            return PlainTextResponse("This server answers only its own page.", 403)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("This server takes GET and POST alone.", 405)
        if scope["method"] == "POST" and "x-steerlens-tab" not in headers:
            # A page elsewhere cannot send this header without asking first, and is refused then.
            return PlainTextResponse("This server answers only its own page.", 403)
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and scope["path"] != "/":
            return PlainTextResponse("This server answers only its own page.", 403)
        return self._without_token(scope) if access.token else None

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def _without_token(self, scope: Scope) -> Response | None:
        request, token = Request(scope), self.access.token
        given = request.query_params.get("token", "")
        if given and hmac.compare_digest(given.encode(), token.encode()):
            if scope["path"] == "/" and scope["method"] == "GET":
                # Into a cookie, so that the address can be shared without the token.
                answer = RedirectResponse("/", 303)
                answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
                return answer
            return None
        if hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), token.encode()):
            return None
        return PlainTextResponse("Open the address that the command printed, with its token.", 401)

    def _with_headers(self, send: Send) -> Callable[[Message], Awaitable[None]]:
        added: Mapping[str, str] = {
            "content-security-policy": self.access.policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(self), microphone=(), geolocation=()",
        }

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        return sending
