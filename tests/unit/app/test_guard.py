"""The guard: names, origins and tokens of requests; budgets of visitors."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from steerlens.app.budget import Budget
from steerlens.app.guard import COOKIE, Access, Guard
from steerlens.errors import UsageError


def answer(access: Access, headers: dict[str, str], method: str = "GET", target: str = "/api/state") -> tuple[int, Any]:
    """Status and headers of the guard's answer."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    # In a thread of its own: a browser of other tests may have left its event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, Guard(PlainTextResponse("inside"), access)(scope, receive, send)).result()
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("host", ["localhost:8420", "127.0.0.1:8420", "[::1]:8420", "localhost", "LOCALHOST:1"])
def test_loopback_names_are_known(host: str) -> None:
    status, headers = answer(Access(), {"Host": host})
    assert status == 200
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost@evil.example", "", "192.168.0.7", "[::"],
)
def test_a_name_that_was_rebound_to_loopback_is_refused(host: str) -> None:
    assert answer(Access(), {"Host": host})[0] == 421


def test_other_origins_and_forms_of_other_pages_are_refused() -> None:
    own = {"Host": "localhost:8420", "X-Steerlens-Tab": "t"}
    assert answer(Access(), {**own, "Origin": "http://localhost:8420"}, "POST")[0] == 200
    for origin in ("http://evil.example", "null", "http://localhost:9999", "file://", "http://[::"):
        assert answer(Access(), {**own, "Origin": origin}, "POST")[0] == 403
    assert answer(Access(), {"Host": "localhost:8420"}, "POST")[0] == 403  # no header of the page
    assert answer(Access(), {**own, "Sec-Fetch-Site": "cross-site"})[0] == 403
    assert answer(Access(), own, "DELETE")[0] == 405


def test_another_host_needs_the_token_once() -> None:
    access = Access.of("0.0.0.0")
    assert len(access.token) >= 32
    own = {"Host": "192.168.0.7:8420"}
    assert answer(access, own)[0] == 401
    assert answer(access, own, target="/?token=wrong")[0] == 401
    status, headers = answer(access, own, target=f"/?token={access.token}")
    assert status == 303 and headers["location"] == "/"
    assert "HttpOnly" in headers["set-cookie"] and "samesite=strict" in headers["set-cookie"].lower()
    assert answer(access, {**own, "Cookie": f"{COOKIE}={access.token}"})[0] == 200
    assert answer(access, {"Host": "evil.example", "Cookie": f"{COOKIE}={access.token}"})[0] == 421


def test_a_public_server_knows_its_name_and_asks_for_no_token() -> None:
    access = Access.of("0.0.0.0", public=True, names=frozenset({"me-app.hf.space"}))
    status, headers = answer(access, {"Host": "me-app.hf.space"})
    assert status == 200 and "https://huggingface.co" in headers["content-security-policy"]
    assert answer(access, {"Host": "evil.example"})[0] == 421


def test_a_budget_refills_and_is_each_visitor_s_own() -> None:
    now = [0.0]
    budget = Budget(60, "pictures", clock=lambda: now[0])
    budget.spend("a", 60)
    budget.spend("b", 1)
    with pytest.raises(UsageError, match="60 pictures a minute"):
        budget.spend("a", 2)
    now[0] = 2.0
    budget.spend("a", 2)
    Budget(None, "pictures").spend("a", 10**9)
