"""The examples run, record without a server, and can be judged."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import otoscope
from tests.conftest import RedisProcess

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OWN_PROBE = ROOT / "examples" / "own_probe.py"
OWN_RULE = ROOT / "examples" / "rules" / "outlier_features.py"


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} >= {"plain_loop", "lightning_digits"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_recording_is_judged(example, tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")

    done = subprocess.run(
        [sys.executable, str(example), "--steps", "60"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    run = done.stdout.split()[-1]
    judged = otoscope("diagnose", f".otoscope/{run}", "--json", cwd=tmp_path)
    answer = json.loads(judged.stdout)
    assert answer["run"] == run
    assert "non_finite" in answer["judged"]
    assert [finding["title"] for finding in answer["findings"]] == []


def test_an_own_probe_is_in_redis_on_the_page_in_the_export_and_judged_by_an_own_rule(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    from otoscope.dashboard.delta import delta
    from otoscope.diagnostics import Daemon, active_rules
    from otoscope.store import StreamName, connect

    server = RedisProcess(tmp_path).start()
    try:
        environment = {"OTOSCOPE_URL": server.url, "OTOSCOPE_RULES": str(OWN_RULE)}
        done = subprocess.run(
            [sys.executable, str(OWN_PROBE), "--steps", "60", "--outlier", "--every", "5"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Needs action: outlier features in `2`")  # the verdict too
        run = done.stdout.split()[-1]
        store = connect(server.url)

        frames = list(store.home.frames(run, StreamName("outliers", 0, 1)))
        series = store.read(run, "outliers")
        assert len(frames) == len(series) == 12
        assert series.columns == ["outlier_ratio/0", "outlier_ratio/2", "outlier_ratio/4"]
        assert series.column("outlier_ratio/2").min() > 8 > series.column("outlier_ratio/0").max()

        os.environ.update(environment)  # the fixture own_environment takes it back
        Daemon(store.home, heartbeat=tmp_path / "beat", rules=active_rules()).tick()
        answer = delta(store, run)
        shown = answer["series"]["outliers"]
        assert shown["columns"] == series.columns and shown["steps"] == series.steps.tolist()
        (finding,) = answer["findings"]
        assert (finding["rule"], finding["layers"]) == ("outlier_features", ["2"])
        assert "outlier_features" in answer["judged"]

        out = otoscope("export", run, "out.csv", "--family", "outliers", cwd=tmp_path)
        assert out.returncode == 0, out.stderr
        header, first = (tmp_path / "out.csv").read_text().splitlines()[:2]
        assert header.split(",")[3:] == series.columns
        exported = [float(number) for number in first.split(",")[3:]]
        assert exported == pytest.approx(series.values[0].tolist(), rel=1e-6)
        store.close()
    finally:
        server.stop()


def test_the_page_on_own_probes_holds_the_code_of_the_examples():
    page = (ROOT / "docs" / "own_probe.md").read_text(encoding="utf-8")
    code = OWN_PROBE.read_text(encoding="utf-8")
    probe = code[code.index("class Outliers") : code.index("def digits")].rstrip()
    for text in (probe, OWN_RULE.read_text(encoding="utf-8").rstrip()):
        indented = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        assert indented in page
    assert sum(bool(line.strip()) for line in probe.splitlines()) <= 25
