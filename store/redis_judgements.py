"""The judging part of a Redis home: leases, and what the daemon committed under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis import exceptions

from . import keys
from .home import Judgement
from .redis_client import RedisClient
from .redis_rows import as_object, as_text, findings_of, labels_of
from .retention import Memory, place_of
from .schemas import Event, Json, dumps


class RedisJudgements(RedisClient):
    """A run's judgement, stored in one transaction by who holds the run's lease."""

    def judgement(self, run: str) -> Judgement:
        with self._translated():
            pipe = self._client.pipeline(transaction=True)
            pipe.get(keys.cursor(run)).get(keys.state(run)).get(keys.obstacles(run))
            cursor, state, obstacles, rows = pipe.hgetall(keys.findings(run)).execute()
        if not isinstance(rows, dict):  # a transaction of a cluster gives it as it comes
            rows = dict(zip(rows[::2], rows[1::2], strict=True))
        body = as_object(state)
        order = {name: i for i, name in enumerate(body.get("findings", []))}
        found = findings_of(rows)
        found.sort(key=lambda item: (order.get(item.id, len(order)), item.id))
        return Judgement(
            cursor=None if cursor is None else as_text(cursor),
            state=body["state"] if isinstance(body.get("state"), dict) else {},
            findings=found,
            obstacles=as_object(obstacles),
        )

    def settings(self) -> dict[str, Json]:
        with self._translated():
            rows = self._client.hgetall(keys.settings())
        return labels_of(rows)

    def set_settings(self, settings: Mapping[str, Json]) -> None:
        with self._translated():
            self._client.hset(
                keys.settings(), mapping={name: dumps(value) for name, value in settings.items()}
            )

    def memory(self) -> Memory | None:
        with self._translated():
            info = self._client.info("memory")
        policy = str(info.get("maxmemory_policy", "noeviction"))
        return Memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)), policy)

    def judged_to(self, run: str) -> tuple[int, int] | None:
        with self._translated():
            cursor = self._client.get(keys.cursor(run))
        return place_of(None if cursor is None else as_text(cursor))

    def acquire(self, run: str, token: str, milliseconds: int) -> bool:
        with self._translated():
            if self._client.set(keys.lease(run), token, nx=True, px=milliseconds):
                return True
            holder = self._client.get(keys.lease(run))
            return holder is not None and as_text(holder) == token

    def release(self, run: str, token: str) -> None:
        with self._translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.watch(keys.lease(run))
            holder = pipe.get(keys.lease(run))
            if holder is not None and as_text(holder) == token:
                pipe.multi()
                pipe.delete(keys.lease(run))
                try:
                    pipe.execute()
                except exceptions.WatchError:
                    return

    def commit(
        self,
        run: str,
        token: str,
        milliseconds: int,
        expected_cursor: str | None,
        judgement: Judgement,
        events: Sequence[Event] = (),
    ) -> bool:
        with self._translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.watch(keys.lease(run), keys.cursor(run))
            holder, cursor = pipe.get(keys.lease(run)), pipe.get(keys.cursor(run))
            mine = holder is not None and as_text(holder) == token
            if not mine or (None if cursor is None else as_text(cursor)) != expected_cursor:
                return False
            pipe.multi()
            pipe.set(keys.lease(run), token, xx=True, px=milliseconds)
            pipe.set(keys.cursor(run), judgement.cursor or "")
            order = [finding.id for finding in judgement.findings]
            pipe.set(keys.state(run), dumps({"state": judgement.state, "findings": order}))
            pipe.set(keys.obstacles(run), dumps(judgement.obstacles))
            pipe.delete(keys.findings(run))
            found = {item.id: dumps(item.to_json()) for item in judgement.findings}
            if found:
                pipe.hset(keys.findings(run), mapping=found)
            for event in events:
                pipe.xadd(keys.events(run), {"e": dumps(event.to_json())})
            try:
                pipe.execute()
            except exceptions.WatchError:
                return False
        return True
