"""``tabinet workload``: interfaces and network namespaces of this host become workloads, without an orchestrator.

For whatever has no front end of its own: scripts, Proxmox, Firecracker, plain QEMU. Runs on the host, as root. A workload is known by its
name and the name of its interface; everything else follows from these, so that nothing has to be remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.attach.names import Workload
    from tabinet.attach.netns import Attachment, AttachRequest
    from tabinet.lib.ip import Prefix
    from tabinet.store.api import Datastore

ORCHESTRATOR = "tabinet"
NAMESPACE = click.option(
    "-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Namespace of policies; not a network namespace."
)
INTERFACE = click.option(
    "--interface", default="eth0", show_default=True, metavar="NAME", help="The interface inside; of a guest behind a tap only a name."
)
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def _read(_: click.Context, __: click.Parameter, file: IO[str] | None) -> str:
    """The text of a file that was named; none without."""
    return file.read() if file is not None else ""


@click.group()
def workload() -> None:
    """Attach interfaces and namespaces of this host by hand or from a script."""


@workload.command()
@click.option("--tap", metavar="NAME", help="An interface of this host with a guest behind it, such as a tap; it must exist.")
@click.option("--netns", metavar="NAME|PATH", help="A network namespace; it gets an interface, addresses and routes.")
@click.option("--name", metavar="NAME", help="What the workload is called.  [default: the tap's or the namespace's name]")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label for policy to select it by; repeatable.")
@click.option("--address", "addresses", multiple=True, metavar="IP", help="This address, from a pool; repeatable.  [default: any]")
@click.option("--pool", "pools", multiple=True, metavar="NAME|CIDR", help="Only from this pool; repeatable.")
@click.option("--ipv4/--no-ipv4", default=None, help="An IPv4 address.  [default: unless addresses or pools say otherwise]")
@click.option("--ipv6/--no-ipv6", default=None, help="An IPv6 address.  [default: where a pool is named]")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="A profile; repeatable. Without, only policy lets packets pass.")
@click.option("--floating", "floating", multiple=True, metavar="IP", help="An address outside that leads to the workload; repeatable.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A limit of qosControls, as in egressBandwidth=10M (bit/s); repeatable.  [default: those that it has]",
)
@click.option("--mac", default="", metavar="MAC", help="Hardware address of the interface inside, or of the guest.")
@click.option("--mtu", default=0, type=click.IntRange(0, 65535), help="Of the interface in a namespace.  [default: what tunnels carry]")
@click.option("--hostname", default="", metavar="NAME", help="What DHCP and metadata tell the guest of its name.")
@click.option("--ssh-keys", metavar="FILE", type=click.File(), callback=_read, help="Public keys for metadata, one a line.")
@click.option("--user-data", metavar="FILE", type=click.File(), callback=_read, help="User data for metadata, such as cloud-init's.")
@click.option("--wait", "wait_s", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait for the agent; 0: none.")
@INTERFACE
@NAMESPACE
@JSON
@STORE_OPTIONS
@click.pass_obj
def add(place: Place, /, wait_s: float, as_json: bool, **options: Any) -> int:
    """Attach a workload, or repair it; done when this host's kernel has its routes and policy.

    What fails is undone. Repeating it gives the same addresses.
    """
    from tabinet.cli.output import show_json

    if (options["tap"] is None) == (options["netns"] is None):
        raise click.UsageError("say either --tap or --netns")
    attachment = asyncio.run(_add(place, wait_s, options))
    addresses = [address.address for address in attachment.addresses]
    if as_json:
        gateways = [gateway.address for gateway in attachment.gateways]
        document = {"endpoint": str(attachment.key), "interface": attachment.host_interface, "mac": attachment.mac}
        show_json(document | {"addresses": addresses, "gateways": gateways, "ready": attachment.ready})
    else:
        state = "ready" if attachment.ready else "written, nobody waited for the agent"
        click.echo(f"{attachment.key}: {', '.join(addresses)} at {attachment.host_interface}, {state}")
    return 0


async def _add(place: Place, wait_s: float, options: dict[str, Any]) -> Attachment:
    from tabinet.agent.felixspec import felix_spec
    from tabinet.agent.hostname import host_name
    from tabinet.attach.netns import attach
    from tabinet.cli.place import open_place, read_parameters
    from tabinet.errors import InputError, Problem
    from tabinet.ipam.settings import load_settings

    parameters = read_parameters(place)
    host = host_name(parameters)
    store = await open_place(place)
    try:
        prefixes = parameters.under(await felix_spec(store, host)).items("felix", "interface_prefix")
        if options["tap"] and not options["tap"].startswith(tuple(prefixes)):
            allowed = f"begins with {' or '.join(prefixes)} (interfacePrefix), or else no policy would guard it"
            raise InputError([Problem(path="--tap", value=options["tap"], allowed=allowed)])
        pools = {pool.name: pool.cidr for pool in (await load_settings(store, "")).pools}
        request = request_of(host, options, pools, prefixes[0])
        return await attach(request, store, wait=wait_s > 0, wait_s=wait_s)
    finally:
        await store.close()


def request_of(host: str, options: dict[str, Any], pools: dict[str, Prefix], interface_prefix: str) -> AttachRequest:
    """The attachment that the options mean. Pure.

    Raises:
        InputError: an address or pool that is none.
        click.UsageError: a label that is none.
    """
    from tabinet.attach.limits import parse_limits
    from tabinet.attach.netns import AttachRequest
    from tabinet.cli.labels import parse_label_changes
    from tabinet.errors import InputError, Problem
    from tabinet.lib.ip import IPV4, IPV6, parse_address, parse_prefix

    try:
        addresses = tuple(parse_address(text) for text in options["addresses"])
        floating = tuple(parse_address(text) for text in options["floating"])
        named = tuple(pools[text] if text in pools else parse_prefix(text, strict=True) for text in options["pools"])
    except ValueError as error:
        allowed = f"an IP address, or a pool by name or CIDR (there are: {', '.join(sorted(pools)) or 'none'})"
        raise InputError([Problem(path="--address, --floating, --pool", value=str(error), allowed=allowed)]) from None
    pools4 = tuple(pool for pool in named if pool.family == IPV4)
    pools6 = tuple(pool for pool in named if pool.family == IPV6)
    want4 = options["ipv4"] if options["ipv4"] is not None else bool(pools4) or not (addresses or pools6)
    want6 = options["ipv6"] if options["ipv6"] is not None else bool(pools6)
    labels, _ = parse_label_changes(options["labels"], remove=False)
    tap, netns = options["tap"] or "", options["netns"] or ""
    return AttachRequest(
        workload=workload_of(host, options["name"] or tap or netns.rpartition("/")[2], options["namespace"], options["interface"]),
        netns=netns,
        tap=tap,
        interface=options["interface"],
        count4=max(int(want4), sum(address.family == IPV4 for address in addresses)),
        count6=max(int(want6), sum(address.family == IPV6 for address in addresses)),
        addresses=addresses,
        pools4=pools4,
        pools6=pools6,
        labels=labels,
        profiles=tuple(options["profiles"]),
        floating=floating,
        qos=parse_limits(options["limits"], "--limit"),
        annotations=_told(options),
        mac=options["mac"].lower(),
        mtu=options["mtu"],
        interface_prefix=interface_prefix,
    )


def _told(options: dict[str, Any]) -> dict[str, str]:
    """What the guest is told of itself (``guest.instance``)."""
    told = {"hostname": options["hostname"], "ssh-keys": options["ssh_keys"], "user-data": options["user_data"]}
    return {f"tabinet.io/{name}": text for name, text in told.items() if text}


def workload_of(host: str, name: str, namespace: str, interface: str) -> Workload:
    """By which name something that was attached by hand is known."""
    from tabinet.attach.names import Workload

    return Workload(node=host, workload=name, orchestrator=ORCHESTRATOR, endpoint=interface, namespace=namespace)


@workload.command(name="list")
@click.option("--all", "everybody", is_flag=True, help="Those of orchestrators, too.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def list_(place: Place, everybody: bool, as_json: bool) -> int:
    """Show what was attached on this host, and whether its kernel has it."""
    from tabinet.cli.output import show_json, show_table

    found = asyncio.run(_list(place, everybody))
    if as_json:
        show_json(found)
    else:
        columns = ("name", "namespace", "interface", "host_interface", "addresses", "state")
        rows = [[", ".join(each[name]) if name == "addresses" else each[name] for name in columns] for each in found]
        show_table([column.upper().replace("_", " ") for column in columns], rows)
    return 0


async def _list(place: Place, everybody: bool) -> list[dict[str, Any]]:
    from tabinet.agent.hostname import host_name
    from tabinet.cli.place import open_place, read_parameters
    from tabinet.store.client import ResourceClient

    host = host_name(read_parameters(place))
    store = await open_place(place)
    try:
        documents = await ResourceClient(store).list("WorkloadEndpoint", on_broken=lambda _: None)
        mine = [document for document in documents if _is_here(document, host, everybody)]
        return [await _described(store, document) for document in mine]
    finally:
        await store.close()


def _is_here(document: dict[str, Any], host: str, everybody: bool) -> bool:
    spec = document.get("spec") or {}
    return spec.get("node") == host and (everybody or spec.get("orchestrator") == ORCHESTRATOR)


async def _described(store: Datastore, document: dict[str, Any]) -> dict[str, Any]:
    from tabinet.attach.ready import judge_status
    from tabinet.model.endpoint_names import parse_endpoint_name
    from tabinet.model.status import endpoint_status_key, status_path_of

    metadata, spec = document["metadata"], document["spec"]
    try:
        name = parse_endpoint_name(metadata["name"])
        status = await store.get(status_path_of(endpoint_status_key(metadata["namespace"], name)))
        called, state = name.workload, judge_status(status, int(metadata["resourceVersion"])) or "ready"
    except ValueError as error:
        called, state = metadata["name"], str(error)
    return {
        "name": called,
        "namespace": metadata["namespace"],
        "interface": spec.get("endpoint", ""),
        "host_interface": spec.get("interfaceName", ""),
        "addresses": [address.partition("/")[0] for address in spec.get("ipNetworks") or ()],
        "labels": {key: value for key, value in (metadata.get("labels") or {}).items() if not key.startswith("projectcalico.org/")},
        "state": state,
    }


@workload.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@INTERFACE
@NAMESPACE
@STORE_OPTIONS
@click.pass_obj
def delete(place: Place, names: tuple[str, ...], interface: str, namespace: str) -> int:
    """Detach workloads: endpoint, addresses, and the interface of a namespace are gone; a tap is left to its owner.

    Nothing happens where that is so already.
    """
    asyncio.run(_delete(place, names, interface, namespace))
    for name in names:
        click.echo(f"{name} detached")
    return 0


async def _delete(place: Place, names: Sequence[str], interface: str, namespace: str) -> None:
    from tabinet.agent.felixspec import felix_spec
    from tabinet.agent.hostname import host_name
    from tabinet.attach.netns import check_workload, detach
    from tabinet.cli.place import open_place, read_parameters

    parameters = read_parameters(place)
    host = host_name(parameters)
    store = await open_place(place)
    try:
        prefix = parameters.under(await felix_spec(store, host)).items("felix", "interface_prefix")[0]
        workloads = [workload_of(host, name, namespace, interface) for name in names]
        for each in workloads:
            check_workload(each, prefix)
        for each in workloads:
            await detach(each, store, interface_prefix=prefix)
    finally:
        await store.close()


@workload.command()
@click.argument("state", type=click.Choice(["stopped", "running"]))
@click.argument("interface", metavar="INTERFACE")
def migrate(state: str, interface: str) -> int:
    """Tell this host's agent that the machine behind INTERFACE, which is being migrated, has stopped here, or runs.

    For hooks of hypervisors: 'stopped' on the source when the machine stops for good, so that what still comes for it is passed on at once;
    'running' on the target when it runs there, or on the source when it goes on there after all. Without it the agents see for themselves
    when the machine sends something. A hook that cannot wait for a command to start posts to the agent's socket (docs/openstack.md).
    """
    from tabinet.agent.operator import tell_machine
    from tabinet.errors import SetupError

    known = tell_machine(interface, running=state == "running")
    if known is None:
        raise SetupError("no agent runs in this network namespace")
    if not known:
        click.echo(f"no machine is being migrated behind {interface}", err=True)
    return 0 if known else 1
