"""Budgets of requests that make the model work without decoding."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from steerlens.app import Policy, ServerThread, serve_in_thread


def ask(server: ServerThread, path: str, content: Any = None) -> tuple[int, str]:
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    headers = {"X-Steerlens-Tab": "t", "Content-Type": "application/json"}
    method, body = ("GET", None) if content is None else ("POST", json.dumps(content))
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "content", "answered"),
    [
        ("/api/units", {"view": {}, "units": "neurons.0"}, 2),  # a survey counts as four requests
        ("/api/scores", {}, 9),
        ("/api/ablate-all", {}, 1),  # counts as eight
        ("/api/recipe", {"site": "head.0.0"}, 9),
        ("/api/input/ID", None, 9),
        ("/api/page", None, 9),
        ("/", None, 9),
    ],
)
def test_what_reads_pictures_without_decoding_has_a_budget(
    pair: Any, path: str, content: dict[str, Any] | None, answered: int
) -> None:
    with serve_in_thread(pair, policy=Policy(readings=9)) as server:
        assert server.opening.wait(60), server.opening.error
        id = json.loads(ask(server, "/api/state")[1])["examples"][0]["id"]
        if content is not None:
            content = {**content, "view": {"input": id}} if "view" in content else {**content, "input": id}
        answers = [ask(server, path.replace("ID", id), content) for _ in range(answered + 1)]
        assert [status for status, _ in answers] == [200] * answered + [400], answers[0]
        assert "gives 9 requests a minute" in json.loads(answers[-1][1])["error"]
        assert ask(server, "/api/state")[0] == 200, "which costs nothing"
