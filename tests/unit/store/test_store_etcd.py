"""What only etcd can do: die, hang, be restored, fail over, refuse certificates, users and prefixes."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from certificates import client_files, make_certificates, server_arguments
from etcd_process import EtcdProcess, free_port

from tabinet.errors import Compacted, InputError, NotFound, SetupError, StoreDenied, StoreError, StoreUnavailable
from tabinet.store.api import Datastore, DeleteOp, PutEvent, PutOp
from tabinet.store.etcd import rpc_pb2 as pb
from tabinet.store.etcd.endpoints import parse_endpoint
from tabinet.store.etcd.failures import translate
from tabinet.store.etcd.store import EtcdStore, open_etcd

WAIT_S = 15.0


@asynccontextmanager
async def opened(*endpoints: str, timeout_s: float = 5.0, heartbeat_s: float = 5.0, **options: str) -> AsyncIterator[EtcdStore]:
    store = await open_etcd(endpoints, timeout_s=timeout_s, heartbeat_s=heartbeat_s, **options)
    try:
        yield store
    finally:
        await store.close()


async def put(store: Datastore, key: str, value: bytes = b"v") -> int:
    return (await store.txn([], [PutOp(key, value)])).revision


# --- trouble --------------------------------------------------------------------------------------------------------


async def test_killed_and_restarted_in_the_middle_of_a_watch(own_etcd: EtcdProcess) -> None:
    """The watch says so at once; the same client goes on where it was, and misses nothing."""
    async with asyncio.timeout(WAIT_S), opened(own_etcd.endpoint) as store:
        last = await put(store, "/k/0")
        seen: list[int] = []
        with pytest.raises(StoreUnavailable, match="does not answer"):  # the loop is what raises
            async for batch in store.watch("/k/", last):
                last = batch.revision
                seen += [event.item.revision for event in batch.events if isinstance(event, PutEvent)]
                if seen:
                    own_etcd.kill()
                else:
                    await put(store, "/k/1")
        with pytest.raises(StoreUnavailable, match="check that etcd runs there"):
            await store.get("/k/0")
        own_etcd.start()
        async with opened(own_etcd.endpoint) as writer:
            for number in range(5):
                await put(writer, f"/k/{number}")
        async with aclosing(store.watch("/k/", last)) as watch:
            async for batch in watch:
                seen += [event.item.revision for event in batch.events if isinstance(event, PutEvent)]
                if len(seen) == 6:
                    break
        assert seen == list(range(seen[0], seen[0] + 6))


async def test_a_member_that_hangs_is_noticed(own_etcd: EtcdProcess) -> None:
    endpoint = own_etcd.endpoint
    async with asyncio.timeout(WAIT_S), opened(endpoint, heartbeat_s=0.2) as store, opened(endpoint, timeout_s=1.0) as hasty:
        revision = await put(hasty, "/k/0")
        watch = store.watch("/k/", revision)
        await anext(watch)
        own_etcd.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match="silent"):
            await anext(watch)
        with pytest.raises(StoreUnavailable, match="in time"):
            await hasty.get("/k/0")
        own_etcd.signal(signal.SIGCONT)
        assert await store.get("/k/0") is not None


async def test_a_quiet_watch_is_kept_and_a_slow_reader_is_not_blamed(own_etcd: EtcdProcess) -> None:
    async with asyncio.timeout(WAIT_S), opened(own_etcd.endpoint, heartbeat_s=0.2) as store:
        revision = await put(store, "/k/0")
        async with aclosing(store.watch("/k/", revision)) as watch:
            await anext(watch)
            await asyncio.sleep(0.7)  # three heartbeats in which nobody reads
            following = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.7)  # three in which nothing happens
            assert not following.done()
            await put(store, "/k/1")
            assert len((await following).events) == 1


async def test_an_etcd_that_lost_its_data_is_not_trusted(own_etcd: EtcdProcess) -> None:
    async with asyncio.timeout(WAIT_S), opened(own_etcd.endpoint) as store:
        for _ in range(5):
            revision = await put(store, "/k/0")
        own_etcd.kill()
        shutil.rmtree(own_etcd.directory / "data")
        own_etcd.start()
        async with opened(own_etcd.endpoint) as fresh:
            with pytest.raises(Compacted):
                await anext(fresh.watch("/k/", revision))


async def test_compaction_between_two_pages_means_list_again(etcd: EtcdProcess) -> None:
    async with asyncio.timeout(WAIT_S), opened(etcd.endpoint) as store:
        for number in range(8):
            await put(store, f"/pages/{number}")
        pages = store.list("/pages/", page_size=2)
        await anext(pages)
        await store.compact(await put(store, "/pages/x"))
        with pytest.raises(Compacted):  # the page that was fetched ahead may still come
            await anext(pages)
            await anext(pages)


async def test_a_deletion_right_at_the_compacted_revision_is_not_lost(etcd: EtcdProcess) -> None:
    """Compaction takes the tombstone along: who has not seen the deletion must list again, and is told so."""
    async with asyncio.timeout(WAIT_S), opened(etcd.endpoint) as store:
        before = await put(store, "/gone")
        deleted = (await store.txn([], [DeleteOp("/gone")])).revision
        await store.compact(deleted)
        with pytest.raises(Compacted):
            async for _ in store.watch("/gone", before):
                pass


async def test_large_changes_come_in_one_piece(etcd: EtcdProcess) -> None:
    """More than etcd puts into one message, so that it sends fragments."""
    async with asyncio.timeout(WAIT_S), opened(etcd.endpoint) as store:
        start = await put(store, "/large/")
        for number in range(4):
            await store.txn([], [PutOp(f"/large/{number}/{part}", bytes(200_000)) for part in range(7)])
        sizes: list[int] = []
        async with aclosing(store.watch("/large/", start)) as watch:
            async for batch in watch:
                assert len({event.item.revision for event in batch.events if isinstance(event, PutEvent)}) * 7 == len(batch.events)
                sizes.append(len(batch.events))
                if sum(sizes) == 28:
                    break
        with pytest.raises(StoreError, match="too large"):
            await put(store, "/large/too", bytes(2_000_000))
        await store.txn([], [DeleteOp(f"/large/{number}/{part}") for number in range(4) for part in range(7)])


# --- several members ------------------------------------------------------------------------------------------------


async def test_the_next_endpoint_answers_when_one_does_not(own_etcd: EtcdProcess) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with asyncio.timeout(WAIT_S), opened(nobody, own_etcd.endpoint) as store:
        revision = await put(store, "/k/0")
        assert (await store.status()).endpoint == own_etcd.endpoint
        async with aclosing(store.watch("/k/", revision)) as watch:
            assert (await anext(watch)).revision == revision


async def test_status(etcd: EtcdProcess) -> None:
    async with opened(etcd.endpoint) as store:
        revision = await put(store, "/status")
        status = await store.status()
        assert status.version.startswith("3.")
        assert (status.endpoint, status.revision, status.has_leader) == (etcd.endpoint, revision, True)
        assert status.size_bytes > 0


async def test_nobody_listens() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    async with asyncio.timeout(WAIT_S), opened(endpoint) as store:
        with pytest.raises(StoreUnavailable):
            await store.get("a")
    async with asyncio.timeout(WAIT_S), opened(endpoint, endpoint) as store:
        for call in (
            store.get("a"),
            put(store, "a"),
            anext(store.list("a")),
            anext(store.watch("a", 1)),
            store.keep_alive(1),
            store.grant(9),
        ):
            with pytest.raises(StoreUnavailable, match=f"{endpoint} does not answer: .*refused; check that etcd runs there"):
                await call


# --- TLS and users --------------------------------------------------------------------------------------------------


@dataclass
class Secured:
    """An etcd with TLS, client certificates and users."""

    process: EtcdProcess
    pki: Path

    def options(self, **changes: str) -> dict[str, str]:
        return client_files(self.pki) | changes


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    pki = directory / "pki"
    make_certificates(pki)
    arguments = (*server_arguments(pki), "--auth-token-ttl=1", "--bcrypt-cost=4")
    process = EtcdProcess(directory / "s", client_url=f"https://127.0.0.1:{free_port()}", arguments=arguments)
    process.start()
    try:
        command = ["etcdctl", f"--endpoints={process.endpoint}", f"--cacert={pki}/ca.pem", f"--cert={pki}/c.pem", f"--key={pki}/c-key.pem"]
        for line in (
            "user add root:toor",
            "user grant-role root root",
            "user add reader:secret",
            "role add readers",
            "role grant-permission readers --prefix=true readwrite /open/",
            "user grant-role reader readers",
            "auth enable",
        ):
            subprocess.run(
                [*command, *line.split()], check=True, capture_output=True, timeout=30, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
            )
        yield Secured(process, pki)
    finally:
        process.kill()


async def test_tls_with_user_and_password(secured: Secured) -> None:
    async with asyncio.timeout(WAIT_S), opened(secured.process.endpoint, **secured.options(username="reader", password="secret")) as store:
        revision = await put(store, "/open/a")
        assert await store.get("/open/a") is not None
        lease = await store.grant(30)
        await store.keep_alive(lease)
        async with aclosing(store.watch("/open/", revision)) as watch:
            await anext(watch)
        for call in (store.get("/shut/a"), put(store, "/shut/a"), anext(store.list("/shut/")), anext(store.watch("/shut/", revision))):
            with pytest.raises(StoreDenied, match="roles of"):
                await call


async def test_a_token_that_ran_out_is_replaced_unseen(secured: Secured) -> None:
    """Tokens of this etcd live for one second, and are forgotten when it restarts."""
    async with asyncio.timeout(WAIT_S), opened(secured.process.endpoint, **secured.options(username="reader", password="secret")) as store:
        revision = await put(store, "/open/a")
        secured.process.kill()
        secured.process.start()
        async with aclosing(store.watch("/open/", revision)) as watch:
            await anext(watch)
        secured.process.kill()
        secured.process.start()
        assert await put(store, "/open/a") > revision
        secured.process.kill()
        secured.process.start()
        await store.grant(30)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"username": "reader", "password": "wrong"}, "refuses user 'reader': wrong user or password"),
        ({"username": "nobody", "password": "x"}, "refuses user 'nobody': wrong user or password"),
        ({}, "check user, password and the roles"),
    ],
)
async def test_wrong_users_are_told(secured: Secured, changes: dict[str, str], text: str) -> None:
    async with asyncio.timeout(WAIT_S), opened(secured.process.endpoint, **secured.options(**changes)) as store:
        for call in (store.get("/open/a"), put(store, "/open/a"), anext(store.list("/open/"))):
            with pytest.raises(StoreDenied, match=text) as caught:
                await call
            assert "secret" not in str(caught.value)
        with pytest.raises(StoreDenied):
            await anext(store.watch("/open/", 1))


async def test_wrong_certificates_are_told(secured: Secured, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint = secured.process.endpoint
    cases = {
        "another authority": secured.options(ca_file=str(secured.pki / "other.pem")),
        "no client certificate": {"ca_file": str(secured.pki / "ca.pem")},
    }
    for options in cases.values():
        async with asyncio.timeout(WAIT_S), opened(endpoint, **options) as store:
            with pytest.raises(StoreError, match=endpoint):
                await store.get("/open/a")
    async with asyncio.timeout(WAIT_S), opened(endpoint, **cases["another authority"]) as store:
        with pytest.raises(StoreDenied, match="check ca_file"):
            await store.get("/open/a")
    assert capfd.readouterr() == ("", ""), "nothing but the exception speaks"


async def test_user_and_password_do_no_harm_where_there_are_no_users(etcd: EtcdProcess) -> None:
    async with asyncio.timeout(WAIT_S), opened(etcd.endpoint, username="u", password="p") as store:
        revision = await put(store, "/user")
        async with aclosing(store.watch("/user", revision)) as watch:
            await anext(watch)


# --- configuration, and what is pure --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tls_default", "target", "tls"),
    [
        ("http://10.0.0.1:2379", True, "10.0.0.1:2379", False),
        ("https://etcd-1.example.net", False, "etcd-1.example.net:2379", True),
        ("etcd:1234", True, "etcd:1234", True),
        ("etcd:1234", False, "etcd:1234", False),
        ("https://[2001:db8::1]:4001/", False, "[2001:db8::1]:4001", True),
        ("[fe80::1%eth0]", False, "[fe80::1%eth0]:2379", False),
        ("unix:///run/etcd/client:0", True, "unix:/run/etcd/client:0", False),
        ("unix:/run/etcd/client:0", False, "unix:/run/etcd/client:0", False),
    ],
)
def test_endpoints(text: str, tls_default: bool, target: str, tls: bool) -> None:
    endpoint = parse_endpoint(text, tls_default=tls_default)
    assert (endpoint.target, endpoint.tls, endpoint.text) == (target, tls, text)


@pytest.mark.parametrize(
    "text", ["", "http://", "ftp://a:1", "a:0", "a:65536", "a:b", "2001:db8::1", "unix://relative:0", "http://a/b", "a b"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(InputError, match="an etcd endpoint is"):
        parse_endpoint(text, tls_default=False)


async def test_configurations_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one endpoint"):
        await open_etcd([])
    with pytest.raises(InputError, match="go together"):
        await open_etcd(["a:1"], cert_file="c.pem")
    with pytest.raises(SetupError, match=f"ca_file {tmp_path}/none cannot be read: No such file"):
        await open_etcd(["a:1"], ca_file=f"{tmp_path}/none")


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted, "compacted"),
        (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", NotFound, "requested lease not found"),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", StoreUnavailable, "no leader"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", StoreUnavailable, "quorum"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", StoreUnavailable, "space exceeded; compact"),
        (grpc.StatusCode.CANCELLED, "", StoreUnavailable, "closed"),
        (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", StoreDenied, "permission denied"),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", StoreError, "INVALID_ARGUMENT: request is too large"),
        (grpc.StatusCode.INTERNAL, "", StoreError, "no reason given"),
    ],
)
def test_errors_in_our_words(code: grpc.StatusCode, details: str, kind: type[StoreError], text: str) -> None:
    empty = grpc.aio.Metadata()
    failure = translate(grpc.aio.AioRpcError(code, empty, empty, details=details), "m")
    assert type(failure) is kind
    assert text in str(failure)


def test_the_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    source = Path(pb.__file__).parent / "rpc.proto"
    protoc = pytest.importorskip("grpc_tools.protoc")
    relative = "tabinet/store/etcd/rpc.proto"
    assert protoc.main(["protoc", f"-I{source.parents[3]}", f"--descriptor_set_out={tmp_path}/set", relative]) == 0
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    made = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file[0]
    committed = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    for each in (made, committed):
        each.ClearField("source_code_info")
    for message in made.message_type:
        for member in message.field:
            member.ClearField("json_name")
    assert made == committed
