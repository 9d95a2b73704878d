"""A real etcd for benchmarks: its own directory, unix sockets only, stopped and removed at the end."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

READY_WITHIN_S = 20.0


@contextlib.contextmanager
def own_etcd() -> Iterator[str]:
    """The endpoint of an etcd that nobody else uses; its data is on disk, as it would be."""
    directory = Path(tempfile.mkdtemp(prefix="tabinet-bench-"))
    command = ["etcd", "--name=bench", "--data-dir=data", "--initial-cluster=bench=unix://peer:0", "--logger=zap", "--log-level=error"]
    command += ["--listen-client-urls=unix://client:0", "--advertise-client-urls=unix://client:0"]
    command += ["--listen-peer-urls=unix://peer:0", "--initial-advertise-peer-urls=unix://peer:0"]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while listener(f"unix://{directory}/client:0") != process.pid:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"etcd does not start: {(directory / 'log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        yield f"unix://{directory}/client:0"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def listener(endpoint: str) -> int:
    """The process behind the endpoint's socket (SO_PEERCRED, unix(7)); 0 while there is none."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(endpoint.removeprefix("unix://"))
        except OSError:
            return 0
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
