"""Asks Keystone for projects, as the user that Neutron itself is there (``[keystone_authtoken]``).

In: identifiers. Out: projects. Without that section nobody is asked. A few are asked for one by one, many all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keystonemiddleware.auth_token  # noqa: F401  # registers the section, in processes without an API too
from keystoneauth1 import adapter, exceptions, plugin, session
from keystoneauth1 import loading as ks_loading
from oslo_config import cfg
from oslo_log import log

from tabinet.attach.openstack.neutron import Project, parse_fact
from tabinet.attach.openstack.projects import Projects

LOG = log.getLogger(__name__)
SECTION = "keystone_authtoken"
ONE_BY_ONE = 10
"""More than so many are read with one listing of all."""
REQUEST_WITHIN_S = 10.0


def projects_of(conf: cfg.ConfigOpts, wait_s: float, on_late: Callable[[list[str]], None] = lambda projects: None) -> Projects | None:
    """Who knows the projects; None: this Neutron has no Keystone."""
    auth = ks_loading.load_auth_from_conf_options(conf, SECTION)
    if auth is None or not wait_s:
        return None
    section = conf[SECTION]
    verify = False if section.insecure else section.cafile or True
    cert = (section.certfile, section.keyfile) if section.certfile and section.keyfile else section.certfile
    sessions = session.Session(auth=auth, verify=verify, cert=cert, timeout=REQUEST_WITHIN_S)
    # The address that Neutron has is the one that it reaches; what the catalog says need not be.
    client = adapter.Adapter(sessions, service_type="identity", interface=plugin.AUTH_INTERFACE, version="3")
    return Projects(lambda ids: _fetch(client, ids), on_late, _tell, wait_s)


def _fetch(client: Any, ids: Sequence[str]) -> dict[str, Project]:
    found: dict[str, Project] = {}
    rest = list(ids)
    if len(ids) > ONE_BY_ONE:
        listing = client.get("/projects").json()
        found = {document["id"]: parse_fact(Project, document) for document in listing["projects"]}
        rest = [each for each in ids if each not in found] if listing.get("truncated") else []
    for each in rest:
        try:
            found[each] = parse_fact(Project, client.get(f"/projects/{each}").json()["project"])
        except exceptions.NotFound:
            continue
    return found


def _tell(reason: str) -> None:
    LOG.warning("Tabinet: Keystone does not tell the names of projects; endpoints are written without them until it does: %s", reason)
