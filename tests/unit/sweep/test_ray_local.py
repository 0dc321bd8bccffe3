"""Ray on this machine: it can be reached from here alone, and nothing is left when its driver is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steerlens.sweep.ray.watcher import of_ray, processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="runs where /proc lists the processes"),
]

_DRIVER = """
import os, signal, sys, time
from steerlens.cli.main import _terminated
from steerlens.sweep.ray.cluster import Workers, running_cluster

with _terminated([]), running_cluster(Workers(count=1)) as ray:
    import psutil

    @ray.remote
    def pid():
        return os.getpid()

    ray.get(pid.remote())
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in family for c in p.net_connections() if c.status == "LISTEN"]
    print(sorted(set(listening)), os.environ["RAY_AUTH_MODE"], flush=True)
    while True:
        ray.wait([pid.remote()], timeout=1)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_ray_listens_on_loopback_alone_and_leaves_no_process_behind(sent: int, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="runs where the extra `ray` is installed")
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", _DRIVER]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert driver.stdout is not None
    said = driver.stdout.readline()
    of_driver = of_ray(driver.pid, processes())
    driver.send_signal(sent)
    _, errors = driver.communicate(timeout=60)
    assert said == "['127.0.0.1', '::ffff:127.0.0.1'] token\n", errors
    assert "core dumped" not in errors and "*** SIG" not in errors
    assert len(of_driver) >= 4
    deadline = time.monotonic() + 20
    while left := {(pid, started) for pid, (_, _, started) in processes().items()} & of_driver:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert not any(tmp_path.iterdir())  # no token is kept


def test_the_watcher_knows_rays_processes_from_others() -> None:
    known = {
        2: (1, "python", 10),
        3: (2, "raylet", 11),
        4: (3, "ray::worker", 12),
        5: (4, "helper", 13),
        6: (2, "compiler", 14),
        7: (1, "raylet", 15),
    }
    assert of_ray(2, known) == {(3, 11), (4, 12), (5, 13)}
