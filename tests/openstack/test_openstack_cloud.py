"""A whole control plane: tenants with openstacksdk, tokens of Keystone, MariaDB, RabbitMQ, an etcd with TLS, several processes of Neutron.

Whatever happens, what etcd went through is looked at afterwards: every change of it, in order (``History``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from history import History, recorded
from keystone_process import PASSWORD, REGION
from neutron_process import VENV
from openstack_world import eventually
from test_openstack_consistency import resync
from whole_cloud import WholeCloud

from tabinet.attach.openstack.names import Region, election_path

Document = dict[str, Any]
COMPARED_WITHIN_S = 240.0
"""What a process that was killed had still to write is found by the next leader's comparison."""
OTHERS_GO_ON_S = 10.0
"""At most: should the stopped process hold what another waits for, nothing is gained by waiting longer."""
LEADER = election_path(Region())


def leader(cloud: WholeCloud) -> int:
    """The process that leads; 0: none."""
    item = cloud.run(lambda store: store.get(LEADER))
    return int(item.value.decode().rsplit(":", 1)[1]) if item else 0


def work_of_a_tenant(cloud: WholeCloud, number: int) -> None:
    """Ports come, change and go: two stay, one of them changed; and a group with rules."""
    network = cloud.network(f"10.{100 + number}.0.0/24", name=f"busy{number}")
    group = cloud.neutron.create("security_group", name=f"busy{number}")
    fields = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
    for port in range(1, 4):
        cloud.neutron.create("security_group_rule", **fields, port_range_min=port, port_range_max=port)
    changed, _, gone = (cloud.port(network, security_groups=[group["id"]]) for _ in range(3))
    for last in range(1, 4):
        cloud.neutron.update("port", changed["id"], allowed_address_pairs=[{"ip_address": f"10.{100 + number}.9.{last}"}])
    cloud.neutron.delete(f"/ports/{gone['id']}")


@contextmanager
def tenants_at_work(cloud: WholeCloud, first: int, count: int = 3) -> Iterator[None]:
    """While whatever is done within, tenants make calls at the same time; a tenant whose call nobody answers, because the process that had
    it was killed, makes no more."""

    def work(number: int) -> None:
        with suppress(OSError, HTTPException):
            work_of_a_tenant(cloud, number)

    with ThreadPoolExecutor(count) as pool:
        working = [pool.submit(work, first + number) for number in range(count)]
        yield
        for each in working:
            each.result()


def agrees(cloud: WholeCloud) -> bool:
    """etcd holds what Neutron says, and nothing else."""
    code, found = resync(cloud, "--dry-run")
    return code == 0 and not found["differences"]


