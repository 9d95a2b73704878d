"""NftSocket: executes nf_tables transactions and reads our table, over nfnetlink.

In: operations of ``kernel.nftables``. Out: nothing, or a ``KernelError`` that names the operation at fault. Sources: nf_tables.h,
nfnetlink.h, and nft(8)'s own traffic (``nft --debug=netlink``).

What holds: a commit is one batch, so all of it happens or nothing, also over both families. Only objects of families inet and arp in
tables of our name are read or written.
The last operation asks for the acknowledgement (BATCH_END is acknowledged only since Linux 6.10); an error with
the sequence number of BATCH_BEGIN is one of the commit as a whole. Elements are split over messages so that no attribute exceeds
its 64 KiB; the transaction is still one.

Cost: linear in the bytes of the operations; independent of the size of the ruleset.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Iterable, Iterator, Sequence

from tabinet.errors import KernelError
from tabinet.kernel.netlink import (
    ATTRIBUTE_LIMIT_BYTES,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLMSG_ERROR,
    Message,
    NetlinkSocket,
    Request,
    attribute,
    be32,
    be64,
    nested,
    open_netlink,
    parse_attributes,
    parse_error,
    parse_text,
    text,
)
from tabinet.kernel.nftables import (
    ARP,
    FAMILY_NAMES,
    INET,
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    Element,
    FlushChain,
    FlushSet,
    Hook,
    NftOp,
    RuleInfo,
    SetSpec,
    TableInfo,
    describe,
    family_of,
)
from tabinet.kernel.nftexpr import element_counter, parse_counter, verdict_data
from tabinet.kernel.nftparse import (
    ELEMENT_INTERVAL_END,
    SET_CONCAT,
    SET_EVAL,
    SET_INTERVAL,
    SET_MAP,
    SET_TIMEOUT,
    parse_chain,
    parse_element_counters,
    parse_elements,
    parse_rule,
    parse_set,
    read_be32,
)

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = _SUBSYSTEM | 3, _SUBSYSTEM | 4, _SUBSYSTEM | 5
_NEWRULE, _GETRULE, _DELRULE = _SUBSYSTEM | 6, _SUBSYSTEM | 7, _SUBSYSTEM | 8
_NEWSET, _GETSET, _DELSET = _SUBSYSTEM | 9, _SUBSYSTEM | 10, _SUBSYSTEM | 11
_NEWSETELEM, _GETSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 13, _SUBSYSTEM | 14

_GETGENERATION = _SUBSYSTEM | 16

_DATA_VERDICT = 0xFFFFFF00
_LIST_ELEMENT = 1


def _message(kind: int, flags: int, body: bytes, family: int, resource: int = 0) -> Request:
    """A request with its nfgenmsg header."""
    return Request(kind, flags, struct.pack(">BBH", family, 0, resource) + body)


# --- operations to messages -----------------------------------------------------------------------------------------


class _Encoder:
    """Renders operations for one table; numbers the sets of a batch, which the kernel wants to be distinct."""

    __slots__ = ("_set_number", "_table")

    def __init__(self, table: str) -> None:
        self._table = attribute(1, text(table))
        self._set_number = 0

    def render(self, operation: NftOp) -> list[Request]:
        """The messages of one operation: one, but for elements."""
        match operation:
            case AddTable():
                return [_message(_NEWTABLE, NLM_F_CREATE, self._table, family) for family in FAMILY_NAMES]
            case DeleteTable():  # that of family arp may be missing
                missing = _message(_NEWTABLE, NLM_F_CREATE, self._table, ARP)
                return [missing, *(_message(_DELTABLE, 0, self._table, family) for family in FAMILY_NAMES)]
            case AddChain(name, hook):
                return [self._of(name, _NEWCHAIN, NLM_F_CREATE, attribute(3, text(name)) + _hook(hook))]
            case DeleteChain(name):
                return [self._of(name, _DELCHAIN, 0, attribute(3, text(name)))]
            case FlushChain(name):  # deleting a rule without a handle deletes all of the chain
                return [self._of(name, _DELRULE, 0, attribute(2, text(name)))]
            case AddRule(chain=chain):
                return [self._of(chain, _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, _rule(operation))]
            case AddSet(name, spec):
                self._set_number += 1
                return [self._of(name, _NEWSET, NLM_F_CREATE, attribute(2, text(name)) + _set_attributes(spec, self._set_number))]
            case DeleteSet(name):
                return [self._of(name, _DELSET, 0, attribute(2, text(name)))]
            case FlushSet(name):  # deleting elements without naming any deletes all
                return [self._of(name, _DELSETELEM, 0, attribute(2, text(name)))]
            case AddElements(name, elements):
                return self._elements(_NEWSETELEM, NLM_F_CREATE, name, elements, with_data=True)
            case DeleteElements(name, elements):
                return self._elements(_DELSETELEM, 0, name, elements, with_data=False)
            case _:
                raise TypeError(f"not an nf_tables operation: {operation!r}")

    def _of(self, name: str, kind: int, flags: int, body: bytes) -> Request:
        """A message about the object with this name."""
        return _message(kind, flags, self._table + body, family_of(name))

    def _elements(self, kind: int, flags: int, name: str, elements: Sequence[Element], *, with_data: bool) -> list[Request]:
        head = attribute(2, text(name))
        chunks = _chunks(_render_element(element, with_data) for element in elements)
        return [self._of(name, kind, flags, head + nested(3, chunk)) for chunk in chunks]


def _rule(operation: AddRule) -> bytes:
    body = attribute(2, text(operation.chain)) + nested(4, operation.expressions)
    if operation.userdata:
        body += attribute(7, operation.userdata)
    return body


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts joined to pieces that fit into one attribute."""
    chunk: list[bytes] = []
    used = 4
    for part in parts:
        if used + len(part) > ATTRIBUTE_LIMIT_BYTES:
            yield b"".join(chunk)
            chunk, used = [], 4
        chunk.append(part)
        used += len(part)
    if chunk:
        yield b"".join(chunk)


