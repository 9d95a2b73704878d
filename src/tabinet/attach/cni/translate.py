"""From a CNI call to an attachment, and from an attachment to a CNI result. Pure.

In: a call, its configuration, the host, the pools by name. Out: an ``AttachRequest``; for an attachment, the result. Addresses come from
the first of these that says something: the annotations ``ipAddrsNoIpam`` and ``ipAddrs``, the argument ``IP``, ``args.cni.ips``, the
capability ``ips``, the pools. Where both Kubernetes arguments are there the workload is the pod, as in Calico; else it is the container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tabinet.attach.cni.config import NetworkConfig
from tabinet.attach.cni.protocol import AddressConfig, Call, Code, Interface, Result, RouteConfig
from tabinet.attach.cni.values import parse_addresses, parse_labels, parse_list, parse_quantity, parse_switch, wrong
from tabinet.attach.inside import GATEWAYS, HOST_MAC
from tabinet.attach.names import Workload
from tabinet.attach.netns import Attachment, AttachRequest
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_prefix
from tabinet.model.resources import API_VERSION, QosControls

CALICO = "cni.projectcalico.org/"
QOS = "qos.projectcalico.org/"
NETWORK_ANNOTATION = "tabinet.io/network"
"""Of an endpoint: the CNI network that it is an attachment of."""
LABELS_ANNOTATION = "tabinet.io/labels"
"""Of a pod: labels of its endpoints, ``key=value`` separated by commas."""
_ANYWHERE = {IPV4: "0.0.0.0/0", IPV6: "::/0"}
_QOS_FIELDS = tuple(name for name in QosControls.__struct_encode_fields__ if name != "dscp")
_BANDWIDTH = {"kubernetes.io/ingress-bandwidth": "ingressBandwidth", "kubernetes.io/egress-bandwidth": "egressBandwidth"}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a call says about addresses."""

    addresses: tuple[Prefix, ...] = ()
    unmanaged: tuple[Prefix, ...] = ()
    floating: tuple[Prefix, ...] = ()
    pools4: tuple[str, ...] = ()
    """CIDRs or names."""
    pools6: tuple[str, ...] = ()
    count4: int = 0
    count6: int = 0


def workload_of(call: Call, host: str) -> Workload:
    """Which workload the call is about: a pod where Kubernetes' arguments say so, else the container."""
    namespace, pod = call.arguments.get("K8S_POD_NAMESPACE", ""), call.arguments.get("K8S_POD_NAME", "")
    if namespace and pod:
        return Workload(node=host, workload=pod, orchestrator="k8s", endpoint=call.interface, namespace=namespace)
    return Workload(node=host, workload=call.container, orchestrator="cni", endpoint=call.interface)


def attributes_of(call: Call) -> dict[str, str]:
    """What is stored beside the addresses, so that garbage collection finds the attachment."""
    return {"network": call.network, "container": call.container, "interface": call.interface}


def check_host(config: NetworkConfig, host: str) -> None:
    """The configuration is for this host.

    Raises:
        CniError: it names another one, on which no agent would program the endpoint.
    """
    if config.nodename and config.nodename != host:
        raise wrong("nodename", config.nodename, f"the agent of this host calls it {host!r}")


