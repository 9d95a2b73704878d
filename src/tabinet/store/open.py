"""From a configuration to a store: the one place that knows all backends. A backend's libraries are imported when it is opened."""

from __future__ import annotations

from typing import Literal

import msgspec

from tabinet.errors import InputError, Problem
from tabinet.store.api import Datastore

StoreKind = Literal["etcd", "sqlite", "memory"]


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which store, and how to reach it."""

    kind: StoreKind = "etcd"
    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    """etcd: its members, as ``https://host:port``, ``http://host:port``, ``host:port`` or ``unix:///path/of/socket:0``."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    """etcd with TLS: PEM files. With ``ca_file`` or ``cert_file``, an endpoint without a scheme speaks TLS."""
    username: str = ""
    password: str = ""
    path: str = ""
    """sqlite: the file."""


def parse_store_url(url: str) -> StoreConfig:
    """The store that one word names: ``memory:``, ``sqlite:/path``, or etcd endpoints separated by commas.

    Raises:
        InputError: an empty word, or sqlite without a path.
    """
    if url in ("memory:", "memory"):
        return StoreConfig(kind="memory")
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if path:
            return StoreConfig(kind="sqlite", path=path)
    elif endpoints := tuple(part.strip() for part in url.removeprefix("etcd:").split(",") if part.strip()):
        return StoreConfig(endpoints=endpoints)
    allowed = "a store is memory:, sqlite:/path/of/file, or etcd endpoints such as https://host:2379,https://other:2379"
    raise InputError([Problem(path="store", value=repr(url), allowed=allowed)])


async def open_store(config: StoreConfig | str) -> Datastore:
    """The store, opened; close it when done. For etcd nothing has been sent yet.

    Raises:
        InputError: the configuration names no store.
        SetupError: a certificate cannot be read.
        StoreUnavailable, StoreDenied: the sqlite file cannot be used.
    """
    if isinstance(config, str):
        config = parse_store_url(config)
    match config.kind:
        case "memory":
            from tabinet.store.memory import MemoryStore

            return MemoryStore()
        case "sqlite":
            from tabinet.store.sqlite import open_sqlite

            if not config.path:
                raise InputError([Problem(path="store.path", value="nothing", allowed="sqlite needs the path of its file")])
            return await open_sqlite(config.path)
        case "etcd":
            from tabinet.store.etcd.store import open_etcd

            return await open_etcd(
                config.endpoints,
                ca_file=config.ca_file,
                cert_file=config.cert_file,
                key_file=config.key_file,
                username=config.username,
                password=config.password,
            )
