"""The cluster as a whole, and the controllers that Calico runs in Kubernetes."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import Cidr, Duration, ObjectName, PortOrNone, Regex, SelectorText, Switch, one_of
from tabinet.model.records.base import Record


class ClusterInformationSpec(Record, frozen=True, kw_only=True):
    """What is known of the cluster as a whole."""

    cluster_guid: str = field(default="", name="clusterGUID")
    """Identifier of the cluster, made once."""
    cluster_type: str = ""
    """Words for what the cluster is made of, with commas, such as openstack,bgp."""
    calico_version: str = ""
    """Version of Calico that wrote here last."""
    datastore_ready: bool | None = None
    """False: the store is being changed as a whole, and everybody holds still. Default: true."""
    variant: str = ""
    """Variant of Calico that wrote here last."""


class ReconcilerConfig(Record, frozen=True, kw_only=True):
    """A controller that compares again from time to time."""

    reconciler_period: Duration = ""
    """Time between comparisons, such as 5m. Default: 5m."""


class HostEndpointTemplate(Record, frozen=True, kw_only=True):
    """Host endpoints that are made by themselves."""

    generate_name: ObjectName = ""
    """Put at the end of the names of the host endpoints; at most 253 characters."""
    interface_cidrs: tuple[Cidr, ...] = field(default=(), name="interfaceCIDRs")
    """Only addresses of the host within these prefixes; needed unless there is an interfacePattern."""
    interface_pattern: Regex = ""
    """Regular expression: one host endpoint for each interface whose name matches; needed unless there are interfaceCIDRs."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels of the host endpoints; they win over those of the host."""
    node_selector: SelectorText = ""
    """Hosts that get host endpoints, by their labels. Default: all()."""


class AutoHostEndpointConfig(Record, frozen=True, kw_only=True):
    """Host endpoints for Kubernetes' hosts."""

    auto_create: Switch = ""
    """Enabled: every host gets host endpoints. Default: Disabled."""
    create_default_host_endpoint: Switch = ""
    """Enabled: every host gets one for all of its interfaces. Default: Enabled."""
    templates: tuple[HostEndpointTemplate, ...] = ()
    """Further host endpoints."""


class NodeControllerConfig(ReconcilerConfig, frozen=True, kw_only=True):
    """The controller that removes what is left of hosts that are gone."""

    sync_labels: Switch = ""
    """Enabled: labels of Kubernetes' nodes are copied. Default: Enabled."""
    host_endpoint: AutoHostEndpointConfig | None = None
    """Host endpoints for Kubernetes' hosts."""
    leak_grace_period: Duration = ""
    """How long an address must look lost before it is released, such as 15m; 0: never. Default: 15m."""


class LoadBalancerControllerConfig(Record, frozen=True, kw_only=True):
    """The controller that gives addresses to services."""

    assign_ips: Annotated[str, one_of("AllServices", "RequestedServicesOnly")] = field(default="", name="assignIPs")
    """Which services of type LoadBalancer get addresses. Default: AllServices."""


class MigrationControllerConfig(Record, frozen=True, kw_only=True):
    """The controller that moves policies with names of an older form."""

    enabled: Switch = ""
    """Enabled: policies with older names are moved. Default: Enabled."""


class ControllersConfig(Record, frozen=True, kw_only=True):
    """Which controllers run, and how."""

    node: NodeControllerConfig | None = None
    """Controller for hosts."""
    policy: ReconcilerConfig | None = None
    """Controller that copies Kubernetes' policies."""
    workload_endpoint: ReconcilerConfig | None = None
    """Controller that copies labels of pods."""
    service_account: ReconcilerConfig | None = None
    """Controller that copies service accounts."""
    namespace: ReconcilerConfig | None = None
    """Controller that copies namespaces."""
    load_balancer: LoadBalancerControllerConfig | None = None
    """Controller that gives addresses to services."""
    policy_migration: MigrationControllerConfig | None = None
    """Controller that moves policies with older names."""


class KubeControllersConfigurationSpec(Record, frozen=True, kw_only=True):
    """Settings of calico-kube-controllers. Kept and checked for it; Tabinet itself does not use them."""

    log_severity_screen: Annotated[str, one_of("None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic")] = ""
    """Least severity that is logged. Default: Info."""
    health_checks: Switch = ""
    """Enabled: answers to health checks. Default: Enabled."""
    etcd_v3_compaction_period: Duration = field(default="", name="etcdV3CompactionPeriod")
    """Time between compactions of etcd, such as 10m; 0: none. Default: 10m."""
    prometheus_metrics_port: PortOrNone | None = None
    """TCP port of the metrics, 0 to 65535; 0: none. Default: 9094."""
    controllers: ControllersConfig = ControllersConfig()
    """Which controllers run, and how."""
    debug_profile_port: PortOrNone | None = None
    """TCP port of Go's profiler, 0 to 65535. Default: none."""


class KubeControllersConfigurationStatus(Record, frozen=True, kw_only=True):
    """What calico-kube-controllers reports."""

    running_config: KubeControllersConfigurationSpec | None = None
    """Settings in force, with those from the environment."""
    environment_vars: dict[str, str] = field(default_factory=dict)
    """Variables of its environment that had an effect."""
