"""The commands by name, each imported when it is asked for, so that ``tabinet --help`` and every command load only what they need.

In: a name. Out: a click command. The one-line texts stand here again because ``--help`` must not import the commands; a test holds them
equal to the commands' own.
"""

from __future__ import annotations

from importlib import import_module

import click

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Resources": {
        "get": ("tabinet.cli.get:get", "Show resources: one, some, or all of a KIND."),
        "apply": ("tabinet.cli.change:apply", "Create or change resources so that they are as the files say."),
        "confirm": ("tabinet.cli.confirm:confirm", "Keep what `tabinet apply --confirm` changed."),
        "create": ("tabinet.cli.change:create", "Create the resources in the files; those that exist already are an error."),
        "replace": ("tabinet.cli.change:replace", "Replace resources that exist by those in the files."),
        "patch": ("tabinet.cli.edit:patch", "Change parts of one resource."),
        "label": ("tabinet.cli.edit:label", "Set or remove labels of one resource."),
        "delete": ("tabinet.cli.change:delete", "Delete resources: KIND NAMES, or those that the files name."),
        "validate": ("tabinet.cli.inform:validate", "Check files without a store: every error with its document, line and path."),
        "explain-kind": ("tabinet.cli.explain:explain_kind", "Show the fields of a KIND: types, defaults, what is allowed."),
    },
    "Fabric": {
        "status": ("tabinet.cli.status:status", "Show every host: agent, endpoints, BGP sessions, and what is wrong."),
        "node": ("tabinet.cli.node:node", "Hosts: how they are, joining the fabric, leaving it for maintenance."),
        "host": ("tabinet.cli.host:host", "Policy for hosts themselves."),
        "doctor": (
            "tabinet.cli.doctor:doctor",
            "Look at this host and around it for what keeps the fabric from working, and say what to do.",
        ),
        "import": ("tabinet.cli.takeover:import_host", "Take over a host that Calico runs, without touching its traffic."),
        "explain": ("tabinet.cli.explain_flow:explain", "Say whether a packet from SRC reaches DST, and why."),
        "policy": ("tabinet.cli.policy:policy", "What policies do."),
        "dataplane": ("tabinet.cli.dataplane:dataplane", "What this host's kernel should hold, and what it holds."),
        "verify": ("tabinet.cli.verify:verify", "Prove invariants for every endpoint and packet, or show the packet that breaks them."),
        "history": ("tabinet.cli.history:history", "Show who changed what, and when."),
        "diff": ("tabinet.cli.restore:diff", "Say which resources and which flows differ between two moments."),
        "restore": (
            "tabinet.cli.restore:restore",
            "Make resources as they were at a revision or time: those named, or all that the history knows.",
        ),
        "clerk": ("tabinet.cli.clerk:clerk", "Keep the history of what others change, and take back what nobody confirmed."),
        "invariant": ("tabinet.cli.invariant:invariant", "Statements that must always hold, kept in the store."),
        "plan": ("tabinet.cli.plan:plan", "Say which flows applying FILES would open and close."),
        "reach": ("tabinet.cli.reach:reach", "Show who reaches whom: a matrix of groups and packets."),
        "lint": ("tabinet.cli.lint:lint", "Find rules and policies that do nothing, and names that look mistyped."),
        "ipam": ("tabinet.cli.ipam:ipam", "Addresses: who has which, what leaks, how they are assigned."),
        "agent": ("tabinet.cli.agent:agent", "Run the agent of this host, in the foreground."),
        "guest": ("tabinet.cli.guest:guest", "Answer the guests of this host (DHCP, metadata), in the foreground."),
        "lab": ("tabinet.cli.labs:lab", "Fabrics of network namespaces on this machine."),
        "workload": ("tabinet.cli.workload:workload", "Attach interfaces and namespaces of this host by hand or from a script."),
        "cni": ("tabinet.cli.cni:cni", "Container runtimes: the CNI plugins of this host."),
        "libvirt": ("tabinet.cli.libvirt:libvirt", "libvirt: domains of this host as workloads."),
        "openstack": ("tabinet.cli.openstack:openstack", "OpenStack: compare the store with Neutron, show who leads."),
        "demo": ("tabinet.cli.labs:demo", "Bring up the default lab and show policy, failures and repairs with packets."),
    },
    "Store and program": {
        "datastore": ("tabinet.cli.migrate:datastore", "Move everything from one store to another."),
        "version": ("tabinet.cli.inform:version", "Show the version of this program and what the cluster says of itself."),
        "completion": ("tabinet.cli.completion:completion", "Print the completion script of a shell."),
    },
}


class Roster(click.Group):
    """A group that imports its commands late. (A subclass because that is click's own way to do it.)"""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in GROUPS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for group in GROUPS.values():
            if cmd_name in group:
                module, _, attribute = group[cmd_name][0].partition(":")
                command: click.Command = getattr(import_module(module), attribute)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in group.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"did you mean {near[0]!r}?" if near else "see 'tabinet --help'"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)
