"""What each kind of workload says of itself: the ``Kind`` protocol, and where a workload is (``Site``).

``missing``, ``settings``, ``components`` and ``is_endpoint`` are pure but for a look at this machine's programs; ``attach`` makes the
workload and returns when its host has it in the kernel; ``wait`` returns when it can be probed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from tabinet.errors import LabError
from tabinet.ipam.client import IpamClient
from tabinet.lab.component import Component
from tabinet.lab.plan import Plan, namespace_of
from tabinet.lab.processes import Launch
from tabinet.lab.routers import RouterFile
from tabinet.lab.state import LabDirectory
from tabinet.lab.topology import Workload
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import HostEndpoint, WorkloadEndpoint
from tabinet.store.api import Datastore

NAME_LABEL = "tabinet.io/lab-workload"
"""Label of endpoints that a runtime makes: which of the lab's workloads it is. Runtimes have names of their own making."""
START_TIMEOUT_S = 180.0
"""How long a workload may take until it can be probed. A machine whose every instruction is computed takes some seconds for what others
do at once, and more on a busy machine."""
_POLL_S = 0.1

Endpoint = WorkloadEndpoint | HostEndpoint


class Site(msgspec.Struct, frozen=True):
    """A host of a lab, for what runs there."""

    plan: Plan
    directory: LabDirectory
    host: str

    @property
    def node(self) -> Path:
        """The host's directory."""
        return self.directory.node(self.host)

    @property
    def namespace(self) -> str:
        """The host's network namespace."""
        return namespace_of(self.plan.name, self.host)

    def workloads(self, kind: str) -> tuple[Workload, ...]:
        """Those of a kind that are on the host."""
        return tuple(workload for workload in self.plan.topology.of_kind(kind) if workload.host == self.host)

    def namespace_of(self, workload: Workload) -> str:
        """The workload's network namespace, where it has one of its own."""
        return namespace_of(self.plan.name, workload.name)

    def component(
        self,
        name: str,
        argv: tuple[str, ...],
        *,
        namespace: str = "",
        socket: str = "",
        files: Iterable[RouterFile] = (),
        group: str = "",
        late: bool = False,
    ) -> Component:
        """A program of the host; ``namespace``: where it runs, if not in the host's."""
        launch = Launch(
            node=self.host,
            component=name,
            argv=argv,
            namespace=namespace or self.namespace,
            directory=self.node,
            log=self.directory.log(self.host, name),
        )
        return Component(launch=launch, restart_argv=argv, socket=socket, files=tuple(files), group=group or name, late=late)


class Session(msgspec.Struct, frozen=True):
    """The lab's store, while workloads are attached."""

    store: Datastore
    ipam: IpamClient


class Kind(Protocol):
    """A kind of workloads."""

    def missing(self) -> list[str]:
        """What this machine lacks for it; with what to do about it. Empty: nothing."""
        ...

    def settings(self, site: Site) -> str:
        """What the agent of a host with such workloads is told besides: whole sections of TOML, which no other kind has."""
        ...

    def components(self, site: Site) -> Sequence[Component]:
        """What runs on a host with such workloads, in the order in which it is started."""
        ...

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        """The workload is there, with its endpoint in the kernel of its host.

        Raises:
            TabinetError: it is not.
        """
        ...

    async def wait(self, site: Site, workload: Workload) -> None:
        """The attached workload has its addresses and can be probed.

        Raises:
            LabError: not in time.
        """
        ...

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        """Whether this stored endpoint is the workload's."""
        ...

    def prober_socket(self, site: Site, workload: Workload) -> str:
        """Where the prober in a machine is reached; empty where the prober is started in a network namespace."""
        ...


def has_name(workload: Workload, endpoint: Endpoint) -> bool:
    """Whether the endpoint bears the workload's name as a label, on its host."""
    return endpoint.spec.node == workload.host and endpoint.metadata.labels.get(NAME_LABEL) == workload.name


async def until(question: Callable[[], Awaitable[bool]], what: str, log: Path) -> None:
    """The question is answered with yes.

    Raises:
        LabError: not within ``START_TIMEOUT_S``; with the end of the log.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not await question():
        if time.monotonic() > deadline:
            raise LabError(f"not within {START_TIMEOUT_S:g} s: {what}{last_words(log)}")
        await asyncio.sleep(_POLL_S)


def last_words(log: Path, lines: int = 3) -> str:
    """The end of a log, to be put behind a message; empty when there is none."""
    try:
        text = log.read_text(errors="replace").strip().splitlines()[-lines:]
    except OSError:
        return ""
    return ": " + " | ".join(text) if text else ""
