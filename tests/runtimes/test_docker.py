"""A real dockerd with a real agent as its network and address driver. Skipped where dockerd is not installed (scripts/setup-runtimes)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cni_host import DEADLINE_S, NOTHING, CniHost
from docker_host import IMAGE, MISSING, DockerHost, wait_for

from tabinet.kernel import netns
from tabinet.kernel.rtsocket import open_rtnetlink

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; scripts/setup-runtimes does that"),
]
POLICY = (
    "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: web}, spec: "
    "{selector: app == 'web', types: [Ingress], ingress: [{action: Allow, source: {selector: app == 'client'}}]}}"
)
HOST_ADDRESS = "192.0.2.1"
SERVER = ("httpd", "-f", "-p", "80")
NODE = f"{{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: h1}}, spec: {{bgp: {{ipv4Address: {HOST_ADDRESS}/32}}}}}}"
ROUNDS = int(os.environ.get("TABINET_LIFECYCLES", "4"))
"""Containers that are started and ended in parallel, while agent and dockerd are killed now and then."""


@pytest.fixture(autouse=True)
def no_containers(docker: DockerHost) -> Iterator[None]:
    """A test that fails leaves none to the next."""
    yield
    docker.remove_all()


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerHost]:
    directory = tmp_path_factory.mktemp("docker")
    made = DockerHost(CniHost(directory / "host"), directory / "docker")
    try:
        made.open()
        made("network", "create", "-d", "tabinet", "--ipam-driver", "tabinet", "--subnet", "10.65.0.0/16", "fabric")
        yield made
    finally:
        made.close()


def nothing_left(docker: DockerHost) -> bool:
    return docker.host.leftovers() == NOTHING and not interfaces(docker, "dkr")


def interfaces(docker: DockerHost, prefix: str) -> list[str]:
    with contextlib.closing(netns.run_in(docker.host.namespace, open_rtnetlink)) as rtnetlink:
        return [link.name for link in rtnetlink.links() if link.name.startswith(prefix)]


def labels(docker: DockerHost) -> dict[str, str]:
    """The label ``app`` of each endpoint, by the container's name."""
    found = [item["metadata"] for item in docker.host.endpoints()]
    return {metadata["annotations"]["tabinet.io/docker-container"]: metadata["labels"].get("app", "") for metadata in found}


def test_containers_of_docker_under_policy(docker: DockerHost) -> None:
    policy = docker.directory / "policy.yaml"
    policy.write_text(POLICY)
    docker.host.tabinet("apply", "-f", str(policy))
    docker("create", "--name", "idle", "--network", "fabric", "--label", "app=client", IMAGE, "sleep", "1")
    docker.run("web", "fabric", "--ip", "10.65.7.7", "--label", "app=web")
    docker.run("client", "fabric", "--label", "app=client", "--label", "com.docker.compose.project.config_files=/a/path")
    docker.run("other", "fabric")
    assert docker.reaches("client", "10.65.7.7")
    assert not docker.reaches("other", "10.65.7.7")
    assert labels(docker) == {"web": "web", "client": "client", "other": ""}
    docker("restart", "-t", "0", "client")
    assert docker.reaches("client", "10.65.7.7")
    taken = docker("run", "--network", "fabric", "--ip", "10.65.7.7", IMAGE, "true", check=False)
    assert "10.65.7.7" in taken.stderr
    docker.remove_all()
    assert docker.host.leftovers() == NOTHING


def test_both_families_and_a_second_network_while_a_container_runs(docker: DockerHost) -> None:
    docker("network", "create", "-d", "tabinet", "--ipam-driver", "tabinet", "--ipv6", "-o", "tabinet.labels=site=b", "Two_Families")
    docker.run("one", "Two_Families")
    docker.run("two", "fabric", "--label", "app=two", "--label", "qos.projectcalico.org/egressMaxConnections=9")
    docker("network", "connect", "Two_Families", "two")
    networks = json.loads(docker("inspect", "two").stdout)[0]["NetworkSettings"]["Networks"]
    six = networks["Two_Families"]["GlobalIPv6Address"]
    wait_for(lambda: len(docker.host.endpoints()) == 3, "the second endpoint of a running container")
    assert labels(docker) == {"one": "", "two": "two"}
    assert all(item["metadata"]["labels"].get("site") == "b" for item in docker.host.endpoints() if len(item["spec"]["ipNetworks"]) == 2)
    assert {item["spec"].get("qosControls", {}).get("egressMaxConnections") for item in docker.host.endpoints()} == {None, 9}
    # Docker's addresses of IPv6 are probed for duplicates for a second.
    wait_for(lambda: docker.reaches("one", six), "IPv6")
    assert docker.reaches("one", networks["Two_Families"]["IPAddress"])
    docker("network", "disconnect", "Two_Families", "two")
    assert len(docker.host.endpoints()) == 2
    docker.remove_all()
    docker("network", "rm", "Two_Families")
    assert docker.host.leftovers() == NOTHING


