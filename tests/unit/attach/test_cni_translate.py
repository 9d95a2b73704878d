"""From CNI's words, Calico's keys and annotations to attachments."""

from __future__ import annotations

from typing import Any

import pytest

from tabinet.attach.cni.config import ANNOTATIONS, parse_network
from tabinet.attach.cni.protocol import Call, Code
from tabinet.attach.cni.translate import attach_request, qos_of, wanted_addresses, workload_of
from tabinet.attach.cni.values import parse_quantity
from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest, check_request
from tabinet.errors import CniError
from tabinet.lib.ip import Prefix, parse_address, parse_prefix

CALICO_LIST_ENTRY = {
    "type": "calico",
    "log_level": "info",
    "log_file_path": "/var/log/calico/cni/cni.log",
    "datastore_type": "etcdv3",
    "etcd_endpoints": "https://10.0.0.1:2379",
    "etcd_key_file": "/k",
    "etcd_cert_file": "/c",
    "etcd_ca_cert_file": "/a",
    "nodename": "h1",
    "mtu": 1440,
    "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true", "ipv4_pools": ["10.65.0.0/16", "gold"]},
    "policy": {"type": "k8s"},
    "container_settings": {"allow_ip_forwarding": True},
    "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
    "policy_setup_timeout_seconds": 0,
    "feature_control": {"floating_ips": True},
}
POD = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": "web-1", "K8S_POD_INFRA_CONTAINER_ID": "c1"}


def translated(
    config: dict[str, Any] | None = None,
    arguments: dict[str, str] | None = None,
    pools: dict[str, Prefix] | None = None,
    annotations: dict[str, str] | None = None,
) -> AttachRequest:
    raw: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "type": "tabinet-cni"} | (config or {})
    if annotations:
        raw["runtimeConfig"] = {ANNOTATIONS: annotations}
    call = Call(
        plugin="tabinet-cni",
        command="ADD",
        version="1.0.0",
        config=raw,
        container="c1",
        interface="eth0",
        netns="/run/netns/c1",
        arguments=arguments or {},
    )
    network = parse_network(raw, strict=True)
    request = attach_request(call, network, "h1", "/proc/self/fd/9", pools or {}, wanted_addresses(call, network))
    check_request(request)
    return request


