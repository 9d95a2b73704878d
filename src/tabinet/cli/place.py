"""Where the store is: what the command line, the environment, configuration files and running labs say about it.

The first of these decides:

1. ``--config FILE`` or ``--lab NAME``, before or after the command;
2. ``TABINET_CONFIG`` or ``TABINET_LAB`` in the environment;
3. ``TABINET_STORE_*`` in the environment, over what ``/etc/tabinet/tabinet.toml`` says (docs/parameters.md);
4. ``/etc/tabinet/tabinet.toml``;
5. ``/etc/calico/calicoctl.cfg``;
6. ``DATASTORE_TYPE`` and ``ETCD_*`` in the environment (for calicoctl too, its file goes before these);
7. the only lab that runs;
8. etcd on this machine, ``http://127.0.0.1:2379``.

A FILE is of our own form (TOML) or of calicoctl's (YAML or JSON); ``TABINET_STORE_*`` goes over single values of the former.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tabinet.agent.parameters import Parameters
    from tabinet.store.api import Datastore
    from tabinet.store.open import StoreConfig

OWN_CONFIG = Path("/etc/tabinet/tabinet.toml")
CALICO_CONFIG = Path("/etc/calico/calicoctl.cfg")
LABS = Path("/run/tabinet/labs")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(slots=True)
class Place:
    """What the command line and the machine say about the store; the paths are fields so that tests can have their own."""

    config: str | None = None
    """``--config``."""
    lab: str | None = None
    """``--lab``."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    own_config: Path = OWN_CONFIG
    calico_config: Path = CALICO_CONFIG
    labs: Path = LABS

    def chosen_lab(self) -> str | None:
        """The lab that was asked for by name."""
        return self.lab or self.environment.get("TABINET_LAB") or None


def _remember(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def remember(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        place = context.ensure_object(Place)
        if value is not None:
            setattr(place, name, value)

    return remember


def STORE_OPTIONS(command: Command) -> Command:
    """The options that say where the store is; the command finds them in its context's ``Place``."""
    config = click.option(
        "-c",
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_remember("config"),
        help="Configuration file, ours or calicoctl's (default: $TABINET_CONFIG, /etc/tabinet/tabinet.toml, /etc/calico/calicoctl.cfg).",
    )
    lab = click.option(
        "--lab",
        metavar="NAME",
        expose_value=False,
        callback=_remember("lab"),
        help="Use the store of this lab (default: $TABINET_LAB, or the only lab that runs when nothing else is configured).",
    )
    return config(lab(command))


def find_store(place: Place) -> StoreConfig:
    """Where the store is, by the rules of this module.

    Raises:
        SetupError: a file named cannot be read, several labs run, or what is configured is no store that we have.
        InputError: a configuration has errors.
    """
    from tabinet.agent.parameters import parse_parameters, store_config
    from tabinet.cli import calicoctl

    path = _named_file(place)
    if path is None and not _has_store_variables(place.environment) and not place.own_config.exists():
        if place.calico_config.exists():
            return calicoctl.parse_config(_read(place.calico_config), str(place.calico_config))
        if calicoctl.is_configured(place.environment):
            return calicoctl.parse_environment(place.environment)
        path = _only_lab(place)
    if path is None:
        text = _read(place.own_config) if place.own_config.exists() else ""
        return store_config(parse_parameters(text, place.environment, source=str(place.own_config)))
    text = _read(path)
    if calicoctl.looks_like_config(text):
        return calicoctl.parse_config(text, str(path))
    return store_config(parse_parameters(text, place.environment, source=str(path)))


def read_parameters(place: Place) -> Parameters:
    """The agent's parameters: those of the file named, else of ``/etc/tabinet/tabinet.toml``, under the environment.

    Raises:
        SetupError: the file cannot be read.
        InputError: it has errors.
    """
    from tabinet.agent.parameters import parse_parameters

    path = _named_file(place) or place.own_config
    text = _read(path) if path != place.own_config or path.exists() else ""
    return parse_parameters(text, place.environment, source=str(path))


async def open_place(place: Place) -> Datastore:
    """A connection to the store; close it when done. Raises what ``find_store`` and ``open_store`` raise."""
    from tabinet.store.open import open_store

    return await open_store(find_store(place))


async def open_to_change(place: Place, program: str) -> Datastore:
    """As ``open_place``; whatever is changed through it comes into the history, as a change by this user with this program."""
    from tabinet.store.recording import RecordingStore

    return RecordingStore(await open_place(place), who_am_i(place.environment), f"tabinet {program}")


def who_am_i(environment: Mapping[str, str]) -> str:
    """User and machine, as this process sees them: ``alice@host``, and with sudo ``alice(root)@host``."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    asked_by = environment.get("SUDO_USER")
    return f"{asked_by}({user})@{socket.gethostname()}" if asked_by and asked_by != user else f"{user}@{socket.gethostname()}"


def _named_file(place: Place) -> Path | None:
    """The file that was named, by itself or as that of a lab; the command line goes before the environment."""
    if place.config and place.lab:
        raise click.UsageError("--config and --lab exclude each other")
    config = place.config or (None if place.lab else place.environment.get("TABINET_CONFIG"))
    if config:
        return Path(config)
    name = place.chosen_lab()
    return None if name is None else _lab_file(place, name)


def _lab_file(place: Place, name: str) -> Path:
    from tabinet.errors import SetupError

    path = place.labs / name / "tabinet.toml"
    if path not in place.labs.glob("*/tabinet.toml"):
        running = ", ".join(_running(place)) or "none"
        raise SetupError(f"there is no lab {name!r} (there are: {running}); tabinet lab up makes one")
    return path


def _only_lab(place: Place) -> Path | None:
    from tabinet.cli.output import note
    from tabinet.errors import SetupError

    names = _running(place)
    if len(names) > 1:
        raise SetupError(f"several labs run ({', '.join(names)}): choose one, as in --lab {names[0]}")
    if not names:
        return None
    note(f"(no {place.own_config}: using the lab {names[0]!r})")
    return place.labs / names[0] / "tabinet.toml"


def _running(place: Place) -> list[str]:
    return sorted(path.parent.name for path in place.labs.glob("*/tabinet.toml"))


def _has_store_variables(environment: Mapping[str, str]) -> bool:
    return any(name.startswith("TABINET_STORE_") for name in environment)


def _read(path: Path) -> str:
    from tabinet.errors import SetupError

    try:
        return path.read_text()
    except FileNotFoundError:
        raise SetupError(f"{path}: no such file; --config and TABINET_CONFIG name a TOML file (docs/parameters.md)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error
