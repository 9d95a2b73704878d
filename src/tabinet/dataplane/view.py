"""What the kernel should hold and what it holds, as records and text that people read.

``wanted_views`` says what the drivers of a running agent want, ``ThereReader`` what the kernel has, ``compare`` how they differ. Both
sides come as a stream of small records (``View``), so that a large table is told in pieces. Rules are recognised by their user data, which
holds a digest: a rule that is ours has our text, any other one comes as nft(8) shows it. Linear in everything.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from tabinet.dataplane.facts import Fact
from tabinet.dataplane.nft.decode import Item, decode_all
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.encode import HOOKS
from tabinet.dataplane.nft.plan import GENERATIONS, LEARNED, MAPS_TO_CHAINS
from tabinet.dataplane.nft.render import hook_text, item_text, key_type, render_rule
from tabinet.kernel.nftables import FAMILY_NAMES, Element, Nftables, RuleInfo, SetSpec, family_of
from tabinet.kernel.nftexpr import CtState
from tabinet.rules.ir import SetDef

CHUNK = 1000
"""Most elements in one view: about 2 ms."""


class View(msgspec.Struct, frozen=True, tag=True):
    """Base of the records."""


class About(View, frozen=True):
    """The agent that wants all this."""

    host: str
    version: str
    revision: int
    """Of the store, that the kernel holds."""
    generation: int
    kernel: str
    """Empty: all well. Else why the kernel does not hold what it should."""


class RuleView(msgspec.Struct, frozen=True):
    text: str
    mark: str
    """The rule's user data, hexadecimal: what it is recognised by."""


class ChainView(View, frozen=True):
    name: str
    hook: str
    """Where a base chain is; empty for others."""
    rules: tuple[RuleView, ...]


class SetView(View, frozen=True):
    name: str
    """The kernel's."""
    definition: SetDef | None
    """None for one that is not ours."""
    spec: SetSpec
    elements: tuple[str, ...]
    """In no order; of a large set a part, and the rest in views that follow."""


class FactView(View, frozen=True):
    fact: Fact


AnyView = About | ChainView | SetView | FactView


@dataclass(slots=True)
class Picture:
    """One side."""

    about: About | None = None
    chains: dict[str, ChainView] = field(default_factory=dict)
    sets: dict[str, SetView] = field(default_factory=dict)
    facts: set[Fact] = field(default_factory=set)

    def add(self, view: AnyView) -> None:
        """The view belongs to the picture."""
        match view:
            case About():
                self.about = view
            case ChainView():
                self.chains[view.name] = view
            case SetView(name=name, elements=elements) if name in self.sets:
                known = self.sets[name]
                self.sets[name] = msgspec.structs.replace(known, elements=known.elements + elements)
            case SetView():
                self.sets[view.name] = view
            case FactView():
                self.facts.add(view.fact)


class Difference(msgspec.Struct, frozen=True):
    """One object that is not as wanted."""

    kind: str
    """``chain``, ``set``, or the kind of a fact."""
    name: str
    missing: tuple[str, ...]
    """Wanted and not there."""
    foreign: tuple[str, ...]
    """There and not wanted."""


def wanted_views(driver: NftDriver, facts: Iterator[Fact]) -> Iterator[AnyView]:
    """What the drivers want, in small pieces. The table may change between two pieces: what went meanwhile is left out."""
    table = driver.table
    for name in sorted(table.chains):
        chain = table.chains.get(name)
        if chain is not None:
            texts = [render_rule(rule, driver.generation, chain.basis) for rule in chain.rules]
            marks = [rule.userdata.hex() for rule in driver.wanted_rules(name)]
            rules = tuple(RuleView(text, mark) for text, mark in zip(texts, marks, strict=True))
            yield ChainView(name, hook_text(name, HOOKS[chain.hook]) if chain.hook is not None else "", rules)
    for name in sorted(table.sets):
        yield from _wanted_set(driver, name)
    for fact in facts:
        yield FactView(fact)


def _wanted_set(driver: NftDriver, name: str) -> Iterator[SetView]:
    table = driver.table
    definition = table.sets.get(name)
    if definition is None:
        return
    physical, spec = driver.physical(name), driver.wanted_spec(name)
    if definition.type in GENERATIONS:
        yield SetView(physical, definition, spec, element_lines(definition, list(driver.wanted_elements(name))))
        return
    items: list[Item] = list(table.maps[name].items()) if definition.type in MAPS_TO_CHAINS else list(table.elements[name])
    for start in range(0, max(1, len(items)), CHUNK):
        yield SetView(physical, definition, spec, tuple(item_text(definition, item) for item in items[start : start + CHUNK]))


def element_lines(definition: SetDef, elements: list[Element]) -> tuple[str, ...]:
    """Elements as the kernel holds them, as nft(8) has them; none where they are packets' affair."""
    if definition.type in LEARNED:
        return ()
    if definition.type in GENERATIONS:
        return tuple(_generation_text(element) for element in elements)
    descending = sorted(elements, key=lambda element: (element.key, element.interval_end), reverse=True)
    items = decode_all(definition, descending)
    return tuple(item_text(definition, item) for item in items if item is not None)


def _generation_text(element: Element) -> str:
    state = int.from_bytes(element.key[:4], sys.byteorder)
    mark = int.from_bytes(element.key[4:8], sys.byteorder)
    word = next((name for name, bit in CtState.__members__.items() if bit == state), str(state))
    return f"{word.lower()} . {mark:#010x}" + (" : accept" if element.verdict is not None else "")


