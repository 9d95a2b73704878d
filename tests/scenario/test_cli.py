"""The command line as scripts see it: real processes, a real etcd, exit codes, and what is said on which stream."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from lab_world import EXAMPLES, TABINET

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

Run = Callable[..., subprocess.CompletedProcess[str]]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")

POLICY = """\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  order: 10
  selector: app == 'web'
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]
"""
NETWORK_SET = (
    '{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet", "metadata": {"name": "s"}, "spec": {"nets": ["192.0.2.0/24"]}}'
)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an etcd of our own; its last part is a port because etcd wants one in the name."""
    directory = tmp_path_factory.mktemp("etcd")
    argv = ["etcd", "--data-dir=data", "--listen-client-urls=unix://client:0", "--advertise-client-urls=unix://client:0"]
    argv += ["--listen-peer-urls=unix://peer:0", "--initial-advertise-peer-urls=unix://peer:0", "--initial-cluster=default=unix://peer:0"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*argv, "--logger=zap"], cwd=directory, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not _accepts(directory / "client:0"):
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, "etcd does not start"
            time.sleep(0.02)
        yield directory / "client:0"
    finally:
        process.kill()
        process.wait()


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture
def run(etcd: Path, tmp_path: Path) -> Run:
    """Runs tabinet against that etcd, in an empty directory."""
    return _runner({"TABINET_STORE_ENDPOINTS": f"unix://{etcd}"}, tmp_path)


def _runner(environment: dict[str, str], directory: Path) -> Run:
    def run(*arguments: str, stdin: str = "", prefix: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
        whole = {"PATH": os.environ["PATH"], "HOME": str(directory), **environment, **more}
        argv = [*prefix, str(TABINET), *arguments]
        return subprocess.run(argv, input=stdin, env=whole, cwd=directory, capture_output=True, text=True, timeout=60, check=False)

    return run


def listed(run: Run) -> list[str]:
    """Everything of the kinds of these tests that is stored."""
    done = run("get", "np,globalnetworkset", "-A", "-o", "name")
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


@pytest.fixture
def stored(run: Run) -> Iterator[None]:
    """Inside the test, a policy and a network set are stored; afterwards nothing is."""
    done = run("apply", "-f", "-", stdin=f"{POLICY}---\n{NETWORK_SET}\n")
    assert done.returncode == 0, done.stderr
    yield
    run("delete", "-f", "-", "--ignore-not-found", stdin=f"{POLICY}---\n{NETWORK_SET}\n")
    assert listed(run) == []


@pytest.mark.usefixtures("stored")
def test_what_was_applied_comes_back_in_every_form(run: Run) -> None:
    again = run("apply", "-f", "-", "--json", stdin=POLICY)
    assert [each["outcome"] for each in json.loads(again.stdout)] == ["unchanged"]
    one = run("get", "networkpolicy", "web", "-n", "shop", "-o", "yaml")
    document = yaml.safe_load(one.stdout)
    assert document["spec"]["selector"] == "app == 'web'"
    assert document == json.loads(run("get", "np", "web", "-n", "shop", "-o", "json").stdout)
    applied = run("apply", "-f", "-", stdin=one.stdout)  # what was got can be applied
    assert (applied.returncode, "unchanged" in applied.stdout) == (0, True)
    listing = json.loads(run("get", "np", "-A", "--json").stdout)
    assert [item["metadata"]["name"] for item in listing["items"]] == ["web"]
    wide = run("get", "np", "-A", "-o", "wide").stdout.splitlines()
    assert len(wide) == 2
    assert "web" in wide[1]
    assert run("get", "np", "nothing", "-n", "shop").returncode == 1
    assert "nothing" in run("get", "np", "nothing", "-n", "shop").stderr


@pytest.mark.usefixtures("stored")
def test_deleting_says_what_was_there(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text(f"{POLICY}---\n{NETWORK_SET}\n")
    gone = run("delete", "-f", str(file), "--json")
    assert gone.returncode == 0
    assert {each["outcome"] for each in json.loads(gone.stdout)} == {"deleted"}
    assert run("delete", "-f", str(file)).returncode == 1
    assert run("delete", "-f", str(file), "--ignore-not-found").returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (POLICY.replace("TCP", "CARRIER"), ("standard input", "spec.ingress[0].protocol", "CARRIER", "TCP")),
        (POLICY.replace("selector: app == 'web'", "selector: app = 'web'"), ("spec.selector", "app = 'web'")),
        (POLICY.replace("[80]", "[99999]"), ("spec.ingress[0].destination.ports[0]", "99999", "65535")),
        (POLICY.replace("NetworkPolicy", "NetworkPolitics"), ("kind", "NetworkPolitics")),
        (POLICY.replace("name: web, ", ""), ("metadata.name",)),
        (POLICY.replace("name: web", "name: 'We b'"), ("metadata.name", "We b")),
        (POLICY.replace("selector", "selecter"), ("selecter", "selector")),
        (POLICY.replace("action: Allow", "action: Permit"), ("spec.ingress[0].action", "Permit", "Allow")),
        (POLICY.replace("order: 10", "order: soon"), ("spec.order", "soon")),
        ("kind: [unclosed\n", ("standard input",)),
        ('{"kind": "Node", }', ("standard input",)),
        ("- 1\n- 2\n", ("standard input",)),
        (f"{POLICY}---\n{POLICY}", ("document 3", "given already")),
    ],
)
def test_bad_input_is_told_in_full_and_nothing_is_applied(run: Run, text: str, words: tuple[str, ...]) -> None:
    done = run("apply", "-f", "-", stdin=f"{NETWORK_SET}\n---\n{text}")
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert "nothing was changed" in done.stderr
    assert listed(run) == []


