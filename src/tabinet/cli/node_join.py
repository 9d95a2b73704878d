"""``tabinet node init | checksystem``: a host joins the fabric, and whether it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tabinet.cli.output import note, printable, show_json, show_table
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.agent.detection import Detected
    from tabinet.store.client import Document, Outcome

JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command()
@click.argument("name", required=False)
@click.option("--ip", "ipv4", metavar="ADDRESS/LENGTH", help="IPv4 address; 'none': it has none. Default: detected.")
@click.option("--ip6", "ipv6", metavar="ADDRESS/LENGTH", help="IPv6 address; 'none': it has none. Default: detected.")
@click.option("--as", "as_number", metavar="NUMBER", help="AS number of this host alone. Default: that of the BGPConfiguration.")
@click.option(
    "--reach",
    metavar="ADDRESS",
    multiple=True,
    help="Take the address from which the host reaches this one (default: other hosts, else the outside). Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and change nothing.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def init(
    place: Place,
    name: str | None,
    ipv4: str | None,
    ipv6: str | None,
    as_number: str | None,
    reach: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Write this host's Node, with the addresses that it has, so that it takes part in BGP.

    Addresses are those from which the host reaches its peers: never of a bridge or a VPN that merely exists. Those that the Node has
    already stay as long as the host has them. NAME is that of the agent ([agent] host, else the host name). Run it again at will.
    """
    from tabinet.agent.detection import detect
    from tabinet.agent.hostname import host_name
    from tabinet.cli.ipam_reading import with_store
    from tabinet.cli.place import read_parameters
    from tabinet.store.api import Datastore
    from tabinet.store.client import ResourceClient

    name = name or host_name(read_parameters(place))

    async def work(store: Datastore) -> tuple[Document, Outcome | str, Detected]:
        client = ResourceClient(store)
        nodes = await client.list("Node", on_broken=lambda _: None)
        before = next((node for node in nodes if node["metadata"]["name"] == name), None)
        found = detect(name, before, nodes, given={4: ipv4, 6: ipv6}, reach=reach)
        document = _node(name, before, found, as_number)
        if dry_run:
            return document, "would be written", found
        return *(await client.apply(document)), found

    document, outcome, found = with_store(place, work, "node join")
    bgp = document["spec"].get("bgp", {})
    if as_json:
        show_json({"node": name, "outcome": outcome, "bgp": bgp, "how": {f"ipv{family}": how for family, how in found.how.items()}})
    else:
        for family in (4, 6):
            note(f"IPv{family}: {bgp.get(f'ipv{family}Address', 'none')} ({found.how.get(family, '')})")
        click.echo(f"Node/{name} {outcome}")
        note("policy for the host itself: tabinet host protect --dry-run shows its HostEndpoint")
    return 0


def _node(name: str, before: Document | None, found: Detected, as_number: str | None) -> Document:
    """The Node as it shall be.

    Raises:
        InputError: it would not be valid.
    """
    from tabinet.errors import InputError, Problem
    from tabinet.model.defaults import with_defaults
    from tabinet.model.documents import Document as Given
    from tabinet.model.validate import validate

    document: Document = before or {"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": name}, "spec": {}}
    bgp = dict(document.get("spec", {}).get("bgp") or {})
    for family in (4, 6):
        bgp.pop(f"ipv{family}Address", None)
    bgp |= {f"ipv{family}Address": address for family, address in found.addresses.items()}
    if as_number is not None:
        bgp["asNumber"] = int(as_number) if as_number.isdigit() else as_number
    if not found.addresses:
        raise InputError([Problem(path="--ip, --ip6", value="no address found", allowed="; ".join(found.how.values()) or "give one")])
    document = {**document, "spec": {**document.get("spec", {}), "bgp": bgp}}
    problems = validate(Given(data=document, source=f"Node/{name}", index=0, line=0))
    if problems:
        raise InputError(problems)
    return with_defaults(document)


@click.command()
@JSON
@STORE_OPTIONS
@click.pass_obj
def checksystem(place: Place, as_json: bool) -> int:
    """Check whether this machine can be a host: kernel, programs, settings.

    Kernel features are found by trying them in a network namespace that is gone afterwards; needs root. Exit code 1 when something that
    is needed is missing; remarks do not count.
    """
    from tabinet.agent.checksystem import check_system
    from tabinet.cli.place import read_parameters

    checks = check_system(read_parameters(place))
    if as_json:
        import msgspec

        show_json({"ready": all(check.well or check.remark for check in checks), "checks": msgspec.to_builtins(checks)})
    else:
        words = {(True, False): "ok", (True, True): "ok", (False, True): "note", (False, False): "missing"}
        show_table(
            ["CHECK", "RESULT", "WHAT TO DO"], [[c.name, words[c.well, c.remark], "" if c.well else printable(c.advice)] for c in checks]
        )
    return 0 if all(check.well or check.remark for check in checks) else 1
