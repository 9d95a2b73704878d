"""One host with a real agent and a real guest service, and namespaces as its guests, with real DHCP clients of Debian in them."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabinet.kernel import netns
from tabinet.model.openstack import FixedAddress, PortFacts, render_port_facts
from tabinet.store.api import PutOp
from tabinet.store.client import ResourceClient
from tabinet.store.open import open_store

GUESTS = ("g1", "g2")
ADDRESSES = {"g1": ("10.65.0.7", "fd65::7"), "g2": ("10.65.0.8", "fd65::8")}
MACS = {"g1": "fa:16:3e:00:00:07", "g2": "fa:16:3e:00:00:08"}
SUBNETS = {
    "s4": {"network_id": "n", "cidr": "10.65.0.0/24", "gateway_ip": "10.65.0.1", "host_routes": [], "dns_servers": ["192.0.2.53"]},
}
DEADLINE_S = 60.0
CONFIG = """
[agent]
host = "h1"
run_dir = "{directory}"
http_address = ""
[store]
kind = "sqlite"
path = "{directory}/store.db"
[bird]
enabled = false
{more}
"""
DHCLIENT_CONFIG = """
option rfc3442 code 121 = array of unsigned integer 8;
also request rfc3442;
timeout 50;
initial-delay 0;
initial-interval 1;
backoff-cutoff 1;
"""
UDHCPC_SCRIPT = '#!/bin/sh\n[ "$1" = bound ] && env > {file}\nexit 0\n'
DHCLIENT6_CONFIG = """
option dhcp6.bootfile-url code 59 = text;
also request dhcp6.bootfile-url;
timeout 50;
"""
DHCLIENT_SCRIPT = (
    '#!/bin/sh\ncase "$reason" in BOUND|RENEW|REBOOT|BOUND6|RENEW6|REBIND6) env > {file}.new && mv {file}.new {file};; esac\nexit 0\n'
)


def endpoint(guest: str, facts: PortFacts | None = None, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """A port of Neutron's."""
    v4, v6 = ADDRESSES[guest]
    fixed = (FixedAddress(address=v4, subnet="s4"), FixedAddress(address=v6, subnet="s6"))
    told = facts if facts is not None else PortFacts(mtu=1400, hostname=guest, fqdn=f"{guest}.example.org", fixed=fixed)
    metadata = {
        "name": f"h1-openstack-{guest}-{guest}",
        "namespace": "openstack",
        "labels": {"projectcalico.org/openstack-project-id": "project"},
        "annotations": {"openstack.tabinet/port": render_port_facts(told)} | (annotations or {}),
    }
    spec = {
        "orchestrator": "openstack",
        "workload": guest,
        "node": "h1",
        "endpoint": guest,
        "ipNetworks": [f"{v4}/32", f"{v6}/128"],
        "ipv4Gateway": "10.65.0.1",
        "interfaceName": f"tap{guest}",
        "mac": MACS[guest],
        "profiles": [],
    }
    return {"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}


ALLOW_ALL = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": "all"},
    "spec": {"selector": "all()", "types": ["Ingress", "Egress"], "ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]},
}


class GuestWorld:
    """Namespaces, interfaces, a store, and the two programs."""

    def __init__(self, directory: Path, more: str = "") -> None:
        self.directory = directory
        self.tag = uuid.uuid4().hex[:6]
        self.host = f"tbg-{self.tag}-h"
        self.config = directory / "tabinet.toml"
        self.config.write_text(CONFIG.format(directory=directory, more=more))
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def namespace(self, guest: str) -> str:
        return f"tbg-{self.tag}-{guest}"

    def ip(self, namespace: str, command: str) -> None:
        subprocess.run(["ip", "-n", namespace, *command.split()], check=True, capture_output=True)

    def up(self) -> None:
        for namespace in (self.host, *map(self.namespace, GUESTS)):
            netns.create(namespace)
            self.ip(namespace, "link set dev lo up")
        for guest in GUESTS:
            inner = self.namespace(guest)
            self.ip(self.host, f"link add tap{guest} type veth peer name eth0 netns {inner}")
            self.ip(inner, f"link set dev eth0 address {MACS[guest]} up")

    async def fill(self, *documents: dict[str, Any], subnets: dict[str, dict[str, Any]] | None = None) -> None:
        """The store has these resources and subnets."""
        store = await open_store(f"sqlite:{self.directory}/store.db")
        try:
            if documents:
                await ResourceClient(store).apply_many(list(documents))
            for name, value in (subnets or {}).items():
                await store.txn([], [PutOp(f"/calico/dhcp/v2/no-region/subnet/{name}", json.dumps(value).encode())])
        finally:
            await store.close()

    def address(self, guest: str) -> None:
        """The guest has what DHCP would give it."""
        self.ip(self.namespace(guest), f"addr replace {ADDRESSES[guest][0]}/24 dev eth0")
        self.ip(self.namespace(guest), "route replace default via 10.65.0.1 dev eth0")

    def socket(self, guest: str, kind: int, port: int = 0) -> socket.socket:
        """An IPv4 socket in a guest's namespace, or the host's."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            made.settimeout(DEADLINE_S)
            made.bind(("0.0.0.0", port))
            return made

        return netns.run_in(self.host if guest == "host" else self.namespace(guest), make)

    def start(self, command: str) -> None:
        """``agent`` or ``guest`` runs in the host's namespace; its log is beside the store."""
        argv = ["nsenter", f"--net=/run/netns/{self.host}", sys.executable, "-m", "tabinet.cli.main", command, "--config", str(self.config)]
        with open(self.directory / f"{command}.log", "ab") as log:
            self._programs[command] = subprocess.Popen(argv, stdout=log, stderr=log)

    def stop(self, command: str) -> None:
        """It has ended."""
        program = self._programs.pop(command)
        program.send_signal(signal.SIGTERM)
        assert program.wait(DEADLINE_S) == 0, self.logs()

    def run(self, guest: str, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """A program in the guest's namespace, to its end."""
        whole = ["nsenter", f"--net=/run/netns/{self.namespace(guest)}", *argv]
        return subprocess.run(whole, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options)

    def udhcpc(self, guest: str, *options: str, interface: str = "eth0") -> dict[str, str]:
        """What busybox's client got, as its script is told."""
        script, file = self._script(f"udhcpc-{guest}", UDHCPC_SCRIPT)
        asked = ["-fnq", "-t", "60", "-T", "1", "-O", "121", "-O", "mtu"]
        done = self.run(guest, ["busybox", "udhcpc", "-i", interface, "-s", str(script), *asked, *options])
        assert done.returncode == 0, (done.stdout, done.stderr, self.logs())
        return _environment(file)

    def dhclient(self, guest: str) -> dict[str, str]:
        """What ISC's client got."""
        script, file = self._script(f"dhclient-{guest}", DHCLIENT_SCRIPT)
        state = [str(self.directory / f"dhclient-{guest}.{name}") for name in ("leases", "pid", "conf")]
        Path(state[2]).write_text(DHCLIENT_CONFIG)
        return self._foreground(
            guest, file, ["dhclient", "-d", "-1", "-sf", str(script), "-lf", state[0], "-pf", state[1], "-cf", state[2]]
        )

    def dhclient6(self, guest: str, *options: str, interface: str = "eth0") -> dict[str, str]:
        """What ISC's client got over IPv6; with ``-S`` configuration alone. Its lease is known to the next call."""
        script, file = self._script(f"dhclient6-{guest}", DHCLIENT_SCRIPT)
        state = [str(self.directory / f"dhclient6-{guest}.{name}") for name in ("leases", "pid", "conf")]
        Path(state[2]).write_text(DHCLIENT6_CONFIG)
        common = ["-sf", str(script), "-lf", state[0], "-pf", state[1], "-cf", state[2]]
        return self._foreground(guest, file, ["dhclient", "-6", "-d", "-1", *common, *options], interface)

    def _foreground(self, guest: str, file: Path, client: list[str], interface: str = "eth0") -> dict[str, str]:
        """What the client's script was told; the client has ended, and told nobody that it gives up its lease."""
        argv = ["nsenter", f"--net=/run/netns/{self.namespace(guest)}", *client, interface]
        with open(self.directory / f"client-{guest}.log", "wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as program:
            try:
                assert eventually(file.exists), self.logs()
                return _environment(file)
            finally:
                program.kill()

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def _script(self, name: str, text: str) -> tuple[Path, Path]:
        script, file = self.directory / f"{name}.sh", self.directory / f"{name}.env"
        file.unlink(missing_ok=True)
        script.write_text(text.format(file=file))
        script.chmod(0o755)
        return script, file

    def down(self) -> None:
        for program in self._programs.values():
            program.kill()
            program.wait()
        for namespace in (self.host, *map(self.namespace, GUESTS)):
            if netns.exists(namespace):
                netns.delete(namespace)


def _environment(file: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in file.read_text().splitlines())
    return {name: value for name, _, value in lines}


def eventually(check: Any, within_s: float = DEADLINE_S) -> bool:
    """True as soon as the check is, False after the deadline."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def guest_world(directory: Path, more: str = "") -> Iterator[GuestWorld]:
    """The namespaces exist within the context."""
    world = GuestWorld(directory, more)
    try:
        world.up()
        yield world
    finally:
        world.down()
