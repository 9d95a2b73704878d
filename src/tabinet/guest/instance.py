"""What a guest that is not Nova's learns of itself at 169.254.169.254: Ec2's tree, and the four files of cloud-init's NoCloud.

In: a WorkloadEndpoint, and a request's path. Out: a text, or None: there is nothing there. What is told comes from the endpoint alone:
annotations ``tabinet.io/hostname``, ``instance-id``, ``ssh-keys`` (one a line), ``user-data``, ``vendor-data``, ``network-config``; its
labels without a slash (as tags), addresses, hardware address and host. Pure; linear in what is told.

Sources: the Ec2 user guide, "Instance metadata categories"; cloud-init, "NoCloud" and "Network config version 2". Files are JSON, which
is YAML.
"""

from __future__ import annotations

import json
import re

import msgspec

from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.resources import WorkloadEndpoint

PREFIX = "tabinet.io/"
HOSTNAME, INSTANCE_ID, SSH_KEYS = "hostname", "instance-id", "ssh-keys"
USER_DATA, VENDOR_DATA, NETWORK_CONFIG = "user-data", "vendor-data", "network-config"
_TOLD = (HOSTNAME, INSTANCE_ID, SSH_KEYS, USER_DATA, VENDOR_DATA, NETWORK_CONFIG)
_FILES = ("meta-data", USER_DATA, VENDOR_DATA, NETWORK_CONFIG)
VERSIONS = ("1.0", "2007-01-19", "2009-04-04", "latest")
_VERSION = re.compile(r"latest|1\.0|20[0-9]{2}-[0-9]{2}-[0-9]{2}")

Tree = dict[str, "Tree | str"]


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as it is told of itself."""

    identifier: str
    hostname: str
    mac: str
    addresses: tuple[Prefix, ...]
    host: str
    floating: str = ""
    """The first floating IPv4 address."""
    told: dict[str, str] = {}
    """Annotations without their prefix."""
    tags: dict[str, str] = {}

    @property
    def keys(self) -> list[str]:
        """Public keys of whoever may log in."""
        return [line.strip() for line in self.told.get(SSH_KEYS, "").splitlines() if line.strip()]


def make_instance(endpoint: WorkloadEndpoint, addresses: tuple[Prefix, ...]) -> Instance:
    """The guest behind an endpoint. Without an identifier of its own it has the endpoint's, so that what is made anew is a new instance."""
    spec, metadata = endpoint.spec, endpoint.metadata
    told = {name: metadata.annotations[PREFIX + name] for name in _TOLD if metadata.annotations.get(PREFIX + name)}
    outside = [nat.external_ip for nat in spec.ip_nats if ":" not in nat.external_ip]
    return Instance(
        identifier=told.get(INSTANCE_ID) or f"i-{metadata.uid or metadata.name}",
        hostname=told.get(HOSTNAME) or spec.workload,
        mac=spec.mac.lower(),
        addresses=addresses,
        host=spec.node,
        floating=outside[0] if outside else "",
        told=told,
        tags={key: value for key, value in sorted(metadata.labels.items()) if "/" not in key},
    )


def look_up(instance: Instance, target: str) -> str | None:
    """What is at a path; a directory is the list of its entries."""
    path = target.partition("?")[0]
    names = [name for name in path.split("/") if name]
    if not names:
        return "\n".join(VERSIONS)
    if len(names) == 1 and names[0] in _FILES:
        return _nocloud(instance, names[0])
    if not _VERSION.fullmatch(names[0]):
        return None
    found: Tree | str = _ec2(instance)
    for name in names[1:]:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    if isinstance(found, str):
        return found
    if names[1:] == ["meta-data", "public-keys"]:
        return "\n".join(f"{number}=key{number}" for number in found)  # where Ec2 says what they are called
    return "\n".join(name if isinstance(each, str) else f"{name}/" for name, each in found.items())


def _ec2(instance: Instance) -> Tree:
    tree: Tree = {"meta-data": _ec2_metadata(instance)}
    if USER_DATA in instance.told:
        tree["user-data"] = instance.told[USER_DATA]
    return tree


def _ec2_metadata(instance: Instance) -> Tree:
    four = [address.address for address in instance.addresses if address.family == IPV4]
    six = [address.address for address in instance.addresses if address.family == IPV6]
    interface: Tree = {"device-number": "0", "local-hostname": instance.hostname, "mac": instance.mac}
    tree: Tree = {
        "hostname": instance.hostname,
        "instance-id": instance.identifier,
        "local-hostname": instance.hostname,
        "mac": instance.mac,
        "placement": {"availability-zone": instance.host},
    }
    if four:
        tree["local-ipv4"] = four[0]
        interface["local-ipv4s"] = "\n".join(four)
    if six:
        tree["ipv6"] = six[0]
        interface["ipv6s"] = "\n".join(six)
    if instance.floating:
        tree["public-ipv4"] = instance.floating
    if instance.mac:
        tree["network"] = {"interfaces": {"macs": {instance.mac: interface}}}
    if instance.keys:
        tree["public-keys"] = {str(number): {"openssh-key": key} for number, key in enumerate(instance.keys)}
    if instance.tags:
        tree["tags"] = {"instance": dict(instance.tags)}
    return tree


def _nocloud_metadata(instance: Instance) -> str:
    told: dict[str, object] = {"instance-id": instance.identifier, "local-hostname": instance.hostname}
    if instance.keys:
        told["public-keys"] = instance.keys
    return json.dumps(told)


def _network_config(instance: Instance) -> str | None:
    """Every address comes by DHCP, on the interface that the endpoint says."""
    if NETWORK_CONFIG in instance.told or not instance.mac:
        return instance.told.get(NETWORK_CONFIG)
    families = {address.family for address in instance.addresses}
    interface: dict[str, object] = {"match": {"macaddress": instance.mac}, "dhcp4": IPV4 in families, "dhcp6": IPV6 in families}
    return json.dumps({"version": 2, "ethernets": {"primary": interface}})


def _nocloud(instance: Instance, name: str) -> str | None:
    match name:
        case "meta-data":
            return _nocloud_metadata(instance)
        case "network-config":
            return _network_config(instance)
        case _:
            # cloud-init takes a missing file for a server that is not ready, and an empty one for nothing to do
            return instance.told.get(name, "")