def test_tenants_with_openstacksdk(whole: WholeCloud) -> None:
    assert whole.keystone is not None
    command = [
        VENV / "bin" / "python",
        "-W",
        "ignore",
        Path(__file__).with_name("sdk_story.py"),
        whole.keystone.url,
        PASSWORD,
        REGION,
        "hosta",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(done.stdout)
    assert made["refused"] == ["bind", "read", "delete", "rule"]
    endpoint = whole.endpoint(made["port"])
    assert endpoint is not None
    assert endpoint["metadata"]["annotations"]["openstack.projectcalico.org/network-id"] == made["network"]["id"]
    assert endpoint["metadata"]["labels"]["projectcalico.org/openstack-project-id"] == made["project"]
    policy = whole.policy(made["group"])
    assert policy is not None
    assert [rule["destination"] for rule in policy["spec"]["ingress"]] == [{"ports": [80]}]


def test_endpoints_bear_the_names_of_their_projects(whole: WholeCloud) -> None:
    assert whole.keystone is not None
    project = whole.keystone.create("project", name="Büro Ost", domain_id="default")
    port = whole.port(whole.network("10.46.0.0/24"), tenant_id=project["id"])

    def said() -> tuple[str | None, ...]:
        labels = (whole.endpoint(port) or {})["metadata"]["labels"]
        return tuple(labels.get(f"projectcalico.org/openstack-project-{what}") for what in ("id", "name", "parent-id"))

    eventually(lambda: said() == (project["id"], "B_ro_Ost", "default"))
    unknown = whole.port(whole.network("10.47.0.0/24"))
    assert "projectcalico.org/openstack-project-name" not in (whole.endpoint(unknown) or {})["metadata"]["labels"]


def test_nova_is_found_in_the_catalog_and_told_by_the_user_neutron(whole: WholeCloud) -> None:
    assert whole.keystone is not None
    port = whole.port(whole.network("10.41.0.0/24"), host="hostn")
    whole.report(port, "up", host="hostn")
    event = {"name": "network-vif-plugged", "server_uuid": port["device_id"], "status": "completed", "tag": port["id"]}
    eventually(lambda: event in whole.nova.events)
    assert whole.keystone.owner(whole.nova.tokens[-1])["user"]["name"] == "neutron"
    eventually(lambda: whole.neutron.show("port", port["id"])["status"] == "ACTIVE")


def test_another_process_leads_when_the_leader_is_killed(whole: WholeCloud) -> None:
    with recorded(whole) as history:
        for first, number in ((0, signal.SIGKILL), (10, signal.SIGSTOP)):
            leading = eventually(lambda: leader(whole))
            with tenants_at_work(whole, first):
                os.kill(leading, number)
                try:
                    eventually(lambda leading=leading: leader(whole) not in (0, leading))
                finally:
                    if number == signal.SIGSTOP:
                        os.kill(leading, signal.SIGCONT)
        port = whole.port(whole.network("10.42.0.0/24"), host="hostl")
        whole.report(port, "up", host="hostl")
        eventually(lambda: whole.neutron.show("port", port["id"])["status"] == "ACTIVE")
        eventually(lambda: agrees(whole), COMPARED_WITHIN_S)
    assert_in_order(history)


def test_a_process_that_stops_in_the_middle_does_not_undo_what_others_did(whole: WholeCloud) -> None:
    network = whole.network("10.43.0.0/24")
    port = whole.port(network)
    with recorded(whole) as history:
        for round_ in range(3):
            calls = [{"allowed_address_pairs": [{"ip_address": f"10.43.{round_}.{n + 1}"}]} for n in range(6)]
            with ThreadPoolExecutor(len(calls) + 1) as pool:
                made: list[Future[Document]] = [pool.submit(whole.neutron.update, "port", port["id"], **fields) for fields in calls]
                stopped = workers(whole)[round_ % 2]
                os.kill(stopped, signal.SIGSTOP)
                try:
                    made.append(pool.submit(whole.network, f"10.44.{round_}.0/24"))  # by the other one
                    wait(made[-1:], OTHERS_GO_ON_S)
                finally:
                    os.kill(stopped, signal.SIGCONT)
                for each in made:
                    each.result()
        eventually(lambda: agrees(whole), COMPARED_WITHIN_S)
    assert_in_order(history)


def test_calls_succeed_while_etcd_is_away(whole: WholeCloud) -> None:
    network = whole.network("10.45.0.0/24")
    group = whole.neutron.create("security_group", name="away")
    old = whole.port(network, security_groups=[group["id"]])
    whole.etcd.kill()
    try:
        new = whole.port(network, security_groups=[group["id"]])
        whole.neutron.create("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4")
        whole.neutron.delete(f"/ports/{old['id']}")
    finally:
        whole.etcd.start()
    eventually(lambda: whole.endpoint(new))
    eventually(lambda: whole.endpoint(old) is None)
    eventually(lambda: agrees(whole), COMPARED_WITHIN_S)
    eventually(lambda: leader(whole))


def workers(cloud: WholeCloud) -> list[int]:
    """The processes that answer API calls."""
    assert cloud.neutron.api is not None
    assert cloud.neutron.api.process is not None
    return [
        int(pid) for pid in Path(f"/proc/{cloud.neutron.api.process.pid}/task/{cloud.neutron.api.process.pid}/children").read_text().split()
    ]


def assert_in_order(history: History) -> None:
    """Nothing was written twice, and nothing over a later state of it."""
    assert history.changes
    assert history.written_twice() == []
    assert history.written_late() == []
