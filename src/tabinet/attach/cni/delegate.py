"""Another IPAM plugin is run, as ``ipam.type`` says (``host-local``, ``static``). Source: the CNI specification, section 4.

In: the call, with its configuration and environment. Out: the addresses that the plugin gives. It runs with nothing but CNI's variables
and has a time limit.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import msgspec

from tabinet.attach.cni.protocol import Call, Code, parse_result
from tabinet.attach.cni.values import parse_addresses, wrong
from tabinet.errors import CniError
from tabinet.lib.ip import Prefix

PLUGIN_TIMEOUT_S = 30.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


async def run_ipam(call: Call, kind: str, command: str = "ADD") -> tuple[Prefix, ...]:
    """The addresses that the plugin ``kind`` gives to the call; none with DEL.

    Raises:
        CniError: there is no such plugin, or it says so.
    """
    program = next((found for directory in call.path if (found := Path(directory, kind)).is_file()), None)
    if not _NAME.fullmatch(kind) or program is None:
        raise wrong("ipam.type", kind, f"tabinet-ipam, calico-ipam, or a plugin in {':'.join(call.path) or 'CNI_PATH'}")
    environ = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": call.container,
        "CNI_IFNAME": call.interface,
        "CNI_NETNS": call.netns,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in call.arguments.items()),
        "CNI_PATH": ":".join(call.path),
        "PATH": os.defpath,
    }
    try:
        process = await asyncio.create_subprocess_exec(
            program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environ
        )
    except OSError as error:
        raise wrong("ipam.type", kind, f"{program} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT_S):
            output, _ = await process.communicate(msgspec.json.encode(call.config))
    except TimeoutError:
        raise CniError(Code.TRY_AGAIN, f"{program} did not answer within {PLUGIN_TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _read_answer(process.returncode or 0, output, str(program), command)


def _read_answer(code: int, output: bytes, program: str, command: str) -> tuple[Prefix, ...]:
    try:
        answer = msgspec.json.decode(output or b"{}", type=dict[str, object])
    except msgspec.DecodeError:
        raise CniError(Code.IO, f"{program} ended with {code} and said what is not JSON: {output[:80]!r}") from None
    if code != 0:
        number = answer.get("code")
        details = answer.get("details")
        raise CniError(number if isinstance(number, int) else Code.IO, f"{program}: {answer.get('msg')}", str(details or ""))
    if command != "ADD":
        return ()
    addresses = parse_addresses(program, (entry.address for entry in parse_result(answer, program).ips))
    if not addresses:
        raise CniError(Code.ADDRESS, f"{program} gave no address")
    return addresses
