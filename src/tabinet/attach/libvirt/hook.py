"""The program that libvirt runs as ``/etc/libvirt/hooks/qemu``: it hands the call to the agent and tells the answer.

In: arguments (domain, operation, part, extra) and the domain's XML on standard input. Out: exit code, and on standard error why not.
Standard output stays empty: where libvirt takes it for the domain's new XML (``migrate``, ``restore``), that means no change. A domain
without our element in its metadata is none of our business, whatever becomes of the agent.
This file imports nothing but what is built in (``posix`` for ``os``, which is not), and nothing of Tabinet: ``install`` copies it, with
a few lines before that start Python (without ``site``) only where there is something to be done.

Without an agent: ``prepare`` and ``migrate`` wait a few seconds for one that is just being started, and fail then, so that no domain runs
that nobody guards; everything else succeeds, since libvirt would kill a running domain for it, and the agent removes later what has ended.
Both ends of the socket are root's, and each asks the kernel whether the other is.

A request is ``<bytes of arguments> <bytes of XML>\\n``, the arguments, each ended by a zero byte, the XML. An answer is
``<exit code>\\n`` and the message. Sources: libvirt's "Hooks for specific system management", unix(7).
"""

import _socket  # ``socket`` itself takes half as long to import as Python takes to start
import posix
import sys
import time

XML_NAMESPACE = "https://tabinet.io/xmlns/libvirt/1"
ADDRESS = "\0tabinet-libvirt"
"""An abstract socket: it belongs to the network namespace, so that each host of a lab has its own."""
ANSWER_TIMEOUT_S = 120.0
AGENT_WITHIN_S = 10.0
"""So long an agent that starts anew is waited for."""
_RETRY_S = 0.1
XML_BYTES = 4 << 20
NEEDED = ("prepare", "migrate", "sync")
"""Operations that fail without an agent."""
ASKED = (*NEEDED, "stopped", "release", "reconnect")
"""Operations that the agent hears of."""
_CREDENTIALS = 12
_ROOT = b"\0\0\0\0"


class NoAgentError(Exception):
    """Nobody answers, or somebody who is not the agent."""


def render_request(arguments: list[bytes], xml: bytes) -> bytes:
    """The bytes of a request."""
    block = b"".join(b"%b\0" % argument for argument in arguments)
    return b"%d %d\n%b%b" % (len(block), len(xml), block, xml)


def ask(request: bytes, address: str, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[int, bytes]:
    """Exit code and message that the agent answers.

    Raises:
        NoAgentError: it does not.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
        user = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS)[4:8]
        if user != _ROOT:
            raise NoAgentError("who listens in its place is not root")
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    except OSError as error:
        raise NoAgentError(error.strerror or "no answer in time") from error
    finally:
        connection.close()
    code, found, message = b"".join(parts).partition(b"\n")
    if not found or not code.isdigit():
        raise NoAgentError("it went away in the middle of the call")
    return int(code), message


def ask_patiently(request: bytes, address: str, within_s: float) -> tuple[int, bytes]:
    """The same of an agent that is there within that time; a call that it lost may be repeated.

    Raises:
        NoAgentError: it is not.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return ask(request, address)
        except NoAgentError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_S)


def answer(arguments: list[bytes], xml: bytes, address: str, within_s: float = AGENT_WITHIN_S) -> tuple[int, bytes]:
    """Exit code and message of a call, whoever gives it."""
    operation = arguments[1].decode(errors="replace") if len(arguments) > 1 else ""
    if operation not in ASKED or XML_NAMESPACE.encode() not in xml:
        return 0, b""
    if len(xml) > XML_BYTES:
        return 1, b"the domain's XML is longer than %d bytes" % XML_BYTES
    try:
        code, message = ask_patiently(render_request(arguments, xml), address, within_s if operation in NEEDED else 0.0)
    except NoAgentError as error:
        code, message = 1, f"the tabinet agent of this host does not answer ({error}): see systemctl status tabinet-agent".encode()
    return (code if operation in NEEDED else 0), message


def main() -> int:
    """The call of this process."""
    if len(sys.argv) < 3:
        posix.write(2, b"a hook of libvirt, which libvirt runs: see tabinet libvirt install\n")
        return 2
    parts = []
    while part := posix.read(0, 65536):
        parts.append(part)
    coding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    arguments = [argument.encode(coding, errors) for argument in sys.argv[1:]]
    code, message = answer(arguments, b"".join(parts), ADDRESS)
    if message:
        posix.write(2, message + b"\n")
    return code


if __name__ == "__main__":
    posix._exit(main())
