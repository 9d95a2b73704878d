"""The agent's parameters: one table, from which the file, the environment, FelixConfiguration and the docs page are read.

In: the text of a TOML file, an environment mapping, a FelixConfiguration spec. Out: ``Parameters``, a validated mapping. Precedence is
Calico's: environment, then file, then ``FelixConfiguration`` of the node, then the ``default`` one, then the default here.
Pure: nothing is read from disk or from the process here.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping

import msgspec

from tabinet.agent.values import Value, convert
from tabinet.errors import InputError, Problem
from tabinet.model.protocols import protocol_name
from tabinet.rules.options import FAILSAFE_INBOUND, FAILSAFE_OUTBOUND, ProtoPort
from tabinet.store.open import StoreConfig, StoreKind


class Parameter(msgspec.Struct, frozen=True, gc=False):
    """One parameter. ``live``: a change in the store takes effect at once; otherwise the agent starts itself anew."""

    section: str
    name: str
    kind: str
    """text, pattern, integer, seconds, milliseconds, switch, list, addresses, ports, port range, address, metadata address, or
    ``one of: A, B``."""
    default: Value
    meaning: str
    felix: str = ""
    """Name in FelixConfiguration (lowerCamelCase); also ``FELIX_<NAME>`` in the environment. Empty: not there."""
    live: bool = False

    @property
    def variable(self) -> str:
        """Name in the environment."""
        return f"TABINET_{self.section}_{self.name}".upper()


def _failsafe_texts(ports: tuple[ProtoPort, ...]) -> tuple[str, ...]:
    """As ``parse_failsafe`` reads them."""
    return tuple(f"{protocol_name(port.protocol).lower()}:{port.port}" for port in ports)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "agent",
        "host",
        "text",
        "",
        "Name of this host: its Node resource, and ``spec.node`` of its endpoints. Empty: the host name in lower case.",
    ),
    Parameter("agent", "run_dir", "text", "/run/tabinet", "Directory for the agent's sockets and generated files."),
    Parameter(
        "agent",
        "http_address",
        "text",
        "127.0.0.1:9091",
        "Where /metrics and /health are served: ``address:port``, or ``unix:/path``. Empty: nowhere.",
    ),
    Parameter(
        "agent",
        "neighbour_entries",
        "integer",
        16_384,
        "So many neighbours of each family the machine keeps at least: net.ipv4 and net.ipv6.neigh.default.gc_thresh3 are raised to it, "
        "gc_thresh2 to half and gc_thresh1 to an eighth of it, where they are lower. 0: they stay as they are.",
    ),
    Parameter("agent", "log_format", "one of: text, json", "text", "Form of the log lines on standard error."),
    Parameter("agent", "log_level", "one of: debug, info, warning, error", "info", "Least severity that is logged."),
    Parameter("store", "kind", "one of: etcd, sqlite, memory", "etcd", "Which datastore."),
    Parameter("store", "endpoints", "list", ("http://127.0.0.1:2379",), "etcd's client URLs: ``http://``, ``https://`` or ``unix:/path``."),
    Parameter("store", "ca_file", "text", "", "Certificate authorities that may have signed etcd's certificate (PEM)."),
    Parameter("store", "cert_file", "text", "", "Client certificate (PEM)."),
    Parameter("store", "key_file", "text", "", "Key of the client certificate (PEM)."),
    Parameter("store", "username", "text", "", "etcd user."),
    Parameter("store", "password", "text", "", "Password of the etcd user."),
    Parameter("store", "path", "text", "/var/lib/tabinet/store.db", "File of a sqlite store."),
    Parameter("bird", "enabled", "switch", True, "Configure and watch BIRD on this host."),
    Parameter("bird", "config", "text", "/etc/bird/tabinet.conf", "The configuration file that the agent writes for BIRD."),
    Parameter("bird", "socket", "text", "/run/bird/bird.ctl", "BIRD's control socket."),
    Parameter(
        "bird",
        "secrets_dir",
        "text",
        "/etc/tabinet/secrets",
        "Passwords of BGP sessions: the file ``<name>/<key>`` below it, as a peer's ``secretKeyRef`` says. Empty: nowhere.",
    ),
    Parameter("cni", "enabled", "switch", True, "Answer the CNI plugins of this host (``tabinet agent`` only)."),
    Parameter(
        "cni",
        "deletions",
        "text",
        "/var/lib/tabinet/cni/deletions",
        "Where plugins put down what is to be deleted while there is no agent.",
    ),
    Parameter(
        "clerk",
        "enabled",
        "switch",
        True,
        "Be ready to keep the history of what others change and to take back what nobody confirmed (``tabinet agent`` only).",
    ),
    Parameter("docker", "enabled", "switch", False, "Be a network and address driver of this host's Docker (``tabinet agent`` only)."),
    Parameter(
        "docker",
        "plugin_socket",
        "text",
        "/run/docker/plugins/tabinet.sock",
        "Where Docker finds the driver; the file's name is the driver's.",
    ),
    Parameter(
        "docker",
        "networks",
        "text",
        "/var/lib/tabinet/docker/networks",
        "Where names and options of Docker's networks are remembered, for containers that Docker starts before it answers.",
    ),
    Parameter("docker", "api_socket", "text", "/run/docker.sock", "Where Docker itself is asked for names and labels."),
    Parameter("libvirt", "enabled", "switch", True, "Answer the hook of this host's libvirt (``tabinet agent`` only)."),
    Parameter("libvirt", "uri", "text", "qemu:///system", "Where libvirt is asked which domains run, and is followed while they move."),
    Parameter("bird", "bfd_interval_ms", "milliseconds", 100, "BFD: interval between packets."),
    Parameter(
        "bird",
        "mesh_bfd_interval_ms",
        "milliseconds",
        250,
        "BFD: the same with other hosts of the cluster, of which there can be many. Where ``bfd_interval_ms`` is longer, that counts.",
    ),
    Parameter("bird", "bfd_multiplier", "integer", 3, "BFD: so many packets missing mean that the path is dead."),
    Parameter(
        "guest",
        "http_address",
        "text",
        "127.0.0.1:9092",
        "Where the guest service shows /metrics and /readiness: ``address:port``, or ``unix:/path``. Empty: nowhere.",
    ),
    Parameter("guest", "lease_s", "seconds", 86_400.0, "How long an address that a guest got by DHCP is good for without asking again."),
    Parameter(
        "guest",
        "netmask",
        "one of: subnet, host",
        "subnet",
        "What guests are told of their IPv4 subnet: its mask, or /32 with every route over the gateway.",
    ),
    Parameter("guest", "dns_servers", "addresses", (), "DNS servers for guests whose subnet names none; separated by commas."),
    Parameter(
        "guest",
        "metadata_service",
        "text",
        "",
        "Nova's metadata service, ``host:port``, that guests' requests are passed on to; the guest service listens for them at "
        "``metadata_addr``. Empty: something else listens there.",
    ),
    Parameter(
        "guest",
        "local_metadata",
        "switch",
        False,
        "Answer requests for metadata of guests that are not Nova's, from annotations of their endpoints.",
    ),
    Parameter(
        "guest",
        "metadata_secret_file",
        "text",
        "",
        "File with the secret that Nova has as ``metadata_proxy_shared_secret``; empty: requests are not signed.",
    ),
    Parameter(
        "felix",
        "interface_prefix",
        "list",
        ("cali", "tap"),
        "Interfaces whose names begin so are workloads'; nothing passes one without policy.",
        "interfacePrefix",
    ),
    Parameter(
        "felix",
        "default_endpoint_to_host_action",
        "one of: Drop, Return, Accept",
        "Drop",
        "What happens to a workload's packets to its own host after its egress policy allowed them.",
        "defaultEndpointToHostAction",
    ),
    Parameter(
        "felix",
        "endpoint_reporting_enabled",
        "switch",
        True,
        "Report each endpoint's status to the store.",
        "endpointReportingEnabled",
        live=True,
    ),
    Parameter(
        "felix", "reporting_interval_s", "seconds", 30.0, "How often the host's own status is renewed.", "reportingInterval", live=True
    ),
    Parameter("felix", "reporting_ttl_s", "seconds", 90.0, "How long the host's status outlives a dead agent.", "reportingTTL", live=True),
    Parameter(
        "felix",
        "live_migration_route_convergence_time_s",
        "seconds",
        30.0,
        "How long packets for a machine that has moved are passed on from the host that it left.",
        "liveMigrationRouteConvergenceTime",
    ),
    Parameter("felix", "ipv6_support", "switch", True, "Program IPv6 as well.", "ipv6Support"),
    Parameter(
        "felix",
        "workload_source_spoofing",
        "one of: Disabled, Any",
        "Any",
        "Whether ``allowSpoofedSourcePrefixes`` of endpoints are heeded.",
        "workloadSourceSpoofing",
    ),
    Parameter(
        "felix",
        "deny_action",
        "one of: Drop, Reject",
        "Drop",
        "What happens to a packet that policy denies: dropped, or refused with a reset or an ICMP error.",
        "nftablesFilterDenyAction",
    ),
    Parameter(
        "felix",
        "failsafe_inbound_host_ports",
        "ports",
        _failsafe_texts(FAILSAFE_INBOUND),
        "Ports of the host that no host endpoint closes: ``tcp:22``, or ``tcp:10.0.0.0/8:22`` for these peers only; or ``none``.",
        "failsafeInboundHostPorts",
    ),
    Parameter(
        "felix",
        "failsafe_outbound_host_ports",
        "ports",
        _failsafe_texts(FAILSAFE_OUTBOUND),
        "Ports elsewhere that no policy of a host endpoint keeps the host from.",
        "failsafeOutboundHostPorts",
    ),
    Parameter(
        "felix", "nat_port_range", "port range", "", "Source ports of natOutgoing, as in ``32768:65535``; empty: any.", "natPortRange"
    ),
    Parameter(
        "felix",
        "nat_outgoing_address",
        "address",
        "",
        "Source address of natOutgoing; empty: that of the outgoing interface.",
        "natOutgoingAddress",
    ),
    Parameter(
        "felix",
        "nat_outgoing_exclusions",
        "one of: IPPoolsOnly, IPPoolsAndHostIPs",
        "IPPoolsOnly",
        "Which destinations natOutgoing leaves alone.",
        "natOutgoingExclusions",
    ),
    Parameter(
        "felix", "floating_ips", "one of: Enabled, Disabled", "Enabled", "Whether ``ipNATs`` of endpoints are programmed.", "floatingIPs"
    ),
    Parameter(
        "felix",
        "metadata_addr",
        "metadata address",
        "127.0.0.1",
        "IPv4 address of the server that answers OpenStack's guests at 169.254.169.254 port 80, or ``none``. Counts where it is set, or "
        "``interface_prefix`` is set and has ``tap`` in it; there guests may also ask their host for DNS, and not answer DHCP.",
        "metadataAddr",
    ),
    Parameter("felix", "metadata_port", "integer", 8775, "TCP port of that server.", "metadataPort"),
    Parameter(
        "felix",
        "vxlan_enabled",
        "one of: pools, true, false",
        "pools",
        "``false``: the host takes no part in VXLAN, whatever pools say. ``true``: as ``pools``, for a tunnel needs a pool that wants it.",
        "vxlanEnabled",
    ),
    Parameter("felix", "vxlan_vni", "integer", 4096, "Network identifier of VXLAN.", "vxlanVNI"),
    Parameter("felix", "vxlan_port", "integer", 4789, "UDP port of VXLAN.", "vxlanPort"),
    Parameter("felix", "vxlan_mtu", "integer", 0, "MTU of the VXLAN interface for IPv4; 0: that of the uplink less 50.", "vxlanMTU"),
    Parameter("felix", "vxlan_mtu_v6", "integer", 0, "MTU of the VXLAN interface for IPv6; 0: that of the uplink less 70.", "vxlanMTUV6"),
    Parameter("felix", "ipip_enabled", "one of: pools, true, false", "pools", "As ``vxlan_enabled``, for IP-in-IP.", "ipipEnabled"),
    Parameter("felix", "ipip_mtu", "integer", 0, "MTU of the IP-in-IP interface; 0: that of the uplink less 20.", "ipipMTU"),
    Parameter(
        "felix",
        "mtu_iface_pattern",
        "pattern",
        "",
        "Regular expression for the interfaces that the MTU of tunnels is taken from; empty: the one with the host's address, or, where "
        "that is on ``lo``, all that could lead to other hosts.",
        "mtuIfacePattern",
    ),
    Parameter(
        "felix",
        "feature_detect_override",
        "text",
        "",
        "``ChecksumOffloadBroken=true``: checksums inside of VXLAN are never left to network cards; ``=false``: always. Without it a "
        "self-test decides. What else Calico has here is ignored.",
        "featureDetectOverride",
    ),
    Parameter(
        "felix",
        "allow_vxlan_packets_from_workloads",
        "switch",
        False,
        "Workloads may send VXLAN packets themselves.",
        "allowVXLANPacketsFromWorkloads",
    ),
    Parameter(
        "felix",
        "allow_ipip_packets_from_workloads",
        "switch",
        False,
        "Workloads may send IP-in-IP packets themselves.",
        "allowIPIPPacketsFromWorkloads",
    ),
)

_BY_SECTION: dict[str, dict[str, Parameter]] = {}
for _parameter in PARAMETERS:
    _BY_SECTION.setdefault(_parameter.section, {})[_parameter.name] = _parameter


class Parameters(msgspec.Struct, frozen=True):
    """All parameters with their values, and where each comes from."""

    values: dict[tuple[str, str], Value]
    origins: dict[tuple[str, str], str]
    """``default``, ``file``, ``environment``, or ``FelixConfiguration``."""
    toml: str
    environment: dict[str, str]
    """What the file and the environment said: what they leave open, FelixConfiguration decides."""

    def under(self, felix: Mapping[str, object]) -> Parameters:
        """The parameters of the same file and environment, with this FelixConfiguration spec."""
        return parse_parameters(self.toml, self.environment, felix)

    def text(self, section: str, name: str) -> str:
        """The value of a text parameter."""
        return str(self.values[section, name])

    def integer(self, section: str, name: str) -> int:
        """The value of an integer, milliseconds or switch parameter."""
        return int(self._number(section, name))

    def seconds(self, section: str, name: str) -> float:
        """The value of a seconds parameter."""
        return float(self._number(section, name))

    def switch(self, section: str, name: str) -> bool:
        """The value of a switch."""
        return bool(self.values[section, name])

    def items(self, section: str, name: str) -> tuple[str, ...]:
        """The value of a list parameter."""
        value = self.values[section, name]
        return value if isinstance(value, tuple) else (str(value),)

    def _number(self, section: str, name: str) -> float:
        value = self.values[section, name]
        if isinstance(value, tuple | str):
            raise TypeError(f"{section}.{name} is not a number")
        return value


def parse_parameters(
    toml: str, environment: Mapping[str, str], felix: Mapping[str, object] | None = None, *, source: str = "configuration"
) -> Parameters:
    """All parameters, each from the most specific place that gives it.

    Args:
        toml: text of the configuration file; empty when there is none.
        environment: the process's environment.
        felix: the host's effective FelixConfiguration spec, once it is known. Names in it that we do not have are Calico's: ignored.
        source: name of the file, for errors.

    Raises:
        InputError: the file or the environment is wrong, with every problem. What is wrong in ``felix`` is left at its default: a bad
            value in the store must not stop hosts (``felix_problems`` reports it).
    """
    problems: list[Problem] = []
    values: dict[tuple[str, str], Value] = {}
    origins: dict[tuple[str, str], str] = {}
    file_values = _read_toml(toml, source, problems)
    for parameter in PARAMETERS:
        key = (parameter.section, parameter.name)
        values[key], origins[key] = parameter.default, "default"
        if felix is not None and parameter.felix in felix and not _problem(parameter, felix[parameter.felix], "", ""):
            values[key], origins[key] = convert(parameter.kind, felix[parameter.felix]), "FelixConfiguration"
        if key in file_values:
            problem = _problem(parameter, file_values[key], source, f"{parameter.section}.{parameter.name}")
            if problem:
                problems.append(problem)
            else:
                values[key], origins[key] = convert(parameter.kind, file_values[key]), "file"
        for variable in (f"FELIX_{parameter.felix.upper()}" if parameter.felix else "", parameter.variable):
            if variable and variable in environment:
                problem = _problem(parameter, environment[variable], "environment", variable)
                if problem:
                    problems.append(problem)
                else:
                    values[key], origins[key] = convert(parameter.kind, environment[variable]), "environment"
    if problems:
        raise InputError(problems)
    return Parameters(values, origins, toml, dict(environment))


def felix_problems(felix: Mapping[str, object], source: str) -> list[Problem]:
    """What is wrong with the parameters of ours in a FelixConfiguration spec."""
    found = (_problem(p, felix[p.felix], source, f"spec.{p.felix}") for p in PARAMETERS if p.felix and p.felix in felix)
    return [problem for problem in found if problem]


def restart_needed(old: Parameters, new: Parameters) -> list[str]:
    """Names of the parameters that differ and take effect only in a new process."""
    return [f"{p.section}.{p.name}" for p in PARAMETERS if not p.live and old.values[p.section, p.name] != new.values[p.section, p.name]]


def store_config(parameters: Parameters) -> StoreConfig:
    """The part of the parameters that says where the store is."""
    return StoreConfig(
        kind=msgspec.convert(parameters.text("store", "kind"), StoreKind),
        endpoints=parameters.items("store", "endpoints"),
        ca_file=parameters.text("store", "ca_file"),
        cert_file=parameters.text("store", "cert_file"),
        key_file=parameters.text("store", "key_file"),
        username=parameters.text("store", "username"),
        password=parameters.text("store", "password"),
        path=parameters.text("store", "path"),
    )


def render_parameters_page() -> str:
    """The reference page of all parameters, as Markdown."""
    lines = [
        "# The agent's parameters",
        "",
        "<!-- Made by `python -m tabinet.agent.parameters`; edit src/tabinet/agent/parameters.py instead. -->",
        "",
        "Each can be set in the environment, in the file (`tabinet agent --config FILE`, TOML), or, where a name is given, in a",
        "FelixConfiguration resource (`node.<host>`, then `default`). The first of these that gives a value wins.",
    ]
    for section, parameters in _BY_SECTION.items():
        lines += [
            "",
            f"## [{section}]",
            "",
            "| name | environment | FelixConfiguration | kind | default | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for p in parameters.values():
            default = ", ".join(p.default) if isinstance(p.default, tuple) else str(p.default)
            felix = f"`{p.felix}`" if p.felix else ""
            lines.append(f"| `{p.name}` | `{p.variable}` | {felix} | {p.kind} | `{default}` | {p.meaning.replace('``', '`')} |")
    return "\n".join(lines) + "\n"


def _read_toml(text: str, source: str, problems: list[Problem]) -> dict[tuple[str, str], object]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(path="", value="text that is not TOML", allowed=str(error), source=source))
        return {}
    found: dict[tuple[str, str], object] = {}
    for section, content in data.items():
        known = _BY_SECTION.get(section)
        if known is None or not isinstance(content, dict):
            problems.append(
                Problem(path=section, value=repr(section), allowed=_nearest(section, list(_BY_SECTION), "a section"), source=source)
            )
            continue
        for name, value in content.items():
            if name in known:
                found[section, name] = value
            else:
                allowed = _nearest(name, list(known), "a parameter")
                problems.append(Problem(path=f"{section}.{name}", value=repr(name), allowed=allowed, source=source))
    return found


def _nearest(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"not {what}" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}")


def _problem(parameter: Parameter, value: object, source: str, path: str) -> Problem | None:
    try:
        convert(parameter.kind, value)
    except ValueError as error:
        return Problem(path=path, value=repr(value), allowed=str(error), source=source)
    return None


if __name__ == "__main__":
    print(render_parameters_page(), end="")  # noqa: T201  # the page is this module's output when run
