"""Docker's driver calls against a store in memory, a fake network, a fake Docker, and a task that plays the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tabinet.attach.docker.daemon import DockerNetwork, DockerSocket, Endpoint, ListedContainer
from tabinet.attach.docker.fakedocker import FakeDocker
from tabinet.attach.docker.profiles import profile_name
from tabinet.attach.docker.service import DockerService
from tabinet.attach.docker.translate import parse_options, select_pools, split_labels
from tabinet.attach.docker.web import serve_docker
from tabinet.attach.fakenetwork import FakeNetwork
from tabinet.errors import AttachError, InputError
from tabinet.ipam.client import IpamClient
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey, kind_prefix, parse_path, path_of
from tabinet.model.status import endpoint_status_path, render_endpoint_status
from tabinet.store.api import PutEvent, PutOp
from tabinet.store.memory import MemoryStore

DONE_WITHIN_S = 10.0
NETWORK, SANDBOX = "n" * 64, "/var/run/docker/netns/none"


@dataclass(slots=True)
class Site:
    """A host with a Docker, and an agent that has every endpoint in the kernel at once."""

    store: MemoryStore = field(default_factory=MemoryStore)
    network: FakeNetwork = field(default_factory=FakeNetwork)
    docker: FakeDocker = field(default_factory=FakeDocker)
    clock_s: float = 1000.0

    def service(self) -> DockerService:
        return DockerService("h", self.store, self.network, IpamClient(self.store), self.docker, now_s=lambda: self.clock_s)

    async def play_agent(self) -> None:
        async for batch in self.store.watch(kind_prefix("WorkloadEndpoint"), self.store.revision):
            for event in batch.events:
                if isinstance(event, PutEvent):
                    key = parse_path(event.item.key)
                    assert isinstance(key, ResourceKey)
                    value = render_endpoint_status(True, event.item.revision, "")
                    await self.store.txn([], [PutOp(endpoint_status_path("h", key), value)])

    def add_container(self, name: str, started_s: float, **labels: str) -> None:
        document = {"Id": name * 4, "Names": [f"/{name}"], "Labels": labels, "State": "created"}
        document |= {"NetworkSettings": {"Networks": {"shop": {"NetworkID": ""}}}}
        self.docker.listed.append(msgspec.convert(document, ListedContainer))
        self.docker.started[name * 4] = started_s

    def tell(self, **endpoints: str) -> None:
        """Docker says which container has which endpoint."""
        containers = {name * 4: Endpoint(id=endpoint) for name, endpoint in endpoints.items()}
        self.docker.known[NETWORK] = DockerNetwork(id=NETWORK, name="shop", driver="tabinet", containers=containers)

    async def endpoints(self) -> dict[str, dict[str, str]]:
        """Labels by endpoint."""
        found = {}
        async for page in self.store.list(kind_prefix("WorkloadEndpoint")):
            for item in page.items:
                document = json.loads(item.value)
                labels = document["metadata"]["labels"]
                found[document["spec"]["endpoint"]] = {k: v for k, v in labels.items() if not k.startswith("projectcalico.org")}
        return found

    def interfaces(self) -> list[str]:
        return sorted(link.name for link in self.network.host.links() if link.name != "lo")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "four"}, "spec": {"cidr": "10.0.0.0/16"}}
    await made.store.txn([], [PutOp(path_of(ResourceKey("IPPool", "four")), msgspec.json.encode(document))])
    made.tell()
    async with running(made.play_agent()):
        yield made


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ask(service: DockerService, method: str, **fields: Any) -> dict[str, Any]:
    done, body = await service.answer(method, json.dumps(fields).encode())
    answer: dict[str, Any] = json.loads(body)
    assert done, answer
    return answer


async def refused(service: DockerService, method: str, **fields: Any) -> str:
    done, body = await service.answer(method, json.dumps(fields).encode())
    assert not done
    return str(json.loads(body)["Err"])


async def create(service: DockerService, endpoint: str) -> str:
    """An endpoint with an address; gives that."""
    pool = await ask(service, "IpamDriver.RequestPool", Pool="10.0.0.0/16")
    address = (await ask(service, "IpamDriver.RequestAddress", PoolID=pool["PoolID"]))["Address"]
    made = await ask(service, "NetworkDriver.CreateEndpoint", NetworkID=NETWORK, EndpointID=endpoint, Interface={"Address": address})
    assert made["Interface"]["MacAddress"].startswith("02:")
    return str(address)


async def join(service: DockerService, endpoint: str, sandbox: str = SANDBOX) -> dict[str, Any]:
    return await ask(service, "NetworkDriver.Join", NetworkID=NETWORK, EndpointID=endpoint, SandboxKey=sandbox)


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(DONE_WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - a store does not tell tests
            await asyncio.sleep(0.01)


async def test_an_endpoint_has_its_labels_when_it_joins_and_leaves_nothing(site: Site) -> None:
    service = site.service()
    site.add_container("web", 1000.0, app="web", path="/not/a/label")
    site.add_container("old", 900.0, app="old")
    address = await create(service, "e1")
    answer = await join(service, "e1")
    assert answer["InterfaceName"] == {"SrcName": "dkre1", "DstPrefix": "eth"}
    assert (answer["Gateway"], answer["StaticRoutes"][0]["Destination"]) == ("169.254.1.1", "169.254.1.1/32")
    assert await site.endpoints() == {"e1": {"app": "web"}}
    assert len(site.interfaces()) == 2
    for _ in range(2):
        await ask(service, "NetworkDriver.Leave", NetworkID=NETWORK, EndpointID="e1")
        await ask(service, "NetworkDriver.DeleteEndpoint", NetworkID=NETWORK, EndpointID="e1")
        await ask(service, "IpamDriver.ReleaseAddress", PoolID="ipv4", Address=address)
    assert (await site.endpoints(), site.interfaces()) == ({}, [])
    assert sum(usage.assigned for usage in await IpamClient(site.store).usage()) == 0


async def test_an_endpoint_waits_without_policy_until_docker_tells_whose_it_is(site: Site) -> None:
    service = site.service()
    site.add_container("one", 1000.0, app="one")
    site.add_container("two", 1000.0, app="two")
    async with running(service.run()):
        await create(service, "e1")
        await join(service, "e1")
        assert await site.endpoints() == {}
        assert len(site.interfaces()) == 2
        site.tell(two="e1")
        await eventually(lambda: has(site, {"e1": {"app": "two"}}))


async def test_a_container_that_docker_starts_before_it_answers_anybody(site: Site) -> None:
    service = site.service()
    service.networks.remember(site.docker.known[NETWORK])
    site.docker.away = True
    async with running(service.run()):
        await create(service, "e1")
        await join(service, "e1")
        assert await site.endpoints() == {}
        site.add_container("web", 1000.0, app="web")
        site.tell(web="e1")
        site.docker.away = False
        await eventually(lambda: has(site, {"e1": {"app": "web"}}))


async def test_what_was_guessed_is_corrected_by_docker(site: Site) -> None:
    service = site.service()
    site.add_container("one", 1000.0, app="one")
    async with running(service.run()):
        await create(service, "e1")
        await join(service, "e1")
        assert await site.endpoints() == {"e1": {"app": "one"}}
        site.add_container("two", 0.0, app="two")
        site.tell(two="e1")
        await eventually(lambda: has(site, {"e1": {"app": "two"}}))


async def has(site: Site, expected: dict[str, dict[str, str]]) -> bool:
    return await site.endpoints() == expected


async def test_a_second_interface_gets_no_routes_from_docker(site: Site) -> None:
    service = site.service()
    site.add_container("web", 1000.0)
    for endpoint in ("e1", "e2"):
        await create(service, endpoint)
    assert "Gateway" in await join(service, "e1")
    assert "Gateway" not in await join(service, "e2")


async def test_what_docker_does_not_list_is_removed_once_it_is_old_enough(site: Site) -> None:
    service = site.service()
    site.add_container("web", 1000.0)
    await create(service, "e1")
    await join(service, "e1")
    site.tell()
    after = site.service()  # of an agent that was started anew
    site.clock_s = 4e9
    async with running(after.run()):
        await eventually(lambda: gone(site))


async def gone(site: Site) -> bool:
    assigned = sum(usage.assigned for usage in await IpamClient(site.store).usage())
    return not await site.endpoints() and not site.interfaces() and not assigned


async def test_what_docker_lists_stays(site: Site) -> None:
    service = site.service()
    site.add_container("web", 1000.0)
    address = await create(service, "e1")
    await join(service, "e1")
    site.docker.known[NETWORK] = DockerNetwork(
        id=NETWORK, name="shop", driver="tabinet", containers={"web" * 4: Endpoint(id="e1", address=address)}
    )
    site.clock_s = 4e9
    assert await site.service()._collect()
    assert list(await site.endpoints()) == ["e1"]
    assert sum(usage.assigned for usage in await IpamClient(site.store).usage()) == 1


async def test_calls_that_make_no_sense(site: Site) -> None:
    service = site.service()
    generic = {"com.docker.network.generic": {"tabinet.label": "a=b"}}
    assert "did you mean tabinet.labels" in await refused(service, "NetworkDriver.CreateNetwork", NetworkID=NETWORK, Options=generic)
    assert "policy" in await refused(service, "NetworkDriver.CreateNetwork", Options={"com.docker.network.internal": True})
    assert "four (10.0.0.0/16)" in await refused(service, "IpamDriver.RequestPool", Pool="10.9.0.0/16")
    assert "start the container again" in await refused(service, "NetworkDriver.Join", EndpointID="unknown")
    assert "no call" in await refused(service, "VolumeDriver.Create")
    assert not (await service.answer("NetworkDriver.Join", b"[]"))[0]
    for name in ("-", "a/b", "ä"):
        assert "letters and digits" in await refused(service, "NetworkDriver.DeleteEndpoint", EndpointID=name)
    assert "got none" in await refused(service, "NetworkDriver.CreateEndpoint", NetworkID=NETWORK)
    for method in ("Leave", "DeleteEndpoint"):  # of an endpoint that could not be made
        assert await ask(service, f"NetworkDriver.{method}", NetworkID=NETWORK, EndpointID="") == {}
    site.docker.away = True
    await create(service, "e1")
    assert "does not answer" in await refused(service, "NetworkDriver.Join", NetworkID=NETWORK, EndpointID="e1", SandboxKey=SANDBOX)
    assert (await site.endpoints(), site.interfaces()) == ({}, [])


async def test_a_gateway_that_an_operator_names_is_nobodys_address(site: Site) -> None:
    service = site.service()
    options = {"RequestAddressType": "com.docker.network.gateway"}
    answer = await ask(service, "IpamDriver.RequestAddress", PoolID="ipv4", Address="10.0.0.1", Options=options)
    assert answer["Address"] == "10.0.0.1/32"
    assert sum(usage.assigned for usage in await IpamClient(site.store).usage()) == 0
    await ask(service, "IpamDriver.ReleaseAddress", PoolID="ipv4", Address="10.0.0.1")


async def test_the_socket_speaks_http_and_goes_at_the_end(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "tabinet.sock"
    async with serve_docker(site.service(), path):
        for request, status in ((b"POST /Plugin.Activate HTTP/1.1\r\n\r\n", b"200"), (b"GET / HTTP/1.1\r\n\r\n", b"400")):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(request)
            answer = await reader.read(-1)
            writer.close()
            assert answer.split(b" ")[1] == status
        with pytest.raises(AttachError, match="Docker says to GET"):
            await DockerSocket(str(path)).network("x")
    assert not path.exists()
    with pytest.raises(AttachError, match="does not answer"):
        await DockerSocket(str(path)).network("x")


def test_names_of_profiles() -> None:
    assert profile_name("shop") == "shop"
    assert profile_name("Shop_default") != profile_name("shop-default")
    assert profile_name("Shop_default").startswith("shop-default-")


def test_labels_that_policy_cannot_have_are_left_out() -> None:
    labels = {"app": "web", "com.docker.compose.project": "shop", "config": "/a,/b", "qos.projectcalico.org/dscp": "AF11"}
    assert split_labels(labels) == ({"app": "web", "com.docker.compose.project": "shop"}, {"qos.projectcalico.org/dscp": "AF11"})


def test_options_and_pools() -> None:
    options = parse_options({"tabinet.labels": "a=b,c=d", "tabinet.profiles": "", "com.docker.network.driver.mtu": "1400"})
    assert (options.labels, options.profiles, options.mtu, options.interface) == ({"a": "b", "c": "d"}, (), 1400, "eth")
    known = {"four": parse_prefix("10.0.0.0/16"), "six": parse_prefix("fd00::/64")}
    assert select_pools("", {"ipv4_pools": "four"}, False, known) == (known["four"],)
    assert select_pools("fd00::/64", {}, True, known) == (known["six"],)
    with pytest.raises(InputError, match="an IPv4 pool"):
        select_pools("", {"ipv4_pools": "six"}, False, known)
    with pytest.raises(InputError, match="ipv4_pools or ipv6_pools"):
        select_pools("", {"pool": "four"}, False, known)