def test_what_makes_no_sense_is_told_and_leaves_nothing(docker: DockerHost) -> None:
    make = ("network", "create", "-d", "tabinet", "--ipam-driver", "tabinet")
    for words, told in (
        (("-o", "tabinet.label=a=b"), "did you mean tabinet.labels?"),
        (("--internal",), "up to policy"),
        (("--subnet", "10.99.0.0/16"), "four (10.65.0.0/16)"),
        (("--ipam-opt", "ipv4_pools=six"), "an IPv4 pool by name or CIDR"),
        (("-o", "com.docker.network.driver.mtu=much"), "bytes, up to 65535"),
    ):
        refused = docker(*make, *words, "wrong", check=False)
        assert refused.returncode != 0
        assert told in refused.stderr, refused.stderr
    assert docker.host.leftovers() == NOTHING


def serves(docker: DockerHost) -> bool:
    """A connection from the host to its own published port is accepted by a container."""

    def ask() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST_ADDRESS, 8080), 1.0) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(4) == b"HTTP"
        return False

    return netns.run_in(docker.host.namespace, ask)


def give_the_host_an_address(docker: DockerHost) -> None:
    done = subprocess.run(["ip", "-n", docker.host.namespace, "addr", "replace", f"{HOST_ADDRESS}/32", "dev", "lo"], check=False)
    assert done.returncode == 0
    node = docker.directory / "node.yaml"
    node.write_text(NODE)
    docker.host.tabinet("apply", "-f", str(node))


def test_published_ports(docker: DockerHost) -> None:
    give_the_host_an_address(docker)
    docker.run("web", "fabric", "-p", "8080:80", command=SERVER)
    assert serves(docker)
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 {HOST_ADDRESS} 8080"
    assert "HTTP" in docker("exec", "web", "sh", "-c", ask).stdout, "a container that asks itself"

    def listen() -> socket.socket:
        return socket.create_server((HOST_ADDRESS, 8081))

    with netns.run_in(docker.host.namespace, listen):
        for asked, told in (
            ("8080:80", f"port 8080/tcp of {HOST_ADDRESS}: address already in use"),
            ("8081:80", f"port 8081/tcp of {HOST_ADDRESS}: address already in use"),
            ("192.0.2.9:8080:80", "port 8080/tcp of 192.0.2.9: cannot assign requested address"),
            ("80", "got 80/tcp; one port of the host"),
            ("8000-8010:80", "one port of the host"),
            ("127.0.0.1:8082:80", "got 127.0.0.1:8082:80/tcp; an address of the host that others reach"),
        ):
            refused = docker("run", "--rm", "--network", "fabric", "-p", asked, IMAGE, "sleep", "1", check=False)
            assert told in refused.stderr, refused.stderr
    docker.host.stop(signal.SIGKILL)
    docker.host.start()
    assert serves(docker)
    wait_for(lambda: not can_bind(docker), "the ports are taken again by an agent that has been started")
    docker.remove_all()
    assert can_bind(docker)
    assert docker.host.leftovers() == NOTHING


def can_bind(docker: DockerHost) -> bool:
    """Nobody has the port of the host."""

    def work() -> bool:
        with contextlib.suppress(OSError), socket.socket() as made:
            made.bind((HOST_ADDRESS, 8080))
            return True
        return False

    return netns.run_in(docker.host.namespace, work)


