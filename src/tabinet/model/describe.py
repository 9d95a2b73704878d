"""What a kind consists of, for people: fields with type, default and meaning, read off the records themselves.

``describe_kind(name)`` gives the description that ``tabinet explain-kind`` shows; ``render_page`` makes the reference page of it.
``python -m tabinet.model.describe DIRECTORY`` writes all pages (``docs/reference`` when no directory is named). Types and defaults come
from the shapes that validation uses, meanings from the text below each field in the source of ``records``, so that there is one place for
each. Descriptions are built on demand: milliseconds for a kind.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tabinet.model.examples import EXAMPLES
from tabinet.model.felix import PARAMETERS
from tabinet.model.kinds import BY_NAME, KINDS, Kind
from tabinet.model.names import name_words
from tabinet.model.shapes import Field, Listing, Object, Scalar, Shape, Table, shape_of

_DEFAULT = " Default: "
_DIRECTORY = "docs/reference"


class FieldDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A field."""

    name: str
    """On the wire."""
    type: str
    """What may stand there, in words."""
    meaning: str
    """One or two sentences."""
    default: str = ""
    """What absence means; empty where it is just absent."""
    required: bool = False
    fields: tuple[FieldDescription, ...] = ()
    """The fields within it, or within each of its items."""


class KindDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of resource."""

    name: str
    plural: str
    aliases: tuple[str, ...]
    """Short names on the command line."""
    namespaced: bool
    read_only: bool
    meaning: str
    names: str
    """Which names its resources may have, in words."""
    fields: tuple[FieldDescription, ...]
    """``metadata``, ``spec`` and, where there is one, ``status``."""
    example: str
    """A sound document, as YAML."""

    def field_at(self, path: str) -> FieldDescription | None:
        """The field at a dotted path such as ``spec.ingress.source``; ``None`` when there is none."""
        found: FieldDescription | None = None
        inside = self.fields
        for step in path.split("."):
            found = next((field for field in inside if field.name == step), None)
            if found is None:
                return None
            inside = found.fields
        return found


def describe_kind(name: str) -> KindDescription:
    """The description of the kind with this name.

    Raises:
        ValueError: there is no such kind.
    """
    kind = BY_NAME.get(name)
    if kind is None:
        raise ValueError(f"there is no kind {name!r}; there are: {', '.join(BY_NAME)}")
    return KindDescription(
        name=kind.name,
        plural=kind.plural,
        aliases=kind.aliases,
        namespaced=kind.namespaced,
        read_only=kind.view,
        meaning=" ".join((kind.record.__doc__ or "").split()),
        names=name_words(kind.name),
        fields=tuple(_fields(kind)),
        example=EXAMPLES[kind.name],
    )


# --- from records to descriptions -------------------------------------------------------------------------------------


def _fields(kind: Kind) -> Iterator[FieldDescription]:
    shape = shape_of(kind.record)
    for wire, field in shape.fields.items():
        if wire in ("kind", "apiVersion"):
            continue
        if wire == "spec" and kind.name == "FelixConfiguration":
            yield FieldDescription(name="spec", type="mapping", meaning="The settings.", fields=tuple(_felix_fields(field)))
        else:
            described = _describe(wire, field, _doc_of(field.shape))
            yield described if kind.namespaced or wire != "metadata" else _without_namespace(described)


def _doc_of(shape: Shape) -> str:
    record = shape.record if isinstance(shape, Object) else None
    return " ".join((record.__doc__ or "").split()) if record is not None else ""


def _without_namespace(metadata: FieldDescription) -> FieldDescription:
    return msgspec.structs.replace(metadata, fields=tuple(field for field in metadata.fields if field.name != "namespace"))


def _felix_fields(spec: Field) -> Iterator[FieldDescription]:
    if not isinstance(spec.shape, Object):
        raise TypeError("the settings are an object")
    for parameter in PARAMETERS:
        described = _describe(parameter.name, spec.shape.fields[parameter.name], parameter.meaning)
        yield msgspec.structs.replace(described, default=parameter.default)


def _describe(wire: str, field: Field, text: str) -> FieldDescription:
    meaning, mark, default = text.rpartition(_DEFAULT)
    return FieldDescription(
        name=wire,
        type=_type(field.shape),
        meaning=meaning if mark else text,
        default=default.removesuffix(".") if mark else _switch_default(field),
        required=field.required,
        fields=tuple(_inner(field.shape)),
    )


def _switch_default(field: Field) -> str:
    return str(field.default).lower() if isinstance(field.default, bool) else ""


def _inner(shape: Shape) -> Iterator[FieldDescription]:
    match shape:
        case Listing(item):
            yield from _inner(item)
        case Table(value):
            yield from _inner(value)
        case Object(record, fields) if record is not None:
            for wire, field in fields.items():
                yield _describe(wire, field, _text_of(record, field.attribute))


def _type(shape: Shape) -> str:
    match shape:
        case Scalar(form=form) if form is not None:
            return f"one of {', '.join(form.choices)}" if form.choices else form.name
        case Scalar():
            return shape.words.removeprefix("a ")
        case Listing(item):
            return f"list: {_type(item)}"
        case Table(value):
            return f"mapping: {_type(value)}"
        case Object():
            return "mapping"
        case _:
            return "anything"


@functools.cache
def _texts(module: str) -> dict[tuple[str, str], str]:
    """The text below each field of each record of a module: class and attribute to text, on one line."""
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            for member, below in zip(node.body, node.body[1:], strict=False):
                match member, below:
                    case ast.AnnAssign(target=ast.Name(attribute)), ast.Expr(ast.Constant(str() as text)):
                        found[node.name, attribute] = " ".join(text.split())
    return found


def _text_of(record: type[msgspec.Struct], attribute: str) -> str:
    """The text below the field, in the record or the one that it inherits the field from; empty when there is none."""
    for owner in record.__mro__:
        if owner.__module__ in sys.modules and issubclass(owner, msgspec.Struct) and owner is not msgspec.Struct:
            text = _texts(owner.__module__).get((owner.__name__, attribute))
            if text:
                return text
    return ""


# --- pages ------------------------------------------------------------------------------------------------------------

_MADE = "<!-- Made by `python -m tabinet.model.describe`; edit the records in src/tabinet/model instead. -->"


def render_page(kind: KindDescription) -> str:
    """The reference page of a kind, as Markdown."""
    facts = [
        f"Command line: `{kind.plural}`" + "".join(f", `{alias}`" for alias in kind.aliases) + ".",
        "In a namespace." if kind.namespaced else "Not in a namespace.",
        f"Names: {kind.names}.",
    ]
    lines = [f"# {kind.name}", "", _MADE, "", _markdown(kind.meaning), "", *(f"- {_markdown(fact)}" for fact in facts), ""]
    lines += ["```yaml", kind.example.rstrip(), "```", ""]
    told: dict[tuple[FieldDescription, ...], str] = {}
    for field in kind.fields:
        if field.name != "metadata":
            lines += _section(field.name, field, told)
    return "\n".join(lines)


def _section(path: str, field: FieldDescription, told: dict[tuple[FieldDescription, ...], str]) -> list[str]:
    """The table of a field's fields, then those of the fields within them; what has been ``told`` is referred to."""
    lines = [f"## {path}", "", _markdown(field.meaning), ""]
    if field.fields in told:
        return [*lines, f"The same fields as [{told[field.fields]}](#{_anchor(told[field.fields])}).", ""]
    told[field.fields] = path
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    for inner in field.fields:
        default = "(required)" if inner.required else inner.default
        lines.append(f"| `{inner.name}` | {_cell(inner.type)} | {_cell(default)} | {_cell(inner.meaning)} |")
    lines.append("")
    for inner in field.fields:
        if inner.fields:
            lines += _section(f"{path}.{inner.name}" + ("[]" if inner.type.startswith("list") else ""), inner, told)
    return lines


