"""A whole run against a server in cluster mode, each part as its own user with the least rights.

Asserted on it: all keys of the run share a slot, no transaction leaves it, and no password is seen
anywhere.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from click.testing import CliRunner
from otoscope.callbacks import attach
from otoscope.cli.main import cli
from otoscope.dashboard import create_app
from otoscope.diagnostics import Daemon
from otoscope.store import OtoscopeError, Store, connect
from otoscope.store.places import Address
from otoscope.store.redis_home import RedisHome
from otoscope.store.rights import RIGHTS, acl_rule
from redis.crc import key_slot

from tests.store.servers import ClusterServer

pytestmark = pytest.mark.redis
SECRETS = {part: f"hunter2-{part}-secret" for part in RIGHTS}
STEPS = 60


@dataclass
class Watched:
    """What the server was told: every command with its client, and the transactions among them."""

    commands: list[tuple[str, str]] = field(default_factory=list)

    @property
    def transactions(self) -> list[list[str]]:
        open_: dict[str, list[str]] = {}
        done: list[list[str]] = []
        for client, command in self.commands:
            name = command.split(" ", 1)[0].upper()
            if name == "MULTI":
                open_[client] = []
            elif name == "EXEC":
                done.append(open_.pop(client, []))
            elif client in open_:
                open_[client].append(command)
        return done


class ClusterWithUsers(ClusterServer):
    """One node in cluster mode that knows the four users and nobody else but `admin`."""

    def begin(self) -> ClusterWithUsers:
        self.start()
        admin: Any = redis.Redis.from_url(self.url)
        admin.execute_command("ACL", "SETUSER", "admin", "on", ">admin", "~*", "+@all")
        for part, secret in SECRETS.items():
            rules = acl_rule(part).split()
            admin.execute_command("ACL", "SETUSER", f"otoscope-{part}", "on", f">{secret}", *rules)
        admin.execute_command("ACL", "SETUSER", "default", "off")
        return self

    @property
    def admin(self) -> Any:
        return redis.Redis.from_url(self.url.replace("//", "//admin:admin@"))

    def url_of(self, part: str, *, password: bool = True) -> str:
        secret = f":{SECRETS[part]}" if password else ""
        return self.url.replace("//", f"//otoscope-{part}{secret}@")


@dataclass
class Lived:
    """What a run left behind."""

    server: ClusterWithUsers
    run: str
    watched: Watched
    shown: dict[str, str]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("cluster")
    server = ClusterWithUsers(folder).begin()
    watched, stop = Watched(), threading.Event()

    def watch() -> None:
        with server.admin.monitor() as monitor:
            stop.set()
            for told in monitor.listen():
                watched.commands.append(
                    (f"{told['client_address']}:{told['client_port']}", told["command"])
                )
                if told["command"] == "ECHO done":
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert stop.wait(10)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTOSCOPE_HOME", str(folder / "home"))
            shown = live(server, folder, patch)
        shown["log"] = "\n".join(record.getMessage() for record in records)
        server.admin.execute_command("ECHO", "done")
        thread.join(10)
        yield Lived(server, shown.pop("run"), watched, shown)
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(logging.WARNING)
        server.stop()


def live(server: ClusterWithUsers, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Train, judge, look, and return everything that anybody could have seen."""
    shown: dict[str, str] = {}
    patch.setenv("OTOSCOPE_PASSWORD", SECRETS["callback"])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    recorder = attach(
        net,
        optimizer,
        run="guarded",
        url=server.url_of("callback", password=False),
        spool=folder / "spool",
        strict=True,
    )
    loss = torch.zeros(())
    for _ in range(STEPS):
        x = torch.randn(16, 4)
        loss = torch.nn.functional.mse_loss(net(x), x[:, :2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 16)
    shown["objects"] = repr([recorder, vars(recorder), recorder.options, vars(recorder.sender)])
    recorder.finish()
    patch.delenv("OTOSCOPE_PASSWORD")
    with socket.socket() as probe:  # another recorder finds nobody, which it says in the log
        probe.bind(("127.0.0.1", 0))
        url = f"redis://:{SECRETS['callback']}@127.0.0.1:{probe.getsockname()[1]}/0"
        lonely = attach(net, optimizer, url=url, spool=folder / "lonely", strict=True)
        lonely.step(loss, 16)
        lonely.finish()
    shown["objects"] += repr([lonely.options, vars(lonely), Address(url, "", None, 1, "", "")])

    home = RedisHome(server.url_of("daemon"))
    daemon, done = Daemon(home), threading.Event()
    assert daemon.tick() > 0
    done.set()
    daemon.run(done)

    page = create_app(lambda: connect(server.url_of("page"))).test_client()
    shown["page"] = page.get("/").text + page.get("/healthz").text
    shown["api"] = page.get(f"/api/runs/{recorder.run_id}/delta").text
    store = connect(server.url_of("page"))
    shown["objects"] += repr([home, vars(home), store, store.home, vars(store)])
    patch.setenv("OTOSCOPE_URL", server.url_of("tools"))
    for words in (["doctor", "--json"], ["doctor"], ["runs", "--json"], ["show", recorder.run_id]):
        shown[" ".join(words)] = CliRunner().invoke(cli, words).output
    shown["run"] = recorder.run_id
    return shown


def test_each_part_does_its_work_with_its_own_rights(lived: Lived) -> None:
    store = Store(RedisHome(lived.server.url_of("page")))
    assert store.read(lived.run, "train").steps.tolist() == list(range(1, STEPS + 1))
    assert len(store.read(lived.run, "gradients"))
    assert store.run(lived.run).status == "finished"
    assert store.judgement(lived.run).cursor is not None
    assert json.loads(lived.shown["runs --json"])[0]["id"] == lived.run
    assert lived.run in lived.shown[f"show {lived.run}"]
    assert '"train"' in lived.shown["api"]


def test_all_keys_of_a_run_share_a_slot(lived: Lived) -> None:
    found = [key for key in lived.server.admin.scan_iter("*") if lived.run.encode() in key]
    assert len(found) >= 12
    assert {key_slot(key) for key in found} == {key_slot(f"x{{{lived.run}}}".encode())}


def test_no_transaction_leaves_the_slot_of_its_run(lived: Lived) -> None:
    batches = [batch for batch in lived.watched.transactions if batch]
    assert any(len(batch) > 10 for batch in batches)  # of frames
    for batch in batches:
        keys = [word for command in batch for word in command.split(" ")[1:2]]
        slots = {key_slot(key.encode()) for key in keys if key.startswith("otoscope:")}
        assert slots == {key_slot(f"x{{{lived.run}}}".encode())} or "{doctor}" in keys[0], batch


def test_a_password_is_seen_nowhere(lived: Lived) -> None:
    admin = lived.server.admin
    kept = [admin.dump(key) for key in admin.scan_iter("*")]
    files = [path for path in lived.server.directory.rglob("*") if path.is_file()]
    assert len(lived.shown) == 8 and all(lived.shown.values())
    assert "cannot write to the store" in lived.shown["log"]
    for secret in SECRETS.values():
        assert [name for name, text in lived.shown.items() if secret in text] == []
        assert not any(secret.encode() in value for value in kept)
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("what", ["away", "wrong password", "no right", "no url"])
def test_a_traceback_does_not_show_it_either(lived: Lived, free_port: int, what: str) -> None:
    secret = SECRETS["callback"]
    good = lived.server.url_of("callback")
    url = {
        "away": f"redis://me:{secret}@127.0.0.1:{free_port}/0",
        "wrong password": good.replace("otoscope-callback", "otoscope-page"),
        "no right": good,
        "no url": f"redis://me:{secret}/x@host",
    }[what]
    with pytest.raises(OtoscopeError) as caught:
        RedisHome(url).delete("x")
    shown = "".join(traceback.format_exception(caught.value))
    assert secret not in shown and secret not in repr(caught.value)
    assert "***" in shown


def test_prune_leaves_nothing_of_the_run(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTOSCOPE_URL", lived.server.url_of("tools"))
    result = CliRunner().invoke(cli, ["prune", lived.run, "--yes", "--json"])
    assert json.loads(result.stdout)[0]["bytes"] > 1000
    left = [key for key in lived.server.admin.scan_iter("*") if lived.run.encode() in key]
    assert left == []
