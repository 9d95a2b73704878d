"""TAPs of domains: made before libvirt opens them, removed when it has closed them.

In: a name and the domain. Out: the interface is up, with the hardware address that all gateways have, so that a guest that moves finds its
router unchanged. Ours say so in their alias, with the domain; an interface of that name that somebody else made is used, and left to its
owner. Idempotent. The host's routes, sysctls and policy are the agent's: nothing passes before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tabinet.attach.inside import HOST_MAC
from tabinet.attach.network import Network
from tabinet.attach.plug import disconnect
from tabinet.errors import AttachError
from tabinet.kernel.rtnetlink import Link, Rtnetlink, SetLink, execute_all
from tabinet.kernel.tuntap import create_tap

_ALIAS = "tabinet libvirt "
"""Before the domain's UUID, in the alias of our interfaces."""


@dataclass(frozen=True, slots=True)
class Taps:
    """Those of one host."""

    network: Network
    create: Callable[[str, bool], None] = create_tap

    def make(self, name: str, domain: str, *, queues: int = 1, mtu: int = 0) -> None:
        """There is an interface of this name, for a domain (its UUID) that is about to open it. ``mtu`` in bytes; 0: the kernel's default.

        Raises:
            AttachError: another domain of ours holds it open.
            KernelError: the kernel refused.
        """

        def work(rtnetlink: Rtnetlink) -> None:
            link = rtnetlink.link(name)
            if link is not None and (not _is_ours(link) or link.carrier):
                if link.alias not in ("", _ALIAS + domain) and _is_ours(link):
                    raise AttachError(f"interface {name} is in use by domain {link.alias.removeprefix(_ALIAS)}")
                return
            if link is not None:  # left over, perhaps for another number of queues
                disconnect(self.network, name)
            self.create(name, queues > 1)
            made = rtnetlink.link(name)
            if made is None:
                raise AttachError(f"interface {name} was removed while it was made")
            execute_all(rtnetlink, [SetLink(index=made.index, mac=HOST_MAC, mtu=mtu, alias=_ALIAS + domain, up=True)])

        self.network.on_host(work)

    def remove(self, name: str, domain: str) -> None:
        """The domain has no interface of this name that we made.

        Raises:
            KernelError: the kernel refused.
        """
        link = self.network.on_host(lambda rtnetlink: rtnetlink.link(name))
        if link is not None and link.alias == _ALIAS + domain:
            disconnect(self.network, name)

    def ours(self) -> dict[str, str]:
        """The interfaces that we made: the domain's UUID by name."""
        links = self.network.on_host(lambda rtnetlink: rtnetlink.links())
        return {link.name: link.alias.removeprefix(_ALIAS) for link in links if _is_ours(link)}


def _is_ours(link: Link) -> bool:
    return link.alias.startswith(_ALIAS)
