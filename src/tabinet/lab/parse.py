"""Reads a topology file: every mistake in it is reported at once, with its path, the value and what is allowed.

In: the text of the file (YAML). Out: a ``Topology`` that keeps the invariants named there, or ``InputError`` with all problems. Pure;
O(n) in the file. Files that ``resources`` names are not read here (see ``tabinet.lab.load``).
"""

from __future__ import annotations

import re

from tabinet.errors import InputError
from tabinet.lab.kinds.facts import FACTS, KindFacts
from tabinet.lab.reader import Reader, nearest, parse_yaml
from tabinet.lab.topology import (
    LINKS,
    LOOPBACKS,
    MANAGEMENT4,
    MAX_NODES,
    NEUTRON_SUBNETS,
    Bfd,
    CheckPorts,
    Host,
    Port,
    Router,
    Segment,
    Topology,
    Workload,
)
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix

LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,14}")
"""No hyphen, so that the namespaces of lab ``a`` can never be taken for those of a lab ``a-b``."""
NODE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,13}[a-z0-9])?")
"""At most 15 characters, because nodes lend their names to interfaces (IFNAMSIZ in netdevice(7) is 16 with the NUL)."""
RESERVED = ("lo", "mgmt", "br0", "eth0", "all", "default")
RESERVED_PREFIXES = ("cali", "tap")
"""Prefixes of workload interfaces: an uplink of such a name would be taken for a workload."""
WORKLOAD_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

SOFTWARE = ("bird", "frr", "none")
TUNNELS = ("Never", "Always", "CrossSubnet")
ROLES = ("spine", "tor", "router")
LAST_AS = 4294967294
NOT_AN_AS = (23456, 65535)
"""AS_TRANS (RFC 6793 section 9) and the last 16-bit number (RFC 7300)."""

KINDS = tuple(FACTS)
"""Of workloads."""

_Groups = dict[str, tuple[Router, ...] | tuple[Host, ...] | tuple[Segment, ...] | tuple[Workload, ...]]


def parse_topology(text: str, source: str = "") -> Topology:
    """The topology that ``text`` (YAML) describes.

    Raises:
        InputError: with every problem of the file.
    """
    document, problems = parse_yaml(text, source)
    reader = Reader(source, list(problems))
    if document is None and not problems:
        reader.bad("", None, "must be a mapping with name, hosts and links or segments")
    topology = _read(reader, document) if not isinstance(document, list) else None
    if topology is None:
        reader.bad("", document, "must be a mapping")
    if reader.problems or topology is None:
        raise InputError(reader.problems)
    return topology


_TOP = ("name", "defaults", "routers", "hosts", "links", "segments", "workloads", "resources", "check")


def _read(reader: Reader, document: object) -> Topology:
    top = reader.mapping("", document, _TOP)
    name = reader.text("name", top.get("name"))
    if isinstance(top.get("name"), str | None) and not LAB_NAME.fullmatch(name):
        reader.bad("name", name or None, "must be 1 to 15 lower-case letters and digits, beginning with a letter")
    defaults = reader.mapping(
        "defaults", top.get("defaults"), ("mesh", "as", "software", "pools", "bfd", "namespace", "profiles", "unnumbered", "vxlan", "ipip")
    )
    as_number = _as_number(reader, "defaults.as", defaults.get("as"), default=64512)
    software = reader.choice("defaults.software", defaults.get("software"), SOFTWARE, default="bird")
    pools = tuple(
        pool
        for index, item in enumerate(reader.items("defaults.pools", defaults.get("pools", ["10.65.0.0/16", "fd00:65::/48"])))
        if (pool := _prefix(reader, f"defaults.pools[{index}]", item)) is not None
    )
    routers = _routers(reader, top.get("routers"), as_number, software)
    hosts = _hosts(reader, top.get("hosts"), as_number)
    nodes = [router.name for router in routers] + [host.name for host in hosts]
    segments = _segments(reader, top.get("segments"), nodes, pools)
    links = _links(reader, top.get("links"), nodes)
    workloads = _workloads(reader, top.get("workloads"), [host.name for host in hosts], defaults)
    _names_once(reader, {"routers": routers, "hosts": hosts, "segments": segments, "workloads": workloads})
    _all_connected(reader, routers, hosts, links, segments)
    unnumbered = reader.flag("defaults.unnumbered", defaults.get("unnumbered"), default=False)
    if unnumbered:
        _learning_routers(reader, routers)
    vxlan, ipip = (reader.choice(f"defaults.{name}", defaults.get(name), TUNNELS, default="Never") for name in ("vxlan", "ipip"))
    if "Never" not in (vxlan, ipip):
        reader.bad("defaults.ipip", ipip, "must be Never where vxlan is not: a pool has one tunnel")
    return Topology(
        name=name,
        mesh=reader.flag("defaults.mesh", defaults.get("mesh"), default=False),
        as_number=as_number,
        pools=pools,
        bfd=_bfd(reader, defaults.get("bfd")),
        routers=routers,
        hosts=hosts,
        links=links,
        segments=segments,
        workloads=workloads,
        resources=_resources(reader, top.get("resources")),
        check=_check(reader, top.get("check")),
        unnumbered=unnumbered,
        vxlan=vxlan,
        ipip=ipip,
    )


