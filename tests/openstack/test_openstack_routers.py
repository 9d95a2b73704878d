"""Extra routes of routers through the real API: what is behind a port comes and goes with route and port."""

from __future__ import annotations

import pytest
from neutron_process import ApiError
from openstack_world import Document, World, eventually


def behind(world: World, port: Document) -> list[str]:
    """What may be sent from the port's other sides; nothing else is given to these ports."""
    found: list[str] = (world.endpoint(port) or {"spec": {}})["spec"].get("allowSpoofedSourcePrefixes", [])
    return found


def told(world: World, port: Document) -> str:
    return str((world.endpoint(port) or {"metadata": {"annotations": {}}})["metadata"]["annotations"].get("openstack.tabinet/refused", ""))


def test_routes_by_way_of_a_port(world: World) -> None:
    neutron = world.neutron
    network, elsewhere = world.network("10.93.0.0/24"), world.network("10.94.0.0/24")
    router = neutron.create("router", name="r")
    neutron.attach(router, network)
    fixed = {"fixed_ips": [{"ip_address": "10.93.0.50"}]}
    port, other = world.port(network, **fixed), world.port(network)
    neutron.update("router", router["id"], routes=[{"destination": "172.20.0.0/16", "nexthop": "10.93.0.50"}])
    eventually(lambda: behind(world, port) == ["172.20.0.0/16"])
    more = [{"destination": net, "nexthop": "10.93.0.50"} for net in ("172.21.0.0/16", "10.94.0.0/25", "0.0.0.0/0")]
    neutron.call("PUT", f"/routers/{router['id']}/add_extraroutes", {"router": {"routes": more}})
    eventually(lambda: behind(world, port) == ["172.20.0.0/16", "172.21.0.0/16"])
    assert f"route 10.94.0.0/25 of router {router['id']}: it overlaps the subnet 10.94.0.0/24" in told(world, port)
    assert f"route 0.0.0.0/0 of router {router['id']}: everything cannot be behind a port" in told(world, port)
    neutron.delete(f"/networks/{elsewhere['id']}")
    eventually(lambda: behind(world, port) == ["10.94.0.0/25", "172.20.0.0/16", "172.21.0.0/16"])
    neutron.call("PUT", f"/routers/{router['id']}/remove_extraroutes", {"router": {"routes": more}})
    eventually(lambda: (behind(world, port), told(world, port)) == (["172.20.0.0/16"], ""))
    neutron.delete(f"/ports/{port['id']}")
    assert world.endpoint(port) is None
    assert behind(world, other) == []
    again = world.port(network, host="hostb", **fixed)
    assert behind(world, again) == ["172.20.0.0/16"]
    neutron.update("router", router["id"], routes=[])
    eventually(lambda: behind(world, again) == [])


def test_next_hops_and_floating_addresses_of_networks_that_no_router_connects(world: World) -> None:
    neutron = world.neutron
    inside, lonely = world.network("10.95.0.0/24"), world.network("10.96.0.0/24")
    outside = neutron.create("network", name="ext", router_external=True, provider_network_type="flat", provider_physical_network="ext3")
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.103.0/24")
    router = neutron.create("router", name="r", external_gateway_info={"network_id": outside["id"]})
    neutron.attach(router, inside)
    port = world.port(lonely)
    address = port["fixed_ips"][0]["ip_address"]
    with pytest.raises(ApiError, match="not connected with router"):
        neutron.update("router", router["id"], routes=[{"destination": "172.22.0.0/16", "nexthop": address}])
    with pytest.raises(ApiError, match="not reachable from subnet"):
        neutron.create("floatingip", floating_network_id=outside["id"], port_id=port["id"])
    endpoint = world.endpoint(port)
    assert endpoint is not None
    assert "ipNATs" not in endpoint["spec"]


def test_ports_of_routers_are_active_while_they_are_up(world: World) -> None:
    neutron = world.neutron
    inside = world.network("10.98.0.0/24")
    outside = neutron.create("network", name="ext6", router_external=True, provider_network_type="flat", provider_physical_network="ext6")
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.106.0/24")
    router = neutron.create("router", name="r", external_gateway_info={"network_id": outside["id"]})
    neutron.attach(router, inside, "10.98.0.77")

    def ports() -> list[Document]:
        found: list[Document] = neutron.get(f"/ports?device_id={router['id']}")["ports"]
        return found

    assert [port["status"] for port in ports()] == ["ACTIVE"] * 2
    own = next(port["id"] for port in ports() if port["fixed_ips"][0]["ip_address"] == "10.98.0.77")
    for up in (False, True):
        neutron.update("port", own, admin_state_up=up)
        assert neutron.show("port", own)["status"] == ("ACTIVE" if up else "DOWN")


def test_routes_go_with_their_router(world: World) -> None:
    neutron = world.neutron
    outside = neutron.create("network", name="ext", router_external=True, provider_network_type="flat", provider_physical_network="ext4")
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.104.0/24")
    router = neutron.create("router", name="r", external_gateway_info={"network_id": outside["id"]})
    port = world.port(outside, fixed_ips=[{"ip_address": "198.51.104.50"}])
    neutron.update("router", router["id"], routes=[{"destination": "172.23.0.0/16", "nexthop": "198.51.104.50"}])
    eventually(lambda: behind(world, port) == ["172.23.0.0/16"])
    neutron.delete(f"/routers/{router['id']}")
    eventually(lambda: behind(world, port) == [])
