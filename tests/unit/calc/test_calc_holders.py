"""Of several endpoints that may have one address, who has it."""

from __future__ import annotations

import msgspec
from calc_build import Fabric, Item, endpoint

from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.holders import Holder
from tabinet.model.keys import HolderKey, ResourceKey
from tabinet.model.resources import WorkloadEndpoint

SHARED = parse_address("10.0.0.9")


def port(name: str, own: str, *, shares: bool = True) -> Item:
    key, value = endpoint(name, f"{own}/32 10.0.0.9/32" if shares else f"{own}/32")
    assert isinstance(value, WorkloadEndpoint)
    allowed = ("10.0.0.9/32",) if shares else ()
    return key, WorkloadEndpoint(metadata=value.metadata, spec=msgspec.structs.replace(value.spec, allowed_ips=allowed))


def named(item: Item) -> tuple[HolderKey, Holder]:
    key = item[0]
    assert isinstance(key, ResourceKey)
    return HolderKey(SHARED), Holder(namespace=key.namespace, name=key.name)


def yields(fabric: Fabric) -> dict[str, tuple[Prefix, ...]]:
    return {key.name: endpoint.yields for key, (_, endpoint) in fabric.state.endpoints.items()}


def test_one_holds_the_address_while_it_is_there_and_may_have_it() -> None:
    fabric = Fabric()
    one, two = port("one", "10.0.0.1"), port("two", "10.0.0.2")
    names = [item[0].name for item in (one, two) if isinstance(item[0], ResourceKey)]
    for item in (one, two):
        fabric.put(item)
    assert yields(fabric) == dict.fromkeys(names, ()), "nobody is known to hold it: all have it"
    fabric.put(named(two))
    assert yields(fabric) == {names[0]: (SHARED,), names[1]: ()}
    assert fabric.state.endpoints[one[0]][1].nets_here == (parse_address("10.0.0.1"),)  # type: ignore[index]  # an endpoint's key
    fabric.put(named(one))
    assert yields(fabric) == {names[0]: (), names[1]: (SHARED,)}
    fabric.put(port("one", "10.0.0.1", shares=False))
    assert yields(fabric) == dict.fromkeys(names, ()), "it may not have it any more"
    fabric.put(one)
    assert yields(fabric) == {names[0]: (), names[1]: (SHARED,)}
    fabric.delete(one)
    assert yields(fabric) == {names[1]: ()}, "it is gone"


def test_an_address_that_is_fixed_is_left_to_nobody() -> None:
    fabric = Fabric()
    key, value = endpoint("fixed", "10.0.0.9/32")
    fabric.put((key, value))
    fabric.put(port("two", "10.0.0.2"))
    fabric.put(named(port("two", "10.0.0.2")))
    assert set(yields(fabric).values()) == {()}