TextOf = Callable[[RuleInfo], str]
"""How a rule that is not ours looks."""


def there_views(nftables: Nftables, wanted: Picture, text_of: TextOf) -> Iterator[AnyView]:
    """What the kernel's table holds; rules and sets of ``wanted`` are recognised.

    Raises:
        KernelError: it did not answer.
    """
    info = nftables.read_table()
    if info is None:
        return
    for name, hook in info.chains.items():
        ours = {rule.mark: rule.text for rule in wanted.chains[name].rules} if name in wanted.chains else {}
        rules = []
        for rule in info.rules.get(name, []):
            mark = rule.userdata.hex()
            rules.append(RuleView(ours[mark] if mark in ours else text_of(rule), mark))
        yield ChainView(name, hook_text(name, hook), tuple(rules))
    for name, spec in info.sets.items():
        known = wanted.sets.get(name)
        elements = nftables.read_elements(name)
        if known is not None and known.spec == spec and known.definition is not None:
            yield SetView(name, known.definition, spec, element_lines(known.definition, elements))
        else:
            yield SetView(name, None, spec, tuple(sorted(element.key.hex() for element in elements)))


def compare(wanted: Picture, there: Picture) -> list[Difference]:
    """How they differ: chains, sets, then facts, by name."""
    found = []
    for name in sorted(wanted.chains.keys() | there.chains.keys()):
        missing, foreign = _unlike(_chain_lines(wanted.chains.get(name)), _chain_lines(there.chains.get(name)))
        if missing or foreign:
            found.append(Difference("chain", name, missing, foreign))
    for name in sorted(wanted.sets.keys() | there.sets.keys()):
        missing, foreign = _unlike(_set_lines(wanted.sets.get(name)), _set_lines(there.sets.get(name)))
        if missing or foreign:
            found.append(Difference("set", name, missing, foreign))
    facts: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for fact in sorted(wanted.facts - there.facts):
        facts.setdefault((fact.kind, fact.name), ([], []))[0].append(fact.text)
    for fact in sorted(there.facts - wanted.facts):
        facts.setdefault((fact.kind, fact.name), ([], []))[1].append(fact.text)
    found += [Difference(kind, name, tuple(lines[0]), tuple(lines[1])) for (kind, name), lines in sorted(facts.items())]
    return found


def _chain_lines(chain: ChainView | None) -> list[tuple[str, str]]:
    """(what to compare, what to show)."""
    if chain is None:
        return []
    head = f"chain {chain.name} {{ {chain.hook} }}" if chain.hook else f"chain {chain.name}"
    return [(head, head), *((rule.mark or rule.text, rule.text) for rule in chain.rules)]


def _set_lines(view: SetView | None) -> list[tuple[str, str]]:
    if view is None:
        return []
    head = set_head(view)
    return [(head, head), *((element, element) for element in sorted(view.elements))]


def _unlike(wanted: list[tuple[str, str]], there: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    keys, present = Counter(key for key, _ in wanted), Counter(key for key, _ in there)
    if keys == present and [key for key, _ in wanted] != [key for key, _ in there]:
        return tuple(f"{text}  (in this order)" for _, text in wanted), ()
    return _lines(wanted, keys - present), _lines(there, present - keys)


def _lines(lines: list[tuple[str, str]], left: Counter[str]) -> tuple[str, ...]:
    found = []
    for key, text in lines:
        if left[key]:
            left[key] -= 1
            found.append(text)
    return tuple(found)


def _word(view: SetView) -> str:
    return "map" if view.spec.verdict_map else "set"


def _type(view: SetView) -> str:
    """What it leads from, and where to, in the words of nft(8)."""
    kind = key_type(view.definition) if view.definition is not None else f"of another make ({view.spec.key_length} bytes)"
    return kind + (" : verdict" if view.spec.verdict_map else "")


def set_head(view: SetView) -> str:
    """What a set is, in one line."""
    return f"{_word(view)} {view.name} {{ {'; '.join(_properties(view))} }}"


def _properties(view: SetView) -> list[str]:
    spec = view.spec
    found = [f"type {_type(view)}"]
    if spec.size:
        found.append(f"size {spec.size}")
    if spec.interval:
        found.append("flags interval")
    if spec.forget_s:
        found += ["flags dynamic,timeout", f"timeout {spec.forget_s}s"]
    return found


def render_nft(picture: Picture) -> Iterator[str]:
    """The tables as text, close to ``nft list ruleset``; lines."""
    for family, word in FAMILY_NAMES.items():
        yield f"table {word} tabinet {{"
        for name, chain in sorted(picture.chains.items()):
            if family_of(name) == family:
                yield f"\tchain {name} {{"
                if chain.hook:
                    yield f"\t\t{chain.hook}"
                yield from (f"\t\t{rule.text}" for rule in chain.rules)
                yield "\t}"
        for name, view in sorted(picture.sets.items()):
            if family_of(name) == family:
                yield f"\t{_word(view)} {name} {{"
                yield from (f"\t\t{line}" for line in _properties(view))
                if view.elements:
                    yield f"\t\telements = {{ {', '.join(sorted(view.elements))} }}"
                yield "\t}"
        yield "}"
