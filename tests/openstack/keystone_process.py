"""A real Keystone for tests: its API under uwsgi, with sqlite and fernet tokens, in a directory and on a port of its own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etcd_process import free_port
from rest import request
from running import Running, uwsgi

VENV = Path(__file__).parents[2] / ".venv-openstack"
PASSWORD = "secret"
"""Of all users."""
REGION = "RegionOne"
CONFIG = """\
[database]
connection = sqlite:///{directory}/keystone.sqlite?timeout=30
[fernet_tokens]
key_repository = {directory}/keys
[fernet_receipts]
key_repository = {directory}/keys
[identity]
password_hash_rounds = 4
"""


@dataclass
class Keystone:
    """One Keystone, and what an administrator asks of it."""

    directory: Path
    port: int = field(default_factory=free_port)
    running: Running | None = None
    admin_token: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v3"

    def prepare(self) -> None:
        """A database with the administrator in it, and keys."""
        (self.directory / "keys").mkdir(parents=True)
        (self.directory / "keystone.conf").write_text(CONFIG.format(directory=self.directory))
        self._manage("db_sync")
        self._manage("fernet_setup", "--keystone-user", "root", "--keystone-group", "root")
        urls = ("public", "internal", "admin")
        endpoints = [part for name in urls for part in (f"--bootstrap-{name}-url", self.url)]
        self._manage("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION, *endpoints)

    def start(self) -> None:
        """The API gives tokens."""
        environment = {
            "OS_KEYSTONE_CONFIG_DIR": str(self.directory),
            "OS_KEYSTONE_CONFIG_FILES": "keystone.conf",
            "PYTHONWARNINGS": "ignore",
        }
        # One request at a time: of two transactions that begin by reading, sqlite refuses the second that writes ("database is locked").
        command = uwsgi(VENV, "keystone.wsgi.api:application", self.port, 1, threads=1)
        self.running = Running(command, self.directory, "keystone", environment)
        self.running.start(self._answers)
        self.admin_token = self.token("admin", "admin")

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()

    def token(self, user: str, project: str) -> str:
        """A token of the user for the project."""
        domain = {"domain": {"id": "default"}}
        identity = {"methods": ["password"], "password": {"user": {"name": user, "password": PASSWORD} | domain}}
        body = {"auth": {"identity": identity, "scope": {"project": {"name": project} | domain}}}
        return request("POST", f"{self.url}/auth/tokens", body)[1]["X-Subject-Token"]

    def owner(self, token: str) -> dict[str, Any]:
        """Whose token it is."""
        headers = {"X-Auth-Token": self.admin_token, "X-Subject-Token": token}
        found: dict[str, Any] = request("GET", f"{self.url}/auth/tokens", headers=headers)[0]["token"]
        return found

    def create(self, kind: str, **fields: Any) -> dict[str, Any]:
        made: dict[str, Any] = self._call("POST", f"/{kind}s", {kind: fields})[kind]
        return made

    def make_user(self, name: str, project: str, *roles: str) -> dict[str, Any]:
        """The project, with a user who has the roles in it."""
        found = self._call("GET", f"/projects?name={project}")["projects"]
        made = found[0] if found else self.create("project", name=project, domain_id="default")
        user = self.create("user", name=name, password=PASSWORD, domain_id="default")
        for role in roles:
            [known] = self._call("GET", f"/roles?name={role}")["roles"]
            self._call("PUT", f"/projects/{made['id']}/users/{user['id']}/roles/{known['id']}")
        return made

    def make_endpoint(self, kind: str, name: str, url: str) -> None:
        """The service is in the catalog."""
        service = self.create("service", type=kind, name=name)["id"]
        for interface in ("public", "internal", "admin"):
            self.create("endpoint", service_id=service, interface=interface, url=url, region_id=REGION)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return request(method, f"{self.url}{path}", body, {"X-Auth-Token": self.admin_token})[0]

    def _answers(self) -> bool:
        try:
            request("GET", self.url)
        except OSError:
            return False
        return True

    def _manage(self, *arguments: str) -> None:
        command = [
            VENV / "bin" / "python",
            "-W",
            "ignore",
            VENV / "bin" / "keystone-manage",
            "--config-file",
            self.directory / "keystone.conf",
        ]
        done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
