"""Hostile requests to the explorer's server, and what no answer may hold."""

import http.client
import json
import os
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from steerlens.app import Explorer, ServerThread, serve_in_thread
from steerlens.app.models import OpenModel
from steerlens.app.view import View
from steerlens.images import png_bytes
from steerlens.zoo import sample_picture

LEAKS = ("Traceback", 'File "', "site-packages", "/tmp/", "/root", "/home", "steerlens/src")


def send(
    server: ServerThread, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Sends one request as it is, without the client's own checks of addresses."""
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        given = {
            "Host": place.netloc,
            "X-Steerlens-Tab": "hostile",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        for name, value in given.items():
            connection.putheader(name, value.encode("latin-1", "replace"))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG file that claims to be enormous."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


PATHS = (
    *(
        "/../../../etc/passwd",
        "/assets/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets//etc/passwd",
    ),
    *(
        "/assets/report/../report.css",
        "/assets/report/report.css%00.js",
        "/api/input/..%2f..%2fetc%2fpasswd",
        "//evil.example/",
    ),
    *(
        "/api/input/" + "a" * 5000,
        "/%ff%fe",
        "/api/state?x=%00",
        "/api/page?model=../../etc",
        "/api/page?inputs=" + "," * 3000,
    ),
    *("/assets/C:\\windows\\win.ini", "/;/", "/api//look", "/api/inputs/../state", "http://evil.example/api/state"),
)

ORIGINS: tuple[dict[str, str], ...] = (
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:80"},
    {"Host": "a\\b"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "Origin": "http://evil.example"},
    {"Content-Type": "text/plain"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Cookie": "steerlens-token=" + "x" * 4000},
    {"X-Steerlens-Slot": "../" * 900},
)

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**70, -(2**70), 1e308, "", "a", "../../etc/passwd", "/etc/passwd", "rho=1e99", "s=-1e99"),
    *(
        "head.0.0",
        "head.99999.0",
        "vector.../x",
        "\u202e\x00",
        "é" * 400,
        [],
        [[]],
        {},
        ["head.0.0"] * 9000,
        [10**9],
        [0, 1],
    ),
    *(
        {"a": {"b": {}}},
        "resid_post.1",
        "mlp_out.0",
        "<script>alert(1)</script>",
        "$(touch pwned)",
        "group.x",
        "\ud800",
    ),
)


def requests(random: random.Random, id: str) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Method, address, body and headers of the requests."""
    picture = png_bytes(Image.new("RGB", (16, 16), "green"))
    as_json = {"Content-Type": "application/json"}
    fields = [*View.__dataclass_fields__, "path", "__class__", "strengths"]
    targets = ("/api/look", "/api/ablate", "/api/ablate-all", "/api/scores", "/api/recipe", "/api/save", "/api/units")
    for path in PATHS:
        yield "GET", path, b"", {}
        yield "POST", path, b"{}", as_json
    for headers in ORIGINS:
        yield "POST", "/api/look", b"{}", {**as_json, **headers}
        yield "GET", "/api/state", b"", headers
    for data in (
        b"",
        b"\xff\xd8\xff",
        b"GIF89a" + b"\0" * 50,
        picture[:60],
        bomb(60_000),
        bomb(2**30),
        b"<svg/>",
        b"%PDF-1.4",
        b"BM" * 99,
    ):
        yield "POST", f"/api/inputs?name={random.choice(('..%2f..%2fx.png', 'a', '%00', 'CON', 'x' * 200))}", data, {}
    for length in ("-1", "99999999999", "1e9", "0x10"):
        yield "POST", "/api/inputs?name=a.png", b"", {"Content-Length": length}
    for text in (
        "",
        "nonsense",
        "[" * 100_000,
        '{"view": NaN}',
        "{}",
        "[]",
        "null",
        '"' + "a" * 300_000 + '"',
        "\ufeff{}",
        '{"a":1,"a":2}',
    ):
        for target in targets[:3]:
            yield "POST", target, text.encode(), as_json
    while True:
        view: dict[str, Any] = {"input": id}
        for _ in range(random.randrange(4)):
            view[random.choice(fields)] = random.choice(VALUES)
        target = random.choice(targets)
        content: Any = {"view": view} if target == "/api/look" else {"views": [view]} if target == "/api/save" else view
        if target == "/api/units":
            content = {
                "view": view,
                "units": random.choice(("neurons.0", "neurons.9", "neurons.0-9999", "tiny", *VALUES)),
            }
        if random.random() < 0.15:
            content = random.choice(VALUES)
        body = json.dumps(content).encode()
        if random.random() < 0.1:
            body = bytes(byte ^ (random.random() < 0.03) for byte in body)
        yield random.choice(("POST", "POST", "POST", "PUT", "OPTIONS")), target, body, as_json


def wrong_answer(status: int, text: str) -> str:
    """What is wrong with an answer, in words; empty if nothing is."""
    if leak := next((leak for leak in LEAKS if leak in text), ""):
        return f"the answer holds {leak!r}"
    if "something unexpected" in text:
        return "an exception that is nobody's"
    try:
        told = status < 500 or "error" in json.loads(text)
    except ValueError:
        told = False
    return "" if told else f"status {status} without a message"


def opened(pair: Any) -> Explorer:
    """Opens an explorer of a pair under a name that is no path, with the bundled picture."""
    explorer = Explorer([OpenModel("tiny", pair, {"model": "tiny"})])
    explorer.inputs.offer(sample_picture())
    return explorer


def explorer_command(pair: Any, seed: str, count: int) -> int:
    """Serves an explorer of a pair, sends it hostile requests, and tells of the first wrong answer on stderr.

    Args:
        pair: the pair.
        seed: seed of the requests.
        count: number of requests.

    Returns:
        0, or 3 for a wrong answer.
    """
    rng = random.Random(seed)
    Path("out").mkdir()
    os.chdir("out")  # views are saved in the current folder
    with serve_in_thread(open_explorer=lambda _: opened(pair)) as server:
        if not server.opening.wait(60):
            sys.stderr.write("the explorer does not open\n")
            return 3
        id = json.loads(send(server, "GET", "/api/state")[1])["examples"][0]["id"]
        listed = list(islice(requests(rng, id), 600))
        # The first are always the same, so that they are drawn among those that are not.
        for request in rng.sample(listed, count):
            try:
                status, text = send(server, *request)
            except (http.client.HTTPException, ConnectionError):
                continue  # the server may hang up on what is no HTTP
            if wrong := wrong_answer(status, text):
                sys.stderr.write(f"{wrong}: {request!r:.600} -> {status} {text[:300]!r}\n")
                return 3
        status, text = send(server, "GET", "/api/state")
        if status != 200 or not json.loads(text)["ready"]:
            sys.stderr.write("the explorer does not answer any more\n")
            return 3
    return 0