def wanted_addresses(call: Call, config: NetworkConfig) -> Wanted:
    """What the call says about addresses.

    Raises:
        CniError: a key says something that cannot be understood, or is not allowed to.
    """
    notes, features = config.runtime.annotations, config.feature_control
    asked = _listed(notes, CALICO + "ipAddrs")
    unmanaged = _listed(notes, CALICO + "ipAddrsNoIpam")
    floating = _listed(notes, CALICO + "floatingIPs")
    if unmanaged and not features.ip_addrs_no_ipam:
        raise wrong(CALICO + "ipAddrsNoIpam", notes[CALICO + "ipAddrsNoIpam"], "only where feature_control.ip_addrs_no_ipam is true")
    if floating and not features.floating_ips:
        raise wrong(CALICO + "floatingIPs", notes[CALICO + "floatingIPs"], "only where feature_control.floating_ips is true")
    if unmanaged and asked:
        raise wrong(CALICO + "ipAddrsNoIpam", notes[CALICO + "ipAddrsNoIpam"], f"not together with {CALICO}ipAddrs")
    asked = (
        asked
        or parse_addresses("CNI_ARGS IP", filter(None, call.arguments.get("IP", "").split(",")))
        or parse_addresses("args.cni.ips", config.args.cni.ips)
        or parse_addresses("runtimeConfig.ips", config.runtime.ips)
    )
    pools4 = parse_list(CALICO + "ipv4pools", notes.get(CALICO + "ipv4pools", "")) or config.ipam.ipv4_pools
    pools6 = parse_list(CALICO + "ipv6pools", notes.get(CALICO + "ipv6pools", "")) or config.ipam.ipv6_pools
    if unmanaged or asked:
        return Wanted(addresses=() if unmanaged else asked, unmanaged=unmanaged, floating=floating)
    count4 = int(parse_switch("ipam.assign_ipv4", config.ipam.assign_ipv4, default=True))
    count6 = int(parse_switch("ipam.assign_ipv6", config.ipam.assign_ipv6, default=False))
    if not count4 and not count6:
        raise wrong("ipam.assign_ipv4", config.ipam.assign_ipv4, "true, unless ipam.assign_ipv6 is")
    return Wanted(count4=count4, count6=count6, pools4=pools4, pools6=pools6, floating=floating)


def _listed(notes: Mapping[str, str], key: str) -> tuple[Prefix, ...]:
    return parse_addresses(key, parse_list(key, notes.get(key, "")))


def pool_prefixes(key: str, pools: Sequence[str], known: Mapping[str, Prefix]) -> tuple[Prefix, ...]:
    """The pools by their CIDRs; ``known`` has those of the store by name.

    Raises:
        CniError: neither a CIDR nor the name of a pool.
    """
    found = []
    for pool in pools:
        try:
            found.append(known[pool] if pool in known else parse_prefix(pool, strict=True))
        except ValueError:
            raise wrong(key, pool, f"a CIDR, or the name of a pool (there are: {', '.join(sorted(known)) or 'none'})") from None
    return tuple(found)


def qos_of(config: NetworkConfig) -> QosControls | None:
    """The limits that annotations and the capability ``bandwidth`` ask for; Calico's annotations go before the others.

    Raises:
        CniError: one that cannot be understood, or is out of its range.
    """
    notes, bandwidth = config.runtime.annotations, config.runtime.bandwidth
    limits: dict[str, int | str] = {
        "ingressBandwidth": bandwidth.ingress_rate,
        "ingressBurst": bandwidth.ingress_burst,
        "egressBandwidth": bandwidth.egress_rate,
        "egressBurst": bandwidth.egress_burst,
    }
    limits |= {field: parse_quantity(key, notes[key]) for key, field in _BANDWIDTH.items() if key in notes}
    limits |= {field: parse_quantity(QOS + field, notes[QOS + field]) for field in _QOS_FIELDS if QOS + field in notes}
    if QOS + "dscp" in notes:
        limits["dscp"] = notes[QOS + "dscp"]
    limits = {field: value for field, value in limits.items() if value != 0}
    if not limits:
        return None
    try:
        return msgspec.convert(limits, QosControls)
    except msgspec.ValidationError as error:
        raise wrong("limits", limits, str(error)) from None


def labels_of(call: Call, config: NetworkConfig) -> dict[str, str]:
    """The labels of the endpoint; the last word counts.

    They come from the network, from the annotations that it names, from the annotation ``tabinet.io/labels``, from ``args``, and from the
    argument ``LABELS``.
    """
    notes = config.runtime.annotations
    labels = config.labels | {key: notes[key] for key in config.label_annotations if key in notes}
    labels |= parse_labels(LABELS_ANNOTATION, notes.get(LABELS_ANNOTATION, ""))
    return labels | config.args.labels() | parse_labels("CNI_ARGS LABELS", call.arguments.get("LABELS", ""))


