"""Who asks for metadata in tests, and a Nova that says what it was told."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
from collections.abc import Iterator

from guest_world import GuestWorld

from tabinet.kernel import netns

SECRET = "not told to guests"
NOVA = 8790
MORE = """
[felix]
interface_prefix = ["tap"]
default_endpoint_to_host_action = "Accept"
[guest]
metadata_service = "127.0.0.1:{port}"
metadata_secret_file = "{secret}"
"""


class Nova(http.server.BaseHTTPRequestHandler):
    """Says what it was told."""

    def do_GET(self) -> None:
        self._say("")

    def do_POST(self) -> None:
        self._say(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _say(self, body: str) -> None:
        text = "\n".join([self.path, *(f"{name.lower()}={value}" for name, value in self.headers.items()), body]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def nova(world: GuestWorld) -> Iterator[None]:
    """It answers in the host's namespace."""
    server = netns.run_in(world.host, lambda: http.server.ThreadingHTTPServer(("127.0.0.1", NOVA), Nova))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(world: GuestWorld, guest: str, method: str = "GET", body: str = "", *, by: str = "", **fields: str) -> str | None:
    """What the guest gets, by one of its interfaces if it is named; None: no connection."""
    try:
        with contextlib.closing(world.socket(guest, socket.SOCK_STREAM)) as sock:
            sock.settimeout(5)
            if by:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, by.encode())
            sock.connect(("169.254.169.254", 80))
            connection = http.client.HTTPConnection("169.254.169.254")
            connection.sock = sock
            connection.request(method, "/openstack/latest", body or None, {name.replace("_", "-"): value for name, value in fields.items()})
            return connection.getresponse().read().decode()
    except OSError:
        return None
