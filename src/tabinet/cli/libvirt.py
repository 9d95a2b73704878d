"""``tabinet libvirt``: the hook of this host's libvirt; and how it gets its answers: beside the agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tabinet.agent.companions import Surroundings


@click.group()
def libvirt() -> None:
    """libvirt: domains of this host as workloads."""


@libvirt.command()
@click.option("--path", default="/etc/libvirt/hooks/qemu", show_default=True, metavar="FILE", help="Where libvirt looks for the hook.")
def install(path: str) -> None:
    """Put the hook where libvirt finds it.

    It hands libvirt's calls to the agent of this host, which must run. A hook of somebody else is not overwritten. libvirt sees a hook that
    was not there before when it is started the next time. Repeat it after an update of Tabinet or of Python.
    """
    from tabinet.attach.libvirt.install import install_hook

    click.echo(f"{path} written" if install_hook(Path(path)) else "nothing to do")


@libvirt.command()
def sync() -> int:
    """Remove what is left of domains that do not run on this host any more.

    The agent does the same by itself when it or libvirt starts.
    """
    from tabinet.attach.libvirt import hook
    from tabinet.cli.output import fail

    request = hook.render_request([b"-", b"sync", b"begin", b"-"], b"")
    try:
        code, message = hook.ask(request, hook.ADDRESS)
    except hook.NoAgentError as error:
        code, message = 1, f"the agent of this host does not answer ({error})".encode()
    if code:
        fail(message.decode())
        return 1
    click.echo(message.decode() or "nothing to do")
    return 0


def beside_agent(surroundings: Surroundings) -> AbstractAsyncContextManager[None]:
    """Answers libvirt's hook as long as the agent runs."""
    import shutil

    from tabinet.attach.libvirt.server import serve_libvirt
    from tabinet.attach.libvirt.service import LibvirtService
    from tabinet.attach.libvirt.taps import Taps
    from tabinet.attach.libvirt.virsh import Virsh
    from tabinet.attach.network import LinuxNetwork
    from tabinet.ipam.client import IpamClient

    parameters, store, network = surroundings.parameters, surroundings.store, LinuxNetwork()
    service = LibvirtService(
        host=surroundings.host,
        store=store,
        network=network,
        ipam=IpamClient(store),
        taps=Taps(network),
        hypervisor=Virsh(parameters.text("libvirt", "uri")),
        agent=surroundings.readiness,
        interface_prefixes=parameters.items("felix", "interface_prefix"),
        note_machine=surroundings.note_machine,
        note=surroundings.log.info,
    )
    return serve_libvirt(service, follow=shutil.which("virsh") is not None)
