"""From a domain's XML to what is attached for it. Pure.

In: the XML that libvirt gives its hooks. Out: a ``Domain`` with its interfaces, and the ``AttachRequest`` of each; or everything that is
wrong, with element and value. An element or attribute of ours that nobody knows is refused, since a label or limit that is mistyped is one
that is missing. Ours are the interfaces of type ``ethernet`` that libvirt does not manage (``managed='no'``) and whose name begins as a
workload's. Linear in the XML. Source: libvirt's "Domain XML format" (metadata; generic ethernet connection).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, ParseError, fromstring

import msgspec

from tabinet.attach.libvirt.hook import XML_NAMESPACE
from tabinet.attach.limits import parse_limits
from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest
from tabinet.errors import InputError, Problem
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix
from tabinet.model.names import label_findings

ORCHESTRATOR = "libvirt"
DOMAIN_ANNOTATION = "tabinet.io/domain"
"""What libvirt calls the domain."""
ROOT = "workload"
_TEXTS = ("hostname", "user-data", "vendor-data", "network-config")
"""Elements that are annotations of the endpoint of the same name."""
_KEYS = "ssh-key"
_OF_INTERFACES = {"label": ("name", "value"), "limit": ("name", "value"), "profile": (), "address": (), "pool": (), "floating": ()}
"""Elements below the root, for all interfaces, and below ``interface``, for one; and their attributes."""
_SWITCHES = ("ipv4", "ipv6")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_NUMBER = re.compile(r"[0-9]{1,9}")
_MTU = range(68, 65536)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata say of an interface."""

    labels: dict[str, str] = {}
    limits: tuple[str, ...] = ()
    """``field=value``."""
    profiles: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    floating: tuple[str, ...] = ()
    ipv4: bool | None = None
    ipv6: bool | None = None


class GuestInterface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of a domain that is ours."""

    device: str
    """The TAP."""
    mac: str
    queues: int = 1
    mtu: int = 0
    """Bytes; 0: nothing is said."""
    wanted: Wanted = Wanted()


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain with our element in its metadata."""

    name: str
    uuid: str
    namespace: str
    interfaces: tuple[GuestInterface, ...]
    told: dict[str, str] = {}
    """Annotations without their prefix: what the guest is told of itself."""

    def workload(self, host: str, interface: GuestInterface) -> Workload:
        """How the endpoint of an interface is called on a host."""
        return workload_of(host, self.namespace, self.uuid, interface.device)


def workload_of(host: str, namespace: str, uuid: str, device: str) -> Workload:
    """How an interface's endpoint is called on a host."""
    return Workload(node=host, workload=uuid, orchestrator=ORCHESTRATOR, endpoint=device, namespace=namespace)


def handle_of(uuid: str, device: str) -> str:
    """The owner of an interface's addresses. Names no host: a domain takes them along."""
    return f"{ORCHESTRATOR}-{uuid}-{device}"


def parse_domain(xml: bytes, prefixes: Collection[str]) -> Domain | None:
    """The domain; None without our element in its metadata. ``prefixes``: what names of workloads' interfaces begin with.

    Raises:
        InputError: says everything that is wrong.
    """
    try:
        root = fromstring(xml)
    except (ParseError, LookupError, ValueError) as error:  # the latter: an encoding that Python has not, or that cannot be
        raise InputError([Problem(path="domain", value=str(error), allowed="a domain's XML")]) from None
    ours = root.find(f"metadata/{{{XML_NAMESPACE}}}{ROOT}")
    if ours is None:
        return None
    problems: list[Problem] = []
    common, by_device, told = _read_metadata(ours, problems)
    interfaces = [_with_wanted(each, common, by_device) for each in _interfaces(root, tuple(prefixes), problems)]
    devices = {each.device for each in interfaces}
    for device in by_device.keys() - devices:
        allowed = f"the name of an <interface type='ethernet'> with managed='no' ({', '.join(sorted(devices)) or 'there is none'})"
        problems.append(Problem(path=f"{ROOT}/interface dev", value=repr(device), allowed=allowed))
    if not interfaces and not problems:
        allowed = f"<target dev='NAME' managed='no'/>, the name beginning with {' or '.join(sorted(prefixes))} (interfacePrefix)"
        problems.append(Problem(path="devices/interface", value="no interface of type 'ethernet' that is ours", allowed=allowed))
    if len(interfaces) > 1 and (common.addresses or common.floating):
        allowed = f"below <{ROOT}> only in a domain with one interface; in others below <interface dev='NAME'>"
        problems.append(Problem(path=f"{ROOT}/address", value=", ".join(common.addresses or common.floating), allowed=allowed))
    if problems:
        raise InputError(problems)
    name, uuid = _text(root.find("name")), _text(root.find("uuid"))
    told = ({"hostname": name} if _HOSTNAME.fullmatch(name) else {}) | {"instance-id": uuid} | told
    return Domain(name=name, uuid=uuid, namespace=ours.get("namespace", "default"), interfaces=tuple(interfaces), told=told)


