"""Tells Neutron what hosts report: ports that are up or not, hosts that are alive.

In: reports. Out: Neutron's database, and through it Nova: a port that becomes active has Neutron send ``network-vif-plugged``. A port
becomes active through Neutron's provisioning blocks, as with its own drivers. Why a port is not up, and what of it or of its security
groups could not be expressed, is shown by its host's agent (``configurations`` in the agents API), because a port has no room for it, and
is logged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neutron.db import provisioning_blocks
from neutron.plugins.ml2 import db as ml2_db
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import resources
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from oslo_log import log

from tabinet.attach.openstack.ml2 import finding
from tabinet.attach.openstack.ml2.trunk import refresh_trunk
from tabinet.attach.openstack.statuses import GroupReport, HostReport, PortReport, Report
from tabinet.model.status import ERROR, UP

LOG = log.getLogger(__name__)
AGENT_TYPE = "Tabinet agent"
AGENT_BINARY = "tabinet-agent"
SHOWN = 100
"""So many troubles are shown of a host: Neutron keeps 4095 characters."""
_REASON = 200
_FIELDS = ["id", "status", "device_owner", portbindings.HOST_ID]


@dataclass(slots=True)
class Reporting:
    """Belongs to one thread."""

    troubles: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By host and port: why it is not up, or what of it was refused; by host and security group of a port there: what of that was."""
    groups: dict[str, str] = field(default_factory=dict)
    """What was refused of security groups."""
    group_hosts: dict[str, set[str]] = field(default_factory=dict)
    """Which hosts' troubles name the group."""

    def tell(self, reports: Sequence[Report]) -> None:
        """Neutron knows what the reports say."""
        context = neutron_context.get_admin_context()
        ports = [report for report in reports if isinstance(report, PortReport)]
        concerned = self._tell_ports(context, ports) if ports else set()
        concerned |= self._tell_groups([report for report in reports if isinstance(report, GroupReport)])
        hosts = {report.host: report for report in reports if isinstance(report, HostReport)}
        for host in sorted(hosts.keys() | concerned):
            if host in hosts or self._knows(context, host):
                self._tell_host(context, host, hosts[host].started if host in hosts else False)

    def _tell_ports(self, context: Any, reports: Sequence[PortReport]) -> set[str]:
        """The hosts whose troubles changed."""
        plugin = directory.get_plugin()
        ids = sorted({report.port for report in reports})
        known = {port["id"]: port for port in plugin.get_ports(context, filters={"id": ids}, fields=_FIELDS)}
        changed = set()
        for report in reports:
            port = known.get(report.port)
            if port is not None and port[portbindings.HOST_ID] != report.host and report.status == UP:
                _tell_plugged(context, report)
            if port is not None and port[portbindings.HOST_ID] == report.host:
                _tell_port(context, report, port["status"])
            elif report.status == UP:
                report = PortReport(report.port, report.host, UP)  # of another host's port: nothing to tell, nothing to complain of
            said = ("" if report.status == UP else report.reason, report.refused)
            reason = "\n".join(filter(None, said)) if port is not None else ""
            before = self.troubles[report.host].pop(report.port, "")
            if reason:
                self.troubles[report.host][report.port] = reason
            if reason != before:
                changed.add(report.host)
            if reason != before and report.refused:
                LOG.warning("Tabinet: port %s on %s: %s", report.port, report.host, report.refused)
        return changed

    def _tell_groups(self, reports: Sequence[GroupReport]) -> set[str]:
        """The hosts whose troubles changed: a group's are told by those that have ports in it, which may be others with each call."""
        for report in reports:
            self.groups.pop(report.group, "")
            if report.refused:
                self.groups[report.group] = report.refused
                LOG.warning("Tabinet: security group %s: %s", report.group, report.refused)
        changed = set()
        for group in sorted(self.groups.keys() | self.group_hosts.keys()):
            said = f"security group: {self.groups[group]}" if group in self.groups else ""
            hosts = set(finding.hosts_of_group(group)) if said else set()
            for host in hosts | self.group_hosts.pop(group, set()):
                before = self.troubles[host].pop(group, "")
                if host in hosts:
                    self.troubles[host][group] = said
                if self.troubles[host].get(group, "") != before:
                    changed.add(host)
            if hosts:
                self.group_hosts[group] = hosts
        return changed

    def _knows(self, context: Any, host: str) -> bool:
        return bool(directory.get_plugin().get_agents(context, filters={"host": [host], "agent_type": [AGENT_TYPE]}, fields=["id"]))

    def _tell_host(self, context: Any, host: str, started: bool) -> None:
        troubles = dict(sorted(self.troubles[host].items())[:SHOWN])
        state = {
            "agent_type": AGENT_TYPE,
            "binary": AGENT_BINARY,
            "host": host,
            "topic": constants.L2_AGENT_TOPIC,
            "configurations": {"troubles": _shortened(troubles)},
            "start_flag": started,
        }
        directory.get_plugin().create_or_update_agent(context, state)


def _tell_port(context: Any, report: PortReport, status: str) -> None:
    plugin = directory.get_plugin()
    if report.status == UP:
        if status != constants.PORT_STATUS_ACTIVE:
            provisioning_blocks.provisioning_complete(context, report.port, resources.PORT, provisioning_blocks.L2_AGENT_ENTITY)
            refresh_trunk(report.port)
        return
    wanted = constants.PORT_STATUS_ERROR if report.status == ERROR else constants.PORT_STATUS_DOWN
    if status != wanted:
        LOG.warning("Tabinet: port %s on %s is %s: %s", report.port, report.host, wanted, report.reason)
        plugin.update_port_status(context, report.port, wanted, report.host)
        refresh_trunk(report.port)


def _tell_plugged(context: Any, report: PortReport) -> None:
    """Nova waits for the target of a migration to have the port, whose status is that of the host where the machine still is."""
    notifier = getattr(directory.get_plugin(), "nova_notifier", None)
    with db_api.CONTEXT_READER.using(context):
        port = ml2_db.get_port(context, report.port)
        is_target = port is not None and any(
            binding.host == report.host and binding.status == constants.INACTIVE for binding in port.port_bindings
        )
        if is_target and notifier is not None:
            notifier.notify_port_active_direct(port)


def _shortened(troubles: dict[str, str]) -> dict[str, str]:
    """As many as there is room for."""
    shown: dict[str, str] = {}
    room = 3500
    for port, reason in troubles.items():
        room -= len(port) + min(len(reason), _REASON) + 8
        if room < 0:
            shown["more"] = str(len(troubles) - len(shown))
            break
        shown[port] = reason[:_REASON]
    return shown