def _anchor(heading: str) -> str:
    """What a heading is called in links, as the usual renderers of Markdown have it."""
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower()


def _markdown(text: str) -> str:
    """A text of a docstring as Markdown."""
    parts = text.replace("``", "`").split("`")
    return "`".join(part if index % 2 else part.replace("<", "&lt;").replace("*", "\\*") for index, part in enumerate(parts))


def _cell(text: str) -> str:
    return _markdown(text).replace("|", "\\|")


def render_index() -> str:
    """The page that lists all kinds."""
    lines = ["# Resources", "", _MADE, "", "| kind | short names | namespace | meaning |", "|---|---|---|---|"]
    for kind in KINDS:
        described = describe_kind(kind.name)
        names = ", ".join(f"`{alias}`" for alias in kind.aliases)
        meaning = described.meaning.partition(". ")[0].rstrip(".") + "."
        lines.append(f"| [{kind.name}]({page_name(kind)}) | {names} | {'yes' if kind.namespaced else ''} | {_cell(meaning)} |")
    return "\n".join([*lines, ""])


def page_name(kind: Kind) -> str:
    """File name of the kind's page."""
    return f"{kind.name.lower()}.md"


def pages() -> dict[str, str]:
    """File name to text, of all pages."""
    return {"README.md": render_index()} | {page_name(kind): render_page(describe_kind(kind.name)) for kind in KINDS}


def main(directory: str = _DIRECTORY) -> None:
    """All pages are in ``directory``."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (target / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
