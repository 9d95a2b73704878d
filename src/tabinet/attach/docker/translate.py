"""From a network's options, a container's labels and an endpoint to an attachment; pools of Docker networks. Pure.

In: strings and dictionaries as Docker has them. Out: options and requests of ours. An option that nobody knows is refused, since it would
make a network that is not what was wanted. Labels of containers become labels of endpoints as far as they can: Docker allows any text,
policy does not, and what compose adds for itself (paths, lists) is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from tabinet.attach.cni.config import NetworkConfig, RuntimeConfig
from tabinet.attach.cni.translate import QOS, qos_of
from tabinet.attach.cni.values import parse_labels, parse_list
from tabinet.attach.docker.profiles import profile_name, published_profile
from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest
from tabinet.errors import InputError, Problem
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix
from tabinet.model.annotations import PORT_FORWARDS
from tabinet.model.forwards import PortForward, render_forwards
from tabinet.model.names import label_findings

ORCHESTRATOR = "libnetwork"
GENERIC = "com.docker.network.generic"
INTERNAL = "com.docker.network.internal"
MTU = "com.docker.network.driver.mtu"
INTERFACE = "com.docker.network.container_iface_prefix"
LABELS, PROFILES = "tabinet.labels", "tabinet.profiles"
POOLS4, POOLS6 = "ipv4_pools", "ipv6_pools"
NETWORK_ANNOTATION = "tabinet.io/docker-network"
CONTAINER_ANNOTATION = "tabinet.io/docker-container"
DEFAULT_INTERFACE = "eth"
GATEWAYS = {IPV4: "169.254.1.1", IPV6: "fe80::ecee:eeff:feee:eeee"}
"""Of containers. That of IPv6 is the link-local address that the kernel gives to an interface with ``HOST_MAC``, and so answers for:
Docker cannot be told of neighbours."""
_CONNECTED = 1
_OPTIONS = (MTU, INTERFACE, LABELS, PROFILES)
_WITHOUT_EFFECT = ("com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6")


class NetworkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``docker network create -o``."""

    labels: dict[str, str] = {}
    profiles: tuple[str, ...] | None = None
    """In place of the network's own."""
    mtu: int = 0
    interface: str = DEFAULT_INTERFACE
    """What names of interfaces in containers begin with; a number follows."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Whose endpoint it is."""

    id: str = ""
    name: str = ""
    labels: dict[str, str] = {}


class EndpointPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What Docker has decided about an endpoint."""

    id: str
    network: str
    addresses: tuple[Prefix, ...]
    mac: str


def check_creation(options: Mapping[str, Any]) -> None:
    """A network can be made with all that ``docker network create`` says.

    Raises:
        InputError: it cannot; says everything that is wrong.
    """
    if options.get(INTERNAL):
        allowed = "without --internal: what containers reach is up to policy"
        raise InputError([Problem(path="--internal", value="true", allowed=allowed)])
    parse_options(options.get(GENERIC) or {})


def parse_options(options: Mapping[str, Any]) -> NetworkOptions:
    """The options of a network.

    Raises:
        InputError: one that is not known, or a value that is not allowed.
        CniError: labels or profiles that cannot be understood.
    """
    problems = [_unknown(key, value) for key, value in options.items() if key not in (*_OPTIONS, *_WITHOUT_EFFECT)]
    mtu, interface = str(options.get(MTU, "0")), str(options.get(INTERFACE, DEFAULT_INTERFACE))
    if not mtu.isdecimal() or int(mtu) > 65535:
        problems.append(Problem(path=MTU, value=repr(mtu), allowed="bytes, up to 65535"))
    if not 0 < len(interface.encode()) <= 12 or not interface.isidentifier():
        problems.append(Problem(path=INTERFACE, value=repr(interface), allowed="1 to 12 letters and digits, as in eth"))
    if problems:
        raise InputError(problems)
    profiles = options.get(PROFILES)
    return NetworkOptions(
        labels=parse_labels(LABELS, str(options.get(LABELS, ""))),
        profiles=None if profiles is None else parse_list(PROFILES, str(profiles)),
        mtu=int(mtu),
        interface=interface,
    )


def _unknown(key: str, value: object) -> Problem:
    near = get_close_matches(key, _OPTIONS, 1)
    allowed = f"there is no such option; did you mean {near[0]}?" if near else f"there is no such option; there are {', '.join(_OPTIONS)}"
    return Problem(path=f"-o {key}", value=repr(value)[:60], allowed=allowed)


def plan_endpoint(endpoint: str, network: str, addresses: tuple[str, ...], mac: str) -> EndpointPlan:
    """What Docker wants; without a hardware address of its choice one that follows from the endpoint's name.

    Raises:
        InputError: an address that is none, or none at all.
    """
    try:
        found = tuple(parse_address(text.partition("/")[0]) for text in addresses if text)
    except ValueError as error:
        raise InputError([Problem(path="Interface", value=str(error), allowed="addresses")]) from None
    if not found:
        raise InputError([Problem(path="Interface", value="no address", allowed="an address, as tabinet's IPAM driver gives it")])
    return EndpointPlan(id=endpoint, network=network, addresses=found, mac=mac.lower() or mac_of(endpoint))


def mac_of(endpoint: str) -> str:
    """A hardware address of one interface, locally administered, that follows from the endpoint."""
    digits = hashlib.sha256(endpoint.encode()).hexdigest()
    return ":".join(["02", *(digits[place : place + 2] for place in range(0, 10, 2))])


def workload_of(host: str, endpoint: str) -> Workload:
    """By which name Docker's endpoint is known."""
    return Workload(node=host, workload=ORCHESTRATOR, orchestrator=ORCHESTRATOR, endpoint=endpoint)


