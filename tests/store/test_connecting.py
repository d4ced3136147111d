"""Connecting: what can be wrong between us and a server is told apart, and said with its remedy."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from otoscope.store import (
    ConfigError,
    Event,
    StoreError,
    StoreUnavailableError,
    connect,
)
from otoscope.store.errors import (
    ClusterError,
    LoginRefusedError,
    ReadOnlyStoreError,
    ServerTooOldError,
    TlsError,
)
from otoscope.store.redis_home import RedisHome

from tests.conftest import RedisProcess
from tests.store.servers import Certificates, ClusterServer, TlsServer, answering, need_tls

pytestmark = pytest.mark.redis
SECRET = "hunter2-sesame"


@contextmanager
def running(server: RedisProcess) -> Iterator[RedisProcess]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    need_tls()
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsServer]:
    with running(TlsServer(tmp_path_factory.mktemp("tls"), certificates)) as server:
        assert isinstance(server, TlsServer)
        yield server


def said_by(url: str, kind: type[StoreError] | type[ConfigError], timeout: float = 2.0) -> str:
    """Return what the error of a connection says; it is exactly of this kind."""
    with pytest.raises(kind) as caught:
        connect(url, timeout=timeout)
    assert type(caught.value) is kind
    return str(caught.value)


# -- addresses that lead nowhere ----------------------------------------------------------------


def test_a_refused_connection_says_that_nothing_listens(free_port: int) -> None:
    said = said_by(f"redis://127.0.0.1:{free_port}/0", StoreUnavailableError)
    assert "connection refused" in said and "otoscope up" in said


def test_a_name_that_is_not_known_is_told_apart_from_a_server_that_is_away() -> None:
    said = said_by("redis://no-such-host.invalid:6379/0", StoreUnavailableError)
    assert "cannot be resolved" in said and "spelt right" in said


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = said_by(f"unix://{tmp_path}/redis.sock", StoreUnavailableError)
    assert "no such socket" in said and str(tmp_path) in said


def test_a_server_that_never_answers_is_given_up_within_the_time_limit() -> None:
    silent = threading.Event()

    def wait(words: list[bytes]) -> bytes:
        silent.wait(20)
        return b""

    with answering(wait) as url:
        began = time.monotonic()
        said = said_by(url, StoreUnavailableError, timeout=0.3)
        assert time.monotonic() - began < 3
        silent.set()
    assert "stalled or overloaded" in said


def test_another_program_on_the_port_is_recognized_as_one() -> None:
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    page.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=page.serve_forever, daemon=True).start()
    try:
        said = said_by(f"redis://127.0.0.1:{page.server_port}/0", StoreError)
    finally:
        page.shutdown()
        page.server_close()
    assert "does not speak Redis' protocol" in said


# -- who may come in ----------------------------------------------------------------------------


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[RedisProcess]:
    with running(RedisProcess(tmp_path, "--requirepass", SECRET)) as server:
        yield server


def test_a_missing_password_is_told_apart_from_a_wrong_one(locked: RedisProcess) -> None:
    missing = said_by(locked.url, LoginRefusedError)
    wrong = said_by(locked.url.replace("//", "//:wrong-one@"), LoginRefusedError)
    unknown = said_by(locked.url.replace("//", "//nobody:wrong-one@"), LoginRefusedError)

    assert "asks for a password and got none" in missing
    assert "refuses the user or the password" in wrong
    assert "refuses the user or the password" in unknown
    assert all("$OTOSCOPE_PASSWORD" in said for said in (missing, wrong, unknown))
    assert "wrong-one" not in missing + wrong + unknown


def test_a_password_comes_from_the_environment_or_a_file_that_it_names(
    locked: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOSCOPE_PASSWORD", SECRET)
    connect(locked.url)
    connect(locked.url.replace("//", "//default@"))
    assert "refuses" in said_by(locked.url.replace("//", "//:in-the-url@"), LoginRefusedError)

    monkeypatch.delenv("OTOSCOPE_PASSWORD")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("OTOSCOPE_PASSWORD_FILE", str(tmp_path / "secret"))
    connect(locked.url)
    monkeypatch.setenv("OTOSCOPE_PASSWORD_FILE", str(tmp_path / "nowhere"))
    assert "OTOSCOPE_PASSWORD_FILE names" in said_by(locked.url, ConfigError)


def test_a_percent_encoded_password_is_decoded(tmp_path: Path) -> None:
    with running(RedisProcess(tmp_path, "--requirepass", "p@ss/w#rd%:?")) as server:
        connect(server.url.replace("//", "//:p%40ss%2Fw%23rd%25%3A%3F@"))


def test_a_password_for_a_server_that_has_none_says_so(redis_url: str) -> None:
    said = said_by(redis_url.replace("//", "//:sesame@"), LoginRefusedError)
    assert "has no password, and got one" in said and "sesame" not in said


def test_a_database_that_is_not_there_is_named(redis_url: str) -> None:
    said = said_by(redis_url.removesuffix("/0") + "/99", StoreError)
    assert "no database of this number" in said


def test_a_socket_with_a_database_number_leads_to_that_database(tmp_path: Path) -> None:
    with running(RedisProcess(tmp_path, "--unixsocket", str(tmp_path / "r.sock"))) as server:
        url = f"unix://{tmp_path}/r.sock?db=3"
        RedisHome(url).write_meta("in-three-01", {"name": "x"})
        three = redis.Redis.from_url(server.url.removesuffix("/0") + "/3")
        assert three.dbsize() == 2
        assert [info.id for info in connect(url).runs()] == ["in-three-01"]


# -- TLS ----------------------------------------------------------------------------------------


def test_a_run_is_written_and_read_over_tls(secured: TlsServer) -> None:
    home = RedisHome(secured.url)
    home.append("tls-01", [], [Event("note")], {"name": "over tls"})
    store = connect(secured.url)
    assert [info.name for info in store.runs()] == ["over tls"]


def test_a_certificate_that_has_expired_is_named_as_such(
    certificates: Certificates, tmp_path: Path
) -> None:
    with running(TlsServer(tmp_path, certificates, expired=True)) as server:
        said = said_by(server.url, TlsError)
    assert "has expired; renew it on the server" in said


def test_an_unknown_authority_says_how_to_name_it(secured: TlsServer) -> None:
    said = said_by(secured.url.partition("?")[0], TlsError)
    assert "authority that this machine does not know" in said
    assert "ssl_ca_certs=/path/to/ca.pem" in said


def test_a_certificate_for_another_name_says_both(secured: TlsServer) -> None:
    said = said_by(secured.url.replace("127.0.0.1", "localhost"), TlsError)
    assert "is for another name" in said and "localhost" in said


def test_a_server_that_asks_for_a_certificate_of_ours_gets_it(
    certificates: Certificates, tmp_path: Path
) -> None:
    mine, key = certificates.issue("client")
    with running(TlsServer(tmp_path, certificates, clients=True)) as server:
        said = said_by(server.url, TlsError)
        connect(f"{server.url}&ssl_certfile={mine}&ssl_keyfile={key}")
    assert "ssl_certfile=/path/client.crt&ssl_keyfile=/path/client.key" in said


def test_plain_to_a_tls_port_and_tls_to_a_plain_one_name_the_other(
    secured: TlsServer, redis_server: RedisProcess
) -> None:
    plain = said_by(f"redis://127.0.0.1:{secured.port}/0", StoreUnavailableError)
    tls = said_by(f"rediss://127.0.0.1:{redis_server.port}/0", TlsError, timeout=0.5)
    assert "write rediss://" in plain
    assert "does not speak TLS" in tls and "write redis://" in tls


def test_a_file_for_tls_that_is_missing_or_none_is_named(
    secured: TlsServer, tmp_path: Path
) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    url = secured.url.partition("?")[0]
    missing = said_by(f"{url}?ssl_ca_certs={tmp_path}/none.pem", ConfigError)
    junk = said_by(f"{url}?ssl_ca_certs={tmp_path}/junk.pem", TlsError)
    assert "none.pem' , which cannot".replace(" ,", ",") in missing
    assert "PEM files" in junk


# -- servers that are not fit -------------------------------------------------------------------

OLD = b"# Server\r\nredis_version:5.0.7\r\nredis_mode:standalone\r\n"


def of_version(version: bytes) -> Callable[[list[bytes]], bytes]:
    def answer(words: list[bytes]) -> bytes:
        if words[0] == b"HELLO":
            pairs = [b"server", b"redis", b"version", version, b"mode", b"standalone"]
            return b"*6\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in pairs)
        return b"+PONG\r\n"

    return answer


def before_hello(words: list[bytes]) -> bytes:
    """Answer as Redis 5 does, which knows no HELLO."""
    if words[0] == b"INFO":
        return b"$%d\r\n%s\r\n" % (len(OLD), OLD)
    return b"-ERR unknown command `HELLO`, with args beginning with: \r\n"


@pytest.mark.parametrize(
    ("answer", "version"), [(before_hello, "5.0.7"), (of_version(b"6.0.20"), "6.0.20")]
)
def test_a_server_older_than_6_2_is_refused_with_its_version(
    answer: Callable[[list[bytes]], bytes], version: str
) -> None:
    with answering(answer) as url:
        said = said_by(url, ServerTooOldError)
    assert f"is Redis {version}, and Otoscope needs 6.2 or newer" in said


@pytest.mark.parametrize("version", [b"6.2.0", b"8.4.1", b"255.255.255", b"unstable"])
def test_newer_ones_and_those_that_tell_no_number_are_used(version: bytes) -> None:
    with answering(of_version(version)) as url:
        assert connect(url).home.server["version"] == version.decode()  # type: ignore[attr-defined]


def test_the_version_is_asked_once_a_connection_not_once_a_batch() -> None:
    asked: list[bytes] = []

    def answer(words: list[bytes]) -> bytes:
        asked.append(words[0])
        return of_version(b"7.0.0")(words)

    with answering(answer) as url:
        home = RedisHome(url)
        for _ in range(20):
            home.ping()
    assert asked == [b"HELLO"] + [b"PING"] * 20


def test_a_replica_is_read_and_refuses_writes_by_name(
    redis_server: RedisProcess, tmp_path: Path
) -> None:
    options = ("--replicaof", "127.0.0.1", str(redis_server.port))
    with running(RedisProcess(tmp_path, *options)) as replica:
        home = RedisHome(replica.url)
        home.run_ids()
        with pytest.raises(ReadOnlyStoreError, match="is a replica and takes no writes; name the"):
            home.append("on-a-replica", [], [Event("note")])
        with pytest.raises(ReadOnlyStoreError):
            home.begin_attempt("on-a-replica")


def test_a_server_that_reads_its_data_in_is_waited_for_not_blamed(tmp_path: Path) -> None:
    slow = ("--key-load-delay", "500")  # µs; it answers after each 2 MB that it has read
    with running(RedisProcess(tmp_path)) as server:
        client: Any = redis.Redis.from_url(server.url)
        client.mset({f"key-{i}": os.urandom(3000) for i in range(4000)})
        client.save()
    with running(RedisProcess(tmp_path, *slow)) as server:
        said = said_by(server.url, StoreUnavailableError)
    assert "is reading its data in" in said and "wait" in said


def test_a_cluster_that_is_not_whole_and_a_database_of_a_cluster_are_named(
    tmp_path: Path,
) -> None:
    with running(ClusterServer(tmp_path, slots=0)) as server:
        with pytest.raises(ClusterError, match="is not whole"):
            connect(server.url).runs()
        said = said_by(server.url.removesuffix("/0") + "/3", ClusterError)
    assert "database 0 alone" in said


def test_a_node_of_a_cluster_that_sends_us_to_another_one_says_what_works(tmp_path: Path) -> None:
    with running(ClusterServer(tmp_path, slots=8000)) as server:
        node: Any = redis.Redis.from_url(server.url)
        node.execute_command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        home = RedisHome(server.url)
        refused: list[str] = []
        for i in range(20):
            try:
                home.write_meta(f"somewhere-{i}", {"name": "x"})
            except ClusterError as error:
                refused.append(str(error))
    assert refused and all("is not whole" in said for said in refused)


def test_an_address_of_a_sentinel_says_what_to_write() -> None:
    assert "Sentinel" in said_by("redis+sentinel://host:26379/mymaster", ConfigError)