# --- the metadata ---------------------------------------------------------------------------------------------------


def _read_metadata(ours: Element, problems: list[Problem]) -> tuple[Wanted, dict[str, Wanted], dict[str, str]]:
    """What is for all interfaces, what is for one, by its name, and what the guest is told."""
    _check_attributes(ours, ("namespace", *_SWITCHES), ROOT, problems)
    told: dict[str, str] = {}
    keys: list[str] = []
    by_device: dict[str, Wanted] = {}
    shared: list[tuple[str, Element]] = []
    for name, element in _children(ours):
        if name in _OF_INTERFACES:
            shared.append((name, element))
        elif name == "interface":
            _check_attributes(element, ("dev", *_SWITCHES), f"{ROOT}/interface", problems)
            by_device[element.get("dev", "")] = _read_wanted(element, list(_children(element)), f"{ROOT}/interface", problems)
        elif name in _TEXTS:
            told[name] = element.text or ""
        elif name == _KEYS:
            keys.append(_text(element))
        else:
            allowed = f"one of {', '.join((*_OF_INTERFACES, 'interface', *_TEXTS, _KEYS))}"
            problems.append(Problem(path=f"{ROOT}/{name}", value=f"<{name}>", allowed=allowed))
    if keys:
        told["ssh-keys"] = "\n".join(keys)
    return _read_wanted(ours, shared, ROOT, problems), by_device, told


def _read_wanted(parent: Element, children: Sequence[tuple[str, Element]], place: str, problems: list[Problem]) -> Wanted:
    texts: dict[str, list[str]] = {name: [] for name in _OF_INTERFACES}
    labels: dict[str, str] = {}
    for name, element in children:
        if name not in _OF_INTERFACES:
            problems.append(Problem(path=f"{place}/{name}", value=f"<{name}>", allowed=f"one of {', '.join(_OF_INTERFACES)}"))
            continue
        attributes = _OF_INTERFACES[name]
        _check_attributes(element, attributes, f"{place}/{name}", problems)
        problems += [
            Problem(path=f"{place}/{name}", value=f"no {attribute}", allowed=f"<{name} name='...' value='...'/>")
            for attribute in attributes
            if element.get(attribute) is None
        ]
        if name == "label":
            labels[element.get("name", "")] = element.get("value", "")
        else:
            texts[name].append(f"{element.get('name')}={element.get('value')}" if attributes else _text(element))
    problems += [Problem(path=f"{place}/label {key}", value=repr(text), allowed=allowed) for key, text, allowed in label_findings(labels)]
    try:
        parse_limits(texts["limit"], f"{place}/limit")
    except InputError as error:
        problems += error.problems
    return Wanted(
        labels=labels,
        limits=tuple(texts["limit"]),
        profiles=tuple(texts["profile"]),
        addresses=tuple(texts["address"]),
        pools=tuple(texts["pool"]),
        floating=tuple(texts["floating"]),
        ipv4=_switch(parent, "ipv4", place, problems),
        ipv6=_switch(parent, "ipv6", place, problems),
    )


def _switch(element: Element, name: str, place: str, problems: list[Problem]) -> bool | None:
    value = element.get(name)
    if value not in (None, "yes", "no"):
        problems.append(Problem(path=f"{place} {name}", value=repr(value), allowed="yes or no"))
    return None if value is None else value == "yes"


def _check_attributes(element: Element, known: Sequence[str], place: str, problems: list[Problem]) -> None:
    for name in element.keys():  # noqa: SIM118 (an Element is no mapping)
        if name not in known:
            allowed = f"one of {', '.join(known)}" if known else "nothing: the value is the element's text"
            problems.append(Problem(path=f"{place} {name}", value=repr(element.get(name)), allowed=allowed))


def _children(element: Element) -> Iterator[tuple[str, Element]]:
    for child in element:
        # Children inherit the prefix in people's minds, if not in XML: both spellings are ours.
        yield child.tag.removeprefix(f"{{{XML_NAMESPACE}}}"), child