def test_containers_that_docker_starts_by_itself(docker: DockerHost) -> None:
    """It does so before it answers anybody, as after a reboot."""
    give_the_host_an_address(docker)
    always = ("--restart", "always", "--stop-signal", "KILL")
    docker.run("web", "fabric", "-p", "8080:80", "--label", "app=shop", *always, command=SERVER)
    docker.run("db", "fabric", "--label", "app=db", *always)
    docker.stop()
    docker.host.stop()
    docker.host.start()
    docker.start()
    state = [docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", name).stdout for name in ("web", "db")]
    assert state == ["running \n"] * 2, docker.log.read_text()[-6000:]
    wait_for(lambda: labels(docker) == {"web": "shop", "db": "db"}, "endpoints", docker.host.directory / "log")
    wait_for(lambda: serves(docker), "the published port", docker.host.directory / "log")
    assert docker.reaches("db", docker.address("web", "fabric"))
    docker.remove_all()
    wait_for(lambda: nothing_left(docker), "the removal")


def test_containers_go_on_while_docker_and_agent_are_restarted(docker: DockerHost) -> None:
    """``--live-restore``."""
    give_the_host_an_address(docker)
    docker.stop()
    docker.start("--live-restore")
    docker.run("web", "fabric", "-p", "8080:80", command=SERVER)
    docker.run("db", "fabric")
    running = {name: docker("inspect", "-f", "{{.State.Pid}}", name).stdout for name in ("web", "db")}
    docker.stop()
    docker.host.stop()
    assert serves(docker)
    docker.host.start()
    docker.start("--live-restore")
    assert serves(docker)
    assert {name: docker("inspect", "-f", "{{.State.Pid}}", name).stdout for name in running} == running
    assert docker.reaches("db", docker.address("web", "fabric"))
    assert len(docker.host.endpoints()) == 2
    docker.remove_all()
    assert docker.host.leftovers() == NOTHING
    docker.stop()
    docker.start()


def test_names_of_containers(docker: DockerHost) -> None:
    """Docker's own name server knows containers of this host by name and alias, in each of their networks, as for compose."""
    docker("network", "create", "-d", "tabinet", "--ipam-driver", "tabinet", "back")
    docker.run("web", "fabric")
    docker.run("api", "fabric", "--network-alias", "backend")
    docker.run("store", "back")
    docker("network", "connect", "--alias", "frontend", "back", "api")
    for asking, name, network, named in (
        ("web", "backend", "fabric", "api"),
        ("store", "frontend", "back", "api"),
        ("api", "store", "back", "store"),
    ):
        told = docker("exec", asking, "nslookup", name, "127.0.0.11", check=False).stdout
        assert docker.address(named, network) in told, told
    assert "Address: 10.65" not in docker("exec", "web", "nslookup", "store", "127.0.0.11", check=False).stdout
    docker.remove_all()
    docker("network", "rm", "back")
    assert docker.host.leftovers() == NOTHING


def test_lifecycles_in_parallel_with_kills_leave_nothing_behind(docker: DockerHost) -> None:
    """Containers with labels of their own, several at once; then agent and dockerd are killed in the middle of the next ones."""
    chance, told = random.Random(7), docker.directory / "told"
    argv = ["docker", "-H", f"unix://{docker.socket}", "--config", str(docker.directory), "run", "-d", "--network", "fabric"]

    def begin(name: str) -> subprocess.Popen[bytes]:
        words = ["--name", name, "--label", f"app={name}", IMAGE, "sleep", "600"]
        with told.open("ab") as errors:
            return subprocess.Popen([*argv, *words], stdout=subprocess.DEVNULL, stderr=errors)

    names = [f"c{index}" for index in range(ROUNDS)]
    for process in [begin(name) for name in names]:
        assert process.wait(DEADLINE_S) == 0, told.read_text()
    wait_for(lambda: labels(docker) == {name: name for name in names}, "labels of containers that start at once")
    docker.remove_all()
    assert docker.host.leftovers() == NOTHING
    for victim in ("agent", "dockerd", "both"):
        processes = [begin(f"{victim}{index}") for index in range(ROUNDS // 2)]
        time.sleep(chance.random())
        if victim != "dockerd":
            docker.host.stop(signal.SIGKILL)
        if victim != "agent":
            docker.stop(signal.SIGKILL)
        if victim != "dockerd":
            docker.host.start()
        if victim != "agent":
            docker.start()
        for process in processes:
            process.wait(DEADLINE_S)
        docker.remove_all()
    wait_for(lambda: nothing_left(docker), "the removal of what was killed")


def test_the_socket_goes_with_the_agent(docker: DockerHost) -> None:
    socket = Path(docker.directory / "plugins" / "tabinet.sock")
    assert socket.exists()
    docker.host.stop()
    assert not socket.exists()
    docker.host.start()
