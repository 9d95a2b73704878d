"""What two tenants do with openstacksdk, run by ``.venv-openstack``'s Python: ``sdk_story.py KEYSTONE_URL PASSWORD REGION HOST``.

Prints as JSON what was made, and what each was refused. The administrator binds the port to the host, as Nova would.
"""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any

import openstack
from openstack import exceptions


def connection(url: str, password: str, region: str, user: str) -> Any:
    return openstack.connect(
        auth_url=url,
        username=user,
        password=password,
        project_name=user,
        user_domain_id="default",
        project_domain_id="default",
        region_name=region,
        app_name="tests",
        load_yaml_config=False,
        load_envvars=False,
    )


def main() -> None:
    url, password, region, host = sys.argv[1:]
    admin, blue, green = (connection(url, password, region, user).network for user in ("admin", "blue", "green"))
    network = blue.create_network(name="net")
    subnet = blue.create_subnet(network_id=network.id, ip_version=4, cidr="10.40.0.0/24")
    group = blue.create_security_group(name="web")
    rule = blue.create_security_group_rule(
        security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp", port_range_min=80, port_range_max=80
    )
    port = blue.create_port(network_id=network.id, name="web1", security_groups=[group.id])
    refused = []
    for what, work in (
        ("bind", lambda: blue.update_port(port.id, binding_host_id=host)),
        ("read", lambda: green.get_port(port.id)),
        ("delete", lambda: green.delete_port(port.id, ignore_missing=False)),
        ("rule", lambda: green.create_security_group_rule(security_group_id=group.id, direction="ingress", ethertype="IPv4")),
    ):
        try:
            work()
        except (exceptions.ForbiddenException, exceptions.NotFoundException):
            refused.append(what)
    bound = admin.update_port(port.id, binding_host_id=host, device_owner="compute:nova", device_id=str(uuid.uuid4()))
    made = {"network": network, "subnet": subnet, "group": group, "rule": rule, "port": bound}
    found: dict[str, Any] = {name: each.to_dict(computed=False) for name, each in made.items()}
    print(json.dumps({**found, "refused": refused, "project": blue.get_project_id()}, default=str))


if __name__ == "__main__":
    main()
