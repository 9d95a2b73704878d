"""Where the commands find the store: a configuration file, the environment, or the one lab that runs."""

from __future__ import annotations

import os
from pathlib import Path

from tabinet.agent.parameters import Parameters, parse_parameters, store_config
from tabinet.cli.output import note
from tabinet.errors import SetupError
from tabinet.store.api import Datastore
from tabinet.store.open import open_store

DEFAULT_CONFIG = Path("/etc/tabinet/tabinet.toml")
LABS = Path("/run/tabinet/labs")


def read_parameters(config: str | None) -> Parameters:
    """The parameters of this machine: ``config``, else /etc/tabinet/tabinet.toml, else those of the only running lab.

    Raises:
        SetupError: the file named cannot be read.
        InputError: it has errors.
    """
    path = Path(config) if config else DEFAULT_CONFIG
    if config is None and not path.exists() and not any(name.startswith("TABINET_STORE_") for name in os.environ):
        labs = sorted(LABS.glob(f"{os.environ.get('TABINET_LAB', '*')}/tabinet.toml"))
        if len(labs) == 1:
            path = labs[0]
            note(f"(no {DEFAULT_CONFIG}: using the lab {path.parent.name!r})")
        elif len(labs) > 1:
            names = ", ".join(lab.parent.name for lab in labs)
            raise SetupError(f"several labs run ({names}): choose one, as in TABINET_LAB={labs[0].parent.name}")
    if not path.exists():
        if config:
            raise SetupError(f"{config}: no such file; --config and TABINET_CONFIG name a TOML file (docs/parameters.md)")
        return parse_parameters("", os.environ)
    try:
        return parse_parameters(path.read_text(), os.environ, source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error


async def open_configured_store(config: str | None) -> Datastore:
    """A connection to the store that ``read_parameters`` names."""
    return await open_store(store_config(read_parameters(config)))