def _render_element(element: Element, with_data: bool) -> bytes:
    """NFTA_LIST_ELEM { KEY, DATA, FLAGS, KEY_END }."""
    content = nested(1, attribute(1, element.key))
    if element.interval_end:
        content = attribute(3, be32(ELEMENT_INTERVAL_END)) + content
    if element.end:
        content += nested(10, attribute(1, element.end))
    if with_data and element.verdict is not None:
        content += nested(2, verdict_data(element.verdict, element.chain))
    return nested(_LIST_ELEMENT, content)


def _hook(hook: Hook | None) -> bytes:
    if hook is None:
        return b""
    where = nested(4, attribute(1, be32(hook.hook)), attribute(2, be32(hook.priority)))
    return where + attribute(5, be32(1 if hook.policy_accept else 0)) + attribute(7, text(hook.type))


def _set_attributes(spec: SetSpec, number: int) -> bytes:
    flags = (SET_INTERVAL if spec.interval else 0) | (SET_MAP if spec.verdict_map else 0) | (SET_CONCAT if spec.fields else 0)
    if spec.forget_s:
        flags |= SET_TIMEOUT | SET_EVAL
    body = attribute(3, be32(flags)) + attribute(4, be32(spec.key_type)) + attribute(5, be32(spec.key_length)) + attribute(10, be32(number))
    if spec.verdict_map:
        body += attribute(6, be32(_DATA_VERDICT)) + attribute(7, be32(0))
    description = attribute(1, be32(spec.size)) if spec.size else b""
    if spec.fields:
        description += nested(2, *[nested(_LIST_ELEMENT, attribute(1, be32(length))) for length in spec.fields])
    if description:
        body += nested(9, description)
    if spec.forget_s:
        body += attribute(11, be64(1000 * spec.forget_s))
    if spec.userdata:
        body += attribute(13, spec.userdata)
    if spec.counted:  # elements that bring no expression of their own get a copy of the set's
        body += nested(17, element_counter())
    return body


# --- socket ---------------------------------------------------------------------------------------------------------


