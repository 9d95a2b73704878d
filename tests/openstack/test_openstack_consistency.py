"""etcd that is away, that was changed by others, and ``tabinet openstack resync``."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from neutron_process import VENV
from openstack_world import RESOURCES, World, eventually, policy_path


def resync(world: World, *arguments: str) -> tuple[int, dict[str, Any]]:
    directory = world.neutron.directory
    command = [VENV / "bin" / "python", "-W", "ignore", "-m", "tabinet.cli.main", "openstack", "resync", "--json", *arguments]
    files = ["--config-file", str(directory / "neutron.conf"), "--config-file", str(directory / "ml2_conf.ini")]
    done = subprocess.run([*command, *files], check=False, capture_output=True, text=True, timeout=240)
    assert done.stdout, done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


def change_at_once(world: World, network: dict[str, Any], port: dict[str, Any], group: dict[str, Any]) -> None:
    """Many calls about the same objects at the same time. What the store has afterwards is compared by whoever calls this."""

    def call(number: int) -> None:
        match number % 4:
            case 0:
                world.neutron.update("port", port["id"], binding_host_id=f"host{number % 3}")
            case 1:
                world.neutron.update("port", port["id"], allowed_address_pairs=[{"ip_address": f"10.90.9.{number + 1}"}])
            case 2:
                fields = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
                world.neutron.create("security_group_rule", **fields, port_range_min=number + 1, port_range_max=number + 1)
            case _:
                short = world.port(network, security_groups=[group["id"]])
                world.neutron.delete(f"/ports/{short['id']}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(20)))


def test_what_others_broke_is_found_and_repaired(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.90.0.0/24", "fd00:90::/64")
    group = neutron.create("security_group", name="g")
    changed, gone, busy = (world.port(network, security_groups=[group["id"]]) for _ in range(3))
    change_at_once(world, network, busy, group)
    path = world.endpoint_path(changed)
    document = world.stored(path)[path]
    world.put(path, document | {"spec": document["spec"] | {"ipNetworks": ["10.9.9.9/32"]}})
    world.delete(world.endpoint_path(gone))
    world.delete(policy_path(group))
    left = path.replace("hosta-", "hostz-")
    world.put(left, document)
    world.put(f"{RESOURCES}networkpolicies/openstack/somebody-elses", {"kind": "NetworkPolicy", "metadata": {"name": "somebody-elses"}})

    code, found = resync(world, "--dry-run", "--network", network["id"])
    broken = {(path, "different"), (world.endpoint_path(gone), "missing")}
    assert (code, found["compared"]) == (1, 5)
    assert {(each["path"], each["what"]) for each in found["differences"]} == broken
    code, found = resync(world)
    assert {(each["path"], each["what"]) for each in found["differences"]} == broken | {
        (policy_path(group), "missing"),
        (left, "left over"),
    }
    assert (code, found["repaired"]) == (0, 4)
    assert found["compared"] == found["total"] > 5
    assert world.stored(path)[path]["spec"] == document["spec"]
    assert world.stored(path)[path]["metadata"]["uid"] == document["metadata"]["uid"]
    assert left not in world.stored(RESOURCES)
    assert world.stored(f"{RESOURCES}networkpolicies/openstack/somebody-elses")


def test_changes_while_etcd_is_away_are_caught_up_with(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.91.0.0/24")
    group = neutron.create("security_group", name="away")
    old = world.port(network, security_groups=[group["id"]])
    world.etcd.kill()
    port = world.port(network, security_groups=[group["id"]])
    rule = neutron.create("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4", protocol="tcp")
    neutron.delete(f"/ports/{old['id']}")
    world.etcd.start()
    eventually(lambda: world.endpoint(port))
    eventually(lambda: world.endpoint(old) is None)

    def stored_rules() -> list[str]:
        rules = (world.policy(group) or {"spec": {"ingress": []}})["spec"]["ingress"]
        return [each["metadata"]["annotations"]["openstack.tabinet/rule"] for each in rules]

    eventually(lambda: stored_rules() == [rule["id"]])
    world.report(port, "up")
    eventually(lambda: neutron.show("port", port["id"])["status"] == "ACTIVE")
