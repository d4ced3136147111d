"""The examples run, record without a server, and can be judged."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import otoscope

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


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
