"""The wheel: installed without torch into a fresh environment, it watches, judges and shows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import record

ROOT = Path(__file__).parent.parent
SHIPPED = ("store", "callbacks", "diagnostics", "dashboard", "cli")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: the build folder of the checkout holds the editable install."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = source / "dist"
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "-o",
        str(out),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a fresh environment and return its folder of programs."""
    venv = tmp_path_factory.mktemp("venv")
    bare = ["venv", "--without-pip", str(venv)]
    subprocess.run([sys.executable, "-m", *bare], check=True, timeout=120)
    # nothing compiled ahead: most of what comes along is never imported here
    pip = ["pip", "--python", str(venv / "bin" / "python"), "install", "-q", "--no-compile"]
    asked = ["-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(
        [sys.executable, "-m", *pip, *asked], check=True, capture_output=True, timeout=280
    )
    return venv / "bin"


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without what would lead back to the checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, **extra}


def run(command: list[str | Path], cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def running(
    command: list[str | Path], cwd: Path, **extra: str
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, env=environment(**extra))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_until(condition: Callable[[], object], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition never came"
        time.sleep(0.1)


def fetched(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.read().decode()
    except OSError:
        return None


def test_the_environment_holds_no_torch(binaries, tmp_path):
    code = "import importlib.util as u; print([n for n in ('torch', 'sklearn') if u.find_spec(n)])"

    assert run([binaries / "python", "-c", code], tmp_path).stdout.strip() == "[]"


def test_every_command_helps(binaries, tmp_path):
    result = run([binaries / "otoscope", "--help"], tmp_path)

    assert result.returncode == 0
    for command in ("up", "demo", "runs", "diagnose", "report", "daemon", "dashboard"):
        assert command in result.stdout
        assert run([binaries / "otoscope", command, "--help"], tmp_path).returncode == 0


def test_a_missing_torch_is_named_with_the_command_that_installs_it(binaries, tmp_path):
    result = run([binaries / "python", "-c", "import otoscope.callbacks"], tmp_path)

    assert result.returncode == 1
    assert "torch" in result.stderr
    assert 'pip install "otoscope[lightning]"' in result.stderr.replace(
        "'otoscope", '"otoscope'
    ).replace("lightning]'", 'lightning]"')


def test_the_demo_without_torch_says_what_to_install(binaries, tmp_path):
    result = run(
        [binaries / "otoscope", "demo", "--once"], tmp_path, OTOSCOPE_HOME=str(tmp_path / "home")
    )

    assert result.returncode == 1
    assert "otoscope[lightning]" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_recording_is_judged_and_reported(binaries, tmp_path):
    recording = record(tmp_path / "rec", "broken-01", bad_from=150)

    judged = run([binaries / "otoscope", "diagnose", recording, "--json"], tmp_path)
    written = run([binaries / "otoscope", "report", recording, "-o", "run.html"], tmp_path)

    assert json.loads(judged.stdout)["findings"][0]["rule"] == "non_finite"
    assert written.returncode == 0, written.stderr
    assert "<svg" in (tmp_path / "run.html").read_text()


@pytest.mark.redis
def test_daemon_and_page_start_from_an_empty_folder(binaries, tmp_path, redis_url, free_port):
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir()
    place = {"OTOSCOPE_URL": redis_url, "OTOSCOPE_HOME": str(home)}
    page = f"http://127.0.0.1:{free_port}"
    serve = [binaries / "otoscope", "dashboard", "--port", str(free_port)]

    with (
        running([binaries / "otoscope", "daemon"], empty, **place),
        running(serve, empty, **place),
    ):
        wait_until(lambda: fetched(f"{page}/healthz"))
        check: list[str | Path] = [binaries / "otoscope", "daemon", "--check"]
        wait_until(lambda: run(check, empty, **place).returncode == 0)

        assert fetched(f"{page}/readyz") is not None
        assert "Otoscope" in (fetched(f"{page}/") or "")
    assert list(empty.iterdir()) == []
