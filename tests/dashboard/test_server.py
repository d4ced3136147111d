"""The server's command line: what it refuses, and that it serves and ends."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from otoscope.dashboard.__main__ import THREADS, main

from tests.conftest import find_free_port


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otoscope.dashboard", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_taken_port_is_said_in_one_line_that_names_the_option(free_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()

        ended = run("--port", str(free_port))

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "--port" in ended.stderr
    assert str(free_port) in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_are_not_served_without_a_token(host, free_port, monkeypatch, capsys):
    monkeypatch.delenv("OTOSCOPE_TOKEN", raising=False)

    assert main(["--host", host, "--port", str(free_port)]) == 1
    assert "OTOSCOPE_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "0"], "--port"),
        (["--port", "70000"], "--port"),
        (["--host", "203.0.113.7", "--insecure"], "--host"),
        (["--prefix", "x"], "prefix"),
    ],
)
def test_options_that_cannot_be_served_are_refused(arguments, named, free_port, capsys):
    if "--port" not in arguments:
        arguments = [*arguments, "--port", str(free_port)]

    assert main(arguments) == 1
    assert named in capsys.readouterr().err


def test_the_server_answers_and_a_signal_ends_it(redis_url):
    port = find_free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "otoscope.dashboard", "--port", str(port)],
        env={**os.environ, "OTOSCOPE_URL": redis_url},
    )
    try:
        assert answer_of(server, f"http://127.0.0.1:{port}/readyz") == b'{"status":"ok"}'
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait(10)


def test_connections_that_fall_silent_do_not_hold_the_page_for_good(redis_url):
    port = find_free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "otoscope.dashboard", "--port", str(port)],
        env={**os.environ, "OTOSCOPE_URL": redis_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stalled = []
    try:
        answer_of(server, f"http://127.0.0.1:{port}/healthz")
        for _ in range(THREADS):
            stalled.append(socket.create_connection(("127.0.0.1", port)))
            stalled[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: ")
        assert answer_of(server, f"http://127.0.0.1:{port}/healthz") == b'{"status":"ok"}'
    finally:
        for connection in stalled:
            connection.close()
        server.kill()
        server.wait(10)


def answer_of(server: subprocess.Popen, url: str) -> bytes:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"no answer from {url}")
