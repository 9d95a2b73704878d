"""What hosts report reaches Neutron: ports, agents, and through Neutron Nova."""

from __future__ import annotations

from openstack_world import World, eventually, policy_path

HOST = "/calico/felix/v2/no-region/host"


def status_of(world: World, port: dict) -> str:  # type: ignore[type-arg]  # a document
    return str(world.neutron.show("port", port["id"])["status"])


def agent_of(world: World, host: str) -> dict:  # type: ignore[type-arg]  # a document
    return next(iter(world.neutron.get(f"/agents?host={host}")["agents"]), {})


def test_active_only_when_the_host_has_this_state_of_the_port(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.80.0.0/24")
    port = world.port(network, host="host1")
    old = world.revision(world.endpoint_path(port, "host1"))
    neutron.update("port", port["id"], allowed_address_pairs=[{"ip_address": "10.80.0.77"}])
    world.report(port, "up", host="host1", revision=old)
    other = world.port(network, host="host1")  # reported later than the first: once it is active, the first has been looked at
    world.report(other, "up", host="host1")
    eventually(lambda: status_of(world, other) == "ACTIVE")
    assert status_of(world, port) == "DOWN"
    world.report(port, "up", host="host1")
    eventually(lambda: status_of(world, port) == "ACTIVE")
    revision = world.revision(world.endpoint_path(port, "host1"))
    assert neutron.update("port", port["id"], name="same")["status"] == "ACTIVE"
    assert world.revision(world.endpoint_path(port, "host1")) == revision, "nothing that hosts know has changed"


def test_a_port_that_moves_is_active_when_the_new_host_has_it(world: World) -> None:
    network = world.network("10.81.0.0/24")
    port = world.port(network, host="host2")
    world.report(port, "up", host="host2")
    eventually(lambda: status_of(world, port) == "ACTIVE")
    assert world.neutron.update("port", port["id"], binding_host_id="host3")["status"] == "DOWN"
    world.report(port, "up", host="host3")
    eventually(lambda: status_of(world, port) == "ACTIVE")


def test_why_a_port_is_not_up(world: World) -> None:
    network = world.network("10.82.0.0/24")
    down, broken = world.port(network, host="host4"), world.port(network, host="host4")
    world.put(f"{HOST}/host4/status", {"time": "2026-11-22T09:36:09Z", "uptime": 1.5, "first_update": True})
    eventually(lambda: agent_of(world, "host4").get("alive"))
    for port in (down, broken):
        world.report(port, "up", host="host4")
        eventually(lambda port=port: status_of(world, port) == "ACTIVE")
    world.report(down, "down", host="host4", reason="the interface is gone")
    world.report(broken, "error", host="host4", reason="the kernel refuses it")
    eventually(lambda: (status_of(world, down), status_of(world, broken)) == ("DOWN", "ERROR"))
    troubles = {down["id"]: "the interface is gone", broken["id"]: "the kernel refuses it"}
    eventually(lambda: agent_of(world, "host4")["configurations"]["troubles"] == troubles)
    world.report(down, "up", host="host4")
    eventually(lambda: status_of(world, down) == "ACTIVE")
    eventually(lambda: list(agent_of(world, "host4")["configurations"]["troubles"]) == [broken["id"]])


def test_what_was_refused_is_shown_by_the_host(world: World) -> None:
    """Of a group, nothing can be refused that the API accepts; so its policy says so here without reason."""
    network = world.network("10.84.0.0/24")
    group = world.neutron.create("security_group", name="odd")
    port = world.port(network, host="host6", security_groups=[group["id"]])
    world.put(f"{HOST}/host6/status", {"time": "2026-11-22T09:36:09Z", "uptime": 1.5, "first_update": True})
    eventually(lambda: agent_of(world, "host6").get("alive"))
    policy = world.policy(group)
    assert policy is not None
    policy["metadata"]["annotations"]["openstack.tabinet/refused"] = "rule 7: protocol x"
    world.put(policy_path(group), policy)
    troubles = {group["id"]: "security group: rule 7: protocol x"}
    eventually(lambda: agent_of(world, "host6")["configurations"].get("troubles") == troubles)
    endpoint = world.endpoint(port)
    assert endpoint is not None
    endpoint["metadata"]["annotations"]["openstack.tabinet/refused"] = "port forwarding 8"
    world.put(world.endpoint_path(port, "host6"), endpoint)
    world.report(port, "up", host="host6")
    eventually(lambda: agent_of(world, "host6")["configurations"]["troubles"] == troubles | {port["id"]: "port forwarding 8"})
    assert status_of(world, port) == "ACTIVE"
    world.neutron.update("security_group", group["id"], name="written anew")
    world.neutron.update("port", port["id"], allowed_address_pairs=[{"ip_address": "10.84.0.77"}])
    world.report(port, "up", host="host6")
    eventually(lambda: agent_of(world, "host6")["configurations"]["troubles"] == {})


def test_nova_is_told(world: World) -> None:
    network = world.network("10.83.0.0/24")
    port = world.port(network, host="host5")
    world.report(port, "up", host="host5")
    event = {"name": "network-vif-plugged", "server_uuid": port["device_id"], "status": "completed", "tag": port["id"]}
    eventually(lambda: event in world.nova.events)
