"""The profile of a Docker network: its containers reach each other, on all hosts, and everything else. And of a port that is published.

In: the network's name, ports of a container. Out: the names of their profiles; and the profiles are there. Networks of the same name on
several hosts are one network.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import Any

from tabinet.attach.cni.translate import network_profile
from tabinet.errors import AlreadyExists
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.protocols import protocol_name
from tabinet.model.resources import API_VERSION
from tabinet.store.api import Datastore
from tabinet.store.client import ResourceClient

MAX_NAME = 50
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,48}[a-z0-9])?")


def profile_name(network: str) -> str:
    """The network's name, where a profile can have it; else what can stand of it, and six digits that tell it from others."""
    if _NAME.fullmatch(network):
        return network
    plain = re.sub(r"[^a-z0-9]+", "-", network.lower()).strip("-")[: MAX_NAME - 7]
    return f"{plain}-{hashlib.sha256(network.encode()).hexdigest()[:6]}".lstrip("-")


def published_profile(protocol: int, port: int) -> str:
    """What the profile is called by which everybody reaches a port of containers."""
    return f"docker-published-{protocol_name(protocol).lower()}-{port}"


async def ensure_profiles(store: Datastore, network: str, ports: frozenset[tuple[int, int]] = frozenset()) -> None:
    """The network has a profile, and so have these ports, by protocol and number; one that is there already stays as it is.

    Raises:
        StoreError: the store refuses, or does not answer.
    """
    await _ensure(store, network_profile(profile_name(network), open_to_all=False))
    for protocol, port in sorted(ports):
        rule = {"action": "Allow", "protocol": protocol_name(protocol), "destination": {"ports": [port]}}
        metadata = {"name": published_profile(protocol, port)}
        await _ensure(store, {"apiVersion": API_VERSION, "kind": "Profile", "metadata": metadata, "spec": {"ingress": [rule]}})


async def _ensure(store: Datastore, profile: dict[str, Any]) -> None:
    if await store.get(path_of(ResourceKey("Profile", profile["metadata"]["name"]))) is None:
        with contextlib.suppress(AlreadyExists):
            await ResourceClient(store).create(profile)