def _as_number(reader: Reader, path: str, value: object, *, default: int) -> int:
    if value is not None and value in NOT_AN_AS:
        reader.bad(path, value, "is reserved (RFC 6793, RFC 7300); private numbers are 64512-65534 and 4200000000-4294967294")
        return default
    return reader.number(path, value, 1, LAST_AS, default=default)


def _prefix(reader: Reader, path: str, value: object, family: int | None = None) -> Prefix | None:
    wanted = "an IPv4 or IPv6 prefix" if family is None else f"an IPv{family} prefix"
    try:
        prefix = parse_prefix(reader.text(path, value), strict=True)
    except ValueError as error:
        reader.bad(path, value, f"must be {wanted} without host bits ({error})")
        return None
    if family is not None and prefix.family != family:
        reader.bad(path, value, f"must be {wanted}")
        return None
    return prefix


def _name(reader: Reader, path: str, name: str) -> None:
    if not NODE_NAME.fullmatch(name):
        reader.bad(path, name, "must be 1 to 15 lower-case letters, digits and inner hyphens, beginning with a letter")
    elif name in RESERVED:
        reader.bad(path, name, f"is reserved (reserved: {', '.join(RESERVED)})")
    elif name.startswith(RESERVED_PREFIXES):
        reader.bad(path, name, f"must not begin with {' or '.join(RESERVED_PREFIXES)}: those are workload interfaces")


def _labels(reader: Reader, path: str, value: object) -> dict[str, str]:
    return {key: reader.text(f"{path}.{key}", item) for key, item in reader.entries(path, value).items()}


def _routers(reader: Reader, value: object, as_number: int, software: str) -> tuple[Router, ...]:
    found = []
    for name, item in reader.entries("routers", value).items():
        path = f"routers.{name}"
        _name(reader, path, name)
        fields = reader.mapping(path, item, ("as", "software", "role"))
        found.append(
            Router(
                name=name,
                as_number=_as_number(reader, f"{path}.as", fields.get("as"), default=as_number),
                software=reader.choice(f"{path}.software", fields.get("software"), SOFTWARE, default=software),
                role=reader.choice(f"{path}.role", fields.get("role"), ROLES, default="router"),
            )
        )
    return tuple(found)


def _hosts(reader: Reader, value: object, as_number: int) -> tuple[Host, ...]:
    found = []
    for name, item in reader.entries("hosts", value).items():
        path = f"hosts.{name}"
        _name(reader, path, name)
        fields = reader.mapping(path, item, ("as", "labels", "reflector"))
        found.append(
            Host(
                name=name,
                as_number=_as_number(reader, f"{path}.as", fields.get("as"), default=as_number),
                labels=_labels(reader, f"{path}.labels", fields.get("labels")),
                reflector=_cluster_id(reader, f"{path}.reflector", fields.get("reflector")),
            )
        )
    if not found:
        reader.bad("hosts", value, "must name at least one host")
    return tuple(found)


def _cluster_id(reader: Reader, path: str, value: object) -> str:
    text = reader.text(path, value)
    if text:
        try:
            if parse_address(text).family == IPV4:
                return text
        except ValueError:
            pass
        reader.bad(path, value, "must be the id of a cluster, written as an IPv4 address")
    return ""


