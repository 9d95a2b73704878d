"""From a configuration to a store, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from etcd_process import EtcdProcess

from tabinet.errors import InputError
from tabinet.store.api import DeleteOp, GetOp, PutOp
from tabinet.store.open import StoreConfig, open_store, parse_store_url
from tabinet.store.semantics import check_txn, key_bytes, key_text, prefix_end


@pytest.mark.parametrize(
    ("url", "config"),
    [
        ("memory:", StoreConfig(kind="memory")),
        ("sqlite:/var/lib/t.db", StoreConfig(kind="sqlite", path="/var/lib/t.db")),
        ("sqlite:///var/lib/t.db", StoreConfig(kind="sqlite", path="/var/lib/t.db")),
        ("sqlite:t.db", StoreConfig(kind="sqlite", path="t.db")),
        ("http://a:1", StoreConfig(endpoints=("http://a:1",))),
        ("etcd:a:1, b:2", StoreConfig(endpoints=("a:1", "b:2"))),
        ("unix:///run/c:0", StoreConfig(endpoints=("unix:///run/c:0",))),
    ],
)
def test_urls(url: str, config: StoreConfig) -> None:
    assert parse_store_url(url) == config


@pytest.mark.parametrize("url", ["", "sqlite:", "etcd:", ",", " , "])
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(InputError, match="a store is memory:"):
        parse_store_url(url)


async def test_each_kind_opens(tmp_path: Path, etcd: EtcdProcess) -> None:
    for config in ("memory:", f"sqlite:{tmp_path}/s.db", StoreConfig(endpoints=(etcd.endpoint,))):
        store = await open_store(config)
        await store.txn([], [PutOp("/open", b"x")])
        item = await store.get("/open")
        assert item is not None
        assert item.value == b"x"
        await store.close()
    with pytest.raises(InputError, match="path of its file"):
        await open_store(StoreConfig(kind="sqlite"))


def test_importing_the_store_imports_no_grpc() -> None:
    modules = "tabinet.store.open, tabinet.store.client, tabinet.store.syncer, tabinet.store.memory, tabinet.store.sqlite"
    script = f"import sys, {modules}; sys.exit(any(name.split('.')[0] in ('grpc', 'google') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"", None), (b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"a\xffb", b"a\xffc")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes | None) -> None:
    assert prefix_end(prefix) == end


def test_foreign_keys_survive() -> None:
    assert key_bytes(key_text(b"/\xff\xfe/\xc3\xa9")) == b"/\xff\xfe/\xc3\xa9"


def test_reading_what_is_written_is_no_second_write() -> None:
    check_txn([], [GetOp("a"), PutOp("a", b""), GetOp("a")], [DeleteOp("a")])
