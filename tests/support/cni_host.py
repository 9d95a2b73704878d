"""A host in a network namespace, with a real agent on a sqlite store and the installed CNI plugins; containers are namespaces, too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabinet.attach.cni.install import install_programs
from tabinet.ipam.client import IpamClient
from tabinet.kernel import netns
from tabinet.store.open import open_store

NOTHING = {"interfaces": [], "endpoints": [], "addresses": 0}

DEADLINE_S = 60.0
POOLS = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: four}
spec: {cidr: 10.65.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd00:65::/64"}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h1}
"""


def network(name: str = "net1", version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    """A network configuration, as a runtime hands it to a plugin."""
    return {"cniVersion": version, "name": name, "type": "tabinet-cni", "ipam": {"type": "tabinet-ipam", "assign_ipv6": True}} | more


@dataclass(slots=True)
class Answer:
    """What a plugin said."""

    code: int
    output: dict[str, Any]


@dataclass(slots=True)
class CniHost:
    """Close it."""

    directory: Path
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    agent: subprocess.Popen[bytes] | None = None
    containers: list[str] = field(default_factory=list)
    name: str = "h1"
    """The host's."""
    settings: str = ""
    """More of the agent's configuration, in TOML."""
    store: str = ""
    """Its ``[store]``; empty: a sqlite file."""

    @property
    def namespace(self) -> str:
        return f"tbc-{self.tag}-host"

    @property
    def plugins(self) -> Path:
        return self.directory / "bin"

    @property
    def deletions(self) -> Path:
        return self.directory / "deletions"

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    def open(self) -> None:
        netns.create(self.namespace)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "dev", "lo", "up"], check=True)
        store = self.store or f'kind = "sqlite"\npath = "{self.directory}/store.db"\n'
        self.config.write_text(
            f'[agent]\nhost = "{self.name}"\nrun_dir = "{self.directory}"\nhttp_address = ""\n[store]\n{store}'
            f'[bird]\nenabled = false\n[cni]\ndeletions = "{self.deletions}"\n{self.settings}'
        )
        install_programs(self.plugins, str(self.deletions))
        (self.directory / "pools.yaml").write_text(POOLS)
        self.tabinet("apply", "-f", str(self.directory / "pools.yaml"))
        self.start()

    def close(self) -> None:
        self.stop(signal.SIGKILL)
        for name in (*self.containers, self.namespace):
            if netns.exists(name):
                netns.delete(name)

    def inside(self, *argv: str) -> list[str]:
        """The command in the host's network namespace; mounts stay those of the machine."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *argv]

    def tabinet(self, *arguments: str, check: bool = True) -> str:
        argv = self.inside(sys.executable, "-m", "tabinet.cli.main", *arguments)
        environment = os.environ | {"TABINET_CONFIG": str(self.config)}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, env=environment, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """The agent runs, and takes calls."""
        with (self.directory / "log").open("ab") as log:
            argv = self.inside(sys.executable, "-m", "tabinet.cli.main", "agent", "--config", str(self.config))
            self.agent = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_S
        while self.call("STATUS", network(version="1.1.0")).code != 0:
            assert self.agent.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(DEADLINE_S)
            self.agent = None

    def container(self, name: str) -> str:
        """A namespace for a container exists."""
        made = f"tbc-{self.tag}-{name}"
        netns.create(made)
        self.containers.append(made)
        return made

    def begin(self, command: str, config: object, container: str = "", **environ: str) -> subprocess.Popen[bytes]:
        """A plugin has been started, and has its input."""
        variables = {"CNI_COMMAND": command, "CNI_PATH": f"{self.plugins}:/opt/cni/bin:/usr/lib/cni", "CNI_IFNAME": "eth0"}
        if container:
            variables |= {"CNI_CONTAINERID": container, "CNI_NETNS": f"/run/netns/{container}"}
        program = environ.pop("program", "tabinet-cni")
        argv = self.inside(str(self.plugins / program))
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=variables | environ)
        assert process.stdin is not None
        process.stdin.write(config if isinstance(config, bytes) else json.dumps(config).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process: subprocess.Popen[bytes]) -> Answer:
        output, errors = process.communicate(timeout=DEADLINE_S)
        assert not errors, errors.decode()
        return Answer(process.returncode, json.loads(output) if output else {})

    def call(self, command: str, config: object, container: str = "", **environ: str) -> Answer:
        """What a plugin says; it has nothing to say on standard error."""
        return self.finish(self.begin(command, config, container, **environ))

    def endpoints(self) -> list[dict[str, Any]]:
        found = json.loads(self.tabinet("get", "wep", "-A", "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def leftovers(self) -> dict[str, Any]:
        """What there is of containers on the host: nothing, when all are gone."""
        links = subprocess.run(["ip", "-n", self.namespace, "-o", "link"], check=True, capture_output=True, text=True).stdout
        return {
            "interfaces": [line.split(": ")[1] for line in links.splitlines() if ": cali" in line],
            "endpoints": [item["metadata"]["name"] for item in self.endpoints()],
            "addresses": asyncio.run(self._assigned()),
        }

    async def _assigned(self) -> int:
        store = await open_store(f"sqlite:{self.directory}/store.db")
        try:
            return sum(pool.assigned for pool in await IpamClient(store).usage())
        finally:
            await store.close()


def datagram_arrives(sender: str, receiver: str, address: str) -> bool:
    """A single UDP datagram reaches the address: the first one, so nothing may be lost for want of anything."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def open_socket() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    with netns.run_in(receiver, open_socket) as inbox, netns.run_in(sender, open_socket) as outbox:
        inbox.settimeout(2.0)
        inbox.bind((address, 0))
        outbox.sendto(b"once", (address, inbox.getsockname()[1]))
        try:
            return inbox.recv(16) == b"once"
        except TimeoutError:
            return False


def echoed(sender: str, receiver: str, address: str, back: str) -> bool:
    """A datagram reaches the address, and the answer that is sent from there comes back to ``back``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def open_socket() -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(2.0)
        return made

    with netns.run_in(receiver, open_socket) as inbox, netns.run_in(sender, open_socket) as outbox:
        inbox.bind((address, 0))
        outbox.bind((back, 0))
        try:
            outbox.sendto(b"there", inbox.getsockname()[:2])
            inbox.sendto(b"back", inbox.recvfrom(16)[1])
            return outbox.recv(16) == b"back"
        except TimeoutError:
            return False
