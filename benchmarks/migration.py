"""Live migration: a virtual machine (QEMU without hardware support) goes to another host of a lab while a third pings it 100 times a second
and keeps a TCP connection that the machine began, through policy that lets in nothing but answers.

The baseline is QEMU's own downtime in the same run: nothing can be quicker. Then what it takes to hand flows over: read, compressed, and
taken in by another namespace.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tabinet.kernel import netns
from tabinet.kernel.conntrack import TcpFlow
from tabinet.kernel.ctsocket import open_conntrack
from tabinet.kernel.flowcodec import parse_part, render_parts
from tabinet.lib.ip import parse_address

SUPPORT = Path(__file__).parents[1] / "tests" / "support"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--times", type=int, default=5, help="migrations with the hypervisor's hook, and as many without")
    parser.add_argument("--flows", type=int, default=10_000, help="flows that are handed over")
    options = parser.parse_args()
    figures = {**measure_handover(options.flows), **measure_migrations(options.times)}
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:45} {value}")


def measure_migrations(times: int) -> dict[str, float]:
    """Medians, and the worst of each, with the hook and without."""
    sys.path.append(str(SUPPORT))
    world = importlib.import_module("moving_world")  # made for the tests, which are no package
    found: dict[str, float] = {}
    with world.moving_lab() as lab, tempfile.TemporaryDirectory() as directory:
        for hooked in (True, False):
            reports = []
            for number in range(times):
                place = Path(directory) / f"{hooked}{number}"
                place.mkdir()
                moving = world.Moving(lab, "tapguest")
                source, target = world.Machine(moving, "h1", place), world.Machine(moving, "h2", place, incoming=True)
                try:
                    reports.append(world.migrate(moving, source, target, hooked=hooked))
                finally:
                    source.stop()
                    target.stop()
                    moving.forget()
            word = "with a hook" if hooked else "without"
            for name in reports[0]:
                values = [report[name] for report in reports]
                found[f"{name}, {word}: median"] = round(statistics.median(values), 3)
                found[f"{name}, {word}: worst"] = round(max(values), 3)
    return found


def measure_handover(count: int) -> dict[str, float]:
    """CPU time of each step, the kernel's included, and the bytes that cross the store."""
    names = [f"tbm-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    for name in names:
        netns.create(name)
    try:
        source, target = (netns.run_in(name, open_conntrack) for name in names)
        guest = parse_address("10.65.0.9")
        for number in range(count):
            peer = parse_address(f"10.66.{number >> 8 & 255}.{number & 255}")
            source.add_tcp(TcpFlow(peer, guest, 1024 + number % 50_000, 443))
        begin = time.thread_time()
        flows = source.flows_of(guest)
        read = time.thread_time()
        parts = list(render_parts(flows))
        rendered = time.thread_time()
        again = [flow for part in parts for flow in parse_part(part)]
        parsed = time.thread_time()
        added = target.add_flows(again)
        done = time.thread_time()
        assert added == len(flows) == count
    finally:
        for name in names:
            netns.delete(name)
    steps = {"read": read - begin, "compress": rendered - read, "decode": parsed - rendered, "add": done - parsed}
    return {f"{count} flows: {name} (ms of CPU)": round(took * 1e3, 1) for name, took in steps.items()} | {
        f"{count} flows: bytes": sum(map(len, parts)),
        f"{count} flows: parts": len(parts),
    }


if __name__ == "__main__":
    main()
