"""The CNI protocol: requests and their parts, results in every version, errors. Pure.

In: the bytes of a request (``shim`` describes them), or environment and input. Out: a ``Call`` with its configuration still raw, results
as JSON of the caller's version. Whatever the bytes, the outcome is a value or a ``CniError``. O(bytes). Source: the CNI specification
1.1, sections 2, 4 and 5, and the results of 0.3 to 1.0 in its older editions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import msgspec

from tabinet.attach.cni.shim import VERSIONS
from tabinet.errors import CniError

COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
PLUGIN, IPAM_PLUGIN = "tabinet-cni", "tabinet-ipam"
_REQUEST = re.compile(rb"([A-Za-z0-9_.-]{1,64}) ([0-9]{1,7}) ([0-9]{1,7})\n")
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE = re.compile(r"[^/:\s]{1,15}")
_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}


class Code(IntEnum):
    """Error codes: the specification's, and our own from 100."""

    VERSION = 1
    FIELD = 2
    CONTAINER = 3
    ENVIRONMENT = 4
    IO = 5
    DECODE = 6
    CONFIG = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    ADDRESS = 100
    """No address can be had."""
    CHECK = 101
    """What was attached is not as it was told."""


class Request(msgspec.Struct, frozen=True):
    """What a runtime hands to a plugin."""

    plugin: str
    environ: dict[str, str]
    stdin: bytes


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request that makes sense, as far as that can be told without its configuration."""

    plugin: str
    command: str
    version: str
    """The caller's, one of ``VERSIONS``."""
    config: dict[str, Any]
    """As it was given."""
    container: str = ""
    interface: str = ""
    netns: str = ""
    arguments: dict[str, str] = {}
    """``CNI_ARGS``."""
    path: tuple[str, ...] = ()
    """Directories of plugins."""

    @property
    def network(self) -> str:
        """The name of the network."""
        return str(self.config.get("name", ""))


# --- requests


def request_length(head: bytes) -> int | None:
    """How long the request is that begins so, in bytes; None: that is not known yet.

    Raises:
        CniError: it is none.
    """
    line = head.partition(b"\n")[0]
    if b"\n" not in head and len(line) < 100:
        return None
    match = _REQUEST.match(head)
    if match is None:
        raise CniError(Code.DECODE, "this is no request of a CNI plugin")
    return match.end() + int(match[2]) + int(match[3])


def parse_request(data: bytes) -> Request:
    """The request in these bytes.

    Raises:
        CniError: it is none.
    """
    match = _REQUEST.match(data)
    if match is None or len(data) != match.end() + int(match[2]) + int(match[3]):
        raise CniError(Code.DECODE, "this is no request of a CNI plugin")
    block = data[match.end() : match.end() + int(match[2])]
    try:
        pairs = [entry.partition("=") for entry in block.decode().split("\0") if entry]
    except UnicodeDecodeError:
        raise CniError(Code.ENVIRONMENT, "an environment variable is not UTF-8") from None
    return Request(match[1].decode(), {name: value for name, _, value in pairs}, data[match.end() + int(match[2]) :])


def parse_call(request: Request) -> Call:
    """The call that a request is.

    Raises:
        CniError: codes 1, 4, 6 and 7 of the specification.
    """
    environ = request.environ
    command = environ.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise CniError(Code.ENVIRONMENT, f"CNI_COMMAND: got {command!r}; one of {', '.join(COMMANDS)}")
    config = _parse_config(request.stdin)
    version = config.get("cniVersion", "0.1.0")
    if version not in VERSIONS:
        raise CniError(Code.VERSION, f"cniVersion: got {version!r}; one of {', '.join(VERSIONS)}")
    if command in ("CHECK", "GC", "STATUS") and _number(version) < _FIRST_WITH[command]:
        raise CniError(Code.VERSION, f"cniVersion: got {version!r}, which has no {command}")
    _check_environment(environ, command)
    if command != "STATUS" and not (isinstance(config.get("name"), str) and _CONTAINER_ID.fullmatch(config["name"])):
        raise CniError(
            Code.CONFIG, f"name: got {config.get('name')!r}; letters, digits, '_', '.' and '-', and the first is one of the former"
        )
    return Call(
        plugin=request.plugin,
        command=command,
        version=version,
        config=config,
        container=environ.get("CNI_CONTAINERID", ""),
        interface=environ.get("CNI_IFNAME", ""),
        netns=environ.get("CNI_NETNS", ""),
        arguments=parse_arguments(environ.get("CNI_ARGS", "")),
        path=tuple(part for part in environ.get("CNI_PATH", "").split(":") if part),
    )


