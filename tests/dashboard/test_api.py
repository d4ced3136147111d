"""The endpoints: what a person may ask and change, and what bad input gets."""

import pytest
from otoscope.dashboard import create_app
from otoscope.dashboard.shelf import ANSWERS_BYTES, Shelf
from otoscope.store import (
    ConfigError,
    MemoryHome,
    Store,
    StoreUnavailableError,
    UnknownRunError,
)

from tests.dashboard.made_runs import MadeRun, too_high

HOSTILE = "<img src=x onerror=alert(1)> \u202e ' \" & \x00"
RUN = "net-1"
EVENTS = f"/api/runs/{RUN}/events"


def test_runs_are_listed_the_last_seen_first(client, home):
    MadeRun(home, "old-1", name="old").train(5).silent_for(100)
    MadeRun(home, "new-1", name="new").train(5).judged(too_high("new-1"))

    rows = client.get("/api/runs").get_json()["runs"]

    assert {row["name"]: row["status"] for row in rows} == {"new": "live", "old": "lost"}
    assert {row["name"]: row["open"]["critical"] for row in rows} == {"new": 1, "old": 0}


def test_an_unknown_run_is_404_and_an_id_that_is_none_400(client):
    assert client.get("/api/runs/nope/delta").status_code == 404
    for wrong in ("UPPER", "a b", "..%2f..", "a" * 81, "otoscope:x", "%7Bx%7D", "a%0a"):
        answer = client.get(f"/api/runs/{wrong}/delta")
        assert answer.status_code in (400, 404) and "error" in answer.get_json(), wrong
    assert "run id must match" in client.get("/api/runs/UPPER/delta").get_json()["error"]


@pytest.mark.parametrize("verb", ["events", "labels", "delete"])
def test_changes_need_a_json_object(client, home, verb):
    MadeRun(home, RUN).train(5)
    url = f"/api/runs/{RUN}/{verb}"

    for data, kind in (
        (b"kind=normal", "application/x-www-form-urlencoded"),
        (b'{"kind": "normal"}', "text/plain"),
        (b"[1]", "application/json"),
        (b"{", "application/json"),
        (b"[" * 100_000, "application/json"),
    ):
        assert client.post(url, data=data, content_type=kind).status_code == 400


def test_a_body_over_a_megabyte_is_refused_unread(client, home):
    MadeRun(home, RUN).train(5)

    answer = client.post(EVENTS, data=b" " * (1 << 20) + b"{}", content_type="application/json")

    assert answer.status_code == 413 and "megabyte" in answer.get_json()["error"]


def test_an_action_becomes_an_event_of_the_present_attempt(client, home, store):
    MadeRun(home, RUN).train(30).judged(too_high(RUN))
    home.begin_attempt(RUN)
    finding = too_high(RUN).id

    for body in (
        {"kind": "acknowledged", "finding": finding},
        {"kind": "snoozed", "finding": finding, "until_step": 500},
        {"kind": "normal", "finding": finding},
    ):
        assert client.post(EVENTS, json=body).status_code == 201

    events = store.events(RUN)
    assert [event.kind for event in events] == ["acknowledged", "snoozed", "normal"]
    assert {event.body["finding"] for event in events} == {finding}
    assert {event.attempt for event in events} == {2}
    assert events[1].body["until_step"] == 500 and {event.step for event in events} == {30}


def test_many_viewers_with_one_cursor_cost_one_reading_and_a_change_is_seen_at_once(home):
    MadeRun(home, RUN).train(30)
    read = []

    class Counting(Store):
        def run(self, run):
            read.append(run)
            return super().run(run)

    client = create_app(lambda: Counting(home)).test_client()
    url = f"/api/runs/{RUN}/delta"

    answers = [client.get(url).data for _ in range(20)]
    assert len(set(answers)) == 1 and len(read) < 5
    client.post(EVENTS, json={"kind": "note", "text": "seen"})
    assert b"seen" in client.get(url).data


def test_a_name_that_is_no_unicode_breaks_no_answer(client, home):
    MadeRun(home, RUN, name="half \ud800 pair").train(3)

    assert client.get("/api/runs").status_code == 200
    assert client.get(f"/api/runs/{RUN}/delta").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "finished"},
        {"kind": ["normal"]},
        {"kind": "normal"},
        {"kind": "normal", "finding": ""},
        {"kind": "normal", "finding": {"x": 1}},
        {"kind": "normal", "finding": "x" * 501},
        {"kind": "snoozed", "finding": "x"},
        {"kind": "snoozed", "finding": "x", "until_step": 30},
        {"kind": "snoozed", "finding": "x", "until_step": True},
        {"kind": "snoozed", "finding": "x", "until_step": 1e9},
        {"kind": "note", "text": "x" * 4001},
    ],
)
def test_an_action_that_says_nothing_sound_is_refused(client, home, store, body):
    MadeRun(home, RUN).train(30)

    answer = client.post(EVENTS, json=body)

    assert answer.status_code == 400 and answer.get_json()["error"]
    assert store.events(RUN) == []


