"""What hosts report, in a form that can be told to Neutron: which ports are up, which are not and why, which hosts are alive; and what of
ports and security groups could not be expressed, as the annotation ``openstack.tabinet/refused`` says.

In: changes below the store's status keys, and of the policies of security groups, in the loop that owns the store. Out: for a thread that
may talk to Neutron, batches of reports; of several about one thing only the latest is kept. A port is up when its host's agent says so of
the endpoint that is stored, not of an earlier one (``attach.ready.judge_status``). Costs: one request to the store for each hundred reports
of ports; what is told of groups is nearly always nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tabinet.attach.openstack.names import ORCHESTRATOR, POLICY_PREFIX, Region, endpoint_key
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.attach.ready import judge_status
from tabinet.errors import DataError
from tabinet.model.codec import decode_document
from tabinet.model.keys import kind_prefix, path_of
from tabinet.model.openstack import REFUSED_ANNOTATION
from tabinet.model.status import (
    DOWN,
    ERROR,
    STATUS_ROOT,
    UP,
    EndpointStatusKey,
    HostStatusKey,
    parse_endpoint_status,
    parse_host_status,
    parse_status_path,
)
from tabinet.store.api import Datastore, DeleteEvent, GetOp, KeyValue, PutEvent, WatchBatch

CHUNK = 100


class PortReport(msgspec.Struct, frozen=True, gc=False):
    """What a host says of a port."""

    port: str
    host: str
    status: str
    """``up``, ``down`` or ``error``."""
    reason: str = ""
    refused: str = ""
    """What of the port could not be expressed, as its endpoint says; lines."""


class GroupReport(msgspec.Struct, frozen=True, gc=False):
    """What of a security group could not be expressed."""

    group: str
    refused: str
    """Lines; empty when nothing is left of it."""


class HostReport(msgspec.Struct, frozen=True, gc=False):
    """A sign of life of a host."""

    host: str
    started: bool = False
    """True: the first after its agent's start."""


Report = PortReport | HostReport | GroupReport


def status_prefix(region: Region) -> str:
    """Below it hosts report."""
    return f"{STATUS_ROOT}{region.part}/host/"


def group_prefix(region: Region) -> str:
    """Below it are the policies that stand for security groups."""
    return f"{kind_prefix('NetworkPolicy', region.namespace)}{POLICY_PREFIX}"


@dataclass(slots=True)
class StatusBoard:
    """Reports that wait to be told. ``take_in`` belongs to the store's loop, the rest to one other thread."""

    region: Region
    stores: StoreThread
    _waiting: dict[str, KeyValue | None] = field(default_factory=dict)
    """By path; None: the status was deleted."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _refused: set[str] = field(default_factory=set)
    """Policies of which something was refused. The others, nearly all, are not kept."""

    def take_in(self, batch: WatchBatch) -> None:
        """The changes will be told."""
        with self._changed:
            for event in batch.events:
                path = event.item.key if isinstance(event, PutEvent) else event.key
                if path.startswith(group_prefix(self.region)) and not self._concerns(path, event):
                    continue
                self._waiting.pop(path, None)
                self._waiting[path] = event.item if isinstance(event, PutEvent) else None
            self._changed.notify_all()

    def _concerns(self, path: str, event: PutEvent | DeleteEvent) -> bool:
        """True: something of the group is refused, or was."""
        before = path in self._refused
        if isinstance(event, PutEvent) and REFUSED_ANNOTATION.encode() in event.item.value:
            self._refused.add(path)
            return True
        self._refused.discard(path)
        return before

    def put_back(self, reports: Sequence[tuple[str, KeyValue | None]]) -> None:
        """They could not be told: again, unless there is something newer."""
        with self._changed:
            for path, item in reports:
                self._waiting.setdefault(path, item)

    def take_out(self, wait_s: float) -> list[tuple[str, KeyValue | None]]:
        """Up to ``CHUNK`` changes in the order in which they came; empty when there were none for so long."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(wait_s)
            paths = list(self._waiting)[:CHUNK]
            return [(path, self._waiting.pop(path)) for path in paths]

    def judge(self, changes: Sequence[tuple[str, KeyValue | None]]) -> list[Report]:
        """What the changes mean. A host that holds an earlier state of an endpoint than the store says nothing yet.

        Raises:
            StoreError: the endpoints could not be read.
        """
        reports: list[Report] = []
        ports: list[tuple[EndpointStatusKey, KeyValue | None, str]] = []
        for path, item in changes:
            if path.startswith(group_prefix(self.region)):
                reports.append(GroupReport(path.removeprefix(group_prefix(self.region)), refused_of(item)))
                continue
            match parse_status_path(path):
                case HostStatusKey(last_reported=False) as host if item is not None:
                    reports.append(HostReport(host.node, _is_start(item)))
                case EndpointStatusKey(orchestrator="openstack") as key:
                    endpoint = self._endpoint_path(key)
                    if endpoint:
                        ports.append((key, item, endpoint))
        endpoints = self._read([endpoint for _, _, endpoint in ports])
        for (key, item, _), stored in zip(ports, endpoints, strict=True):
            report = judge_port(key, item, stored)
            if report is not None:
                reports.append(report)
        return reports

    def _endpoint_path(self, key: EndpointStatusKey) -> str:
        """Empty for what is no port of this region."""
        namespace, _, workload = key.workload.partition("/")
        if namespace != self.region.namespace or key.orchestrator != ORCHESTRATOR:
            return ""
        try:
            return path_of(endpoint_key(self.region, key.node, workload, key.endpoint))
        except ValueError:
            return ""

    def _read(self, paths: Sequence[str]) -> Sequence[KeyValue | None]:
        if not paths:
            return ()

        async def read(store: Datastore) -> tuple[KeyValue | None, ...]:
            return (await store.txn((), [GetOp(path) for path in paths])).values

        return self.stores.call(read)


def judge_port(key: EndpointStatusKey, status: KeyValue | None, endpoint: KeyValue | None) -> PortReport | None:
    """What a status means for the port, given its endpoint on that host as it is stored; None: nothing (yet)."""
    if endpoint is None:
        return None  # it is no longer there, or on another host: whatever is said of it is about the past
    refused = refused_of(endpoint)
    if status is None:
        return PortReport(key.endpoint, key.node, DOWN, "its host no longer reports it", refused)
    reason = judge_status(status, endpoint.revision)
    if not reason:
        return PortReport(key.endpoint, key.node, UP, refused=refused)
    try:
        said = parse_endpoint_status(status.key, status.value)
    except DataError:
        return PortReport(key.endpoint, key.node, ERROR, reason, refused)
    if said.status == UP:
        return None  # of an earlier state: the host is at it
    return PortReport(key.endpoint, key.node, ERROR if said.status == ERROR else DOWN, said.reason or reason, refused)


def refused_of(item: KeyValue | None) -> str:
    """What of the stored resource could not be expressed, in lines."""
    if item is None or REFUSED_ANNOTATION.encode() not in item.value:
        return ""
    try:
        metadata = decode_document(item.value, item.key).get("metadata")
    except DataError:
        return ""
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    said = annotations.get(REFUSED_ANNOTATION) if isinstance(annotations, dict) else None
    return said if isinstance(said, str) else ""


def _is_start(item: KeyValue) -> bool:
    try:
        return parse_host_status(item.key, item.value).first_update
    except DataError:
        return False
