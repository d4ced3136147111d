"""Who gets in: tokens, cookies, Origin, Host and the headers of every answer."""

import pytest
from otoscope.dashboard import create_app

from tests.dashboard.made_runs import MadeRun

RUN = "net-1"
WRITE, READ = "write-secret", "read-secret"
CHANGE = {"kind": "note", "text": "x"}


@pytest.fixture
def guarded(store, home):
    MadeRun(home, RUN).train(5)
    return create_app(lambda: store, token=WRITE, read_token=READ)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def change(client, **headers):
    return client.post(f"/api/runs/{RUN}/events", json=CHANGE, headers=headers).status_code


def test_without_a_token_nothing_of_a_run_is_told(guarded):
    client = guarded.test_client()

    assert client.get("/api/runs").status_code == 401
    assert client.get(f"/api/runs/{RUN}/delta").status_code == 401
    assert client.get("/_dash-layout").status_code == 401
    page = client.get("/")
    assert page.status_code == 401 and b"<form" in page.data and b"_dash" not in page.data
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", WRITE[:-1], WRITE + "x", "é"])
def test_a_wrong_token_opens_nothing(guarded, token):
    client = guarded.test_client()

    assert client.get("/api/runs", headers=bearer(token).copy()).status_code == 401
    assert client.get("/", query_string={"token": token}).status_code == 401
    assert client.post("/login", data={"token": token}).status_code == 401
    assert client.get("/api/runs").status_code == 401


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(guarded):
    client = guarded.test_client()

    answer = client.get(f"/run/{RUN}?token={WRITE}")

    assert answer.status_code == 302 and answer.headers["Location"] == f"/run/{RUN}"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and WRITE not in cookie
    assert client.get("/api/runs").status_code == 200
    assert change(client) == 201


def test_the_form_lets_in_too(guarded):
    client = guarded.test_client()

    assert client.post("/login", data={"token": READ}).status_code == 302
    assert client.get("/api/runs").status_code == 200


def test_a_redirect_never_leaves_the_server(guarded):
    answer = guarded.test_client().get(f"//evil.example/?token={WRITE}")

    assert answer.headers.get("Location", "/").startswith("/")
    assert not answer.headers.get("Location", "/").startswith("//")


def test_the_read_token_reads_and_changes_nothing(guarded, store):
    client = guarded.test_client()

    assert client.get("/api/runs", headers=bearer(READ)).status_code == 200
    assert change(client, **bearer(READ)) == 403
    assert store.events(RUN) == []
    assert change(client, **bearer(WRITE)) == 201


def test_a_cookie_of_the_read_token_is_not_one_of_the_write_token(guarded):
    client = guarded.test_client()
    client.get(f"/?token={READ}")

    assert client.get("/api/runs").status_code == 200
    assert change(client) == 403


def test_with_a_read_token_alone_nobody_changes_anything(store, home):
    MadeRun(home, RUN).train(5)
    client = create_app(lambda: store, read_token=READ).test_client()

    assert change(client, **bearer(READ)) == 403
    assert change(client) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_changes_from_another_site_are_refused(client, home, store, headers):
    MadeRun(home, RUN).train(5)

    assert change(client, **headers) == 403
    assert store.events(RUN) == []


def test_changes_from_the_page_itself_are_not(client, home):
    MadeRun(home, RUN).train(5)

    assert change(client, **{"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}) == 201


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8050", "127.0.0.1.evil.example"])
def test_a_foreign_name_pointed_at_this_machine_gets_nothing(store, host):
    client = create_app(lambda: store, hosts=("localhost", "127.0.0.1", "::1")).test_client()

    assert client.get("/api/runs", headers={"Host": host}).status_code == 421
    for ours in ("localhost:8050", "127.0.0.1:8050", "[::1]:8050"):
        assert client.get("/api/runs", headers={"Host": ours}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/runs/nope/delta", "/healthz", "/x/y"])
def test_every_answer_carries_the_policy(client, path):
    headers = client.get(path).headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'; script-src 'self'" in policy and "unsafe-eval" not in policy
    assert "frame-ancestors 'none'" in policy and "object-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
