"""``tabinet node``: what it shows of this host and of others, joining, drain, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from cli_world import Tabinet, resource

from tabinet.agent.http import Response, serve
from tabinet.bgp.fake import FakeBird, FakeSession
from tabinet.cli.node_drain import alone
from tabinet.cli.node_show import _age
from tabinet.model.report import HostReport, SessionReport, report_path
from tabinet.model.status import HostStatus, HostStatusKey, status_path_of
from tabinet.store.api import Datastore, PutOp
from tabinet.store.sqlite import open_sqlite

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
T = TypeVar("T")

UP = SessionReport(
    name="tb_peer_mesh_host2_ipv4",
    peer="mesh_host2_ipv4",
    state="up",
    since="2026-11-25 13:52:18.123",
    imported=4,
    exported=2,
    address="10.0.0.2",
    peer_as=64512,
    origin="mesh",
    bgp_state="Established",
    bfd="Up",
    bfd_interval_ms=250,
    bfd_timeout_ms=750,
)
DOWN = SessionReport(
    name="tb_peer_rack",
    peer="peer_rack",
    state="down",
    reason="the peer has another AS number than it is configured with here (BGP Error: Bad peer AS)",
    since="2026-11-25 13:52:19.5",
    address="fd00::9",
    peer_as=65001,
    origin="node",
    resource="BGPPeer/rack",
    bgp_state="Idle",
    last_error="BGP Error: Bad peer AS",
)
LEFT_OUT = SessionReport(
    name="tb_peer_up_eth0", peer="peer_up_eth0", state="down", reason="no router was heard on eth0 yet", origin="global", bgp_state="Down"
)


def report(host: str, *sessions: SessionReport, **more: Any) -> HostReport:
    base = HostReport(
        host=host,
        version="0.1.0",
        started="2026-11-25T13:52:18Z",
        revision=40,
        in_sync=True,
        endpoints_ready=3,
        endpoints_waiting=0,
        sessions=sessions,
        bird_version="2.0.12",
        router_id="10.0.0.1",
        bird_started="2026-11-25 13:52:16.000",
        bird_configured="2026-11-25 13:52:18.500",
        as_number=64512,
    )
    return msgspec.structs.replace(base, **more)


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


WithStore = Callable[[Callable[[Datastore], Awaitable[object]]], object]


def put_reports(with_store: WithStore, *reports: HostReport, seen: str = "2020-01-01T00:00:00Z") -> None:
    operations = [PutOp(report_path(each.host), msgspec.json.encode(each)) for each in reports]
    signs = [PutOp(status_path_of(HostStatusKey(each.host, last_reported=True)), msgspec.json.encode(HostStatus(seen))) for each in reports]
    with_store(lambda store: store.txn((), [*operations, *signs]))


@pytest.fixture
def cluster(tabinet: Tabinet, with_store: WithStore) -> Tabinet:
    """One host with troubles, one that is well and drained, one that is silent."""
    nodes = [resource("Node", f"host{n}", bgp={"ipv4Address": f"10.0.0.{n}/24"}) for n in (1, 2, 3)]
    nodes[1]["metadata"]["annotations"] = {"tabinet.io/drain": "true", "other": "stays"}
    assert tabinet("apply", "-f", "-", given=nodes).code == 0
    put_reports(with_store, report("host1", UP, DOWN, LEFT_OUT, revision=33), report("host2", UP, drain="true"))
    return tabinet


def hold(text: str, name: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"node-{name}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(("name", "words", "code"), [("status-all", "--all", 1), ("status-well", "host2", 0)])
def test_status_of_hosts_from_the_store(cluster: Tabinet, name: str, words: str, code: int, request: pytest.FixtureRequest) -> None:
    said = cluster("node", "status", *words.split())
    assert (said.code, said.err) == (code, "")
    hold(said.out, name, request)


def test_status_and_list_as_json(cluster: Tabinet) -> None:
    said = cluster("node", "status", "host1", "-o", "json")
    (node,) = said.json["nodes"]
    assert (said.code, node["name"], node["healthy"], node["source"]) == (1, "host1", False, "store")
    assert node["report"]["sessions"][1]["reason"] == DOWN.reason
    assert node["report"]["sessions"][0]["bfd_interval_ms"] == 250
    listed = cluster("node", "list", "--json")
    assert listed.code == 1
    assert [(each["name"], each["drain"], each["behind"]) for each in listed.json["nodes"]] == [
        ("host1", "", 7),
        ("host2", "true", 0),
        ("host3", "", None),
    ]


def test_list(cluster: Tabinet, request: pytest.FixtureRequest) -> None:
    said = cluster("node", "list")
    assert said.code == 1
    days = _age("2020-01-01T00:00:00Z", datetime.now(UTC))
    hold("".join(" ".join(line.split()) + "\n" for line in said.out.splitlines()).replace(days, "DAYS"), "list", request)


def test_unknown_hosts_and_wrong_words(cluster: Tabinet) -> None:
    said = cluster("node", "status", "host9")
    assert said.code == 1
    assert "Node/host9 does not exist; there are host1, host2, host3" in said.err
    assert cluster("node", "status", "host1", "--all").code == 2
    assert cluster("node", "drain", "host9").code == 1
    assert cluster("node", "drain", "host1", "--timeout", "soon").code == 2


def test_hosts_that_are_well_are_success(tabinet: Tabinet, with_store: WithStore) -> None:
    tabinet("apply", "-f", "-", given=[resource("Node", "host2", bgp={"ipv4Address": "10.0.0.2/24"})])
    put_reports(with_store, report("host2", UP))
    assert tabinet("node", "list").code == 0
    assert tabinet("node", "status", "--all").code == 0


@pytest.mark.parametrize(("seconds", "words"), [(-5, "0s ago"), (59, "59s ago"), (150, "2m ago"), (7300, "2h ago"), (400_000, "4d ago")])
def test_ages(seconds: int, words: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert _age((now - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), now) == words
    assert _age("", now) == _age("yesterday", now) == "never"


# --- this host ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, tabinet: Tabinet, monkeypatch: pytest.MonkeyPatch) -> Tabinet:
    """The command line on a host whose agent and BIRD would be in this directory."""
    config = tmp_path / "tabinet.toml"
    config.write_text(
        f'[agent]\nhost = "host1"\nhttp_address = "unix:{tmp_path}/http.sock"\n[bird]\nsocket = "{tmp_path}/bird.ctl"\n'
        f'config = "{tmp_path}/bird.conf"\n[store]\nkind = "sqlite"\npath = "{tmp_path}/store.db"\n'
    )
    monkeypatch.setenv("TABINET_CONFIG", str(config))
    return tabinet


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[dict[str, Response]]:
    """An agent's HTTP face that answers what is put in here."""
    given: dict[str, Response] = {}
    ready = threading.Event()
    inner: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def show_report() -> Response:
        return given["/report"]

    async def run() -> None:
        async with await serve(f"unix:{tmp_path}/http.sock", {"/report": show_report}):
            stopped = asyncio.Event()
            inner.append((asyncio.get_running_loop(), stopped))
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10)
    yield given
    ((loop, stopped),) = inner
    loop.call_soon_threadsafe(stopped.set)
    thread.join()


