"""Shell completion: ``tabinet completion bash|zsh|fish``, and what can stand where.

Names of resources come from the store, if it answers within ``PATIENCE_S``; nothing is ever printed or raised while a line is completed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tabinet.cli.place import Place
    from tabinet.model.kinds import Kind

PATIENCE_S = 0.5
"""How long the store is waited for: a shell that hangs is worse than one that does not know a name."""
MAX_NAMES = 500

HINTS = {
    "bash": 'eval "$(tabinet completion bash)"   in ~/.bashrc, or: tabinet completion bash > /etc/bash_completion.d/tabinet',
    "zsh": 'eval "$(tabinet completion zsh)"   in ~/.zshrc',
    "fish": "tabinet completion fish > ~/.config/fish/completions/tabinet.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell.

    \b
    bash   eval "$(tabinet completion bash)"   in ~/.bashrc
    zsh    eval "$(tabinet completion zsh)"    in ~/.zshrc
    fish   tabinet completion fish > ~/.config/fish/completions/tabinet.fish

    Commands, options, kinds and (when the store answers quickly) names of resources are completed.
    """
    from click.shell_completion import get_completion_class

    from tabinet.cli.main import tabinet

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    # Not the shell class's own `source()`: for bash that starts a bash to ask for its version.
    source = script(tabinet, {}, "tabinet", "_TABINET_COMPLETE")
    click.echo(source.source_template % source.source_vars())
    return 0


def complete_files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Left to the shell, which knows files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_kinds(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds by their plural names, and by short names when one has been begun; after a comma, one more."""
    from click.shell_completion import CompletionItem

    from tabinet.model.kinds import KINDS

    before, comma, begun = incomplete.rpartition(",")
    words = [(kind.plural, kind.name) for kind in KINDS]
    if begun:
        words += [(alias, kind.name) for kind in KINDS for alias in kind.aliases]
    return [CompletionItem(f"{before}{comma}{word}", help=name) for word, name in words if word.startswith(begun.lower())]


def complete_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the resources of the kind that was given before."""
    from click.shell_completion import CompletionItem

    from tabinet.cli.place import Place
    from tabinet.model.kinds import find_kind

    kind = find_kind(context.params.get("kind") or context.params.get("what") or "")
    if kind is None:
        return []
    place = context.ensure_object(Place)
    namespace = context.params.get("namespace") or "default"
    everywhere = bool(context.params.get("all_namespaces"))
    try:
        names = asyncio.run(_names(place, kind, "" if everywhere else namespace))
    except Exception:  # noqa: BLE001  # whatever is wrong, a half-written command line is not the place to say it
        return []
    given = context.params.get("names") or ()
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name not in given]


async def _names(place: Place, kind: Kind, namespace: str) -> list[str]:
    from tabinet.cli.place import open_place
    from tabinet.model.keys import kind_prefix

    async with asyncio.timeout(PATIENCE_S):
        store = await open_place(place)
        try:
            prefix = kind_prefix(kind.name, namespace if kind.namespaced else "")
            async for page in store.list(prefix, page_size=MAX_NAMES):
                return [item.key.rpartition("/")[2] for item in page.items]
            return []
        finally:
            await store.close()