def test_every_error_of_every_document_is_told_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY.replace("TCP", "CARRIER").replace("Allow", "Permit"))
    (tmp_path / "b.json").write_text(NETWORK_SET.replace("192.0.2.0/24", "192.0.2.0/99"))
    done = run("apply", "-f", str(tmp_path), "-f", str(tmp_path / "missing.yaml"))
    assert done.returncode == 2
    for word in ("a.yaml:1 document 1", "CARRIER", "Permit", "b.json", "192.0.2.0/99", "missing.yaml", "4 problems"):
        assert word in done.stderr
    assert listed(run) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("apply",),
        ("get",),
        ("get", "nonsense"),
        ("delete", "np"),
        ("frobnicate",),
        ("get", "np", "-o", "morse"),
        ("lab", "cut"),
        ("lab", "jump"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("stored")
def test_something_broken_in_the_store_is_told_and_the_rest_is_shown(run: Run, etcd: Path) -> None:
    path = "/calico/resources/v3/projectcalico.org/networkpolicies/shop/broken"
    environment = {**os.environ, "ETCDCTL_API": "3"}
    endpoint = f"--endpoints=unix://{etcd}"
    subprocess.run(["etcdctl", endpoint, "put", path, "?"], env=environment, check=True, capture_output=True)
    try:
        done = run("get", "np", "-A")
        assert done.returncode == 1
        assert "web" in done.stdout
        assert "broken" in done.stderr
    finally:
        subprocess.run(["etcdctl", endpoint, "del", path], env=environment, check=True, capture_output=True)


def test_status_without_hosts_and_with_one_that_has_no_agent(run: Run) -> None:
    node = '{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "lonely"}, "spec": {}}'
    assert run("apply", "-f", "-", stdin=node).returncode == 0
    try:
        done = run("status", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["troubles"][0]["host"] == "lonely"
    finally:
        assert run("delete", "-f", "-", stdin=node).returncode == 0


# --- the surroundings


@pytest.mark.parametrize("hanging", [False, True])
def test_a_store_that_does_not_answer(tmp_path: Path, hanging: bool) -> None:
    path = tmp_path / "s:0"
    with socket.socket(socket.AF_UNIX) as listener:
        if hanging:  # accepts, and says nothing
            listener.bind(str(path))
            listener.listen(16)
        run = _runner({"TABINET_STORE_ENDPOINTS": f"unix://{path}"}, tmp_path)
        for arguments in (("get", "nodes"), ("apply", "-f", "-"), ("status",)):
            done = run(*arguments, stdin=NETWORK_SET)
            assert done.returncode == 3, done.stderr
            assert "does not answer" in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("command", [("lab", "up"), ("lab", "down"), ("lab", "check"), ("lab", "status"), ("demo",), ("agent",)])
def test_without_root(tmp_path: Path, command: tuple[str, ...]) -> None:
    if subprocess.run([*NOBODY, TABINET, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this checkout cannot be read by others")
    done = _runner({}, tmp_path)(*command, prefix=NOBODY)
    assert done.returncode == 3, done.stderr
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_is_missing(tmp_path: Path) -> None:
    """In a mount namespace where etcd is not there (an empty file without execute permission in its place)."""
    hidden = tmp_path / "nothing"
    hidden.write_text("")
    topology = tmp_path / "small.yaml"
    topology.write_text(
        (EXAMPLES / "labs" / "flat.yaml").read_text().replace("name: flat", f"name: m{os.getpid()}").replace("../", f"{EXAMPLES}/")
    )
    hide = ("unshare", "--mount", "sh", "-c", f'mount --bind {hidden} "$(readlink -f /usr/bin/etcd)" && exec "$@"', "sh")
    done = _runner({}, tmp_path)("lab", "up", str(topology), prefix=hide)
    assert done.returncode == 3, done.stderr
    assert "etcd" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not Path(f"/run/tabinet/labs/m{os.getpid()}").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nhosts: {a: {}}\nlinks: [[a, nowhere]]\n", ("links[0]", "nowhere")),
        ("name: x\nhosts: {a: {}}\nworkloads: {w: {host: b}}\n", ("workloads.w.host", "b")),
        ("name: x\nhosts: {a: {as: -1}}\n", ("hosts.a.as", "-1")),
        ("name: x\nhosts: {a: {}}\nresources: [missing.yaml]\n", ("resources[0]", "missing.yaml")),
        ("name: x\nhostes: {}\n", ("hostes", "hosts")),
        ("name: [\n", ("bad.yaml",)),
    ],
)
def test_a_topology_with_errors(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = _runner({}, tmp_path)("lab", "up", "bad.yaml")
    assert done.returncode == 2, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr


def test_files_that_are_not_there(tmp_path: Path) -> None:
    run = _runner({}, tmp_path)
    assert run("lab", "up", "missing.yaml").returncode == 2
    for done in (run("--config", "missing.toml", "get", "nodes"), run("agent", "--config", "missing.toml")):
        assert done.returncode == 3
        assert "missing.toml" in done.stderr
    (tmp_path / "bad.toml").write_text("[store]\nendpoint = 3\n")
    done = run("--config", "bad.toml", "get", "nodes")
    assert done.returncode == 2
    assert "store.endpoint" in done.stderr
    assert "endpoints" in done.stderr


def test_an_agent_that_waits_for_its_store_says_so_and_ends_at_a_signal(tmp_path: Path) -> None:
    name = f"tbcli{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    environment = {"PATH": os.environ["PATH"], "TABINET_STORE_ENDPOINTS": f"unix://{tmp_path}/none:0"}
    environment |= {"TABINET_AGENT_HTTP_ADDRESS": f"unix:{tmp_path}/http", "TABINET_BIRD_ENABLED": "no"}
    argv = ["ip", "netns", "exec", name, str(TABINET), "agent"]
    try:
        with subprocess.Popen(argv, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as agent:
            try:
                assert agent.stderr is not None
                assert "waiting for the store" in agent.stderr.readline()
                other = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
                assert other.returncode == 3
                assert "another tabinet agent" in other.stderr
                table = subprocess.run(["ip", "netns", "exec", name, "nft", "list", "tables"], capture_output=True, text=True, check=True)
                assert "inet tabinet" in table.stdout  # nothing passes a workload's interface before the store is known
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(10) == 0
            finally:
                agent.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