def test_this_host_is_asked_through_its_agent(here: Tabinet, answers: dict[str, Response]) -> None:
    answers["/report"] = Response(200, "application/json", msgspec.json.encode(report("host1", UP)))
    said = here("node", "status")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Node host1\nAgent: 0.1.0, runs since 2026-11-25T13:52:18Z, follows the store\n")
    answers["/report"] = Response(200, "application/json", msgspec.json.encode(report("host1", UP, DOWN, kernel="no room")))
    said = here("node", "status", "-o", "json")
    assert said.code == 1
    assert said.json["nodes"][0]["troubles"] == ["kernel: no room", f"BGP to peer_rack (BGPPeer/rack) is down: {DOWN.reason}"]


def test_without_an_agent_bird_is_asked(here: Tabinet, tmp_path: Path) -> None:
    bird = FakeBird(tmp_path / "bird.conf", tmp_path / "bird.ctl")
    text = (
        "router id 10.0.0.1;\nprotocol bgp 'tb_peer_h2' {\n  description \"h2\";\n  neighbor 10.0.0.2 port 179 as 64512;\n  ipv4 { };\n}\n"
    )
    bird.config.write_text(text)
    bird.sessions["tb_peer_h2"] = FakeSession(last_error="Socket: Connection refused")
    bird.start()
    try:
        said = here("node", "status")
        assert said.code == 1
        assert "Agent: does not answer; this is what BIRD says\nBIRD: 2.0.12, router ID 10.0.0.1" in said.out
        assert "nothing listens on the peer's BGP port (Socket: Connection refused)" in said.out
        assert "the agent does not answer at unix:" in said.out
    finally:
        bird.stop()


def test_a_machine_without_both_is_told_so(here: Tabinet) -> None:
    said = here("node", "status")
    assert said.code == 3
    assert "Is this a host of the fabric?" in said.err


def test_an_agent_that_waits_is_not_taken_for_one_that_works(here: Tabinet, answers: dict[str, Response]) -> None:
    answers["/report"] = Response(503, "application/json", b'{"waiting":"the store is away"}')
    said = here("node", "status")
    assert said.code == 3
    assert "the store is away" in said.err


# --- joining --------------------------------------------------------------------------------------------------------------


