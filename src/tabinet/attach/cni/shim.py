"""The program that container runtimes run as ``tabinet-cni`` and ``tabinet-ipam``: it hands the call to the agent and tells the answer.

In: environment, standard input, name of the program. Out: exit code and standard output as the CNI specification has them. Python's start
is most of what a call costs, so this file imports nothing but what is built in (``posix`` for ``os``, which is not), and nothing of
Tabinet, and ends without taking Python down piece by piece: a third less. ``install`` copies it, with a first line that starts Python
without ``site``. Only CNI's own variables are passed on, and the network namespace as an open file, so that the agent need not see the
runtime's mounts. Both ends of the socket are root's, and each asks the kernel whether the other is.

Without an agent: VERSION is answered; a DEL is put down for the agent to do when it is back, and is a success; everything else is to be
tried again later (code 11).

A request is ``<plugin> <bytes of environment> <bytes of input>\\n``, the environment (``KEY=value``, each ended by a zero byte), the
input. An answer is ``<exit code>\\n`` and the output. Sources: the specification's section 2, unix(7).
"""

import _socket  # ``socket`` itself takes half as long to import as Python takes to start
import posix
import sys

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
ADDRESS = "\0tabinet-attach"
"""An abstract socket: it belongs to the network namespace, so that each host of a lab has its own."""
DELETIONS = "/var/lib/tabinet/cni/deletions"
"""Where calls to delete are put down, a file each."""
ANSWER_TIMEOUT_S = 120.0
INPUT_BYTES = 1 << 20
"""Longest network configuration."""
TRY_AGAIN, NOT_AVAILABLE, IO_FAILURE = 11, 50, 5
_CREDENTIALS = 12
_ROOT = b"\0\0\0\0"


class NoAgentError(Exception):
    """Nobody answers, or somebody who is not the agent."""


def render_request(plugin: str, environ: dict[bytes, bytes], stdin: bytes) -> bytes:
    """The bytes of a request."""
    block = b"".join(b"%b=%b\0" % item for item in sorted(environ.items()) if item[0].startswith(b"CNI_"))
    return b"%b %d %d\n%b%b" % (plugin.encode(), len(block), len(stdin), block, stdin)


def ask(request: bytes, netns: bytes, address: str, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[int, bytes]:
    """Exit code and output that the agent answers.

    Raises:
        NoAgentError: it does not.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    descriptor = -1
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
        user = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS)[4:8]
        if user != _ROOT:
            raise NoAgentError("who listens in its place is not root")
        ancillary = []
        if netns:
            try:
                descriptor = posix.open(netns, posix.O_RDONLY | posix.O_CLOEXEC)
                ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
            except OSError:
                pass  # whether a namespace is needed is not for us to say
        sent = connection.sendmsg([request], ancillary)
        if sent < len(request):  # after the last byte the answer may be there, and the other end closed
            connection.sendall(request[sent:])
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    except OSError as error:
        raise NoAgentError(error.strerror or "no answer in time") from error
    finally:
        connection.close()
        if descriptor >= 0:
            posix.close(descriptor)
    code, found, output = b"".join(parts).partition(b"\n")
    if not found or not code.isdigit():
        raise NoAgentError("it went away in the middle of the call")
    return int(code), output


def answer_alone(command: str, request: bytes, stdin: bytes, reason: str, deletions: str) -> tuple[int, bytes]:
    """Exit code and output of a call that no agent answers."""
    version = _version_in(stdin)
    code, message = TRY_AGAIN, "try again later"
    if command == "DEL":
        try:
            put_down(request, deletions)
        except OSError as error:
            code, message = IO_FAILURE, f"and the deletion cannot be put down in {deletions}: {error.strerror}"
        else:
            return 0, b""
    elif command == "STATUS":
        code, message = NOT_AVAILABLE, "is it running? see: systemctl status tabinet-agent"
    return 1, render_error(version, code, f"the tabinet agent of this host does not answer ({reason})", message)


def put_down(request: bytes, deletions: str) -> None:
    """The request is a file of its own, complete or not there.

    Raises:
        OSError: it could not be written.
    """
    import os

    os.makedirs(deletions, mode=0o700, exist_ok=True)
    name = f"{deletions}/{os.urandom(8).hex()}"
    descriptor = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, request)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(name + ".new", name)


def render_version(stdin: bytes) -> bytes:
    """The answer to VERSION."""
    import json

    return json.dumps({"cniVersion": _version_in(stdin), "supportedVersions": VERSIONS}).encode()


def render_error(version: str, code: int, message: str, details: str = "") -> bytes:
    """An error as the specification has it."""
    import json

    return json.dumps({"cniVersion": version, "code": code, "msg": message, "details": details}).encode()


def _version_in(stdin: bytes) -> str:
    """The version that the caller speaks, where that can be told; else our own latest."""
    import json

    try:
        version = json.loads(stdin)["cniVersion"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = ""
    return version if isinstance(version, str) and version else VERSIONS[-1]


def answer(plugin: str, environ: dict[bytes, bytes], stdin: bytes, address: str, deletions: str) -> tuple[int, bytes]:
    """Exit code and output of a call, whoever gives it."""
    command = environ.get(b"CNI_COMMAND", b"").decode(errors="replace")
    if command == "VERSION":
        return 0, render_version(stdin)
    if len(stdin) > INPUT_BYTES:
        return 1, render_error(VERSIONS[-1], 6, f"the network configuration is longer than {INPUT_BYTES} bytes")
    request = render_request(plugin, environ, stdin)
    try:
        return ask(request, environ.get(b"CNI_NETNS", b""), address)
    except NoAgentError as error:
        return answer_alone(command, request, stdin, str(error), deletions)


def main(deletions: str = DELETIONS) -> int:
    """The call of this process."""
    plugin = sys.argv[0].rpartition("/")[2]
    if b"CNI_COMMAND" not in posix.environ:
        posix.write(2, f"{plugin} is a CNI plugin, which container runtimes run; versions {', '.join(VERSIONS)}\n".encode())
        return 0
    parts = []
    while part := posix.read(0, 65536):
        parts.append(part)
    code, output = answer(plugin, dict(posix.environ), b"".join(parts), ADDRESS, deletions)
    while output:
        output = output[posix.write(1, output) :]
    return code


if __name__ == "__main__":
    posix._exit(main())
