"""What commands about flows read of the store: everything that the calculation looks at, or only what concerns a few ends.

In: a place. Out: resources, at one revision; broken values fail closed, as they do in the agents. ``read_fabric_around`` decodes of the
endpoints only those that share an address or an interface with an end: whether an address is in a set, and what an endpoint gets, depends
on nobody else, so what becomes of a packet between these ends is the same. Cost: O(store) bytes, and decoding what is kept.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tabinet.agent.feed import Feed
from tabinet.analysis.fabric import Fabric, OptionsOf, Resources, survey
from tabinet.calc.endpoints import readable
from tabinet.calc.inputs import Input, Put
from tabinet.cli.place import Place, open_place, read_parameters
from tabinet.lib.ip import IPV4, parse_address
from tabinet.model.annotations import PORT_FORWARDS
from tabinet.model.keys import AFFINITIES, RESOURCES, Key, ResourceKey, kind_prefix
from tabinet.store.api import Datastore, KeyValue, PutEvent, WatchBatch

if TYPE_CHECKING:
    from tabinet.rules.options import TableOptions

ENDPOINTS = kind_prefix("WorkloadEndpoint")
Answer = TypeVar("Answer")


def read_fabric(place: Place) -> Fabric:
    """The fabric as the store has it now.

    Raises:
        SetupError, StoreError: there is no store, or it does not answer.
    """
    return survey(read_all(place), options_reader(place))


def read_fabric_around(place: Place, ends: Iterable[str]) -> Fabric:
    """The fabric without endpoints that have nothing to do with these ends; all of it when one of them is nobody's name or address.

    Raises as ``read_fabric``.
    """
    return survey(with_store(place, lambda store: _read_around(store, tuple(ends))), options_reader(place))


def read_all(place: Place) -> Resources:
    """All resources. Raises as ``read_fabric``."""
    return with_store(place, read_resources)


def options_reader(place: Place) -> OptionsOf:
    """The options of hosts, by this machine's configuration."""
    from tabinet.agent.tableoptions import table_options

    parameters = read_parameters(place)

    def options_of(felix: Mapping[str, object]) -> TableOptions:
        return table_options(parameters.under(dict(felix)))

    return options_of


def default_options(felix: Mapping[str, object]) -> TableOptions:
    """The options of a host whose own configuration says nothing."""
    from tabinet.agent.parameters import parse_parameters
    from tabinet.agent.tableoptions import table_options

    return table_options(parse_parameters("", {}, felix))


def with_store(place: Place, ask: Callable[[Datastore], Awaitable[Answer]]) -> Answer:
    """What the store answers. From here on nothing is collected: a fabric is made once, and is there until the command ends."""

    async def run() -> Answer:
        store = await open_place(place)
        try:
            return await ask(store)
        finally:
            await store.close()

    gc.disable()
    return asyncio.run(run())


async def read_resources(store: Datastore) -> Resources:
    """Everything that the calculation looks at, at one revision."""
    reader = _Reader()
    for prefix in (RESOURCES, AFFINITIES):
        async for page in store.list(prefix):
            reader.take(page.items)
    return reader.found


def decoded(items: Iterable[KeyValue]) -> Resources:
    """The resources that stand in these values; broken ones fail closed."""
    reader = _Reader()
    reader.take(items)
    return reader.found


class _Reader:
    def __init__(self) -> None:
        self.found: dict[Key, tuple[object, int]] = {}
        self._feed = Feed(self._deliver)

    def take(self, items: Iterable[KeyValue]) -> None:
        self._feed.on_batch(WatchBatch([PutEvent(item) for item in items], 0))

    def _deliver(self, told: Input) -> None:
        if isinstance(told, Put):
            self.found[told.key] = (told.value, told.revision)


# --- only what concerns some ends -----------------------------------------------------------------------------------


class _Nat(msgspec.Struct, frozen=True, gc=False):
    internal: str = msgspec.field(default="", name="internalIP")
    external: str = msgspec.field(default="", name="externalIP")


