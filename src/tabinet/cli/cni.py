"""``tabinet cni``: the CNI plugins on this host; and how they get their answers: beside the agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tabinet.agent.companions import Surroundings


@click.group()
def cni() -> None:
    """Container runtimes: the CNI plugins of this host."""


@cni.command()
@STORE_OPTIONS
@click.option("--bin-dir", default="/opt/cni/bin", show_default=True, metavar="DIR", help="Where the runtime looks for plugins.")
@click.option("--network", metavar="NAME", help="Write the configuration of a network of this name, too.")
@click.option("--conf-dir", default="/etc/cni/net.d", show_default=True, metavar="DIR", help="Where the runtime looks for networks.")
@click.option("--ipv4/--no-ipv4", default=True, show_default=True, help="Of the network: containers get an IPv4 address.")
@click.option("--ipv6/--no-ipv6", default=False, show_default=True, help="Of the network: containers get an IPv6 address.")
@click.option("--portmap/--no-portmap", default=True, show_default=True, help="Of the network: ports of the host by the plugin portmap.")
@click.pass_obj
def install(place: Place, bin_dir: str, network: str | None, conf_dir: str, ipv4: bool, ipv6: bool, portmap: bool) -> None:
    """Put tabinet-cni and tabinet-ipam where container runtimes find them.

    The plugins hand each call to the agent of this host, which must run. Repeat it after an update of Tabinet or of Python.
    """
    from tabinet.attach.cni.install import install_network, install_programs, network_list
    from tabinet.cli.place import read_parameters

    written = install_programs(Path(bin_dir), read_parameters(place).text("cni", "deletions"))
    if network:
        written += install_network(Path(conf_dir), network_list(network, ipv4=ipv4, ipv6=ipv6, portmap=portmap))
    for path in written:
        click.echo(f"{path} written")
    if not written:
        click.echo("nothing to do")


def beside_agent(surroundings: Surroundings) -> AbstractAsyncContextManager[None]:
    """Answers CNI calls as long as the agent runs."""
    from tabinet.attach.cni.server import serve_cni
    from tabinet.attach.cni.service import CniService
    from tabinet.attach.network import LinuxNetwork
    from tabinet.ipam.client import IpamClient

    parameters, store = surroundings.parameters, surroundings.store
    service = CniService(
        host=surroundings.host,
        store=store,
        network=LinuxNetwork(),
        ipam=IpamClient(store),
        why_not_ready=surroundings.why_not_ready,
        agent=surroundings.readiness,
        interface_prefix=parameters.items("felix", "interface_prefix")[0],
    )
    return serve_cni(service, Path(parameters.text("cni", "deletions")), surroundings.log.info)