def refused(*arguments: Any, **more: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        translated(*arguments, **more)
    return caught.value


def test_a_container() -> None:
    request = translated()
    assert request.workload == Workload(node="h1", workload="c1", orchestrator="cni", endpoint="eth0")
    assert (request.count4, request.count6, request.profiles, request.container) == (1, 0, ("net1",), "c1")
    assert request.annotations == {"tabinet.io/network": "net1"}
    assert request.attributes == {"network": "net1", "container": "c1", "interface": "eth0"}


def test_a_pod_with_the_configuration_that_calico_has() -> None:
    request = translated(CALICO_LIST_ENTRY, POD, {"gold": parse_prefix("10.66.0.0/16")})
    assert request.workload == Workload(node="h1", workload="web-1", orchestrator="k8s", endpoint="eth0", namespace="shop")
    assert (request.count4, request.count6, request.mtu, request.forwarding) == (1, 1, 1440, True)
    assert request.pools4 == (parse_prefix("10.65.0.0/16"), parse_prefix("10.66.0.0/16"))
    assert request.profiles == ("kns.shop", "ksa.shop.default")


def test_the_name_of_a_pod_alone_makes_no_pod_of_a_container() -> None:
    """As podman calls."""
    assert translated(arguments={"K8S_POD_NAME": "web"}).workload.orchestrator == "cni"


def test_labels_come_from_the_network_from_args_and_from_the_caller() -> None:
    mesos = {"org.apache.mesos": {"network_info": {"labels": {"labels": [{"key": "d", "value": "4"}]}}}}
    config = {"labels": {"a": "1", "b": "1"}, "args": mesos | {"cni": {"labels": [{"key": "b", "value": "2"}, {"key": "c", "value": "2"}]}}}
    assert translated(config, {"LABELS": "c=3,e=5"}).labels == {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}


def test_addresses_that_are_asked_for() -> None:
    one, other = parse_address("10.65.0.9"), parse_address("fd00::9")
    for request in (
        translated(arguments={"IP": "10.65.0.9,fd00::9"}),
        translated({"args": {"cni": {"ips": ["10.65.0.9", "fd00::9/64"]}}}),
        translated({"runtimeConfig": {"ips": ["10.65.0.9/16", "fd00::9"], "portMappings": []}}),
        translated(annotations={"cni.projectcalico.org/ipAddrs": '["10.65.0.9", "fd00::9"]'}),
    ):
        assert (request.addresses, request.count4, request.count6) == ((one, other), 0, 0)
    unmanaged = {"cni.projectcalico.org/ipAddrsNoIpam": '["10.65.0.9"]'}
    request = translated({"feature_control": {"ip_addrs_no_ipam": True}}, annotations=unmanaged)
    assert (request.unmanaged, request.addresses) == ((one,), ())
    assert "feature_control.ip_addrs_no_ipam" in str(refused(annotations=unmanaged))


def test_pools_and_floating_addresses_of_a_pod() -> None:
    notes = {"cni.projectcalico.org/ipv4pools": '["10.70.0.0/16"]', "cni.projectcalico.org/floatingIPs": '["192.0.2.1"]'}
    request = translated(CALICO_LIST_ENTRY, POD, {"gold": parse_prefix("10.66.0.0/16")}, notes)
    assert request.pools4 == (parse_prefix("10.70.0.0/16"),)
    assert request.floating == (parse_address("192.0.2.1"),)
    assert "floating_ips" in str(refused(annotations=notes))


def test_limits() -> None:
    config = parse_network({"name": "n", "runtimeConfig": {"bandwidth": {"ingressRate": 1000000, "ingressBurst": 5000}}}, strict=True)
    limits = qos_of(config)
    assert limits is not None
    assert (limits.ingress_bandwidth, limits.ingress_burst, limits.egress_bandwidth) == (1000000, 5000, 0)
    notes = {
        "kubernetes.io/ingress-bandwidth": "10M",
        "kubernetes.io/egress-bandwidth": "1Ki",
        "qos.projectcalico.org/ingressBandwidth": "20M",
        "qos.projectcalico.org/egressMaxConnections": "7",
        "qos.projectcalico.org/dscp": "EF",
    }
    found = translated(annotations=notes).qos
    assert found is not None
    assert (found.ingress_bandwidth, found.egress_bandwidth, found.egress_max_connections, found.dscp) == (20_000_000, 1024, 7, "EF")
    assert translated().qos is None


def test_quantities() -> None:
    for text, number in (("0", 0), ("1k", 1000), ("1.5M", 1_500_000), ("2Gi", 2 << 30)):
        assert parse_quantity("x", text) == number
    for wrong in ("", "-1", "1.5", "1m", "1 M", "M", "1e3", "0.0001k"):
        with pytest.raises(CniError, match="x: got"):
            parse_quantity("x", wrong)


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"mutu": 1500}, Code.FIELD, "mutu: got '1500'"),
        ({"ipam": {"type": "tabinet-ipam", "pools": ["a"]}}, Code.FIELD, "ipam.pools: got"),
        ({"mtu": "big"}, Code.CONFIG, "mtu: Expected `int`"),
        ({"mtu": 70000}, Code.CONFIG, "mtu: Expected `int` <= 65535"),
        ({"nodename": "h2"}, Code.CONFIG, "nodename: got 'h2'; the agent of this host calls it 'h1'"),
        ({"ipam": {"assign_ipv4": "maybe"}}, Code.CONFIG, "ipam.assign_ipv4: got 'maybe'; true or false"),
        ({"ipam": {"assign_ipv4": False}}, Code.CONFIG, "ipam.assign_ipv4"),
        (
            {"ipam": {"ipv4_pools": ["bronze"]}},
            Code.CONFIG,
            "ipam.ipv4_pools: got 'bronze'; a CIDR, or the name of a pool",
        ),
        ({"args": {"cni": {"ips": ["10.0.0.300"]}}}, Code.CONFIG, "args.cni.ips: got '10.0.0.300'"),
        ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, Code.ENVIRONMENT, "mac: got"),
        ({"runtimeConfig": {"mac": "nonsense"}}, Code.ENVIRONMENT, "mac: got 'nonsense'"),
        ({"runtimeConfig": {ANNOTATIONS: {"qos.projectcalico.org/ingressBandwidth": "fast"}}}, Code.CONFIG, "ingressBandwidth: got 'fast'"),
        ({"runtimeConfig": {ANNOTATIONS: {"cni.projectcalico.org/ipAddrs": '["10.0.0.1"'}}}, Code.CONFIG, "ipAddrs: got"),
    ],
)
def test_what_cannot_be_understood_is_named(config: dict[str, Any], code: Code, words: str) -> None:
    error = refused(config)
    assert error.code == code
    assert words in str(error)


def test_an_unknown_key_of_another_ipam_plugin_is_its_own_business_and_a_slip_comes_with_a_hint() -> None:
    assert parse_network({"name": "n", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]]}}, strict=True)
    assert parse_network({"name": "n", "mutu": 3}, strict=False).name == "n"
    assert refused({"mutu": 3}).details == "did you mean 'mtu'?"


def test_several_interfaces_of_one_container_are_several_workloads() -> None:
    calls = [
        Call(plugin="tabinet-cni", command="ADD", version="1.0.0", config={}, container="c1", interface=name) for name in ("eth0", "net1")
    ]
    assert len({workload_of(each, "h1").key for each in calls}) == 2
