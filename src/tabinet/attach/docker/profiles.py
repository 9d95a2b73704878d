"""The profile of a Docker network: its containers reach each other, on all hosts, and everything else.

In: the network's name. Out: the name of its profile; and the profile is there. Networks of the same name on several hosts are one network.
"""

from __future__ import annotations

import contextlib
import hashlib
import re

from tabinet.attach.cni.translate import network_profile
from tabinet.errors import AlreadyExists
from tabinet.model.keys import ResourceKey, path_of
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


async def ensure_profile(store: Datastore, network: str) -> None:
    """The network has a profile; one that is there already stays as it is.

    Raises:
        StoreError: the store refuses, or does not answer.
    """
    name = profile_name(network)
    if await store.get(path_of(ResourceKey("Profile", name))) is None:
        with contextlib.suppress(AlreadyExists):
            await ResourceClient(store).create(network_profile(name, open_to_all=False))
