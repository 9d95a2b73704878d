"""The reference page of the command line, written from the commands themselves: ``python -m tabinet.cli.reference > docs/cli.md``.

In: the commands. Out: Markdown. A test says when the page is stale. Pure, but for importing every command.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from tabinet.cli import place
from tabinet.cli.main import tabinet
from tabinet.cli.roster import GROUPS

WIDTH = 110


def render_page() -> str:
    """The page."""
    lines = [
        "# The command line",
        "",
        "<!-- Made by `python -m tabinet.cli.reference`; edit the commands in src/tabinet/cli/ instead. -->",
        "",
        *_exit_codes(),
        *_where_the_store_is(),
    ]
    root = click.Context(tabinet, info_name="tabinet", **tabinet.context_settings)
    for title, group in GROUPS.items():
        lines += ["", f"## {title}", "", "| command | |", "|---|---|"]
        lines += [f"| [`tabinet {name}`](#tabinet-{name}) | {text} |" for name, (_, text) in group.items()]
    for group in GROUPS.values():
        for name in group:
            command = tabinet.get_command(root, name)
            if command is not None:
                lines += _command(root, name, command)
    return "\n".join(lines).rstrip() + "\n"


def _exit_codes() -> Iterator[str]:
    yield from (
        "Results go to standard output, remarks and errors to standard error. A pipe gets plain text; `--json` or `-o json` wherever",
        "there is a result. Exit codes:",
        "",
        "| code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | the answer is no: a check found mismatches, a resource does not exist or was refused, only a part went through |",
        "| 2 | wrong usage or wrong input; nothing was changed |",
        "| 3 | the surroundings: no root, a program is missing, the store does not answer |",
        "| 130 | interrupted |",
    )


def _where_the_store_is() -> Iterator[str]:
    """The text of the module that decides it, from its first list on."""
    yield ""
    yield "## Where the store is"
    yield ""
    text = (place.__doc__ or "").partition("\n\n")[2]
    yield from text.strip().replace("``", "`").splitlines()


def _command(parent: click.Context, name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name)
    context.terminal_width = context.max_content_width = WIDTH
    path = context.command_path
    yield from ("", f"### {path}", "", "```")
    yield from (line.rstrip() for line in command.get_help(context).splitlines())
    yield "```"
    if isinstance(command, click.Group):
        for inner_name in command.list_commands(context):
            inner = command.get_command(context, inner_name)
            if inner is not None:
                yield from _command(context, inner_name, inner)


if __name__ == "__main__":
    print(render_page(), end="")
