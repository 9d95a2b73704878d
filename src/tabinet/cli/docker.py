"""How Docker's network and address drivers get their answers: beside the agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tabinet.agent.companions import Surroundings


def beside_agent(surroundings: Surroundings) -> AbstractAsyncContextManager[None]:
    """Answers Docker's calls as long as the agent runs."""
    from tabinet.attach.docker.daemon import DockerSocket
    from tabinet.attach.docker.memory import KnownNetworks
    from tabinet.attach.docker.service import DockerService
    from tabinet.attach.docker.web import serve_docker
    from tabinet.attach.network import LinuxNetwork
    from tabinet.ipam.client import IpamClient

    parameters, store = surroundings.parameters, surroundings.store
    plugin = Path(parameters.text("docker", "plugin_socket"))
    service = DockerService(
        host=surroundings.host,
        store=store,
        network=LinuxNetwork(),
        ipam=IpamClient(store),
        docker=DockerSocket(parameters.text("docker", "api_socket")),
        agent=surroundings.readiness,
        driver=plugin.stem,
        networks=KnownNetworks(Path(parameters.text("docker", "networks"))),
        interface_prefix=parameters.items("felix", "interface_prefix")[0],
        note=surroundings.log.info,
    )
    return serve_docker(service, plugin)