def test_labels_rename_tag_and_close_a_run_and_null_takes_them_back(client, home):
    MadeRun(home, RUN, name="first").train(5).silent_for(500)
    url = f"/api/runs/{RUN}/labels"

    changed = client.post(
        url, json={"name": HOSTILE, "tags": ["a", "a"], "closed": True}
    ).get_json()

    assert changed["run"]["name"] == HOSTILE.strip()
    assert changed["run"]["tags"] == ["a"] and changed["run"]["status"] == "finished"
    assert client.post(url, json={"name": None}).get_json()["run"]["name"] == "first"


@pytest.mark.parametrize(
    "body", [{}, {"id": "x"}, {"tags": "a"}, {"tags": [1]}, {"closed": 1}, {"name": "x" * 201}]
)
def test_labels_of_the_wrong_kind_are_refused(client, home, body):
    MadeRun(home, RUN).train(5)

    assert client.post(f"/api/runs/{RUN}/labels", json=body).status_code == 400


def test_labels_of_an_unknown_run_make_no_run(client, home):
    assert client.post("/api/runs/ghost/labels", json={"name": "x"}).status_code == 404
    assert home.run_ids() == []


def test_a_run_is_deleted_only_when_its_name_was_typed(client, home):
    MadeRun(home, RUN, name="My run").train(5)
    url = f"/api/runs/{RUN}/delete"

    refused = client.post(url, json={"name": "my run"})
    assert refused.status_code == 400 and "My run" in refused.get_json()["error"]
    assert client.post(url, json={"name": "My run"}).status_code == 200
    assert client.get("/api/runs").get_json()["runs"] == []


def test_a_store_that_is_away_is_503_and_its_return_is_noticed():
    there: dict[str, MemoryHome] = {}

    def connect() -> Store:
        if not there:
            raise StoreUnavailableError("no answer from the Redis server at redis://x; start it")
        return Store(there["home"])

    client = create_app(connect).test_client()

    away = client.get("/api/runs")
    assert away.status_code == 503 and "start it" in away.get_json()["error"]
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    there["home"] = MemoryHome()
    assert client.get("/api/runs").get_json()["runs"] == []
    assert client.get("/readyz").status_code == 200


def test_a_lost_connection_is_opened_anew(home):
    opened = []

    class Failing(MemoryHome):
        def run_ids(self):
            raise StoreUnavailableError("gone")

    def connect() -> Store:
        opened.append(1)
        return Store(Failing() if len(opened) == 1 else home)

    client = create_app(connect).test_client()

    assert client.get("/api/runs").status_code == 503
    assert client.get("/api/runs").status_code == 200
    assert len(opened) == 2


def test_the_page_is_served_below_a_prefix(home):
    store = Store(home)
    client = create_app(lambda: store, prefix="/otoscope/").test_client()

    assert client.get("/otoscope/").status_code == 200
    assert client.get("/otoscope/api/runs").get_json() == {"runs": [], "left_out": 0}
    assert b'"/otoscope/' in client.get("/otoscope/").data
    assert client.get("/api/runs").status_code == 404


@pytest.mark.parametrize("prefix", ["otoscope/", "/otoscope", "", "//evil.example/"])
def test_a_prefix_without_its_slashes_is_refused(prefix):
    with pytest.raises(ConfigError, match="prefix"):
        create_app(lambda: Store(MemoryHome()), prefix=prefix)


def test_errors_never_hold_a_traceback(client):
    for path in ("/api/runs/nope/delta", "/api/runs/UPPER/delta", "/api/runs/x/delta?quantity=y"):
        assert b"Traceback" not in client.get(path).data
    assert UnknownRunError.__name__ not in client.get("/api/runs/nope/delta").text


def test_what_is_kept_of_answers_is_bounded():
    shelf = Shelf(lambda: Store(MemoryHome()), clock=lambda: 0.0)
    for number in range(100):
        assert len(shelf.answer(number, lambda: bytes(1 << 20))) == 1 << 20
    assert sum(len(kept[1]) for kept in shelf._answers.values()) <= ANSWERS_BYTES