def _text(element: Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


# --- the devices ----------------------------------------------------------------------------------------------------


def _interfaces(root: Element, prefixes: tuple[str, ...], problems: list[Problem]) -> list[GuestInterface]:
    found = []
    for interface in root.iterfind("devices/interface[@type='ethernet']"):
        target, mac, driver, mtu = (interface.find(name) for name in ("target", "mac", "driver", "mtu"))
        device = target.get("dev", "") if target is not None else ""
        if target is None or target.get("managed") != "no" or not device.startswith(prefixes):
            continue
        size = _number(mtu, "size", 0, f"interface {device}: mtu size", problems)
        if size and size not in _MTU:
            problems.append(Problem(path=f"interface {device}: mtu size", value=str(size), allowed=f"{_MTU[0]} to {_MTU[-1]} bytes"))
        queues = _number(driver, "queues", 1, f"interface {device}: driver queues", problems)
        address = mac.get("address", "").lower() if mac is not None else ""
        found.append(GuestInterface(device=device, mac=address, queues=queues, mtu=size))
    return found


def _number(element: Element | None, attribute: str, default: int, place: str, problems: list[Problem]) -> int:
    text = element.get(attribute) if element is not None else None
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        problems.append(Problem(path=place, value=repr(text[:80]), allowed="a number of up to nine digits"))
        return default
    return int(text)


def _with_wanted(interface: GuestInterface, common: Wanted, by_device: Mapping[str, Wanted]) -> GuestInterface:
    """What is for all interfaces, and what is for this one: labels and limits are added, anything else takes the other's place."""
    own = by_device.get(interface.device, Wanted())
    wanted = Wanted(
        labels=common.labels | own.labels,
        limits=(*common.limits, *own.limits),
        profiles=own.profiles or common.profiles,
        addresses=own.addresses or common.addresses,
        pools=own.pools or common.pools,
        floating=own.floating or common.floating,
        ipv4=own.ipv4 if own.ipv4 is not None else common.ipv4,
        ipv6=own.ipv6 if own.ipv6 is not None else common.ipv6,
    )
    return msgspec.structs.replace(interface, wanted=wanted)


# --- the attachment -------------------------------------------------------------------------------------------------


def request_of(host: str, domain: Domain, interface: GuestInterface, pools: Mapping[str, Prefix], interface_prefix: str) -> AttachRequest:
    """The attachment of an interface. ``pools``: CIDRs by name.

    Raises:
        InputError: an address or pool that is none; says everything that is wrong.
    """
    wanted, problems = interface.wanted, list[Problem]()
    addresses = _addresses(wanted.addresses, f"interface {interface.device}: address", problems)
    floating = _addresses(wanted.floating, f"interface {interface.device}: floating", problems)
    named = _pools(wanted.pools, pools, interface.device, problems)
    if problems:
        raise InputError(problems)
    pools4 = tuple(pool for pool in named if pool.family == IPV4)
    pools6 = tuple(pool for pool in named if pool.family == IPV6)
    want4 = wanted.ipv4 if wanted.ipv4 is not None else bool(pools4) or not (addresses or pools6)
    want6 = wanted.ipv6 if wanted.ipv6 is not None else bool(pools6)
    told = {f"tabinet.io/{name}": text for name, text in domain.told.items()}
    return AttachRequest(
        workload=domain.workload(host, interface),
        tap=interface.device,
        count4=max(int(want4), sum(address.family == IPV4 for address in addresses)),
        count6=max(int(want6), sum(address.family == IPV6 for address in addresses)),
        addresses=addresses,
        pools4=pools4,
        pools6=pools6,
        handle=handle_of(domain.uuid, interface.device),
        labels=wanted.labels,
        profiles=wanted.profiles,
        floating=floating,
        qos=parse_limits(wanted.limits, f"interface {interface.device}: limit"),
        annotations=told | {DOMAIN_ANNOTATION: domain.name},
        mac=interface.mac,
        interface_prefix=interface_prefix,
    )


def _addresses(texts: Sequence[str], place: str, problems: list[Problem]) -> tuple[Prefix, ...]:
    found = []
    for text in texts:
        try:
            found.append(parse_address(text))
        except ValueError:
            problems.append(Problem(path=place, value=repr(text), allowed="an IPv4 or IPv6 address"))
    return tuple(found)


def _pools(texts: Sequence[str], pools: Mapping[str, Prefix], device: str, problems: list[Problem]) -> list[Prefix]:
    found = []
    for text in texts:
        try:
            found.append(pools[text] if text in pools else parse_prefix(text, strict=True))
        except ValueError:
            allowed = f"a pool by name or CIDR (there are: {', '.join(sorted(pools)) or 'none'})"
            problems.append(Problem(path=f"interface {device}: pool", value=repr(text), allowed=allowed))
    return found