def split_labels(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What can be labels of an endpoint, and annotations about its limits (``qos.projectcalico.org/...``)."""
    limits = {key: value for key, value in labels.items() if key.startswith(QOS)}
    usable = {key: value for key, value in labels.items() if key not in limits and not any(label_findings({key: value}))}
    return usable, limits


def attach_request(
    plan: EndpointPlan,
    host: str,
    outer: str,
    network: str,
    options: NetworkOptions,
    container: Container,
    forwards: tuple[PortForward, ...] = (),
) -> AttachRequest:
    """The attachment of an endpoint. ``network`` is the network's name, ``outer`` the host's end of its interface.

    Ports that are published may be reached by everybody, unless the network has profiles of the operator's choice.

    Raises:
        CniError: limits that cannot be understood.
    """
    labels, limits = split_labels(container.labels)
    annotations = {NETWORK_ANNOTATION: network} | ({PORT_FORWARDS: render_forwards(forwards)} if forwards else {})
    published = sorted({published_profile(each.protocol, each.internal_port) for each in forwards})
    return AttachRequest(
        workload=workload_of(host, plan.id),
        tap=outer,
        unmanaged=plan.addresses,
        labels=options.labels | labels,
        profiles=(profile_name(network), *published) if options.profiles is None else options.profiles,
        qos=qos_of(NetworkConfig(runtime=RuntimeConfig(annotations=limits))),
        annotations=annotations | ({CONTAINER_ANNOTATION: container.name} if container.name else {}),
        mac=plan.mac,
    )


def join_answer(inner: str, prefix: str, addresses: tuple[Prefix, ...]) -> dict[str, Any]:
    """What Docker does in the container's namespace: the inner end gets a name that begins with ``prefix``, and the routes."""
    answer: dict[str, Any] = {"InterfaceName": {"SrcName": inner, "DstPrefix": prefix}, "DisableGatewayService": True}
    families = {address.family for address in addresses}
    if IPV4 in families:
        answer["Gateway"] = GATEWAYS[IPV4]
        answer["StaticRoutes"] = [{"Destination": f"{GATEWAYS[IPV4]}/32", "RouteType": _CONNECTED}]
    if IPV6 in families:
        answer["GatewayIPv6"] = GATEWAYS[IPV6]
    return answer


# --- pools


def pool_id(ipv6: bool, pools: tuple[Prefix, ...]) -> str:
    """What Docker keeps as the name of a network's pools: the family, and the pools if not any will do."""
    return " ".join(["ipv6" if ipv6 else "ipv4", *map(str, pools)])


def parse_pool_id(text: str) -> tuple[int, tuple[Prefix, ...]]:
    """Family and pools.

    Raises:
        InputError: it is no name of ours.
    """
    family, *pools = text.split(" ")
    try:
        return {"ipv4": IPV4, "ipv6": IPV6}[family], tuple(map(parse_prefix, pools))
    except (KeyError, ValueError):
        raise InputError([Problem(path="PoolID", value=repr(text), allowed="one that this driver has given")]) from None


def select_pools(subnet: str, options: Mapping[str, Any], ipv6: bool, known: Mapping[str, Prefix]) -> tuple[Prefix, ...]:
    """The pools that a network takes its addresses from; none: any. ``known`` has the pools by name.

    Raises:
        InputError: not the name or the CIDR of a pool.
    """
    key = POOLS6 if ipv6 else POOLS4
    if unknown := sorted(set(options) - {POOLS4, POOLS6}):
        raise InputError([Problem(path=f"--ipam-opt {name}", value="given", allowed=f"{POOLS4} or {POOLS6}") for name in unknown])
    named = [subnet] if subnet else parse_list(key, str(options.get(key, "")))
    by_text = {str(pool): pool for pool in known.values()} | dict(known)
    problems, found = [], []
    for text in named:
        pool = by_text.get(text)
        if pool is None or (pool.family == IPV6) != ipv6:
            allowed = (
                f"an IPv{6 if ipv6 else 4} pool by name or CIDR; there are {', '.join(f'{n} ({p})' for n, p in known.items()) or 'none'}"
            )
            problems.append(Problem(path="--subnet" if subnet else key, value=text, allowed=allowed))
        else:
            found.append(pool)
    if problems:
        raise InputError(problems)
    return tuple(found)