def parse_arguments(text: str) -> dict[str, str]:
    """``CNI_ARGS``: ``KEY=value`` separated by semicolons.

    Raises:
        CniError: a part without ``=``.
    """
    arguments = {}
    for part in filter(None, text.split(";")):
        key, found, value = part.partition("=")
        if not found:
            raise CniError(Code.ENVIRONMENT, f"CNI_ARGS: got {part!r}; KEY=value, separated by ';'")
        arguments[key] = value
    return arguments


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


_FIRST_WITH = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}


def _parse_config(stdin: bytes) -> dict[str, Any]:
    try:
        config = msgspec.json.decode(stdin)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CniError(Code.DECODE, f"the network configuration is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise CniError(Code.DECODE, "the network configuration is not UTF-8") from None
    if not isinstance(config, dict):
        raise CniError(Code.DECODE, "the network configuration is not a JSON object")
    return config


def _check_environment(environ: Mapping[str, str], command: str) -> None:
    missing = [name for name in _NEEDED.get(command, ()) if not environ.get(name)]
    if missing:
        raise CniError(Code.ENVIRONMENT, f"{', '.join(missing)}: missing, and {command} needs it")
    container, interface = environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
    if container and not _CONTAINER_ID.fullmatch(container):
        raise CniError(Code.ENVIRONMENT, f"CNI_CONTAINERID: got {container!r}; letters, digits, '_', '.' and '-', first a letter or digit")
    if interface and (not _INTERFACE.fullmatch(interface) or interface in (".", "..") or len(interface.encode()) > 15):
        raise CniError(Code.ENVIRONMENT, f"CNI_IFNAME: got {interface!r}; an interface name of 1 to 15 bytes")


# --- results


class Interface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An interface; ``sandbox`` is the namespace that it is in, empty: the host's."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""


class AddressConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address, in CIDR notation."""

    address: str
    gateway: str = ""
    interface: int | None = None
    """Index in the result's interfaces."""


class RouteConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route inside."""

    dst: str
    gw: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an ADD has made."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[AddressConfig, ...] = ()
    routes: tuple[RouteConfig, ...] = ()
    dns: dict[str, Any] = {}


def render_result(result: Result, version: str) -> bytes:
    """The result in a version of the specification: before 1.0 addresses say which family they are; the MTU is told from 1.1 on."""
    document: dict[str, Any] = {"cniVersion": version} | msgspec.to_builtins(result)
    if _number(version) < (1, 0, 0):
        for entry in document["ips"]:
            entry["version"] = "6" if ":" in entry["address"] else "4"
    if _number(version) < (1, 1, 0):
        for entry in document["interfaces"]:
            entry.pop("mtu", None)
    return msgspec.json.encode({name: value for name, value in document.items() if value or name == "cniVersion"})


def parse_result(value: object, where: str = "prevResult") -> Result:
    """A result of any version; what we do not know of it is left out.

    Raises:
        CniError: it is none.
    """
    try:
        return msgspec.convert(value, Result)
    except msgspec.ValidationError as error:
        raise CniError(Code.CONFIG, f"{where}: {error}") from None


def merge(before: Result, own: Result) -> Result:
    """What plugins before us in a list have made, and what we have made."""
    shift = len(before.interfaces)
    ips = [msgspec.structs.replace(entry, interface=entry.interface + shift) if entry.interface is not None else entry for entry in own.ips]
    return Result(
        interfaces=(*before.interfaces, *own.interfaces),
        ips=(*before.ips, *ips),
        routes=tuple(dict.fromkeys((*before.routes, *own.routes))),
        dns=before.dns or own.dns,
    )


def render_error(version: str, error: CniError) -> bytes:
    """An error, as the specification has it."""
    document: dict[str, Any] = {"cniVersion": version, "code": int(error.code), "msg": str(error)}
    details = "; ".join(filter(None, [error.details, *getattr(error, "__notes__", ())]))
    return msgspec.json.encode(document | ({"details": details} if details else {}))


def version_for_errors(stdin: bytes) -> str:
    """The version that the caller speaks, where that can be told; else our latest."""
    try:
        version = _parse_config(stdin).get("cniVersion")
    except CniError:
        version = None
    return version if version in VERSIONS else VERSIONS[-1]
