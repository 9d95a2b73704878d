"""Calls of Kubernetes' Container Runtime Interface, as kubelet makes them, to a runtime's socket.

The requests are put together by hand from the field numbers of Kubernetes' ``api.proto``, which are all that is needed of it here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

DEADLINE_S = 60.0
Field = tuple[int, Any]
"""Number, and a text, bytes, a whole number, or the fields of a message."""


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def encode(fields: Sequence[Field]) -> bytes:
    """The message (protobuf's wire format)."""
    made = b""
    for number, value in fields:
        if isinstance(value, int):
            made += _varint(number << 3) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
            made += _varint(number << 3 | 2) + _varint(len(content)) + content
    return made


def decode(message: bytes) -> dict[int, list[Any]]:
    """Values by field number: whole numbers and bytes."""
    found: dict[int, list[Any]] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            octet = message[place]
            place += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return value

    while place < len(message):
        key = varint()
        value: Any = varint()
        if key & 7 == 2:
            value, place = message[place : place + value], place + value
        found.setdefault(key >> 3, []).append(value)
    return found


def entries(number: int, values: dict[str, str]) -> list[Field]:
    """A map of texts."""
    return [(number, [(1, key), (2, value)]) for key, value in values.items()]


@dataclass(slots=True)
class Pod:
    """A pod that runs, with one container."""

    sandbox: str
    container: str
    address: str


@dataclass(slots=True)
class Cri:
    """Close it."""

    channel: grpc.Channel
    image: str
    """Of all containers."""
    logs: str
    """Directory, as the runtime sees it."""

    @classmethod
    def open(cls, socket: str, image: str, logs: str) -> Cri:
        return cls(grpc.insecure_channel(f"unix:{socket}"), image, logs)

    def close(self) -> None:
        self.channel.close()

    def call(self, method: str, fields: Sequence[Field]) -> dict[int, list[Any]]:
        """The fields of what ``RuntimeService`` answers."""
        ask = self.channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")
        return decode(ask(encode(fields), timeout=DEADLINE_S))

    def run_pod(self, name: str, namespace: str = "shop", annotations: dict[str, str] | None = None) -> Pod:
        """A pod with a container that sleeps."""
        metadata = [(1, name), (2, f"uid-{name}"), (3, namespace), (4, 0)]
        config = [(1, metadata), (2, name), (3, self.logs), *entries(7, annotations or {}), (8, [])]
        sandbox = self.call("RunPodSandbox", [(1, config)])[1][0].decode()
        container_config = [(1, [(1, "main")]), (2, [(1, self.image)]), (11, f"{name}.log"), (15, [])]
        made = self.call("CreateContainer", [(1, sandbox), (2, container_config), (3, config)])[1][0].decode()
        self.call("StartContainer", [(1, made)])
        status = decode(self.call("PodSandboxStatus", [(1, sandbox)])[1][0])
        return Pod(sandbox, made, decode(status[5][0])[1][0].decode())

    def remove_pod(self, pod: Pod) -> None:
        self.call("StopPodSandbox", [(1, pod.sandbox)])
        self.call("RemovePodSandbox", [(1, pod.sandbox)])

    def remove_named(self, name: str) -> bool:
        """The pods of this name have been stopped and removed, as far as that could be done; True: there are none."""
        left = False
        for listed in self.call("ListPodSandbox", []).get(1, []):
            fields = decode(listed)
            if decode(fields[2][0])[1][0].decode() == name:
                left = True
                with contextlib.suppress(grpc.RpcError):
                    for method in ("StopPodSandbox", "RemovePodSandbox"):
                        self.call(method, [(1, fields[1][0])])
        return not left

    def reaches(self, pod: Pod, address: str) -> bool:
        words = [(2, word) for word in ("/bin/ping", "-c", "1", "-W", "1", address)]
        return self.call("ExecSync", [(1, pod.container), *words, (3, 10)]).get(3, [0]) == [0]
