"""``tabinet explain --at``, ``diff`` and ``restore``: the fabric as it was, what has changed since, and back again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cli_world import Tabinet, resource
from test_cli_explain_flow import DOCUMENTS, policy

from tabinet.store.client import ResourceClient
from tabinet.store.sqlite import open_sqlite

WIDE = policy("db", "app == 'db'", [{"action": "Allow"}])
MORE = policy("more", "app == 'db'", [{"action": "Allow", "protocol": "UDP"}], order=1)
ASKED = ("explain", "web1", "db1", "-p", "udp", "--port", "53")


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    return tabinet


def revision(tabinet: Tabinet) -> str:
    return str(tabinet("history", "--json").json["entries"][-1]["revision"])


def policies(tabinet: Tabinet) -> object:
    return [(each["metadata"]["name"], each["spec"]) for each in tabinet("get", "np", "-A", "-o", "json").json["items"]]


def test_explain_as_it_was(filled: Tabinet) -> None:
    start = revision(filled)
    assert filled("apply", "-f", "-", given=WIDE).code == 0
    assert (filled(*ASKED).code, filled(*ASKED, "--at", start).code) == (0, 1)
    assert f"as it was at revision {start}" in filled(*ASKED, "--at", start).err
    assert filled(*ASKED, "--at", "never").code == 2
    assert filled(*ASKED, "--at", start, "--trace").code == 2


def test_diff_in_flows(filled: Tabinet) -> None:
    start = revision(filled)
    assert filled("apply", "-f", "-", given=[WIDE, MORE]).code == 0
    middle = revision(filled)
    assert filled("delete", "np/shop/more").code == 0
    said = filled("diff", start, middle)
    assert said.code == 11
    assert "NetworkPolicy/shop/db changed" in said.out
    assert "NetworkPolicy/shop/more created" in said.out
    assert "OPENS" in said.out
    assert "CLOSES" not in said.out
    assert filled("diff", middle, start).code == 10
    assert (filled("diff", middle).code, filled("diff", middle).out.count("deleted")) == (0, 1)
    found = filled("diff", start, "--json").json
    assert found["resources"] == [{"resource": "NetworkPolicy/shop/db", "did": "changed"}]
    assert found["flows"]["opened"]


def test_restore_everything_and_back(filled: Tabinet) -> None:
    start, before = revision(filled), policies(filled)
    assert filled("apply", "-f", "-", given=[WIDE, MORE]).code == 0
    assert filled("delete", "np/shop/web").code == 0
    middle, changed = revision(filled), policies(filled)
    said = filled("restore", start)
    assert (said.code, sorted(said.out.splitlines())) == (
        0,
        ["NetworkPolicy/shop/db restored", "NetworkPolicy/shop/more deleted", "NetworkPolicy/shop/web restored"],
    )
    assert policies(filled) == before
    assert filled("restore", middle).code == 0
    assert policies(filled) == changed
    assert filled("restore", middle).out == ""
    assert filled("history", "--json").json["entries"][-1]["program"] == f"tabinet restore {middle}"


def test_restore_what_is_named(filled: Tabinet) -> None:
    start = revision(filled)
    assert filled("apply", "-f", "-", given=[WIDE, MORE]).code == 0
    assert filled("restore", start, "np/shop/more").out == "NetworkPolicy/shop/more deleted\n"
    assert filled("restore", start, "np").code == 2
    assert filled("restore", "1d", "np/shop/db").code == 0
    assert "db" not in [name for name, _ in policies(filled)]


def test_restore_shows_its_plan_first(filled: Tabinet) -> None:
    start = revision(filled)
    assert filled("apply", "-f", "-", given=WIDE).code == 0
    before = policies(filled)
    assert filled("restore", start, "--plan").code == 2
    assert policies(filled) == before
    said = filled("restore", start, "--plan", "--yes")
    assert (said.code, "CLOSES" in said.err) == (0, True)


def test_restore_asks_the_invariants(filled: Tabinet) -> None:
    start = revision(filled)
    closed = {"never": {"from": {"selector": "all()"}, "to": {"nets": ["10.65.0.3/32"]}, "except": [{"protocol": "TCP"}]}}
    assert filled("apply", "-f", "-", given=WIDE).code == 0
    middle = revision(filled)
    assert filled("restore", start).code == 0
    invariant = {"apiVersion": "tabinet/v1", "kind": "Invariant", "metadata": {"name": "closed"}, "spec": closed}
    assert filled("invariant", "set", "-f", "-", given=invariant).code == 0
    said = filled("restore", middle, "np/shop/db")
    assert (said.code, "invariant closed" in said.err) == (2, True)
    assert filled("restore", middle, "np/shop/db", "--force").code == 0
    assert filled("history", "--json").json["entries"][-1]["overridden"] == ["closed"]
    assert filled("restore", middle, "Invariant/closed").out == "Invariant/closed deleted\n"


def test_restore_refuses_what_other_commands_refuse(filled: Tabinet) -> None:
    start = revision(filled)
    assert filled("apply", "-f", "-", given=[resource("IPPool", "new", cidr="10.66.0.0/16"), resource("Tier", "extra", order=3)]).code == 0
    assert filled("apply", "-f", "-", given=policy("extra.p", "all()", [], tier="extra")).code == 0
    said = filled("restore", start)
    assert (said.code, "pools are not deleted by restore" in said.err) == (2, True)
    said = filled("restore", start, "tier/extra")
    assert (said.code, "would go while NetworkPolicy/shop/extra.p is in it" in said.err) == (2, True)
    assert sorted(filled("restore", start, "tier/extra", "np/shop/extra.p").out.splitlines()) == [
        "NetworkPolicy/shop/extra.p deleted",
        "Tier/extra deleted",
    ]


def test_what_is_not_known_is_left_alone(filled: Tabinet, tmp_path: Path) -> None:
    start = revision(filled)

    async def by_others() -> None:
        store = await open_sqlite(str(tmp_path / "store.db"))
        await ResourceClient(store).apply(WIDE)
        await store.close()

    asyncio.run(by_others())
    said = filled("restore", start, "np/shop/db")
    assert (said.code, "is not known" in said.err) == (2, True)
    said = filled("restore", start)
    assert (said.code, said.out, "left alone" in said.err) == (0, "", True)
    assert "taken as now: NetworkPolicy/shop/db" in filled("diff", start).err
