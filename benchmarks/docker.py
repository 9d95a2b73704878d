"""What a network of ours adds to ``docker run``: the whole command with ``--network none``, with a bridge of Docker's own, and with ours.

A program that does nothing, run in turn with each network, so that a machine that is busy at times is busy for all; a real dockerd without
iptables and with the storage driver ``vfs``, an agent of its own, addresses from a real etcd on disk. "Driver's calls" are what the agent
took for all calls of a run (address, Join, Leave, deletion), as its log has it: the rest of the difference is Docker's own work, which the
bridge shows. Needs root, etcd, and what ``scripts/setup-runtimes`` installs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.etcd import own_etcd

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
NETWORKS = {"none": "none", "bridge": "plain", "ours": "fabric"}


def measure(times: int) -> dict[str, Any]:
    """Medians and least in milliseconds.

    Raises:
        SystemExit: something is not installed.
    """
    with own_etcd() as endpoint, tempfile.TemporaryDirectory(dir="/tmp") as directory, opened(endpoint, Path(directory)) as docker:
        log = docker.host.directory / "log"
        took: dict[str, list[float]] = {name: [] for name in NETWORKS}
        for number in range(times + 1):
            for name, network in NETWORKS.items():
                begin = time.perf_counter()
                docker("run", "--rm", "--network", network, "box", "busybox", "true")
                if number:  # the first one of each kind finds nothing in memory
                    took[name].append((time.perf_counter() - begin) * 1e3)
            if not number:
                told = log.stat().st_size
        calls = driver_calls(log.read_bytes()[told:].decode())
    medians = {name: statistics.median(found) for name, found in took.items()}
    return {
        "run": {name: {"p50_ms": round(medians[name]), "least_ms": round(min(found)), "n": len(found)} for name, found in took.items()},
        "over_none_ms": {name: round(medians[name] - medians["none"]) for name in ("bridge", "ours")},
        "driver_calls_p50_ms": {name: round(statistics.median(found), 1) for name, found in calls.items()},
        "driver_calls_of_a_run_mean_ms": round(sum(sum(found) for found in calls.values()) / times, 1),
        "load": os.getloadavg()[0],
    }


def driver_calls(log: str) -> dict[str, list[float]]:
    """Milliseconds of each call, by method."""
    found: dict[str, list[float]] = {}
    for method, took in re.findall(r"call=(\S+) .*?ms=([0-9.]+)", log):
        found.setdefault(method, []).append(float(took))
    return found


@contextlib.contextmanager
def opened(endpoint: str, directory: Path) -> Iterator[Any]:
    """A host with an agent and a dockerd, and the networks.

    Raises:
        SystemExit: something is not installed.
    """
    sys.path.append(str(SUPPORT))
    cni_host, docker_host = importlib.import_module("cni_host"), importlib.import_module("docker_host")  # made for the tests
    if docker_host.MISSING:
        raise SystemExit(f"not installed: {', '.join(docker_host.MISSING)}; scripts/setup-runtimes does that")
    host = cni_host.CniHost(directory / "host", store=f'endpoints = ["{endpoint}"]\n')
    docker = docker_host.DockerHost(host, directory / "docker")
    try:
        docker.open()
        docker("network", "create", "plain")
        docker("network", "create", "-d", "tabinet", "--ipam-driver", "tabinet", "--subnet", "10.65.0.0/16", "fabric")
        yield docker
    finally:
        docker.close()


def main() -> None:
    """Prints the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks docker", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, default=10, help="runs with each network")
    options = parser.parse_args()
    results = measure(options.times)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, value in results.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
