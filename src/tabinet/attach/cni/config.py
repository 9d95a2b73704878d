"""The network configuration of ``tabinet-cni`` and ``tabinet-ipam``: our keys and Calico's. Pure.

In: JSON objects. Out: a ``NetworkConfig``, or a ``CniError`` with path and value. Keys of Calico that say how its plugin finds store and
logs are accepted and mean nothing here: that is the agent's. A key that neither of us knows is refused (code 2), lest a slip of the pen
make a network that is not what was wanted; but not where something is removed. The sources are the CNI specification, its conventions,
and Calico's reference of its plugin.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

import msgspec

from tabinet.attach.cni.protocol import Code
from tabinet.errors import CniError

OWN_IPAM = ("", "tabinet-ipam", "calico-ipam")
"""Types of ``ipam`` that mean our own; every other is a program that is run."""
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"

_SPECIFICATION = (
    "cniVersion",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "capabilities",
    "ipMasq",
    "loadOnlyInlinedPlugins",
    "prevResult",
)
_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
# fmt: off
_WITHOUT_EFFECT = frozenset((
    "mode", "vxlan_mac_prefix", "vxlan_vni", "num_queues", "nodename_file", "nodename_file_optional", "ipam_lock_file",
    "datastore_type", "etcd_endpoints", "etcd_discovery_srv", "etcd_scheme", "etcd_authority", "etcd_key_file", "etcd_cert_file",
    "etcd_ca_cert_file", "log_level", "log_file_path", "log_file_max_size", "log_file_max_age", "log_file_max_count", "kubernetes",
    "dataplane_options", "readiness_gates", "endpoint_status_dir", "require_mtu_file", "hostname", "include_default_routes",
    "windows_pod_deletion_timestamp_timeout", "windows_use_single_network", "windows_disable_default_deny_all_policy",
    "windows_loopback_DSR",
))
# fmt: on
"""Keys of Calico that have no meaning here."""


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """The capability ``bandwidth``: bit/s, and bursts in bits; 0: no limit."""

    ingress_rate: int = msgspec.field(default=0, name="ingressRate")
    ingress_burst: int = msgspec.field(default=0, name="ingressBurst")
    egress_rate: int = msgspec.field(default=0, name="egressRate")
    egress_burst: int = msgspec.field(default=0, name="egressBurst")


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime adds for capabilities that the list says we have."""

    ips: tuple[str, ...] = ()
    mac: str = ""
    bandwidth: Bandwidth = Bandwidth()
    annotations: dict[str, str] = msgspec.field(default={}, name=ANNOTATIONS)


class Label(msgspec.Struct, frozen=True):
    """One label of ``args.cni.labels``."""

    key: str
    value: str = ""


class CniArguments(msgspec.Struct, frozen=True, kw_only=True):
    """``args.cni``, as the CNI conventions have it."""

    labels: tuple[Label, ...] = ()
    ips: tuple[str, ...] = ()


class _Labels(msgspec.Struct, frozen=True):
    labels: tuple[Label, ...] = ()


class _NetworkInfo(msgspec.Struct, frozen=True):
    labels: _Labels = _Labels()


class _Mesos(msgspec.Struct, frozen=True):
    network_info: _NetworkInfo = _NetworkInfo()


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """``args``."""

    cni: CniArguments = CniArguments()
    mesos: _Mesos = msgspec.field(default=_Mesos(), name="org.apache.mesos")

    def labels(self) -> dict[str, str]:
        """The labels in it."""
        return {label.key: label.value for label in (*self.mesos.network_info.labels.labels, *self.cni.labels)}


class Ipam(msgspec.Struct, frozen=True, kw_only=True):
    """``ipam``. Of another program's configuration only the type is looked at."""

    type: str = ""
    assign_ipv4: bool | str | None = None
    assign_ipv6: bool | str | None = None
    ipv4_pools: tuple[str, ...] = ()
    """CIDRs or names of pools."""
    ipv6_pools: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """``policy``: with the type ``k8s`` profiles are those of the namespace and the service account."""

    type: str = ""


class ContainerSettings(msgspec.Struct, frozen=True):
    """``container_settings``."""

    allow_ip_forwarding: bool = False


class FeatureControl(msgspec.Struct, frozen=True):
    """``feature_control``: what annotations may ask for."""

    ip_addrs_no_ipam: bool = False
    floating_ips: bool = False


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of a network configuration."""

    name: str = ""
    type: str = ""
    ipam: Ipam = Ipam()
    args: Arguments = Arguments()
    runtime: RuntimeConfig = msgspec.field(default=RuntimeConfig(), name="runtimeConfig")
    dns: dict[str, Any] = {}
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    nodename: str = ""
    policy: Policy = Policy()
    container_settings: ContainerSettings = ContainerSettings()
    feature_control: FeatureControl = FeatureControl()
    policy_setup_timeout_seconds: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    labels: dict[str, str] = {}
    """Ours: labels of every endpoint of the network."""
    label_annotations: tuple[str, ...] = ()
    """Ours: these annotations of a pod are labels, too."""
    profiles: tuple[str, ...] | None = None
    """Ours: profiles in place of the network's."""


_KNOWN = frozenset((*NetworkConfig.__struct_encode_fields__, *_SPECIFICATION, *_ATTACHMENTS, *_WITHOUT_EFFECT))
_KNOWN_IPAM = frozenset((*Ipam.__struct_encode_fields__, "name", "Name", "subnet", "ip_pools_label_selector_keys"))


_OF_EVERY_PLUGIN = ("name", "type", "ipam", "args", "runtimeConfig", "dns")


def parse_network(config: dict[str, Any], *, strict: bool, foreign: bool = False) -> NetworkConfig:
    """The configuration; with ``strict`` unknown keys are refused.

    ``foreign``: it is another plugin's, which asks us for addresses; its own keys are its own business.

    Raises:
        CniError: code 2 for a key that is not known, 7 for a value that is not allowed.
    """
    if foreign:
        config = {key: config[key] for key in _OF_EVERY_PLUGIN if key in config}
    if strict:
        _refuse_unknown(config, _KNOWN, "")
        ipam = config.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type", "") in OWN_IPAM:
            _refuse_unknown(ipam, _KNOWN_IPAM, "ipam.")
    try:
        return msgspec.convert({key: value for key, value in config.items() if value is not None}, NetworkConfig)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise CniError(Code.CONFIG, f"{where.strip('.`') or 'the configuration'}: {message}") from None


def _refuse_unknown(given: dict[str, Any], known: frozenset[str], where: str) -> None:
    for key, value in given.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise CniError(Code.FIELD, f"{where}{key}: got {str(value)[:60]!r}, but there is no such key", hint)
