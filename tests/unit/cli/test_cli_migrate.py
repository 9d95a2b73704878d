"""datastore migrate: lock, export, import, unlock; and the form of what is exported."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from cli_world import Tabinet, resource
from hypothesis import given
from hypothesis import strategies as st

from tabinet.cli.dump import Entry, parse_dump, render_entry, render_header
from tabinet.errors import InputError
from tabinet.model.history import HISTORY
from tabinet.store.api import PutOp
from tabinet.store.sqlite import open_sqlite

BLOCK = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
STORED = {
    BLOCK: b'{"cidr":"10.0.0.0/30","affinity":null,"allocations":[null,null,null,null],"attributes":[],"deleted":false}',
    "/calico/ipam/v2/config": b'{"strict_affinity":true}',
    "/calico/dhcp/v2/no-region/subnet/x": b'{\n "network_id": "n"\n}',
    "/calico/odd": b"\xff\x00 not JSON",
    "/calico/resources/v3/projectcalico.org/futures/f": b'{"kind":"Future","big":123456789012345678901234567890}',
}
REPORTED = {
    "/calico/felix/v2/no-region/host/h/status": b"{}",
    "/calico/openstack/v2/no-region/neutron_election": b'"h:1"',
    "/tabinet/v1/host/h/report": b"{}",
}


def write(path: Path, values: dict[str, bytes]) -> None:
    async def run() -> None:
        store = await open_sqlite(path)
        await store.txn([], [PutOp(key, value) for key, value in values.items()])
        await store.close()

    asyncio.run(run())


def read(path: Path) -> dict[str, bytes]:
    async def run() -> dict[str, bytes]:
        store = await open_sqlite(path)
        found = {item.key: item.value async for page in store.list("/") for item in page.items}
        await store.close()
        return found

    return asyncio.run(run())


def test_everything_moves(tabinet: Tabinet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tabinet("apply", "-f", "-", given=[resource("Tier", f"t{number}", order=number) for number in range(150)])
    write(tmp_path / "store.db", {**STORED, **REPORTED})
    refused = tabinet("datastore", "migrate", "export")
    assert (refused.code, refused.out) == (1, "")
    assert "not locked" in refused.err
    assert tabinet("datastore", "migrate", "lock").out == "datastore locked\n"
    assert tabinet("get", "clusterinfo", "default", "-o", "json").json["spec"]["datastoreReady"] is False
    exported = tabinet("datastore", "migrate", "export")
    assert exported.code == 0
    assert all(json.loads(line) for line in exported.out.splitlines())
    before = {key: value for key, value in read(tmp_path / "store.db").items() if key not in REPORTED and not key.startswith(HISTORY)}

    monkeypatch.setenv("TABINET_STORE_PATH", str(tmp_path / "new.db"))
    imported = tabinet("datastore", "migrate", "import", "-f", "-", given=exported.out)
    assert (imported.code, imported.out) == (0, f"{len(before)} of {len(before)} values imported\n")
    after = read(tmp_path / "new.db")
    assert after.pop("/calico/dhcp/v2/no-region/subnet/x") == b'{"network_id":"n"}', "lines are joined, the meaning stays"
    before.pop("/calico/dhcp/v2/no-region/subnet/x")
    assert after == before
    assert tabinet("datastore", "migrate", "unlock", "--json").json == [{"resource": "datastore", "outcome": "unlocked"}]

    again = tabinet("datastore", "migrate", "import", "-f", "-", given=exported.out)
    assert again.code == 1
    assert "not empty" in again.err
    assert tabinet("datastore", "migrate", "import", "--force", "-f", "-", given=exported.out).code == 0
    assert tabinet("version").out.splitlines()[4].split() == ["Datastore", "ready:", "false"], "the lock came along again"


def test_export_by_force(tabinet: Tabinet) -> None:
    assert tabinet("datastore", "migrate", "export", "--force").out == render_header().decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be what 'tabinet datastore migrate export' wrote"),
        ("apiVersion: x\n", "must be what"),
        ('{"format":"tabinet-datastore","version":9}\n', "must be what"),
        ("HEADER{\n", "standard input:2"),
        ('HEADER\n{"key":"/calico/a","value":1}\n{"key":"/calico/a","value":1}\n', "standard input:4: got"),
        ('HEADER{"key":"/calico/a"}\n', "a value is missing"),
        ('HEADER{"key":"/else","value":1}\n', "not part of an export"),
        ('HEADER{"key":"/calico/felix/x","value":1}\n', "not part of an export"),
        ('HEADER{"key":"/calico/a","base64":"%"}\n', "standard input:2"),
    ],
)
def test_files_that_are_no_export_change_nothing(tabinet: Tabinet, tmp_path: Path, text: str, message: str) -> None:
    said = tabinet("datastore", "migrate", "import", "-f", "-", given=text.replace("HEADER", render_header().decode()))
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "store.db").exists()


keys = st.text('a/é"\n', max_size=6).map(lambda text: f"/calico/{text}")
json_values = st.recursive(
    st.none() | st.floats(allow_nan=False) | st.text('a"\n é', max_size=6), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
stored_values = st.binary(min_size=1, max_size=6) | st.builds(json.dumps, json_values, indent=st.sampled_from([None, 1])).map(str.encode)


@given(st.dictionaries(keys, stored_values))
def test_what_is_written_is_read(values: dict[str, bytes]) -> None:
    text = render_header() + b"".join(render_entry(Entry(key, value)) for key, value in values.items())
    found = {entry.key: entry.value for entry in parse_dump(text, "x")}
    assert found.keys() == values.keys()
    for key, value in values.items():
        if found[key] != value:
            assert b"\n" in value or b"\r" in value or value != value.strip(), "only white space around and in JSON may go"
            assert json.loads(found[key]) == json.loads(value)


@given(st.binary())
def test_any_bytes_are_an_export_or_our_own_error(data: bytes) -> None:
    for text in (data, render_header() + data):
        with contextlib.suppress(InputError):
            parse_dump(text, "x")
