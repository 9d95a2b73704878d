"""The calls of libnetwork's remote drivers, and their answers, as JSON. Pure.

In: the body of a call. Out: a ``DriverCall``, which has the fields of all of them; answers as dictionaries. Sources: Docker's plugin API,
and libnetwork's documents ``remote.md`` and ``ipam.md``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tabinet.errors import AttachError, TabinetError

IMPLEMENTS = ("NetworkDriver", "IpamDriver")
ADDRESS_SPACE = "tabinet"
GATEWAY_TYPE = "com.docker.network.gateway"
"""Of a requested address, and of a pool's data: the gateway of a network."""
REQUEST_TYPE = "RequestAddressType"


class EndpointInterface(msgspec.Struct, frozen=True, kw_only=True):
    """What Docker has decided about an interface; what is empty is for the driver to decide."""

    address: str = msgspec.field(default="", name="Address")
    address6: str = msgspec.field(default="", name="AddressIPv6")
    mac: str = msgspec.field(default="", name="MacAddress")


class DriverCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call; what one has no use for is empty."""

    network: str = msgspec.field(default="", name="NetworkID")
    endpoint: str = msgspec.field(default="", name="EndpointID")
    sandbox: str = msgspec.field(default="", name="SandboxKey")
    """Path of the container's network namespace, in Docker's mounts."""
    interface: EndpointInterface | None = msgspec.field(default=None, name="Interface")
    options: dict[str, Any] | None = msgspec.field(default=None, name="Options")
    pool: str = msgspec.field(default="", name="Pool")
    """CIDR, where the operator named a subnet."""
    sub_pool: str = msgspec.field(default="", name="SubPool")
    pool_id: str = msgspec.field(default="", name="PoolID")
    address: str = msgspec.field(default="", name="Address")
    ipv6: bool = msgspec.field(default=False, name="V6")


def parse_driver_call(body: bytes) -> DriverCall:
    """The call in a body; an empty one is a call without fields.

    Raises:
        AttachError: it is none.
    """
    try:
        call = msgspec.json.decode(body or b"{}", type=DriverCall)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AttachError(f"this is no call of Docker's: {error}") from None
    if call.endpoint and not (call.endpoint.isascii() and call.endpoint.isalnum()):
        raise AttachError(f"EndpointID: got {call.endpoint[:80]!r}; letters and digits")
    return call


def render_failure(error: TabinetError) -> bytes:
    """The error, in a line that Docker shows to whoever called it."""
    told = "; ".join([str(error).replace("\n", "; "), *getattr(error, "__notes__", ())])
    return msgspec.json.encode({"Err": told, "Error": told})
