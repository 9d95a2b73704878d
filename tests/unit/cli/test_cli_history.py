"""``tabinet history``, and the clerk: who changed what, and changes that nobody confirmed although whoever made them is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from cli_world import Tabinet, resource
from test_cli_explain_flow import DOCUMENTS, policy

from tabinet.cli import pending
from tabinet.cli.clerk import serve
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, PutOp
from tabinet.store.client import ResourceClient, key_of
from tabinet.store.recording import RecordingStore
from tabinet.store.sqlite import open_sqlite

WIDE = policy("db", "app == 'db'", [{"action": "Allow"}])
TIER = resource("Tier", "shop", order=5)
DEADLINE_S = 60.0


def test_what_commands_do_is_in_it(tabinet: Tabinet) -> None:
    assert tabinet("apply", "-f", "-", given=TIER).code == 0
    assert tabinet("patch", "tier", "shop", "-p", '{"spec": {"order": 7}}').code == 0
    assert tabinet("label", "tier", "shop", "a=b").code == 0
    assert tabinet("replace", "-f", "-", given=TIER).code == 0
    assert tabinet("delete", "tier", "shop").code == 0
    assert tabinet("create", "-f", "-", given=TIER).code == 0
    found = tabinet("history", "--json").json
    assert [(entry["program"], entry["changes"][0]["did"]) for entry in found["entries"]] == [
        ("tabinet apply", "created"),
        ("tabinet patch", "changed"),
        ("tabinet label", "changed"),
        ("tabinet replace", "changed"),
        ("tabinet delete", "deleted"),
        ("tabinet create", "created"),
    ]
    assert found["gaps"] == []
    patched = found["entries"][1]["changes"][0]
    assert (patched["before"]["spec"]["order"], patched["after"]["spec"]["order"]) == (5, 7)
    assert all("@" in entry["who"] for entry in found["entries"])


def test_text_of_one_resource(tabinet: Tabinet) -> None:
    assert tabinet("apply", "-f", "-", given=[TIER, resource("Tier", "other", order=6)]).code == 0
    assert tabinet("patch", "tier", "shop", "-p", '{"spec": {"order": 7}}').code == 0
    said = tabinet("history", "tier", "shop", "--diff")
    assert said.code == 0
    assert "|    order: 5" not in said.out
    assert "| -  order: 5" in said.out
    assert "| +  order: 7" in said.out
    assert "other" not in said.out
    assert "no clerk has run yet" in said.err
    assert tabinet("history", "tier").code == 2
    assert tabinet("history", "--since", "never").code == 2
    assert tabinet("history", "--since", "1h", "--last", "1").out.count("tabinet ") == 1


def test_what_others_did_shows_as_a_gap(tabinet: Tabinet, tmp_path: Path) -> None:
    assert tabinet("apply", "-f", "-", given=TIER).code == 0

    async def by_others() -> None:
        from tabinet.store.client import ResourceClient

        store = await open_sqlite(str(tmp_path / "store.db"))
        await ResourceClient(store).apply({**TIER, "spec": {"order": 8}})
        await store.close()

    asyncio.run(by_others())
    assert "GAP    Tier/shop is not as revision" in tabinet("history").out
    assert tabinet("label", "tier", "shop", "a=b").code == 0
    said = tabinet("history")
    assert "GAP    Tier/shop was changed before" in said.out
    assert len(tabinet("history", "--json").json["gaps"]) == 1


def test_limits(tabinet: Tabinet) -> None:
    for number in range(4):
        assert tabinet("apply", "-f", "-", given=resource("Tier", "shop", order=number)).code == 0
    assert "2 dropped now" in tabinet("history", "--keep-entries", "2").out
    said = tabinet("history")
    assert said.out.count("tabinet apply") == 2
    assert "were dropped" in said.err


@pytest.fixture
def guarded(tabinet: Tabinet) -> Tabinet:
    """Nobody reaches the database by anything but TCP."""
    invariant = {
        "apiVersion": "tabinet/v1",
        "kind": "Invariant",
        "metadata": {"name": "closed"},
        "spec": {"never": {"from": {"selector": "all()"}, "to": {"nets": ["10.65.0.3/32"]}, "except": [{"protocol": "TCP"}]}},
    }
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    assert tabinet("invariant", "set", "-f", "-", given=invariant).code == 0
    return tabinet


def test_invariants_and_what_breaks_them_are_in_it(guarded: Tabinet) -> None:
    assert guarded("apply", "-f", "-", "--force", given=WIDE).code == 0
    entries = guarded("history", "--json").json["entries"]
    assert [entry["overridden"] for entry in entries] == [[], [], ["closed"]]
    assert entries[1]["changes"][0]["resource"] == "Invariant/closed"
    assert "FORCED although this broke: closed" in guarded("history").out
    assert "Invariant/closed" in guarded("history", "invariant", "closed").out


@pytest.mark.parametrize(
    "command",
    [
        ("patch", "np", "db", "-n", "shop", "-p", '{"spec": {"ingress": [{"action": "Allow"}]}}'),
        ("label", "wep", "h2-lab-db1-eth0", "-n", "shop", "app=free", "--overwrite"),
    ],
)
def test_patch_and_label_are_asked_too(guarded: Tabinet, command: tuple[str, ...]) -> None:
    said = guarded(*command)
    assert (said.code, "invariant closed" in said.err, "nothing was changed" in said.err) == (2, True, True)
    assert len(guarded("history", "--json").json["entries"]) == 2
    assert guarded(*command, "--force").code == 0
    assert guarded("history", "--json").json["entries"][-1]["overridden"] == ["closed"]
    assert command[0] in guarded("invariant", "overrides").out


# --- confirm without whoever made the change --------------------------------------------------------------------------


def waiting_process(wanted: str) -> int:
    """The process that waits for the deadline of this change; the change's id is in its arguments."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                arguments = (directory / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted.encode() in arguments:
                return int(directory.name)
    return 0


