"""Live migration over the API as Nova does it: a second, inactive binding, then its activation, or its removal."""

from __future__ import annotations

from typing import Any

from openstack_world import RESOURCES, World, eventually

from tabinet.attach.openstack.names import Region, endpoint_key, migration_key
from tabinet.model.keys import path_of
from tabinet.model.openstack import MOVING_ANNOTATION, PORT_ANNOTATION, parse_port_facts

Document = dict[str, Any]


def paths(port: Document) -> tuple[str, str, str]:
    """Of the endpoint on hosta, of that on hostb, and of the migration to it."""
    a, b = (endpoint_key(Region(), host, port["device_id"], port["id"]) for host in ("hosta", "hostb"))
    return path_of(a), path_of(b), path_of(migration_key(b))


def bind(world: World, port: Document, host: str = "hostb", **profile: Any) -> Document:
    body = {"binding": {"host": host, "vnic_type": "normal", "profile": profile}}
    made: Document = world.neutron.call("POST", f"/ports/{port['id']}/bindings", body)["binding"]
    return made


def told_nova(world: World, port: Document) -> list[Document]:
    """That the port is plugged."""
    return [event for event in list(world.nova.events) if (event["name"], event["tag"]) == ("network-vif-plugged", port["id"])]


def active_port(world: World) -> Document:
    port = world.port(world.network("10.66.0.0/24"))
    world.report(port, "up")
    eventually(lambda: world.neutron.show("port", port["id"])["status"] == "ACTIVE")
    return port


def there(world: World, port: Document) -> tuple[bool, bool, bool]:
    stored = world.stored(RESOURCES)
    return tuple(path in stored for path in paths(port))  # type: ignore[return-value]  # there are three


def test_a_second_binding_makes_an_endpoint_on_the_target_and_its_activation_moves_the_port(world: World) -> None:
    port = active_port(world)
    a, b, migration = paths(port)
    before = world.stored(RESOURCES)[a]
    binding = bind(world, port, migrating="x")
    assert (binding["status"], binding["vif_type"]) == ("INACTIVE", "tap"), world.neutron.log()[-3000:]
    eventually(lambda: there(world, port) == (True, True, True))
    stored = world.stored(RESOURCES)
    assert stored[a] == before, "nothing changes where the machine is"
    assert stored[b]["spec"] == before["spec"] | {"node": "hostb"}
    assert stored[b]["metadata"]["labels"] == before["metadata"]["labels"]
    assert stored[b]["metadata"]["annotations"][MOVING_ANNOTATION] == "hosta"
    assert parse_port_facts(stored[b]["metadata"]["annotations"][PORT_ANNOTATION]).profile == {"migrating": "x"}
    ends = stored[migration]["spec"]
    assert [ends[end]["workloadEndpoint"]["hostname"] for end in ("source", "target")] == ["hosta", "hostb"]

    plugged = len(told_nova(world, port))
    world.report(port, "up", host="hostb")
    eventually(lambda: len(told_nova(world, port)) > plugged)
    assert world.neutron.show("port", port["id"])["status"] == "ACTIVE"
    assert world.neutron.show("port", port["id"])["binding:host_id"] == "hosta"

    world.neutron.call("PUT", f"/ports/{port['id']}/bindings/hostb/activate")
    moved = world.neutron.show("port", port["id"])
    assert (moved["binding:host_id"], moved["status"]) == ("hostb", "DOWN")
    assert there(world, port) == (False, True, False)
    assert MOVING_ANNOTATION not in world.stored(RESOURCES)[b]["metadata"]["annotations"]
    world.report(port, "up", host="hostb")
    eventually(lambda: world.neutron.show("port", port["id"])["status"] == "ACTIVE")
    world.neutron.delete(f"/ports/{port['id']}/bindings/hosta")
    assert there(world, port) == (False, True, False)

    bind(world, port, "hosta")
    eventually(lambda: there(world, port)[0])  # and back
    world.neutron.delete(f"/ports/{port['id']}")
    eventually(lambda: there(world, port) == (False, False, False))


def test_a_migration_that_is_cancelled_leaves_nothing_on_the_target(world: World) -> None:
    port = active_port(world)
    bind(world, port)
    eventually(lambda: there(world, port) == (True, True, True))
    world.neutron.update("port", port["id"], description="changed on the way")
    assert there(world, port) == (True, True, True)
    world.neutron.delete(f"/ports/{port['id']}/bindings/hostb")
    eventually(lambda: there(world, port) == (True, False, False))
    assert world.neutron.show("port", port["id"])["status"] == "ACTIVE"


def test_what_novas_profile_says_is_enough(world: World) -> None:
    """As networking-calico has it."""
    port = active_port(world)
    world.neutron.update("port", port["id"], binding_profile={"migrating_to": "hostb"})
    assert there(world, port) == (True, True, True)
    bind(world, port)
    world.neutron.update("port", port["id"], binding_profile={})
    assert there(world, port) == (True, True, True), "the binding is still there"
    world.neutron.delete(f"/ports/{port['id']}/bindings/hostb")
    eventually(lambda: there(world, port) == (True, False, False))
    world.neutron.update("port", port["id"], binding_profile={"migrating_to": "hostb"})
    world.neutron.update("port", port["id"], binding_host_id="hostb", binding_profile={})
    assert there(world, port) == (False, True, False)
    world.neutron.update("port", port["id"], binding_profile={"migrating_to": "hosta"})
    world.neutron.update("port", port["id"], binding_profile={})
    assert there(world, port) == (False, True, False)