def _learning_routers(reader: Reader, routers: tuple[Router, ...]) -> None:
    for router in routers:
        if router.software != "frr":
            allowed = "must be frr where links are unnumbered: a lab's BIRD routers have the addresses of their neighbours in their files"
            reader.bad(f"routers.{router.name}.software", router.software, allowed)


def _links(reader: Reader, value: object, nodes: list[str]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for index, item in enumerate(reader.items("links", value)):
        path = f"links[{index}]"
        ends = [reader.text(f"{path}[{n}]", end) for n, end in enumerate(reader.items(path, item))]
        if len(ends) != 2:
            reader.bad(path, item, "must be a list of two node names, as in [spine1, tor1]")
            continue
        for n, end in enumerate(ends):
            if end not in nodes:
                reader.bad(f"{path}[{n}]", end, f"must be a router or host of this file{nearest(end, nodes)}")
        a, b = ends
        if a == b:
            reader.bad(path, item, "must lead to another node")
        elif (a, b) in found or (b, a) in found:
            reader.bad(path, item, "this pair is linked already")
        else:
            found.append((a, b))
    return tuple(found)


def _segments(reader: Reader, value: object, nodes: list[str], pools: tuple[Prefix, ...]) -> tuple[Segment, ...]:
    found: list[Segment] = []
    taken = [MANAGEMENT4, *LOOPBACKS, *LINKS, *NEUTRON_SUBNETS, *pools]
    for name, item in reader.entries("segments", value).items():
        path = f"segments.{name}"
        _name(reader, path, name)
        fields = reader.mapping(path, item, ("subnet4", "subnet6", "members"))
        members = reader.texts(f"{path}.members", fields.get("members"))
        for index, member in enumerate(members):
            if member not in nodes:
                reader.bad(f"{path}.members[{index}]", member, f"must be a router or host of this file{nearest(member, nodes)}")
        if len(members) < 2:
            reader.bad(f"{path}.members", fields.get("members"), "must name at least two nodes")
        subnets = []
        for key, family in (("subnet4", IPV4), ("subnet6", IPV6)):
            prefix = _prefix(reader, f"{path}.{key}", fields.get(key), family)
            if prefix is None:
                continue
            for other in taken:
                if prefix.overlaps(other):
                    reader.bad(f"{path}.{key}", prefix, f"must not overlap {other}, which the lab uses")
            if prefix.size < len(members) + 2:
                reader.bad(f"{path}.{key}", prefix, f"is too small for {len(members)} members")
            taken.append(prefix)
            subnets.append(prefix)
        if len(subnets) == 2:
            found.append(Segment(name=name, subnet4=subnets[0], subnet6=subnets[1], members=members))
    return tuple(found)


def _workloads(reader: Reader, value: object, hosts: list[str], defaults: dict[str, object]) -> tuple[Workload, ...]:
    found = []
    namespace = reader.text("defaults.namespace", defaults.get("namespace"), default="lab")
    profiles = reader.texts("defaults.profiles", defaults.get("profiles"))
    for name, item in reader.entries("workloads", value).items():
        path = f"workloads.{name}"
        _name(reader, path, name)
        fields = reader.mapping(path, item, ("host", "namespace", "labels", "profiles", "ports", "kind"))
        host = reader.text(f"{path}.host", fields.get("host"))
        if host not in hosts:
            reader.bad(f"{path}.host", host or None, f"must be a host of this file{nearest(host, hosts)}")
        where = reader.text(f"{path}.namespace", fields.get("namespace"), default=namespace)
        if not WORKLOAD_NAMESPACE.fullmatch(where):
            reader.bad(f"{path}.namespace", where, "must be 1 to 63 lower-case letters, digits and inner hyphens")
        facts = FACTS[reader.choice(f"{path}.kind", fields.get("kind"), KINDS, default=KINDS[0])]
        _only_what_it_can_have(reader, path, fields, facts)
        chosen = reader.texts(f"{path}.profiles", fields["profiles"]) if "profiles" in fields else profiles
        found.append(
            Workload(
                name=name,
                host=host,
                namespace=facts.policy_namespace or where,
                labels=_labels(reader, f"{path}.labels", fields.get("labels")),
                profiles=chosen if facts.has_profiles else (),
                ports=_ports(reader, f"{path}.ports", fields.get("ports")),
                kind=facts.name,
            )
        )
    return tuple(found)


def _only_what_it_can_have(reader: Reader, path: str, fields: dict[str, object], facts: KindFacts) -> None:
    """What was said of the workload can be had by one of its kind."""
    for key, possible in (("namespace", not facts.policy_namespace), ("profiles", facts.has_profiles), ("ports", facts.has_ports)):
        if key in fields and not possible:
            reader.bad(f"{path}.{key}", fields[key], f"cannot be said of a workload of kind {facts.name}")


def _ports(reader: Reader, path: str, value: object) -> tuple[Port, ...]:
    found = []
    for index, item in enumerate(reader.items(path, value)):
        here = f"{path}[{index}]"
        fields = reader.mapping(here, item, ("name", "protocol", "port"))
        name = reader.text(f"{here}.name", fields.get("name"))
        if not name:
            reader.bad(f"{here}.name", None, "must be the port's name")
        found.append(
            Port(
                name=name,
                protocol=reader.choice(f"{here}.protocol", fields.get("protocol"), ("TCP", "UDP"), default="TCP"),
                port=_port(reader, f"{here}.port", fields.get("port")),
            )
        )
    return tuple(found)


def _port(reader: Reader, path: str, value: object) -> int:
    if value is None:
        reader.bad(path, None, "must be a number from 1 to 65535")
    return reader.number(path, value, 1, 65535, default=1)


def _bfd(reader: Reader, value: object) -> Bfd:
    fields = reader.mapping("defaults.bfd", value, ("interval_ms", "multiplier"))
    return Bfd(
        interval_ms=reader.number("defaults.bfd.interval_ms", fields.get("interval_ms"), 10, 10_000, default=Bfd().interval_ms),
        multiplier=reader.number("defaults.bfd.multiplier", fields.get("multiplier"), 1, 255, default=Bfd().multiplier),
    )


def _resources(reader: Reader, value: object) -> tuple[str | dict[str, object], ...]:
    found: list[str | dict[str, object]] = []
    for index, item in enumerate(reader.items("resources", value)):
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            found.append(reader.entries(f"resources[{index}]", item))
        else:
            reader.bad(f"resources[{index}]", item, "must be a resource or the name of a file with resources")
    return tuple(found)


def _check(reader: Reader, value: object) -> CheckPorts:
    fields = reader.mapping("check", value, ("tcp", "udp"))
    ports = {}
    for key, default in (("tcp", CheckPorts().tcp), ("udp", CheckPorts().udp)):
        items = reader.items(f"check.{key}", fields.get(key)) if key in fields else list(default)
        ports[key] = tuple(dict.fromkeys(_port(reader, f"check.{key}[{index}]", item) for index, item in enumerate(items)))
        if not ports[key]:
            reader.bad(f"check.{key}", fields.get(key), "must name at least one port")
    return CheckPorts(tcp=ports["tcp"], udp=ports["udp"])


def _names_once(reader: Reader, groups: _Groups) -> None:
    """Everything with a namespace of its own needs a name of its own."""
    owner: dict[str, str] = {}
    for kind, records in groups.items():
        for record in records:
            if record.name in owner:
                reader.bad(f"{kind}.{record.name}", record.name, f"is the name of another node already ({owner[record.name]})")
            owner.setdefault(record.name, kind)
    if len(groups["routers"]) + len(groups["hosts"]) > MAX_NODES:
        reader.bad("hosts", len(groups["hosts"]), f"routers and hosts together must be at most {MAX_NODES}")


def _all_connected(
    reader: Reader, routers: tuple[Router, ...], hosts: tuple[Host, ...], links: tuple[tuple[str, str], ...], segments: tuple[Segment, ...]
) -> None:
    connected = {end for link in links for end in link} | {member for segment in segments for member in segment.members}
    for kind, records in (("routers", routers), ("hosts", hosts)):
        for record in records:
            if record.name not in connected and len(routers) + len(hosts) > 1:
                reader.bad(f"{kind}.{record.name}", record.name, "has no link and is in no segment")
