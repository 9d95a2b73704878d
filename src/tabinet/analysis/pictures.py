"""A matrix of reachability as a picture: SVG (a grid), Mermaid and DOT (a graph). Pure; O(groups squared) or O(cells)."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from tabinet.analysis.reach import Cell, Group, Matrix

NAMESPACE = "http://www.w3.org/2000/svg"
SQUARE, LETTER, HEAD = 26, 7, 26
"""Sizes in pixels: a cell, the width of a letter, the height of the line of column numbers."""
NOTHING, EVERYTHING, SOME, MIXED = "#eceff1", "#2e7d32", "#81c784", "#ffb74d"
KEY = ((EVERYTHING, "everything"), (SOME, "some packets"), (MIXED, "not all pairs the same"), (NOTHING, "nothing"))


def label_of(group: Group) -> str:
    """The group's name, and how many they are."""
    return f"{group.name} ({group.endpoints})" if group.endpoints else group.name


def packets_of(cell: Cell) -> str:
    """The cell in words."""
    if cell.packets == cell.for_all:
        return cell.packets
    return f"some {cell.packets}" if cell.for_all == "nothing" else f"all {cell.for_all}, some {cell.packets}"


def render_mermaid(matrix: Matrix) -> Iterator[str]:
    """A flowchart of Mermaid; texts are quoted as its grammar wants it."""
    yield "flowchart LR"
    for number, group in enumerate(matrix.groups, 1):
        yield f'  g{number}["{_mermaid(label_of(group))}"]'
    for cell in matrix.cells:
        arrow = "-->" if cell.packets == cell.for_all else "-.->"
        yield f'  g{cell.source + 1} {arrow}|"{_mermaid(packets_of(cell))}"| g{cell.destination + 1}'


def render_dot(matrix: Matrix) -> Iterator[str]:
    """A directed graph in the DOT language (graphviz.org)."""
    yield "digraph reach {"
    yield "  rankdir=LR; node [shape=box];"
    for number, group in enumerate(matrix.groups, 1):
        yield f"  g{number} [label={_quoted(label_of(group))}];"
    for cell in matrix.cells:
        style = "" if cell.packets == cell.for_all else ", style=dashed"
        yield f"  g{cell.source + 1} -> g{cell.destination + 1} [label={_quoted(packets_of(cell))}{style}];"
    yield "}"


def render_svg(matrix: Matrix) -> str:
    """A grid: rows send, columns receive; the words of a cell appear under the pointer."""
    labels = [f"{number} {label_of(group)}" for number, group in enumerate(matrix.groups, 1)]
    left = LETTER * max(map(len, labels), default=0) + 16
    size = SQUARE * len(labels)
    height = HEAD + size + 12 + 20 * len(KEY)
    root = Element("svg", xmlns=NAMESPACE, width=str(max(left + size + 8, 320)), height=str(height))
    root.set("font-family", "monospace")
    root.set("font-size", "11")
    cells = {(cell.source, cell.destination): cell for cell in matrix.cells}
    for row, label in enumerate(labels):
        top = HEAD + row * SQUARE
        _text(root, 6, top + 17, label)
        _text(root, left + row * SQUARE + 5, HEAD - 8, str(row + 1))
        for column, other in enumerate(labels):
            cell = cells.get((row, column))
            square = _square(root, left + column * SQUARE, top, SQUARE - 2, _colour(cell))
            SubElement(square, "title").text = f"{label} -> {other}: {packets_of(cell) if cell else 'nothing'}"
    for index, (colour, meaning) in enumerate(KEY):
        top = HEAD + size + 10 + index * 20
        _square(root, 6, top, 14, colour)
        _text(root, 28, top + 11, meaning)
    return ElementTree.tostring(root, encoding="unicode")


def _colour(cell: Cell | None) -> str:
    if cell is None:
        return NOTHING
    if cell.packets != cell.for_all:
        return MIXED
    return EVERYTHING if cell.packets == "everything" else SOME


def _text(root: Element, x: int, y: int, text: str) -> None:
    SubElement(root, "text", x=str(x), y=str(y)).text = "".join(letter if letter.isprintable() else "?" for letter in text)


def _square(root: Element, x: int, y: int, size: int, colour: str) -> Element:
    return SubElement(root, "rect", x=str(x), y=str(y), width=str(size), height=str(size), fill=colour)


def _mermaid(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("|", "#124;").replace("<", "#lt;").replace(">", "#gt;")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
