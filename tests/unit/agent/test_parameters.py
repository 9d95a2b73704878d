"""The table of parameters: precedence, kinds, and errors that name path, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabinet.agent.parameters import PARAMETERS, felix_problems, parse_parameters, render_parameters_page, restart_needed
from tabinet.agent.tableoptions import table_options
from tabinet.calc.messages import PortRange
from tabinet.errors import InputError
from tabinet.lib.ip import parse_prefix
from tabinet.rules.options import Metadata, ProtoPort, TableOptions
from tabinet.rules.servers import needs_localnet


def test_defaults_when_nothing_is_given() -> None:
    parameters = parse_parameters("", {})
    assert parameters.items("felix", "interface_prefix") == ("cali", "tap")
    assert parameters.seconds("felix", "reporting_ttl_s") == 90.0
    assert set(parameters.origins.values()) == {"default"}


def test_environment_beats_file_beats_felix_configuration() -> None:
    toml = '[felix]\ninterface_prefix = ["file"]\nreporting_interval_s = 20'
    felix: dict[str, object] = {"interfacePrefix": "store", "reportingInterval": "10s", "reportingTTL": "1m30s", "bpfEnabled": True}
    parameters = parse_parameters(toml, {"FELIX_INTERFACEPREFIX": "env,tap"}, felix)
    assert parameters.items("felix", "interface_prefix") == ("env", "tap")
    assert parameters.seconds("felix", "reporting_interval_s") == 20.0
    assert parameters.seconds("felix", "reporting_ttl_s") == 90.0
    assert parameters.origins["felix", "reporting_ttl_s"] == "FelixConfiguration"


def test_own_variable_beats_calicos() -> None:
    parameters = parse_parameters("", {"FELIX_INTERFACEPREFIX": "theirs", "TABINET_FELIX_INTERFACE_PREFIX": "ours"})
    assert parameters.items("felix", "interface_prefix") == ("ours",)


@pytest.mark.parametrize(
    ("toml", "environment", "path", "words"),
    [
        ("[store]\nendpoint = 'x'", {}, "store.endpoint", "did you mean 'endpoints'"),
        ("[sture]\nkind = 'x'", {}, "sture", "did you mean 'store'"),
        ("[store]\nkind = 'mysql'", {}, "store.kind", "one of: etcd, sqlite, memory"),
        ("[bird]\nbfd_interval_ms = -1", {}, "bird.bfd_interval_ms", "whole number"),
        ("[bird]\nenabled = 'perhaps'", {}, "bird.enabled", "true or false"),
        ("", {"TABINET_FELIX_REPORTING_TTL_S": "soon"}, "TABINET_FELIX_REPORTING_TTL_S", "duration such as 30s"),
        ("[felix]\ninterface_prefix = []", {}, "felix.interface_prefix", "not empty"),
        ("[felix]\nfailsafe_inbound_host_ports = ['tcp']", {}, "felix.failsafe_inbound_host_ports", "no port such as tcp:22"),
        ("[felix]\nnat_port_range = '9:1'", {}, "felix.nat_port_range", "first:last"),
        ("[felix]\nnat_outgoing_address = 'here'", {}, "felix.nat_outgoing_address", "not an IP address"),
        ("[felix", {}, "", "at end of document"),
    ],
)
def test_errors_say_where_what_and_what_is_allowed(toml: str, environment: dict[str, str], path: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_parameters(toml, environment, source="t.toml")
    (problem,) = caught.value.problems
    assert problem.path == path
    assert words in problem.allowed


def test_every_error_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parse_parameters("[store]\nkind='x'\nfoo=1\n[bird]\nenabled=3", {"FELIX_IPV6SUPPORT": "maybe"})
    assert len(caught.value.problems) == 4


def test_bad_value_in_the_store_stays_at_the_default_and_is_reported() -> None:
    felix: dict[str, object] = {"reportingInterval": "often", "interfacePrefix": "cali"}
    assert parse_parameters("", {}, felix).seconds("felix", "reporting_interval_s") == 30.0
    (problem,) = felix_problems(felix, "FelixConfiguration/default")
    assert problem.path == "spec.reportingInterval"


def test_restart_is_needed_for_what_is_not_live() -> None:
    old = parse_parameters("", {})
    assert restart_needed(old, parse_parameters("", {}, {"interfacePrefix": "tap"})) == ["felix.interface_prefix"]
    assert restart_needed(old, old) == []


def test_docs_page_is_what_the_table_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "parameters.md"
    assert page.read_text() == render_parameters_page(), "run: python -m tabinet.agent.parameters > docs/parameters.md"
    assert all(p.variable in render_parameters_page() for p in PARAMETERS)


def test_failsafe_ports_are_read_as_felix_writes_them_in_resources_and_in_the_environment() -> None:
    spec: dict[str, object] = {
        "failsafeInboundHostPorts": [{"protocol": "TCP", "port": 22, "net": "10.0.0.0/8"}, {"protocol": "udp", "port": 68}]
    }
    options = table_options(parse_parameters("", {"FELIX_FAILSAFEOUTBOUNDHOSTPORTS": "none"}, spec))
    assert options.failsafe_inbound == (ProtoPort(6, 22, parse_prefix("10.0.0.0/8")), ProtoPort(17, 68))
    assert options.failsafe_outbound == ()


def test_defaults_of_the_table_are_those_of_the_rules() -> None:
    assert table_options(parse_parameters("", {})) == TableOptions()


@pytest.mark.parametrize(
    "spec",
    [
        {"interfacePrefix": "tap"},
        {"interfacePrefix": "cali,tap"},
        {"metadataAddr": "127.0.0.1"},
        {"metadataAddr": "127.0.0.1", "metadataPort": 8775},
    ],
)
def test_special_cases_of_openstack_are_felixs(spec: dict[str, object]) -> None:
    options = table_options(parse_parameters("", {}, spec))
    assert options.metadata == Metadata(parse_prefix("127.0.0.1"), 8775)
    assert options.host_services == (ProtoPort(17, 53),)
    assert options.deny_guest_servers and needs_localnet(options)


@pytest.mark.parametrize(
    "spec", [{"interfacePrefix": "cali"}, {"metadataAddr": "none"}, {"metadataAddr": "fd00::1"}, {"metadataAddr": "host-7"}, {}]
)
def test_without_openstack_there_are_none(spec: dict[str, object]) -> None:
    options = table_options(parse_parameters("", {}, spec))
    assert options.metadata is None and options.host_services == () and not options.deny_guest_servers


def test_openstack_without_metadata() -> None:
    options = table_options(parse_parameters("", {"FELIX_METADATAADDR": "none", "FELIX_INTERFACEPREFIX": "tap"}))
    assert options.metadata is None and options.host_services == (ProtoPort(17, 53),) and not needs_localnet(options)


def test_translation_is_set_by_felix_configuration() -> None:
    spec: dict[str, object] = {
        "natPortRange": "32768:65535",
        "natOutgoingAddress": "192.0.2.1",
        "natOutgoingExclusions": "IPPoolsAndHostIPs",
    }
    options = table_options(parse_parameters("", {}, spec))
    assert options.nat_ports == PortRange(32768, 65535)
    assert options.nat_addresses == (parse_prefix("192.0.2.1"),)
    assert options.nat_spares_hosts