async def read_pending(database: str) -> pending.Pending | None:
    store = await open_sqlite(database)
    try:
        found = await pending.read(store)
        return found[0] if found else None
    finally:
        await store.close()


async def expire(database: str) -> None:
    """The deadline of the change that waits is over."""
    store = await open_sqlite(database)
    found = await pending.read(store)
    assert found is not None
    record = msgspec.json.encode(msgspec.structs.replace(found[0], deadline=1.0))
    assert (await store.txn([Compare(pending.PENDING, found[1])], [PutOp(pending.PENDING, record)])).succeeded
    await store.close()


async def be_the_clerk_until_nothing_waits(database: str) -> None:
    store = await open_sqlite(database)
    task = asyncio.create_task(serve(store, "test"))
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if await pending.read(store) is None:
                    return
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def killed_while_it_applied(database: str, *, by_others: bool) -> None:
    """As apply --confirm does it, up to the moment before it knows what it wrote; then somebody else comes, or nobody."""
    store = RecordingStore(await open_sqlite(database), "me", "tabinet apply")
    key = key_of(WIDE)
    await pending.begin(store, [path_of(key), path_of(ResourceKey("Tier", "never-made"))], 3600)
    await ResourceClient(store).apply(WIDE)
    if by_others:
        await ResourceClient(store.store).change(key, lambda document: {**document, "spec": {**document["spec"], "order": 7}})
    await store.close()


@pytest.mark.parametrize("by_others", [False, True])
def test_a_change_that_was_killed_halfway_is_told_from_others(tabinet: Tabinet, tmp_path: Path, by_others: bool) -> None:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    before = tabinet("get", "np", "db", "-n", "shop", "-o", "json").json["spec"]
    asyncio.run(killed_while_it_applied(str(tmp_path / "store.db"), by_others=by_others))
    said = tabinet("confirm", "--roll-back")
    assert (said.code, "left alone" in said.out) == (0, by_others)
    assert (tabinet("get", "np", "db", "-n", "shop", "-o", "json").json["spec"] == before) is not by_others


@pytest.mark.parametrize("dies", ["at once", "when it has applied"])
def test_the_clerk_takes_back_what_a_dead_machine_cannot(tabinet: Tabinet, tmp_path: Path, dies: str) -> None:
    database = str(tmp_path / "store.db")
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    before = tabinet("get", "np", "db", "-n", "shop", "-o", "json").json["spec"]
    file = tmp_path / "wide.json"
    file.write_bytes(msgspec.json.encode(WIDE))
    command = [sys.executable, "-m", "tabinet.cli.main", "apply", "-f", str(file), "--confirm", "1h"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as applying:
        assert applying.stderr is not None
        assert "unless you say" in applying.stderr.readline()
        if dies == "at once":
            applying.kill()
        applying.wait(DEADLINE_S)
    waits = asyncio.run(read_pending(database))
    assert waits is not None
    deadline = time.monotonic() + DEADLINE_S
    while (waiting := waiting_process(waits.id)) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(waiting, signal.SIGKILL)
    changed = tabinet("get", "np", "db", "-n", "shop", "-o", "json").json["spec"] != before
    assert changed or dies == "at once"
    asyncio.run(expire(database))
    asyncio.run(be_the_clerk_until_nothing_waits(database))
    assert tabinet("get", "np", "db", "-n", "shop", "-o", "json").json["spec"] == before
    if changed:
        last = tabinet("history", "--json").json["entries"][-1]
        assert (last["who"], last["program"]) == ("clerk@test", f"tabinet {pending.UNCONFIRMED}")
