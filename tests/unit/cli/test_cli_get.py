"""get: what is shown, in which form, and what words mean."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from cli_world import Tabinet, resource

from tabinet.store.api import PutOp
from tabinet.store.sqlite import open_sqlite

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"

RULE = {"action": "Allow"}
DOCUMENTS = [
    resource("Tier", "shop", order=10, defaultAction="Pass"),
    resource("GlobalNetworkPolicy", "shop.allow", tier="shop", order=2.5, selector="app == 'web'", types=["Ingress"], ingress=[RULE, RULE]),
    resource("NetworkPolicy", "deny", "red", selector="all()", types=["Ingress", "Egress"], labels={"team": "r"}),
    resource("NetworkPolicy", "deny", "blue", selector="all()", types=["Egress"], egress=[RULE], labels={"team": "b", "env": "x"}),
    resource("IPPool", "main", cidr="10.65.0.0/16", natOutgoing=True, nodeSelector="rack == 'a'"),
    resource("Node", "host1", bgp={"asNumber": 64512, "ipv4Address": "10.0.0.1/24"}, labels={"rack": "a"}),
    resource("BGPPeer", "tor", peerIP="10.0.0.254", asNumber=65000),
    resource("GlobalNetworkSet", "internet", nets=["0.0.0.0/0", "::/0"]),
    resource("Profile", "open", ingress=[RULE], egress=[RULE], labelsToApply={"a": "b"}),
    resource(
        "WorkloadEndpoint",
        "host1-lab-vm1-eth0",
        "red",
        orchestrator="lab",
        workload="vm1",
        node="host1",
        endpoint="eth0",
        ipNetworks=["10.65.0.7/32"],
        interfaceName="cali0",
        profiles=["open"],
        ipNATs=[{"internalIP": "10.65.0.7", "externalIP": "192.0.2.7"}],
    ),
    resource("BGPConfiguration", "default", asNumber=64600, nodeToNodeMeshEnabled=False),
]


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    return tabinet


@pytest.mark.parametrize("form", ["table", "wide"])
def test_tables(filled: Tabinet, form: str, request: pytest.FixtureRequest) -> None:
    said = filled("get", "all", "-A", "-o", form)
    assert (said.code, said.err) == (0, "")
    path = GOLDEN / f"get-all-{form}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(said.out)
    assert said.out == path.read_text()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("np -A", "networkpolicy/deny networkpolicy/deny"),
        ("np -n red", "networkpolicy/deny"),
        ("np", ""),
        ("NetworkPolicies -n blue", "networkpolicy/deny"),
        ("np,gnp -n red", "networkpolicy/deny globalnetworkpolicy/shop.allow"),
        ("gnp,tier,gnp", "globalnetworkpolicy/shop.allow tier/shop"),
        ("np/red/deny tier/shop", "networkpolicy/deny tier/shop"),
        ("np/deny -n red", "networkpolicy/deny"),
        ("nodes -l rack=a", "node/host1"),
        ("nodes -l rack!=a", ""),
        ("np -A -l team=b,env==x", "networkpolicy/deny"),
        ("np -A -l has(env)||team=='q'", "networkpolicy/deny"),
    ],
)
def test_words(filled: Tabinet, words: str, names: str) -> None:
    said = filled("get", *words.split(), "-o", "name")
    assert (said.code, said.out.split()) == (0, names.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nodez", "did you mean Node?"),
        ("np,nodez", "did you mean Node?"),
        (",", "there is no kind ','"),
        ("tier,node x", "names need one kind"),
        ("np x -A", "-n NAMESPACE instead of -A"),
        ("tier/shop x", "KIND/NAME KIND/NAME"),
        ("tier -o nice", "custom-columns=HEADING:path"),
        ("tier -o custom-columns=NOPE", "Tier has no column 'NOPE'; there are NAME, "),
        ("tier -l a=='", "is not a selector"),
        ("", "say either a KIND or -f FILE"),
        ("tier --lab a --config b", "exclude each other"),
    ],
)
def test_wrong_usage(filled: Tabinet, words: str, message: str) -> None:
    said = filled("get", *words.split())
    assert said.code == 2
    assert message in said.err
    assert said.out == ""


def test_custom_columns(filled: Tabinet) -> None:
    columns = "NAME,AS:spec.bgp.asNumber,RACK:.metadata.labels.rack,NONE:{.spec.x[0].y}"
    assert filled("get", "node", "-o", f"custom-columns={columns}").out == "NAME   AS     RACK  NONE\nhost1  64512  a     <none>\n"
    assert filled("get", "pool", "-o", "custom-columns=cidr,IPIPMODE").out == "CIDR          IPIPMODE\n10.65.0.0/16  Never\n"
    first = filled("get", "gns", "-o", "custom-columns=FIRST:spec.nets[0]")
    assert first.out == "FIRST\n0.0.0.0/0\n"


def test_documents(filled: Tabinet) -> None:
    one = yaml.safe_load(filled("get", "tier", "shop", "-o", "yaml").out)
    assert one["kind"] == "Tier"
    assert set(one["metadata"]) == {"name", "uid", "creationTimestamp", "resourceVersion"}
    many = filled("get", "tiers", "--json").json
    assert (many["kind"], [item["metadata"]["name"] for item in many["items"]]) == ("TierList", ["shop"])
    assert filled("get", "tier,gnp", "-o", "json").json["kind"] == "List"
    everything = filled("get", "all", "-A", "-o", "yaml").out
    assert filled("apply", "-f", "-", given=everything).out.count("unchanged") == len(DOCUMENTS)
    by_file = filled("get", "-f", "-", "-o", "name", given=DOCUMENTS[:2])
    assert by_file.out.split() == ["tier/shop", "globalnetworkpolicy/shop.allow"]


def test_missing_names_are_told_beside_those_that_exist(filled: Tabinet) -> None:
    said = filled("get", "tier", "shop", "nope")
    assert said.code == 1
    assert said.out.startswith("NAME")
    assert said.err == "error: Tier/nope does not exist\n"


def test_what_cannot_be_read_is_told_and_the_rest_is_shown(filled: Tabinet, tmp_path: Path) -> None:
    break_tier(tmp_path / "store.db")
    said = filled("get", "tiers,nodes", "-o", "name")
    assert (said.code, said.out) == (1, "node/host1\n")
    assert "/tiers/shop" in said.err and said.err.count("\n") == 1


def break_tier(path: Path) -> None:
    async def write() -> None:
        store = await open_sqlite(path)
        await store.txn([], [PutOp("/calico/resources/v3/projectcalico.org/tiers/shop", b"{")])
        await store.close()

    asyncio.run(write())


def test_control_characters_never_reach_the_terminal(tabinet: Tabinet) -> None:
    document = resource("GlobalNetworkSet", "a")
    document["metadata"]["annotations"] = {"note": "x"}
    tabinet("apply", "-f", "-", given=document)
    patch = '[{"op": "add", "path": "/metadata/annotations/note", "value": "\\u001b[31mred\\u0007"}]'
    assert tabinet("patch", "gns", "a", "-t", "json", "-p", patch).code == 0
    said = tabinet("get", "gns", "-o", "custom-columns=NOTE:metadata.annotations.note")
    assert said.out == "NOTE\n\\x1b[31mred\\x07\n"
