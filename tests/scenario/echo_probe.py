"""Questions and answers over UDP, to count what gets lost on the way to an address that several workloads have, and who answers.

``serve ADDRESS PORT NAME`` answers each question with its name. ``ask ADDRESS PORT`` asks every ``INTERVAL_S``, from ``FLOWS`` ports in
turn. For each line on its standard input it prints what became of the questions since the line before, as JSON: ``{"sent": n, "lost": n,
"answers": {name: n}}``; it ends with its standard input. Standard library only: it runs in network namespaces.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from collections import Counter

FLOWS = 16
INTERVAL_S = 0.002
PATIENCE_S = 5.0
"""So long an answer may take before it is lost."""


def open_socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(address: str, port: int, name: str) -> None:
    with open_socket(address) as bound:
        bound.bind((address, port))
        print("ready", flush=True)
        while True:
            data, peer = bound.recvfrom(100)
            bound.sendto(data + b" " + name.encode(), peer)


def ask(address: str, port: int) -> None:
    flows = [open_socket(address) for _ in range(FLOWS)]
    for flow in flows:
        flow.connect((address, port))
    number = 0
    waiting: set[int] = set()
    answers: Counter[str] = Counter()

    def listen(until_s: float, *, commands: bool) -> bool:
        """Takes answers until then, or until there is a command (true), or until nothing is waited for."""
        watched = [*flows, sys.stdin] if commands else flows
        while (commands or waiting) and (left := until_s - time.monotonic()) > 0:
            readable, _, _ = select.select(watched, [], [], left)
            for flow in flows:
                if flow in readable:
                    with contextlib.suppress(OSError):  # somebody refused: the question counts as lost
                        text, _, name = flow.recv(100).decode().partition(" ")
                        waiting.discard(int(text))
                        answers[name] += 1
            if sys.stdin in readable:
                return True
        return False

    sent = 0
    while True:
        with contextlib.suppress(OSError):  # no route at the moment, or refused before: lost like any other
            flows[number % FLOWS].send(str(number).encode())
        waiting.add(number)
        number, sent = number + 1, sent + 1
        if listen(time.monotonic() + INTERVAL_S, commands=True):
            if not sys.stdin.readline():
                return
            listen(time.monotonic() + PATIENCE_S, commands=False)
            print(json.dumps({"sent": sent, "lost": len(waiting), "answers": answers}), flush=True)
            sent = 0
            waiting.clear()
            answers.clear()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        ask(sys.argv[2], int(sys.argv[3]))
