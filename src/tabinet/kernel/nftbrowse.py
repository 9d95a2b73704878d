"""NftBrowser: the kernel behind ``NftReader``, which looks at our table a page at a time.

It has two sockets: a browsing lasts over many calls, and its socket can answer nothing else meanwhile. Nothing is ever changed here.
Cost: each page is at most 32 KiB of netlink messages, well under a millisecond; a page deep in a large set costs the kernel a walk to it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import TypeVar

from tabinet.errors import KernelError
from tabinet.kernel.netlink import (
    NETLINK_NETFILTER,
    Message,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    open_netlink,
    parse_attributes,
    text,
)
from tabinet.kernel.nftables import FAMILY_NAMES, ChainInfo, Element, Hook, SetSpec, family_of
from tabinet.kernel.nftparse import parse_chain, parse_element_counters, parse_elements, parse_rule, parse_set

T = TypeVar("T")

_SUBSYSTEM = 10 << 8
_GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = _SUBSYSTEM | 4, _SUBSYSTEM | 7, _SUBSYSTEM | 10, _SUBSYSTEM | 13
_HEADERS = {family: struct.pack(">BBH", family, 0, 0) for family in FAMILY_NAMES}


class NftBrowser:
    """Make it with ``open_browser``."""

    def __init__(self, asking: NetlinkSocket, browsing: NetlinkSocket, table: str) -> None:
        self._asking = asking
        self._browsing = browsing
        self._table = table
        self._open: Iterator[object] | None = None
        """The browsing that may not have been read to its end."""

    def close(self) -> None:
        self._asking.close()
        self._browsing.close()

    def read_chain(self, name: str) -> ChainInfo | None:
        """The chain; None when it does not exist.

        Raises:
            KernelError: the kernel did not answer.
        """
        operation = f"read chain {name} (table {self._table})"
        head = _HEADERS[family_of(name)] + attribute(1, text(self._table))
        try:
            answer = self._asking.get(Request(_GETCHAIN, 0, head + attribute(3, text(name))), operation)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        request = Request(_GETRULE, 0, head + attribute(2, text(name)))
        rules = self._asking.dump(request, lambda message: parse_rule(parse_attributes(message.payload, 4)), operation)
        # Where the kernel is asked about a chain that has just gone, it may answer about all.
        return ChainInfo(parse_chain(parse_attributes(answer.payload, 4))[1], [rule for rule in rules if rule.chain == name])

    def find_element(self, set_name: str, element: Element) -> Element | None:
        """The element with this key as the set holds it; None when it, or the set, does not exist.

        Raises:
            KernelError: the kernel did not answer.
        """
        return next(parse_elements(self._find(set_name, element.key)), None)

    def find_element_counter(self, set_name: str, key: bytes) -> tuple[int, int] | None:
        """(packets, bytes) of the element of a counted set; None when it, or the set, does not exist.

        Raises:
            KernelError: the kernel did not answer.
        """
        return next((counted for _, counted in parse_element_counters(self._find(set_name, key))), None)

    def _find(self, set_name: str, key: bytes) -> bytes:
        """The list of elements that has the element with this key, or none."""
        head = _HEADERS[family_of(set_name)] + attribute(1, text(self._table)) + attribute(2, text(set_name))
        body = head + nested(3, nested(1, nested(1, attribute(1, key))))
        try:
            answer = self._asking.get(Request(_GETSETELEM, 0, body), f"find an element of set {set_name} (table {self._table})")
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return b""
            raise
        return parse_attributes(answer.payload, 4).get(3, b"")

    def browse_chains(self) -> Iterator[list[tuple[str, Hook | None]]]:
        """The chains of the tables.

        Raises:
            KernelError: the kernel did not answer; so with the others.
        """
        for family in FAMILY_NAMES:
            for page in self._browse(_GETCHAIN, b"", family, "browse chains"):
                yield [parse_chain(attributes) for attributes in page]

    def browse_sets(self) -> Iterator[list[tuple[str, SetSpec]]]:
        """The sets and maps of the tables."""
        for family in FAMILY_NAMES:
            for page in self._browse(_GETSET, b"", family, "browse sets"):
                yield [parse_set(attributes) for attributes in page]

    def browse_elements(self, set_name: str) -> Iterator[list[Element]]:
        """The elements of a set or map."""
        for page in self._browse(_GETSETELEM, attribute(2, text(set_name)), family_of(set_name), f"browse set {set_name}"):
            yield [element for attributes in page for element in parse_elements(attributes.get(3, b""))]

    def _browse(self, kind: int, body: bytes, family: int, operation: str) -> Iterator[list[dict[int, bytes]]]:
        self._finish()
        wanted = text(self._table)

        def parse(message: Message) -> dict[int, bytes] | None:
            attributes = parse_attributes(message.payload, 4)
            return attributes if attributes.get(1) == wanted else None

        request = Request(kind, 0, _HEADERS[family] + attribute(1, wanted) + body)
        pages = self._browsing.browse(request, parse, f"{operation} (table {self._table})")
        self._open = pages
        try:
            for page in pages:  # noqa: UP028  # "yield from" would end the reading with whoever gives up
                yield page
        except KernelError as error:
            if error.errno != errno.ENOENT:
                self._open_anew()
                raise
            if kind == _GETSETELEM:
                raise

    def _finish(self) -> None:
        """The browsing before is over: the kernel begins no other one on this socket until that was read to its end.

        Raises:
            KernelError: it could not be read, and there is no new socket either.
        """
        unread, self._open = self._open, None
        try:
            for _ in unread or ():
                pass
        except KernelError:
            self._open_anew()

    def _open_anew(self) -> None:
        """Nobody knows what the socket would say next."""
        self._browsing.close()
        self._browsing = open_netlink(NETLINK_NETFILTER)


def open_browser(table: str = "tabinet") -> NftBrowser:
    """A reader of the tables of families inet and arp with this name, in the network namespace of the calling thread.

    Raises:
        KernelError: the kernel has no nfnetlink.
    """
    return NftBrowser(open_netlink(NETLINK_NETFILTER), open_netlink(NETLINK_NETFILTER), table)
