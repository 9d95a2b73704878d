"""A real RabbitMQ for tests: a node name, directories and ports of its own (also the two of Erlang's distribution), no system service."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from etcd_process import free_port
from running import Running

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's /usr/sbin/rabbitmq-server becomes another user, who could not write here."""


@dataclass
class RabbitMq:
    """One broker and the port mapper (epmd) that it wants."""

    directory: Path
    port: int = field(default_factory=free_port)
    mapper: Running | None = None
    broker: Running | None = None

    @property
    def url(self) -> str:
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """The broker takes connections."""
        self.directory.mkdir(exist_ok=True)
        mapper_port = free_port()
        self.mapper = Running(["epmd", "-port", str(mapper_port), "-address", "127.0.0.1"], self.directory, "epmd")
        self.mapper.start(lambda: _listens(mapper_port))
        (self.directory / "rabbitmq.conf").write_text(f"listeners.tcp.local = 127.0.0.1:{self.port}\n")
        environment = {
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"tabinet-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_LOGS": "-",
            # With "input" the script becomes the server instead of watching over it, so that there is one process to stop.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -noinput",
        }
        self.broker = Running([SERVER], self.directory, "rabbitmq", environment)
        self.broker.start(lambda: "Server startup complete" in self.broker.log())

    def stop(self) -> None:
        for each in (self.broker, self.mapper):
            if each is not None:
                each.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
