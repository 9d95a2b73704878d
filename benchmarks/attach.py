"""CNI as container runtimes see it: whole processes of ADD and DEL, addresses from a real etcd, against bridge and host-local.

Measured, in ms: ADD and DEL one after the other (median, 90th percentile), and ``--together`` of them at once, from the first start to
the last end, with the CPU time that a call took of the agent, of etcd and of the plugin's process, which can be compared when the machine
is busy with other things. The agent's part of the time is what its log says. The baseline is in the same run, on the same host: the
reference plugins ``bridge`` and ``host-local`` from ``--reference`` (Debian's containernetworking-plugins: /usr/lib/cni); ``start`` is a
Python of the same kind that does nothing. Everything happens in namespaces of its own. Needs root and etcd.

Then the benchmarks ``docker`` and ``libvirt``, shorter, where Docker and libvirt are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import docker, libvirt
from benchmarks.etcd import listener, own_etcd
from tabinet.attach.cni.install import install_programs
from tabinet.kernel import netns

READY_WITHIN_S = 30.0
ANSWER_WITHIN_S = 60.0
SETTLE_S = 0.3
"""After the last answer servers still write statuses."""
RESOURCES = """
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: four}, spec: {cidr: 10.65.0.0/16}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: h1}}
"""
OURS = {"cniVersion": "1.0.0", "name": "net1", "type": "tabinet-cni"}
REFERENCE = {
    "cniVersion": "1.0.0",
    "name": "net2",
    "type": "bridge",
    "bridge": "br0",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]]},
}


@dataclass(slots=True)
class Site:
    """A host with an agent, and containers' namespaces."""

    directory: Path
    servers: dict[str, int] = field(default_factory=dict)
    """Agent and etcd, by the number of their process."""
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    containers: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return f"tbb-{self.tag}-host"

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *argv]

    def begin(self, command: str, program: Path, config: dict[str, Any], container: str) -> subprocess.Popen[bytes]:
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(program.parent),
            "PATH": os.defpath,
        }
        source = self.directory / f"{config['name']}.json"
        with source.open("rb") as stdin:
            return netns.run_in(self.namespace, lambda: subprocess.Popen([program], stdin=stdin, stdout=subprocess.PIPE, env=environ))

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        output, _ = process.communicate(timeout=ANSWER_WITHIN_S)
        if process.returncode:
            raise RuntimeError(output.decode())

    def one_by_one(self, command: str, program: Path, config: dict[str, Any]) -> list[float]:
        """Milliseconds of each call."""
        took = []
        for container in self.containers:
            begin = time.perf_counter()
            self.finish(self.begin(command, program, config, container))
            took.append((time.perf_counter() - begin) * 1e3)
        return took

    def at_once(self, command: str, program: Path, config: dict[str, Any]) -> dict[str, float]:
        """Milliseconds of all calls together, and those of the processors for one call."""
        before = self._cpu_ms()
        begin = time.perf_counter()
        for process in [self.begin(command, program, config, container) for container in self.containers]:
            self.finish(process)
        took_ms = (time.perf_counter() - begin) * 1e3
        time.sleep(SETTLE_S)
        spent = {f"{name}_cpu_ms": round((cpu - before[name]) / len(self.containers), 1) for name, cpu in self._cpu_ms().items()}
        return {"all_ms": round(took_ms)} | spent

    def _cpu_ms(self) -> dict[str, float]:
        """Of the servers, and of all plugins so far."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = {name: sum(_ticks(process)) * 1e3 / os.sysconf("SC_CLK_TCK") for name, process in self.servers.items()}
        return spent | {"plugin": (ended.ru_utime + ended.ru_stime) * 1e3}


def _ticks(process: int) -> tuple[int, int]:
    """Of the processors, in user mode and in the kernel's (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


