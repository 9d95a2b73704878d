"""A host that assigns and releases addresses until it is killed: says ``+ HANDLE ADDRESS`` and ``- HANDLE`` when a caller was told so."""

from __future__ import annotations

import asyncio
import itertools
import sys

from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.store.open import open_store

CALLERS = 3


async def run(endpoint: str, host: str, life: str) -> None:
    client = IpamClient(await open_store(endpoint))
    numbers = itertools.count()

    async def caller() -> None:
        for number in numbers:
            handle = f"{host}.{life}.{number}"
            result = await client.assign(AssignRequest(host=host, handle=handle, count4=1))
            print("+", handle, result.addresses[0].address, flush=True)
            if number % 3 == 2:
                await client.release_handle(handle)
                print("-", handle, flush=True)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3]))