class _Spec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    node: str = ""
    interface_name: str = ""
    pod: str = ""
    workload: str = ""
    container_id: str = msgspec.field(default="", name="containerID")
    ip_networks: tuple[str, ...] = ()
    ip_nats: tuple[_Nat, ...] = msgspec.field(default=(), name="ipNATs")

    def addresses(self) -> Iterator[str]:
        """All that are written in it, floating ones too."""
        yield from self.ip_networks
        for nat in self.ip_nats:
            yield nat.internal
            yield nat.external


class _Annotations(msgspec.Struct, frozen=True, gc=False):
    forwards: str = msgspec.field(default="", name=PORT_FORWARDS)


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    annotations: _Annotations = _Annotations()


class _Outline(msgspec.Struct, frozen=True, gc=False):
    """Of a workload endpoint: what it may be known by, and what it may dispute with others."""

    spec: _Spec = _Spec()
    metadata: _Metadata = _Metadata()


Outlines = list[tuple[KeyValue, _Outline | None]]
"""None: the value is broken, or written in another way; such are always read in full."""


async def _read_around(store: Datastore, ends: tuple[str, ...]) -> Resources:
    reader = _Reader()
    outlines: Outlines = []
    for prefix in (RESOURCES, AFFINITIES):
        async for page in store.list(prefix):
            reader.take(item for item in page.items if not item.key.startswith(ENDPOINTS))
            outlines += [(item, _outline(item.value)) for item in page.items if item.key.startswith(ENDPOINTS)]
    if all(_is_known(end, outlines, reader.found) for end in ends):
        reader.take(_around(ends, outlines))
    else:  # so that all names can be suggested
        reader.take(item for item, _ in outlines)
    return reader.found


_DECODER = msgspec.json.Decoder(_Outline)


def _outline(value: bytes) -> _Outline | None:
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_known(end: str, outlines: Outlines, resources: Resources) -> bool:
    if _is_address(end) or ResourceKey("Node", end) in resources:
        return True
    return any(outline is None or _is_named(item.key, outline.spec, end) for item, outline in outlines)


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _is_named(path: str, spec: _Spec, end: str) -> bool:
    namespace, _, name = end.rpartition("/")
    if namespace and not path.startswith(f"{ENDPOINTS}{namespace}/"):
        return False
    return name in (spec.pod, spec.workload, spec.container_id) or path.endswith(f"/{name}")


def _around(ends: tuple[str, ...], outlines: Outlines) -> Iterator[KeyValue]:
    """The endpoints that are meant, and those that have an address or an interface of one of them."""
    meant = _Addresses([end for end in ends if _is_address(end)])
    specs = [outline.spec for item, outline in outlines if outline is not None and _is_meant(item.key, outline, ends, meant)]
    addresses = _Addresses([*meant.texts, *[text for spec in specs for text in spec.addresses()]])
    interfaces = {(spec.node, spec.interface_name) for spec in specs}
    for item, outline in outlines:
        if outline is None or (outline.spec.node, outline.spec.interface_name) in interfaces or addresses.touch(outline.spec):
            yield item


def _is_meant(path: str, outline: _Outline, ends: tuple[str, ...], addresses: _Addresses) -> bool:
    if addresses.touch(outline.spec) or any(_is_named(path, outline.spec, end) for end in ends):
        return True
    forwards = outline.metadata.annotations.forwards
    return bool(forwards) and any(f'"{address}"' in forwards for address in addresses.texts)


class _Addresses:
    """Some addresses and prefixes, to be met by others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        self._nets = set(readable(self.texts))
        self._short = {net.address for net in self._nets if net.is_host and net.family == IPV4}

    def touch(self, spec: _Spec) -> bool:
        """True when one of the endpoint's is in one of these, or the other way round."""
        return any(map(self._touches, spec.addresses()))

    def _touches(self, text: str) -> bool:
        head, _, length = text.partition("/")
        if head in self._short:
            return True
        if length in ("", "32") and ":" not in head and len(self._short) == len(self._nets):
            return False  # nearly all are like this, and need no parsing
        return any(net.contains(other) or other.contains(net) for net in readable([text]) for other in self._nets)
