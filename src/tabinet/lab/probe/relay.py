"""The relay: between standard input and output, and a prober in a virtual machine.

Run as ``python3 -I -S relay.py SOCKET NAME TCP,TCP,... UDP,UDP,...``: tells the guest behind the unix socket to start the prober with these
arguments, then copies both ways until either side ends. The guest's prober ends with the connection.
"""

import os
import select
import socket
import sys

CHUNK = 1 << 16


def main(arguments: list[str]) -> None:
    """Relays until one side ends."""
    path, *rest = arguments
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.connect(path)
        guest.sendall(" ".join(part or "-" for part in rest).encode() + b"\n")
        while True:
            readable, _, _ = select.select([0, guest.fileno()], [], [])
            if 0 in readable:
                data = os.read(0, CHUNK)
                if not data:
                    return
                guest.sendall(data)
            if guest.fileno() in readable:
                data = guest.recv(CHUNK)
                if not data:
                    return
                while data:
                    data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(sys.argv[1:])
