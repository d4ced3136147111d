"""Every key that Otoscope uses in Redis, in one file.

| key | type | written by | holds |
|---|---|---|---|
| otoscope:runs | zset | callback | run ids by last-seen time, epoch s |
| otoscope:settings | hash | page | notifiers and defaults |
| otoscope:job:<key> | string | callback | "<run> <attempt>" for the ranks of one job, one day |
| otoscope:{run}:meta | hash | callback | field → JSON, the fields of schemas.Meta; heartbeat:<rank> |
| otoscope:{run}:schema | hash | callback | schema hash → JSON |
| otoscope:{run}:streams | set | callback | "<family>:<rank>:<attempt>" |
| otoscope:{run}:labels | hash | page, CLI | name, tags, notes, closed |
| otoscope:{run}:raw:<family>:<rank>:<attempt> | stream | callback | frames, id <step>-<seq> |
| otoscope:{run}:t1…t4:<family>:<rank>:<attempt> | stream | callback | buckets, id <first step>-<part> |
| otoscope:{run}:events | stream | all | events, id * |
| otoscope:{run}:findings | hash | daemon | finding id → JSON |
| otoscope:{run}:obstacles | string | daemon | JSON |
| otoscope:{run}:cursor, :state, :lease | string | daemon | place, small state, holder |

`{run}` with its braces is a Redis Cluster hash tag: all keys of a run share a slot.
"""

from __future__ import annotations

import re

from .errors import ConfigError
from .schemas import StreamName

PREFIX = "otoscope:"
RUN_ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,79}\Z")


def checked_run_id(run: str) -> str:
    """Return the run id, or raise where it is not one (before it becomes part of a key).

    >>> checked_run_id("resnet-01jd4t")
    'resnet-01jd4t'
    """
    if not isinstance(run, str) or not RUN_ID.match(run):
        raise ConfigError(
            f"a run id must match {RUN_ID.pattern}, got {run!r}; `otoscope runs` lists the ids"
        )
    return run


def runs() -> str:
    return f"{PREFIX}runs"


def settings() -> str:
    return f"{PREFIX}settings"


def job(key: str) -> str:
    return f"{PREFIX}job:{key}"


def of_run(run: str, part: str) -> str:
    return f"{PREFIX}{{{checked_run_id(run)}}}:{part}"


def meta(run: str) -> str:
    return of_run(run, "meta")


def schema(run: str) -> str:
    return of_run(run, "schema")


def streams(run: str) -> str:
    return of_run(run, "streams")


def labels(run: str) -> str:
    return of_run(run, "labels")


def raw(run: str, stream: StreamName) -> str:
    return of_run(run, f"raw:{stream.family}:{stream.rank}:{stream.attempt}")


def tier(run: str, stream: StreamName, number: int) -> str:
    return of_run(run, f"t{number}:{stream.family}:{stream.rank}:{stream.attempt}")


def events(run: str) -> str:
    return of_run(run, "events")


def findings(run: str) -> str:
    return of_run(run, "findings")


def obstacles(run: str) -> str:
    return of_run(run, "obstacles")


def cursor(run: str) -> str:
    return of_run(run, "cursor")


def state(run: str) -> str:
    return of_run(run, "state")


def lease(run: str) -> str:
    return of_run(run, "lease")


def stream_member(stream: StreamName) -> str:
    """Return how a stream is written in the set of streams; families hold no colon."""
    return f"{stream.family}:{stream.rank}:{stream.attempt}"


def stream_of_member(member: str) -> StreamName:
    """Read what `stream_member` wrote.

    >>> stream_of_member("train:0:1")
    StreamName(family='train', rank=0, attempt=1)
    """
    family, rank, attempt = member.rsplit(":", 2)
    return StreamName(family, int(rank), int(attempt))
