"""``tabinet ipam``: what it says (held against golden files), what it refuses, and its exit codes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from cli_world import Said, Tabinet, resource

from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.model.keys import HandleKey, path_of
from tabinet.store.api import Datastore, PutOp
from tabinet.store.sqlite import open_sqlite

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
NOW_NS = 1_767_322_800 * 10**9
"""2026-01-02 03:00 UTC: everything was assigned then."""
T = TypeVar("T")

POOLS = [
    resource("IPPool", "racks", cidr="10.65.0.0/24", blockSize=28),
    resource("IPPool", "six", cidr="fd00:65::/48"),
    resource("IPPool", "old", cidr="10.66.0.0/24", disabled=True),
    resource("IPReservation", "gateways", reservedCIDRs=["10.65.0.0/28"]),
    resource("Node", "host1"),
    resource("Node", "host2"),
]


@pytest.fixture
def with_store(tmp_path: Path) -> Callable[[Callable[[Datastore], Awaitable[T]]], T]:
    """Runs something with the store that the command line uses."""

    def run(work: Callable[[Datastore], Awaitable[T]]) -> T:
        async def opened() -> T:
            store = await open_sqlite(tmp_path / "store.db")
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(opened())

    return run


@pytest.fixture
def filled(tabinet: Tabinet, with_store: Callable[[Callable[[Datastore], Awaitable[object]]], object]) -> Tabinet:
    """Two hosts with workloads; one has lost two workloads and borrows, a third host is gone, a handle is left over."""

    async def fill(store: Datastore) -> None:
        client = IpamClient(store, now_ns=lambda: NOW_NS)
        for host, name, count in (("host1", "web", 1), ("host2", "app", 2), ("host2", "lost", 1), ("host3", "old", 2)):
            attributes = {"namespace": "shop", "workload": name}
            request = AssignRequest(host=host, handle=f"shop-{host}-cni-{name}-eth0", count4=count, attributes=attributes)
            await client.assign(request)
        (web,) = await client.owned("shop-host1-cni-web-eth0")
        neighbour = next(usage.block for usage in await client.blocks("host1")).host(9)
        attributes = {"namespace": "shop", "workload": "guest"}
        await client.assign_address(neighbour, AssignRequest(host="host2", handle="shop-host2-cni-guest-eth0", attributes=attributes))
        assert web != neighbour
        await store.txn([], [PutOp(path_of(HandleKey("left")), b'{"block":{"10.65.0.16/28":1},"deleted":false}')])

    assert tabinet("apply", "-f", "-", given=POOLS).code == 0
    with_store(fill)
    owned = {
        name: with_store(lambda store, name=name: IpamClient(store).owned(f"shop-{name}-eth0"))  # type: ignore[misc]
        for name in ("host1-cni-web", "host2-cni-app", "host2-cni-guest")
    }
    endpoints = []
    for name, addresses in owned.items():
        node, _, workload = name.split("-")
        spec = {"orchestrator": "cni", "node": node, "containerID": workload, "workload": workload, "endpoint": "eth0"}
        networks = [str(address) for address in addresses]  # type: ignore[attr-defined]
        endpoints.append(resource("WorkloadEndpoint", f"{name}-eth0", "shop", **spec, ipNetworks=networks, interfaceName=f"cali{workload}"))
    assert tabinet("apply", "-f", "-", given=endpoints).code == 0
    return tabinet


def hold(said: Said, name: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"ipam-{name}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(said.out)
    assert said.out == path.read_text()


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("show", "show", 0),
        ("show-blocks", "show --blocks", 0),
        ("show-borrowed", "show --borrowed", 0),
        ("show-json", "show --json --blocks", 0),
        ("show-ip", "show --ip 10.65.0.224", 0),
        ("show-ip-free", "show --ip 10.65.0.3", 1),
        ("show-ip-json", "show --ip 10.65.0.224 --json", 0),
        ("check", "check", 1),
        ("check-json", "check --json", 1),
        ("gc-dry-run", "gc --dry-run --grace 0", 0),
        ("configure", "configure", 0),
    ],
)
def test_what_is_said(filled: Tabinet, name: str, words: str, code: int, request: pytest.FixtureRequest) -> None:
    said = filled("ipam", *words.split())
    assert (said.code, said.err) == (code, "")
    hold(said, name, request)


def test_garbage_collection_leaves_nothing_to_find(filled: Tabinet, request: pytest.FixtureRequest) -> None:
    first = filled("ipam", "gc")
    assert first.code == 0
    assert all(line.startswith("waits 900 s: ") for line in first.out.splitlines())
    said = filled("ipam", "gc", "--grace", "0")
    assert (said.code, said.err) == (0, "")
    hold(said, "gc", request)
    assert filled("ipam", "gc", "--grace", "0").out == "nothing to collect\n"
    checked = filled("ipam", "check")
    assert (checked.code, checked.out) == (0, "no findings: blocks, claims, handles and endpoints fit together\n")
    assert filled("ipam", "check", "--json").json == {"findings": [], "unreadable": []}


def test_what_is_left_alone_is_an_error(filled: Tabinet, with_store: Callable[[Callable[[Datastore], Awaitable[object]]], object]) -> None:
    broken = PutOp("/calico/resources/v3/projectcalico.org/workloadendpoints/shop/broken", b"{}}")
    with_store(lambda store: store.txn([], [broken]))
    said = filled("ipam", "gc", "--grace", "0", "--json")
    assert said.code == 1
    assert "shop/broken" in said.json["blocked"][0]
    assert filled("ipam", "check").code == 1


def test_an_address_in_use_is_not_released_unless_forced(filled: Tabinet) -> None:
    address = filled("get", "wep", "-n", "shop", "host1-cni-web-eth0", "-o", "json").json["spec"]["ipNetworks"][0].removesuffix("/32")
    said = filled("ipam", "release", "--ip", address)
    assert (said.code, said.out) == (1, "")
    assert f"in use: {address} by WorkloadEndpoint/shop/host1-cni-web-eth0. Detach first, or say --force" in said.err
    assert filled("ipam", "release", "--handle", "shop-host1-cni-web-eth0").code == 1
    assert filled("ipam", "release", "--host", "host1").code == 1
    assert filled("ipam", "release", "--ip", address, "--force").out == f"{address} released\n"
    assert "address-unassigned" in filled("ipam", "check").out


def test_what_a_lost_host_had_is_released(filled: Tabinet) -> None:
    said = filled("ipam", "release", "--host", "host3", "--json")
    assert (said.code, len(said.json["addresses"]), len(said.json["blocks"])) == (0, 2, 1)
    again = filled("ipam", "release", "--host", "host3")
    assert (again.code, again.out, again.err) == (1, "", "nothing was assigned\n")


@pytest.mark.parametrize(
    "words",
    [
        "release",
        "release --ip 10.0.0.1 --handle x",
        "release --ip ten",
        "show --ip 10.0.0.0/24",
        "show --blocks --borrowed",
        "gc --grace soon",
        "gc --every 0",
        "gc --every 5m --dry-run",
        "configure --strict-affinity perhaps",
        "configure --max-blocks -1",
        "configure --cooldown 1h",
        "split racks 3",
        "split racks 64",
        "split racks",
    ],
)
def test_wrong_words_change_nothing(filled: Tabinet, words: str) -> None:
    before = filled("ipam", "show", "--blocks", "--json").out + filled("ipam", "configure").out
    said = filled("ipam", *words.split())
    assert (said.code, said.out) == (2, "")
    assert said.err
    assert filled("ipam", "show", "--blocks", "--json").out + filled("ipam", "configure").out == before


def test_configuration(filled: Tabinet, request: pytest.FixtureRequest) -> None:
    said = filled("ipam", "configure", "--strict-affinity", "true", "--max-blocks", "5", "--cooldown", "1m30s")
    hold(said, "configure-changed", request)
    assert filled("ipam", "configure", "--json").json == {
        "strictAffinity": True,
        "autoAllocateBlocks": True,
        "maxBlocksPerHost": 5,
        "ipCooldownSeconds": 90,
    }
    spec = filled("get", "ipamconfig", "default", "-o", "json").json["spec"]
    assert (spec["strictAffinity"], spec["maxBlocksPerHost"], spec["ipCooldownSeconds"]) == (True, 5, 90)


@pytest.mark.parametrize("pool", ["racks", "10.65.0.0/24"])
def test_splitting(filled: Tabinet, pool: str, request: pytest.FixtureRequest) -> None:
    said = filled("ipam", "split", pool, "2")
    assert (said.code, said.err) == (0, "")
    hold(said, "split", request)
    pools = {found["pool"]: found for found in filled("ipam", "show", "--json").json["pools"]}
    assert (pools["split-racks-0"]["cidr"], pools["split-racks-1"]["cidr"]) == ("10.65.0.0/25", "10.65.0.128/25")
    assert pools["split-racks-0"]["assigned"] + pools["split-racks-1"]["assigned"] == 7
    missing = filled("ipam", "split", "nowhere", "2", "--json")
    assert missing.code == 1
    assert "IPPool/nowhere does not exist" in missing.err


def test_a_pool_in_use_is_not_deleted_but_drained_when_forced(filled: Tabinet) -> None:
    refused = filled("delete", "ippool", "racks")
    assert refused.code == 1
    assert "in use" in refused.err
    assert filled("get", "ippool", "racks", "-o", "json").json["spec"].get("disabled", False) is False
    forced = filled("delete", "ippool", "racks", "--force")
    assert forced.code == 1
    assert filled("get", "ippool", "racks", "-o", "json").json["spec"]["disabled"] is True


def test_a_pool_that_nobody_uses_is_deleted(filled: Tabinet) -> None:
    spare = '{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"spare"},"spec":{"cidr":"192.0.2.0/24"}}'
    assert filled("apply", "-f", "-", given=spare).code == 0
    assert filled("delete", "ippool", "spare").code == 0
    assert filled("get", "ippool", "spare").code == 1
    assert filled("delete", "ippool", "spare").code == 1


ENDPOINT = "host1-k8s-web-eth0"


@pytest.fixture
def unassigned(filled: Tabinet, with_store: Callable[[Callable[[Datastore], Awaitable[object]]], object]) -> Tabinet:
    """An endpoint has two addresses of a pool and one of none, and nothing says that they are taken."""
    spec = {"node": "host1", "orchestrator": "k8s", "pod": "web", "endpoint": "eth0", "containerID": "c1", "interfaceName": "cali1"}
    nets = ["10.65.0.200/32", "fd00:65::200/128", "192.0.2.1/32"]
    made = filled("apply", "-f", "-", given=[resource("WorkloadEndpoint", ENDPOINT, "shop", **spec, ipNetworks=nets)])
    assert made.code == 0, made.err
    return filled


def test_assign_makes_an_endpoints_addresses_its_own(unassigned: Tabinet) -> None:
    said = unassigned("ipam", "assign", ENDPOINT, "-n", "shop")
    assert said.code == 0
    assert said.out.splitlines() == [
        "10.65.0.200 assigned to k8s-pod-network.c1",
        "fd00:65::200 assigned to k8s-pod-network.c1",
    ]
    again = unassigned("ipam", "assign", ENDPOINT, "-n", "shop")
    assert (again.code, again.out) == (0, "")
    assert "10.65.0.200" not in unassigned("ipam", "check").out


def test_assign_takes_nothing_from_others(unassigned: Tabinet) -> None:
    assert unassigned("ipam", "assign", ENDPOINT, "-n", "shop").code == 0
    said = unassigned("ipam", "assign", ENDPOINT, "-n", "shop", "--handle", "another")
    assert said.code == 1
    assert "10.65.0.200 by k8s-pod-network.c1" in said.err
    missing = unassigned("ipam", "assign", "no-such-endpoint")
    assert (missing.code, "does not exist" in missing.err) == (1, True)
