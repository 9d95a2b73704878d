"""``tabinet explain-kind``: what may stand in a resource, from the model's own description of it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tabinet.cli.completion import complete_kinds

if TYPE_CHECKING:
    from tabinet.model.describe import FieldDescription, KindDescription

MAX_WIDTH = 100


@click.command("explain-kind")
@click.argument("kind", shell_complete=complete_kinds)
@click.argument("field", required=False)
@click.option("--recursive", is_flag=True, help="The fields within the fields, too.")
@click.option("--example", is_flag=True, help="Only an example, ready for apply -f.")
@click.option("--json", "as_json", is_flag=True, help="The whole description as JSON.")
def explain_kind(kind: str, field: str | None, recursive: bool, example: bool, as_json: bool) -> int:
    """Show the fields of a KIND: types, defaults, what is allowed.

    \b
    tabinet explain-kind gnp                        tabinet explain-kind gnp spec.ingress.source
    tabinet explain-kind ippool --example > pool.yaml
    """
    from tabinet.cli.output import show_json
    from tabinet.cli.targets import parse_kind
    from tabinet.model.describe import describe_kind

    word, _, rest = kind.partition(".")  # kubectl explain writes the path behind the kind
    path = field or rest
    described = describe_kind(parse_kind(word).name)
    found = _field_at(described, path) if path else None
    if as_json:
        import msgspec

        show_json(msgspec.to_builtins(found or described))
    elif example:
        click.echo(described.example.rstrip())
    else:
        for line in render_field(described, path, found, recursive) if found else render_kind(described, recursive):
            click.echo(line.rstrip())
    return 0


def _field_at(described: KindDescription, path: str) -> FieldDescription:
    from difflib import get_close_matches

    plain = path.replace("[]", "")
    found = described.field_at(plain)
    if found is not None:
        return found
    parent, _, name = plain.rpartition(".")
    holder = described.field_at(parent) if parent else None
    siblings = [field.name for field in (holder.fields if holder else described.fields)]
    near = get_close_matches(name, siblings, 1)
    there_are = f"there are: {', '.join(siblings)}" if siblings else "there are none below that"
    hint = f"did you mean {f'{parent}.{near[0]}'.lstrip('.')}?" if near else there_are
    raise click.UsageError(f"{described.name} has no field {path!r}; {hint}")


def render_kind(described: KindDescription, recursive: bool) -> Iterator[str]:
    """What a kind is, its fields, and an example."""
    yield f"{described.name}: {', '.join((described.plural, *described.aliases))}"
    yield ""
    yield from _wrapped(described.meaning, "")
    yield from _wrapped("In a namespace." if described.namespaced else "Not in a namespace.", "")
    yield from _wrapped(f"Names: {described.names}.", "")
    if described.read_only:
        yield "Only to be looked at; it cannot be written."
    for field in described.fields:
        if field.name == "metadata":
            continue
        yield ""
        yield f"{field.name}:"
        yield from _fields(field.fields, "  ", recursive)
    yield ""
    yield "Example:"
    yield ""
    yield from (f"  {line}" for line in described.example.rstrip().splitlines())


def render_field(described: KindDescription, path: str, field: FieldDescription, recursive: bool) -> Iterator[str]:
    """What one field is, and the fields in it."""
    yield f"{described.name} {path}"
    yield ""
    yield from _field(field, "", within=False)
    if field.fields:
        yield ""
        yield from _fields(field.fields, "  ", recursive)


def _fields(fields: tuple[FieldDescription, ...], indent: str, recursive: bool) -> Iterator[str]:
    for field in fields:
        yield from _field(field, indent, within=not recursive)
        if recursive:
            yield from _fields(field.fields, f"{indent}    ", recursive)


def _field(field: FieldDescription, indent: str, *, within: bool) -> Iterator[str]:
    facts = [field.type]
    if field.required:
        facts.append("required")
    elif field.default:
        facts.append(f"default: {field.default}")
    if within and field.fields:
        facts.append(f"{len(field.fields)} fields")
    head = f"{indent}{field.name}  <"
    yield from _wrapped("; ".join(facts) + ">", head, f"{indent}    ")
    yield from _wrapped(field.meaning, f"{indent}    ")


def _wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    """The text in lines that fit; a docstring's double backquotes are left out."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    return textwrap.wrap(
        text.replace("``", ""), width, initial_indent=first, subsequent_indent=first if rest is None else rest, break_on_hyphens=False
    )