def profiles_of(call: Call, config: NetworkConfig) -> tuple[str, ...]:
    """The profiles of the endpoint."""
    if config.profiles is not None:
        return config.profiles
    namespace = call.arguments.get("K8S_POD_NAMESPACE", "")
    if config.policy.type == "k8s" and namespace:
        return (f"kns.{namespace}", f"ksa.{namespace}.default")
    return (config.name,)


def network_profile(name: str, *, open_to_all: bool) -> dict[str, object]:
    """The profile of a network, as Calico makes it where there is none: its endpoints reach everything, and each other.

    ``open_to_all``: of pods, which then everybody reaches.
    """
    ingress: dict[str, object] = {"action": "Allow"}
    if not open_to_all:
        ingress["source"] = {"selector": f"has({name})"}
    spec = {"ingress": [ingress], "egress": [{"action": "Allow"}], "labelsToApply": {name: ""}}
    return {"apiVersion": API_VERSION, "kind": "Profile", "metadata": {"name": name}, "spec": spec}


def attach_request(call: Call, config: NetworkConfig, host: str, netns: str, pools: Mapping[str, Prefix], wanted: Wanted) -> AttachRequest:
    """The attachment that an ADD asks for. ``netns`` is where the namespace can be opened.

    Raises:
        CniError: something in the configuration cannot be understood.
    """
    check_host(config, host)
    return AttachRequest(
        workload=workload_of(call, host),
        netns=netns,
        interface=call.interface,
        count4=wanted.count4,
        count6=wanted.count6,
        addresses=wanted.addresses,
        unmanaged=wanted.unmanaged,
        floating=wanted.floating,
        pools4=pool_prefixes("ipam.ipv4_pools", wanted.pools4, pools),
        pools6=pool_prefixes("ipam.ipv6_pools", wanted.pools6, pools),
        labels=labels_of(call, config),
        profiles=profiles_of(call, config),
        qos=qos_of(config),
        container=call.container,
        annotations={NETWORK_ANNOTATION: config.name},
        attributes=attributes_of(call),
        mac=_mac(call, config),
        mtu=config.mtu,
        forwarding=config.container_settings.allow_ip_forwarding,
    )


def _mac(call: Call, config: NetworkConfig) -> str:
    key = CALICO + "hwAddr"
    mac = config.runtime.annotations.get(key, "") or call.arguments.get("MAC", "") or config.runtime.mac
    octets = mac.split(":")
    if mac and not (len(octets) == 6 and all(len(octet) == 2 and set(octet.lower()) <= set("0123456789abcdef") for octet in octets)):
        raise wrong("mac", mac, "six pairs of hexadecimal digits, separated by colons", Code.ENVIRONMENT)
    if mac and int(octets[0], 16) & 1:
        raise wrong("mac", mac, "the address of one interface, not of a group", Code.ENVIRONMENT)
    return mac.lower()


def attachment_result(attachment: Attachment, call: Call, config: NetworkConfig) -> Result:
    """What has been attached: both ends of the pair, the addresses inside, the way out."""
    families = sorted({address.family for address in attachment.addresses})
    return Result(
        interfaces=(
            Interface(name=attachment.host_interface, mac=HOST_MAC),
            Interface(name=call.interface, mac=attachment.mac, sandbox=call.netns),
        ),
        ips=tuple(
            AddressConfig(address=str(address), gateway=GATEWAYS[address.family].address, interface=1) for address in attachment.addresses
        ),
        routes=tuple(RouteConfig(dst=_ANYWHERE[family], gw=GATEWAYS[family].address) for family in families),
        dns=config.dns,
    )


def ipam_result(addresses: Sequence[Prefix], config: NetworkConfig) -> Result:
    """What ``tabinet-ipam`` tells another plugin: addresses, and no word about interfaces."""
    return Result(ips=tuple(AddressConfig(address=str(address)) for address in addresses), dns=config.dns)
