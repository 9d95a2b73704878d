"""The command line with a real etcd: calicoctl's configuration, a whole fabric moved to an empty etcd, changes watched."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from etcd_process import EtcdProcess

EXAMPLES = Path(__file__).parents[3] / "examples"
RESOURCES = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: main}
spec: {cidr: 10.65.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: host1-lab-web1-eth0, namespace: shop, labels: {app: web}}
spec: {orchestrator: lab, workload: web1, node: host1, endpoint: eth0, ipNetworks: [10.65.0.1/32], interfaceName: cali1, profiles: [shop]}
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def second_etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    process = EtcdProcess(tmp_path / "second")
    process.start()
    yield process
    process.kill()


def environment(etcd: EtcdProcess) -> dict[str, str]:
    """What calicoctl would be told."""
    return {"PATH": os.environ["PATH"], "DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": etcd.endpoint}


def tabinet(etcd: EtcdProcess, *arguments: str, stdin: str = "") -> str:
    """What the command says, which must succeed."""
    argv = [sys.executable, "-m", "tabinet.cli.main", *arguments]
    done = subprocess.run(argv, input=stdin, env=environment(etcd), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_versions(text: str) -> list[object]:
    items = json.loads(text)["items"]
    for item in items:
        del item["metadata"]["resourceVersion"]
    return items


def test_a_fabric_is_moved_to_an_empty_etcd(own_etcd: EtcdProcess, second_etcd: EtcdProcess, tmp_path: Path) -> None:
    tabinet(own_etcd, "apply", "-f", str(EXAMPLES / "policies"), "-f", "-", stdin=RESOURCES)
    tabinet(own_etcd, "datastore", "migrate", "lock")
    exported = tabinet(own_etcd, "datastore", "migrate", "export")
    (tmp_path / "dump").write_text(exported)
    tabinet(second_etcd, "datastore", "migrate", "import", "-f", str(tmp_path / "dump"))
    assert tabinet(second_etcd, "datastore", "migrate", "export") == exported
    before, after = (without_versions(tabinet(etcd, "get", "all", "-A", "-o", "json")) for etcd in (own_etcd, second_etcd))
    assert len(before) == 10, "seven of the examples, two of ours, and the lock"
    assert after == before
    kept = yaml.safe_load(tabinet(second_etcd, "get", "clusterinfo", "default", "-o", "yaml"))
    assert kept["spec"]["datastoreReady"] is False
    tabinet(second_etcd, "datastore", "migrate", "unlock")


def test_changes_are_told_as_they_happen(own_etcd: EtcdProcess) -> None:
    tabinet(own_etcd, "apply", "-f", "-", stdin=RESOURCES)
    # Where tests run in the background of a shell, SIGINT is ignored, and would be here.
    argv = ["env", "--default-signal=INT", sys.executable, "-X", "faulthandler", "-m", "tabinet.cli.main"]
    argv += ["get", "wep", "-A", "-l", "app=web", "-w", "-o", "json"]
    with subprocess.Popen(argv, env=environment(own_etcd), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert next_line(process) == ("ADDED", "web")
            tabinet(own_etcd, "label", "wep", "-n", "shop", "host1-lab-web1-eth0", "more=x")
            assert next_line(process) == ("MODIFIED", "web")
            tabinet(own_etcd, "label", "wep", "-n", "shop", "host1-lab-web1-eth0", "app=db", "--overwrite")
            assert next_line(process) == ("DELETED", "db")
            tabinet(own_etcd, "label", "wep", "-n", "shop", "host1-lab-web1-eth0", "app=web", "--overwrite")
            assert next_line(process) == ("ADDED", "web")
            tabinet(own_etcd, "delete", "wep", "-n", "shop", "host1-lab-web1-eth0")
            assert next_line(process) == ("DELETED", "web")
            process.send_signal(signal.SIGINT)
            assert ended(process) == 130
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code; a process that does not end says where it is."""
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        assert process.stderr is not None
        pytest.fail(process.stderr.read().decode())


def next_line(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Event, and the label ``app``, of the next change; without patience for ever."""
    assert process.stdout is not None
    deadline = time.monotonic() + 30
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        assert ready, "nothing is told"
        read = os.read(process.stdout.fileno(), 1)
        assert read, process.stderr and process.stderr.read()
        line += read
    change = json.loads(line)
    return change["type"], change["object"]["metadata"]["labels"]["app"]
