"""Status keys: where hosts and their endpoints are reported, and what is reported there (calico-v3 layout, both ways).

- ``/calico/felix/v2/<region>/host/<node>/status``: the agent lives; kept under a lease, so that it ends with the agent.
- ``.../last_reported_status``: the same, kept for ever.
- ``.../workload/<orchestrator>/<workload>/endpoint/<endpoint>``: what has become of a workload endpoint.

``<region>`` is ``no-region`` or ``region-<name>``. ``<workload>`` is ``<namespace>/<workload>``, where the workload is what stands third in
the endpoint's name; ``/`` is written ``%2f`` and ``%`` is written ``%25``. ``parse_status_path(status_path_of(key)) == key``.
These values are reports, not resources: readers take what they understand. Pure; O(length of the path).
"""

from __future__ import annotations

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.model.endpoint_names import WorkloadEndpointName, parse_endpoint_name
from tabinet.model.keys import ResourceKey

STATUS_ROOT = "/calico/felix/v2/"
NO_REGION = "no-region"

UP = "up"
DOWN = "down"
ERROR = "error"


class EndpointStatusKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The status of a workload endpoint."""

    node: str
    orchestrator: str
    workload: str
    """``<namespace>/<workload>``."""
    endpoint: str
    region: str = ""


class HostStatusKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The status of a host's agent."""

    node: str
    region: str = ""
    last_reported: bool = False
    """True: the key that outlives the agent."""


StatusKey = EndpointStatusKey | HostStatusKey


class EndpointStatus(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the agent has made of an endpoint."""

    status: str
    """``up``, ``down`` or ``error``."""
    revision: int = 0
    """The store's revision of the WorkloadEndpoint that the kernel holds; 0 where the writer does not say (Calico's does not)."""
    reason: str = ""
    """Why it is not up, in words."""


class HostStatus(msgspec.Struct, frozen=True, gc=False):
    """An agent's sign of life."""

    time: str
    """When it was written: RFC 3339, UTC."""
    uptime: float = 0.0
    """Seconds since the agent started."""
    first_update: bool = False
    """True in the first report after a start."""


def endpoint_status_key(namespace: str, name: WorkloadEndpointName, region: str = "") -> EndpointStatusKey:
    """Where the status of the endpoint ``name`` in ``namespace`` is reported."""
    return EndpointStatusKey(
        node=name.node,
        orchestrator=name.orchestrator,
        workload=f"{namespace}/{name.workload}",
        endpoint=name.endpoint,
        region=region,
    )


def host_status_prefix(node: str, region: str = "") -> str:
    """The prefix below which everything about the host is reported."""
    return f"{STATUS_ROOT}{_region_part(region)}/host/{node}/"


def endpoint_status_prefix(node: str, region: str = "") -> str:
    """The prefix below which the statuses of all workload endpoints of the host are."""
    return f"{host_status_prefix(node, region)}workload/"


def status_path_of(key: StatusKey) -> str:
    """The path under which the status is stored.

    Raises:
        ValueError: a part is empty, or holds a ``/`` where none may be.
    """
    region = _region_part(key.region)
    match key:
        case HostStatusKey(node, _, last_reported):
            return f"{STATUS_ROOT}{region}/host/{_part(node)}/{'last_reported_status' if last_reported else 'status'}"
        case EndpointStatusKey(node, orchestrator, workload, endpoint):
            if not workload:
                raise ValueError("a workload without a name has no status")
            return f"{STATUS_ROOT}{region}/host/{_part(node)}/workload/{_part(orchestrator)}/{_escape(workload)}/endpoint/{_part(endpoint)}"


def endpoint_status_path(host: str, key: ResourceKey, region: str = "") -> str:
    """The path of the status that ``host`` reports about the WorkloadEndpoint ``key``.

    Raises:
        ValueError: the key's name is none that a WorkloadEndpoint can have.
    """
    name = parse_endpoint_name(key.name)
    return status_path_of(EndpointStatusKey(host, name.orchestrator, f"{key.namespace}/{name.workload}", name.endpoint, region))


def render_endpoint_status(ready: bool, revision: int = 0, reason: str = "", *, failed: bool = False) -> bytes:
    """The value that says that the endpoint is up, or down with the reason (``failed``: in error), as of this revision of it."""
    down = ERROR if failed else DOWN
    return msgspec.json.encode(EndpointStatus(status=UP if ready else down, revision=revision, reason=reason))


def parse_status_path(path: str) -> StatusKey | None:
    """The key that a path means; None for other paths, and malformed ones."""
    if not path.startswith(STATUS_ROOT):
        return None
    parts = path[len(STATUS_ROOT) :].split("/")
    region = _parse_region(parts[0])
    if region is None or not all(parts):
        return None
    match parts[1:]:
        case ["host", node, ("status" | "last_reported_status") as kind]:
            return HostStatusKey(node=node, region=region, last_reported=kind != "status")
        case ["host", node, "workload", orchestrator, workload, "endpoint", endpoint]:
            name = _unescape(workload)
            return None if name is None else EndpointStatusKey(node, orchestrator, name, endpoint, region)
        case _:
            return None


def parse_endpoint_status(path: str, value: bytes) -> EndpointStatus:
    """The status in ``value``.

    Raises:
        DataError: it is none.
    """
    try:
        return msgspec.json.decode(value, type=EndpointStatus)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(path, [Problem(path="", value=str(error), allowed="the status of an endpoint")]) from error


def parse_host_status(path: str, value: bytes) -> HostStatus:
    """The status in ``value``.

    Raises:
        DataError: it is none.
    """
    try:
        return msgspec.json.decode(value, type=HostStatus)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(path, [Problem(path="", value=str(error), allowed="the status of a host")]) from error


def _region_part(region: str) -> str:
    return f"region-{_part(region)}" if region else NO_REGION


def _parse_region(text: str) -> str | None:
    if text == NO_REGION:
        return ""
    prefix, name = text[:7], text[7:]
    return name if prefix == "region-" and name else None


def _part(text: str) -> str:
    if not text or "/" in text:
        raise ValueError(f"{text!r} cannot be part of a path")
    return text


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2f")


def _unescape(text: str) -> str | None:
    """None for a text that ``_escape`` does not write."""
    name = text.replace("%2f", "/").replace("%25", "%")
    return name if _escape(name) == text else None
