"""A running agent, its kernel, and the commands that compare the two: in a namespace of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

DEADLINE_S = 60.0
RESOURCES = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h1}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: h1-k8s-a-eth0, namespace: default, labels: {app: web}}
spec: {node: h1, orchestrator: k8s, pod: a, endpoint: eth0, interfaceName: cali1, mac: "ee:ee:ee:ee:ee:ee", ipNetworks: [10.65.0.1/32]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
"""


class Host:
    """A namespace with one workload's interface, and an agent on a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.namespace = f"tbt-{uuid.uuid4().hex[:10]}"
        self.config = directory / "agent.toml"
        self.log = directory / "log"
        self.config.write_text(
            f'[agent]\nhost = "h1"\nrun_dir = "{directory}"\nhttp_address = ""\n'
            f'[store]\nkind = "sqlite"\npath = "{directory}/store.db"\n[bird]\nenabled = false\n'
        )
        (directory / "resources.yaml").write_text(RESOURCES)
        for argv in (
            ["ip", "netns", "add", self.namespace],
            ["ip", "-n", self.namespace, "link", "set", "lo", "up"],
            ["ip", "-n", self.namespace, "link", "add", "cali1", "type", "veth", "peer", "name", "w1"],
        ):
            subprocess.run(argv, check=True)
        self.tabinet("apply", "-f", str(directory / "resources.yaml"))
        self.agent: subprocess.Popen[bytes] | None = None

    def inside(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *argv]

    def tabinet(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = self.inside(sys.executable, "-m", "tabinet.cli.main", *arguments)
        environment = os.environ | {"TABINET_CONFIG": str(self.config)}
        return subprocess.run(argv, check=check, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)

    def start(self) -> None:
        """The agent runs and the kernel holds what it wants."""
        with self.log.open("wb") as log:
            argv = self.inside(sys.executable, "-m", "tabinet.agent", "--config", str(self.config))
            self.agent = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_S
        while (found := self.show("-o", "json")) is None or not found["about"] or found["about"]["kernel"]:
            assert self.agent.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def show(self, *arguments: str):
        done = self.tabinet("dataplane", "show", *arguments, check=False)
        return json.loads(done.stdout) if done.returncode in (0, 1) and done.stdout else None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(DEADLINE_S)
            self.agent = None

    def close(self) -> None:
        self.stop(signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


def test_what_is_wanted_and_what_is_there(host: Host) -> None:
    alone = host.tabinet("dataplane", "show")
    assert "no agent runs" in alone.stderr
    assert host.tabinet("dataplane", "show", "--diff", check=False).returncode == 3
    host.start()
    equal = host.tabinet("dataplane", "show", "--diff")
    assert equal.stdout == "the kernel holds exactly what is wanted\n"
    text = host.tabinet("dataplane", "show", "--nft").stdout
    assert "NetworkPolicy/default/web ingress 0 Allow" in text
    assert host.tabinet("dataplane", "show", "--nft", "--wanted").stdout == text
    assert "10.65.0.1/32" in host.tabinet("dataplane", "show").stdout
    counted = json.loads(host.tabinet("policy", "stats", "web", "-o", "json").stdout)
    assert [(rule["policy"], rule["rule"], rule["text"]) for rule in counted["rules"]] == [
        ("NetworkPolicy/default/web", 0, "Allow TCP to port 80"),
    ]
    assert host.tabinet("policy", "stats", "nothing", check=False).returncode == 1
    refused = subprocess.run(
        host.inside("setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", ASK), check=True, capture_output=True, text=True
    )
    assert refused.stdout.startswith("HTTP/1.1 403 ")
    host.stop()
    after = host.tabinet("dataplane", "show", "--nft")
    assert "no agent runs" in after.stderr
    assert 'comment "denied"' in after.stdout


ASK = """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect("\\0tabinet-operator")
connection.sendall(b"GET /dataplane HTTP/1.1\\r\\n\\r\\n")
print(connection.recv(1000).decode())
"""
