"""A real MariaDB for tests: a data directory, a socket and a port of its own, no system service."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from etcd_process import free_port
from running import Running


@dataclass
class MariaDb:
    """One server. What is in it is as safe as tests need it: nothing waits for the disk."""

    directory: Path
    port: int = field(default_factory=free_port)
    running: Running | None = None

    def start(self) -> None:
        """The server answers on its socket, which nobody else has."""
        data, sock = self.directory / "data", self.directory / "socket"
        self.directory.mkdir(exist_ok=True)
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=socket"]
        subprocess.run([*install, "--skip-test-db", "--user=root"], check=True, capture_output=True)
        command = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={sock}", f"--port={self.port}", "--bind-address=127.0.0.1"]
        command += ["--user=root", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve", "--max-connections=500"]
        self.running = Running(command, self.directory, "mariadb")
        self.running.start(lambda: self._asks("select 1"))

    def make_database(self, name: str) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        statements = f"""create database {name} character set utf8mb4; create user {name}@127.0.0.1 identified by 'secret';
            grant all on {name}.* to {name}@127.0.0.1;"""
        assert self._asks(statements)
        return f"mysql+pymysql://{name}:secret@127.0.0.1:{self.port}/{name}?charset=utf8mb4"

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()

    def _asks(self, statements: str) -> bool:
        command = ["mariadb", "--no-defaults", f"--socket={self.directory}/socket", f"--execute={statements}"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