@contextlib.contextmanager
def opened(endpoint: str, count: int) -> Iterator[Site]:
    """A site with a running agent on the etcd, and so many containers."""
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory))
        agent: subprocess.Popen[bytes] | None = None
        try:
            netns.create(site.namespace)
            subprocess.run(["ip", "-n", site.namespace, "link", "set", "dev", "lo", "up"], check=True)
            (site.directory / "agent.toml").write_text(
                f'[agent]\nhost = "h1"\nrun_dir = "{directory}"\nhttp_address = ""\n[store]\nendpoints = ["{endpoint}"]\n'
                f'[bird]\nenabled = false\n[cni]\ndeletions = "{directory}/deletions"\n'
            )
            (site.directory / "resources.yaml").write_text(RESOURCES)
            for config in (OURS, REFERENCE):
                (site.directory / f"{config['name']}.json").write_text(json.dumps(config))
            install_programs(site.directory / "bin", f"{directory}/deletions")
            command = [sys.executable, "-m", "tabinet.cli.main"]
            config_option = ["--config", str(site.directory / "agent.toml")]
            subprocess.run([*command, "apply", *config_option, "-f", str(site.directory / "resources.yaml")], check=True, stdout=sys.stderr)
            with (site.directory / "log").open("wb") as log:
                agent = subprocess.Popen(site.inside(*command, "agent", *config_option), stdout=log, stderr=log)
            site.servers = {"agent": agent.pid, "etcd": listener(endpoint)}
            _wait_for_agent(site)
            for index in range(count):
                site.containers.append(f"tbb-{site.tag}-{index}")
                netns.create(site.containers[-1])
            yield site
        finally:
            if agent is not None:
                agent.kill()
                agent.wait()
            for name in (*site.containers, site.namespace):
                if netns.exists(name):
                    netns.delete(name)


def _wait_for_agent(site: Site) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    status = json.dumps({"cniVersion": "1.1.0", "name": "net1", "type": "tabinet-cni"}).encode()
    argv = site.inside(str(site.directory / "bin" / "tabinet-cni"))
    while subprocess.run(argv, input=status, stdout=subprocess.DEVNULL, env={"CNI_COMMAND": "STATUS"}, check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError((site.directory / "log").read_text())
        time.sleep(0.05)


def agents_part(site: Site) -> dict[str, list[float]]:
    """Milliseconds in the agent, by command."""
    found: dict[str, list[float]] = {}
    for line in (site.directory / "log").read_text().splitlines():
        if match := re.search(r"command=(ADD|DEL) .* ms=([0-9.]+)", line):
            found.setdefault(match[1], []).append(float(match[2]))
    return found


def measure(count: int, together: int, reference: Path) -> dict[str, Any]:
    """All of it."""
    results: dict[str, Any] = {}
    with own_etcd() as endpoint:
        for name, program, config in _contestants(reference):
            with opened(endpoint, count) as site:
                where = site.directory / "bin" / "tabinet-cni" if program is None else program
                add, delete = (site.one_by_one(command, where, config) for command in ("ADD", "DEL"))
                results[name] = {"add": _summary(add), "del": _summary(delete)}
                if program is None:
                    results["agent"] = {command.lower(): _summary(took) for command, took in agents_part(site).items()}
            with opened(endpoint, together) as site:
                where = site.directory / "bin" / "tabinet-cni" if program is None else program
                for command in ("ADD", "DEL"):
                    results[name][f"{command.lower()}_{together}_at_once"] = site.at_once(command, where, config)
    start = []
    for _ in range(count):
        begin = time.perf_counter()
        subprocess.run([os.path.realpath(sys.executable), "-IS", "-c", ""], check=True)
        start.append((time.perf_counter() - begin) * 1e3)
    return results | {"start": _summary(start), "load": os.getloadavg()[0]}


def other_runtimes(times: int) -> dict[str, Any]:
    """What Docker and libvirt take, or why that was not measured."""
    results: dict[str, Any] = {}
    for name, measured in (("docker", docker.measure), ("libvirt", libvirt.measure)):
        try:
            results[name] = measured(times)
        except SystemExit as lacking:
            results[name] = f"not measured: {lacking}"
    return results


def _contestants(reference: Path) -> list[tuple[str, Path | None, dict[str, Any]]]:
    found: list[tuple[str, Path | None, dict[str, Any]]] = [("tabinet", None, OURS)]
    if (reference / "bridge").exists():
        found.append(("reference", reference / "bridge", REFERENCE))
    return found


def _summary(took: list[float]) -> dict[str, float]:
    return {"p50_ms": round(statistics.median(took), 1), "p90_ms": round(statistics.quantiles(took, n=10)[-1], 1), "n": len(took)}


def main() -> None:
    """Prints the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks attach", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int, default=40, help="calls one after the other")
    parser.add_argument("--together", type=int, default=100, help="calls at once")
    parser.add_argument("--reference", type=Path, default=Path("/usr/lib/cni"), help="where bridge and host-local are")
    parser.add_argument("--others", type=int, default=6, metavar="TIMES", help="runs of docker, and starts of libvirt; 0: none of them")
    options = parser.parse_args()
    results = measure(options.count, options.together, options.reference)
    if options.others:
        results |= other_runtimes(options.others)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, values in results.items():
        print(f"{name:10} {values}")