class NftSocket:
    """The kernel behind the ``Nftables`` protocol. Make it with ``open_nftables``."""

    __slots__ = ("_disturbed", "_netlink", "_ruleset", "_table", "_timeout_s")

    def __init__(self, netlink: NetlinkSocket, table: str, timeout_s: float) -> None:
        self._netlink = netlink
        self._table = table
        self._timeout_s = timeout_s
        self._ruleset = -1
        """The kernel's count of transactions when we last looked; it wraps at 32 bits and skips 0."""
        self._disturbed = True

    def close(self) -> None:
        self._netlink.close()

    def commit(self, operations: Sequence[NftOp]) -> None:
        """Executes all operations as one transaction.

        Raises:
            KernelError: the operation at fault; nothing was changed. ETIMEDOUT or KernelOverrun: it is not known, read again.
        """
        encoder = _Encoder(self._table)
        requests = [_message(_BATCH_BEGIN, 0, b"", family=0, resource=_SUBSYSTEM >> 8)]
        owners: list[int] = []
        for index, operation in enumerate(operations):
            rendered = encoder.render(operation)
            requests += rendered
            owners += [index] * len(rendered)
        if not owners:
            return
        final = requests[-1]
        requests[-1] = Request(final.type, final.flags | NLM_F_ACK, final.payload)
        requests.append(_message(_BATCH_END, 0, b"", family=0, resource=_SUBSYSTEM >> 8))
        numbers = self._netlink.send(requests)
        failure = self._await_outcome(numbers)
        if failure is None:
            self._count_own()
            return
        position, code, explanation = failure
        if position == 0:
            what = f"commit nftables transaction of {len(operations)} operations"
        else:
            what = f"{describe(operations[owners[position - 1]])} (table {self._table})"
        raise KernelError(code, what, explanation)

    def _await_outcome(self, numbers: range) -> tuple[int, int, str] | None:
        """(message at fault, errno, explanation), or None for success; everything that belongs to the batch has been received."""
        deadline = time.monotonic() + self._timeout_s
        failure: tuple[int, int, str] | None = None
        while True:
            for message in self._netlink.receive("commit nftables transaction", deadline):
                if message.type != NLMSG_ERROR or message.sequence not in numbers:
                    continue
                code, explanation = parse_error(message)
                position = message.sequence - numbers.start
                if code and (failure is None or failure[0] == 0):
                    failure = (position, code, explanation)
                if position == len(numbers) - 2:
                    return failure

    def disturbed(self) -> bool:
        """True when somebody else has changed anything in nf_tables since the last call, in any table; so too the first time. O(1).

        The kernel counts the transactions that changed something (NFT_MSG_GETGEN); what is counted beyond our own is others'.

        Raises:
            KernelError: the kernel did not answer.
        """
        ruleset = self._read_ruleset()
        disturbed = self._disturbed or ruleset != self._ruleset
        self._ruleset, self._disturbed = ruleset, False
        return disturbed

    def _count_own(self) -> None:
        """One transaction of ours is in the count, or none when it changed nothing; anything else is somebody else's."""
        ruleset = self._read_ruleset()
        self._disturbed = self._disturbed or not 0 <= ruleset - self._ruleset <= 1
        self._ruleset = ruleset

    def _read_ruleset(self) -> int:
        answer = self._netlink.get(_message(_GETGENERATION, 0, b"", family=0), "read the ruleset's generation")
        return read_be32(parse_attributes(answer.payload, 4), 1)

    def read_table(self) -> TableInfo | None:
        """The tables without elements; None when that of family inet does not exist. O(chains + rules + sets), and chains of other tables.

        Raises:
            KernelError: the kernel did not answer.
        """
        families = [family for family in FAMILY_NAMES if self._exists(family)]
        if INET not in families:
            return None
        name = attribute(1, text(self._table))
        chains = dict(parse_chain(a) for a in self._dump_all(_GETCHAIN, name, families, "read chains"))
        sets = dict(parse_set(a) for a in self._dump_all(_GETSET, name, families, "read sets"))
        rules: dict[str, list[RuleInfo]] = {chain: [] for chain in chains}
        for a in self._dump_all(_GETRULE, name, families, "read rules"):
            info = parse_rule(a)
            rules.setdefault(info.chain, []).append(info)
        return TableInfo(chains, rules, sets, complete=ARP in families)

    def _exists(self, family: int) -> bool:
        request = _message(_GETTABLE, 0, attribute(1, text(self._table)), family)
        try:
            self._netlink.get(request, f"read table {FAMILY_NAMES[family]} {self._table}")
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def read_elements(self, set_name: str) -> list[Element]:
        """All elements of a set or map, in no order (interval sets: from the highest to the lowest).

        Raises:
            KernelError: ENOENT when there is no such set.
        """
        return [element for a in self._dump_set(set_name, "read elements") for element in parse_elements(a.get(3, b""))]

    def read_counters(self) -> dict[tuple[str, bytes], tuple[int, int]]:
        """(packets, bytes) of each rule that has a counter, by (chain, userdata); sums where these are equal. Empty without the table.

        Raises:
            KernelError: the kernel did not answer.
        """
        counters: dict[tuple[str, bytes], tuple[int, int]] = {}
        for a in self._dump_all(_GETRULE, attribute(1, text(self._table)), FAMILY_NAMES, "read counters"):
            counter = parse_counter(a.get(4, b""))
            if counter is not None:
                where = (parse_text(a[2]), a.get(7, b""))
                packets, octets = counters.get(where, (0, 0))
                counters[where] = (packets + counter[0], octets + counter[1])
        return counters

    def read_element_counters(self, set_name: str) -> dict[bytes, tuple[int, int]]:
        """(packets, bytes) of each element of a counted set, by key. O(elements).

        Raises:
            KernelError: ENOENT when there is no such set.
        """
        return dict(item for a in self._dump_set(set_name, "read counters") for item in parse_element_counters(a.get(3, b"")))

    def _dump_set(self, name: str, operation: str) -> list[dict[int, bytes]]:
        body = attribute(1, text(self._table)) + attribute(2, text(name))
        return self._dump(_GETSETELEM, body, family_of(name), f"{operation} of set {name}")

    def _dump_all(self, kind: int, body: bytes, families: Iterable[int], operation: str) -> list[dict[int, bytes]]:
        return [attributes for family in families for attributes in self._dump(kind, body, family, operation)]

    def _dump(self, kind: int, body: bytes, family: int, operation: str) -> list[dict[int, bytes]]:
        """The attributes of each object of our table: the kernel does not filter all kinds by table."""
        wanted = text(self._table)

        def parse(message: Message) -> dict[int, bytes] | None:
            attributes = parse_attributes(message.payload, 4)
            return attributes if attributes.get(1) == wanted else None

        return self._netlink.dump(_message(kind, 0, body, family), parse, f"{operation} (table {self._table})")


def open_nftables(table: str = "tabinet", *, timeout_s: float = 30.0) -> NftSocket:
    """A socket for the tables of families inet and arp with this name, in the network namespace of the calling thread.

    ``timeout_s`` bounds the wait for the outcome of one transaction.

    Raises:
        KernelError: the kernel has no nfnetlink.
    """
    return NftSocket(open_netlink(NETLINK_NETFILTER, timeout_s=timeout_s), table, timeout_s)