def test_init_writes_the_node_and_keeps_what_else_it_says(here: Tabinet) -> None:
    said = here("node", "init", "--ip", "192.0.2.7/24", "--ip6", "none", "--as", "65007", "--dry-run", "--json")
    assert said.json["bgp"] == {"ipv4Address": "192.0.2.7/24", "asNumber": 65007}
    assert here("get", "node", "host1").code == 1
    assert here("node", "init", "--ip", "192.0.2.7/24", "--ip6", "none", "--as", "65007").out == "Node/host1 created\n"
    here("label", "node", "host1", "rack=r1")
    assert here("node", "init", "--ip", "192.0.2.7/24", "--ip6", "none").out == "Node/host1 unchanged\n"
    assert here("node", "init", "--ip", "192.0.2.8/24", "--ip6", "none").out == "Node/host1 configured\n"
    stored = here("get", "node", "host1", "-o", "json").json
    assert (stored["spec"]["bgp"], stored["metadata"]["labels"]) == ({"ipv4Address": "192.0.2.8/24", "asNumber": 65007}, {"rack": "r1"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--ip nonsense --ip6 none", "an IPv4 address"),
        ("--ip fd00::1 --ip6 none", "an IPv4 address"),
        ("--ip none --ip6 none", "no address found"),
        ("--ip 192.0.2.7/24 --ip6 none --as 0", "asNumber"),
    ],
)
def test_init_refuses_what_makes_no_sense(here: Tabinet, words: str, said: str) -> None:
    refused = here("node", "init", *words.split())
    assert refused.code == 2
    assert said in refused.err
    assert here("get", "node", "host1").code == 1


# --- drain ----------------------------------------------------------------------------------------------------------------


def annotations(tabinet: Tabinet, name: str) -> dict[str, str]:
    found: dict[str, str] = tabinet("get", "node", name, "-o", "json").json["metadata"].get("annotations", {})
    return found


def test_drain_and_undrain_are_written_to_the_node(cluster: Tabinet) -> None:
    said = cluster("node", "drain", "host1")
    assert (said.code, said.out) == (0, "Node/host1 draining\n")
    assert annotations(cluster, "host1") == {"tabinet.io/drain": "true"}
    assert "is being drained already" in cluster("node", "drain", "host1").err
    assert cluster("node", "undrain", "host1", "--json").json == {"node": "host1", "drain": "", "left": []}
    assert annotations(cluster, "host1") == {}
    cluster("node", "undrain", "host2")
    assert annotations(cluster, "host2") == {"other": "stays"}
    assert "was not drained" in cluster("node", "undrain", "host2").err


def test_what_only_a_host_has_keeps_it_from_being_withdrawn(cluster: Tabinet, with_store: WithStore) -> None:
    spec = {"orchestrator": "cni", "node": "host2", "containerID": "c", "workload": "web", "endpoint": "eth0", "interfaceName": "calic"}
    endpoint = resource("WorkloadEndpoint", "host2-cni-c-eth0", "shop", **spec, ipNetworks=["10.65.0.1/32"])
    assert cluster("apply", "-f", "-", given=endpoint).code == 0
    said = cluster("node", "drain", "host2", "--wait", "--settle", "10ms", "--timeout", "300ms")
    assert said.code == 1
    assert "shop/host2-cni-c-eth0 (10.65.0.1/32) is only on host2" in said.err
    assert annotations(cluster, "host2")["tabinet.io/drain"] == "true"
    assert cluster("delete", "wep", "-n", "shop", "host2-cni-c-eth0").code == 0
    # The host here is only a report, which does not change by itself.
    said = cluster("node", "drain", "host2", "--wait", "--settle", "10ms", "--timeout", "300ms")
    assert annotations(cluster, "host2")["tabinet.io/drain"] == "withdrawn"
    assert "host2 has not done it yet" in said.err
    put_reports(with_store, report("host2", UP, drain="withdrawn"))
    assert cluster("node", "drain", "host2", "--wait").out == "Node/host2 withdrawn\n"
    assert json.loads(cluster("node", "list", "--json").out)["nodes"][1]["drain"] == "withdrawn"


def test_force_withdraws_all_the_same(cluster: Tabinet) -> None:
    spec = {"orchestrator": "cni", "node": "host2", "containerID": "c", "workload": "web", "endpoint": "eth0", "interfaceName": "calic"}
    cluster("apply", "-f", "-", given=resource("WorkloadEndpoint", "host2-cni-c-eth0", "shop", **spec, ipNetworks=["10.65.0.1/32"]))
    said = cluster("node", "drain", "host2", "--force", "--settle", "0s", "--timeout", "300ms")
    assert "cannot be reached now: shop/host2-cni-c-eth0" in said.err
    assert annotations(cluster, "host2")["tabinet.io/drain"] == "withdrawn"


def test_a_host_without_agent_is_not_waited_for_in_silence(cluster: Tabinet) -> None:
    said = cluster("node", "drain", "host3", "--wait", "--timeout", "100ms")
    assert said.code == 1
    assert "no agent reports for host3: nothing changes there while it is away" in said.err


def endpoint(node: str, name: str, *networks: str) -> dict[str, Any]:
    return resource("WorkloadEndpoint", name, "shop", node=node, ipNetworks=list(networks))


def test_an_address_counts_elsewhere_only_on_a_host_that_stays() -> None:
    everywhere = [endpoint("a", "w1", "10.0.0.1/32"), endpoint("b", "w2", "10.0.0.1/32"), {"metadata": {}, "spec": None}]
    assert alone("a", everywhere, {"a"}) == []
    assert alone("a", everywhere, {"a", "b"}) == ["shop/w1 (10.0.0.1/32) is only on a"]
    many = [endpoint("a", f"w{n}", f"10.0.1.{n}/32") for n in range(7)]
    assert alone("a", many, set())[-1] == "and 2 more"
