"""Every command: its help, its JSON, its exit codes, its errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from otoscope.cli.diagnose import exit_code
from otoscope.cli.main import cli
from otoscope.store import connect
from otoscope.store.replaying import replay

from tests.cli.conftest import otoscope, record

COMMANDS = sorted(cli.commands)


def run(*arguments: str | Path):
    """Run the command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_the_commands_are_those_of_the_design():
    assert (
        sorted(
            [
                "up",
                "daemon",
                "dashboard",
                "demo",
                "runs",
                "show",
                "diagnose",
                "compare",
                "report",
                "export",
                "replay",
                "prune",
                "rules",
                "doctor",
            ]
        )
        == COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_in_an_example(command):
    result = run(command, "--help")

    assert result.exit_code == 0
    assert f"Example:\n    otoscope {command}" in result.stdout.replace(
        "OTOSCOPE_TOKEN=secret ", ""
    )


def test_help_and_version_need_no_store():
    assert "diagnose" in run("--help").stdout
    assert run("--version").stdout.startswith("otoscope, version 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["runs", "--nonsense"],
        ["show"],
        ["up", "--port", "99999"],
        ["up", "--port", "x"],
        ["demo", "--fault", "bad_luck"],
        ["diagnose", "x", "--fail-on", "never"],
        ["runs", "--url", "http://example.org"],
        ["runs", "--url", "redis://host:abc"],
    ],
)
def test_wrong_usage_is_2_and_says_so_on_stderr(arguments):
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs"], "otoscope up"),
        (["show", "x"], "otoscope up"),
        (["diagnose", "./no/such/folder"], "no folder"),
        (["report", "x"], "otoscope up"),
        (["dashboard"], "--url"),
        (["daemon"], "--url"),
    ],
)
def test_failure_is_1_and_one_line_names_the_remedy(arguments, said):
    result = otoscope(*arguments)

    assert result.returncode == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_password_never_shows_in_an_error(free_port):
    result = otoscope("runs", "--url", f"redis://me:sesame@127.0.0.1:{free_port}/0")

    assert result.returncode == 1
    assert "sesame" not in result.stdout + result.stderr
    assert f"127.0.0.1:{free_port}" in result.stderr


def test_a_folder_without_a_recording_is_named(tmp_path):
    result = run("diagnose", tmp_path)

    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr


def test_a_healthy_recording_is_diagnosed_as_healthy(healthy):
    result = run("diagnose", healthy, "--json", "--fail-on", "info")

    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert answer["run"] == "healthy-01"
    assert answer["state"] == "healthy"
    assert answer["findings"] == []
    assert "non_finite" in answer["judged"]
    assert "dead_units" in answer["not_judged"]


def test_a_broken_recording_is_diagnosed_with_its_finding(broken):
    result = run("diagnose", broken, "--json")

    finding = json.loads(result.stdout)["findings"][0]
    assert result.exit_code == 0
    assert (finding["rule"], finding["severity"]) == ("non_finite", "critical")
    assert finding["because"][0]["step"] == 150


@pytest.mark.parametrize("severity", ["info", "warning", "critical"])
def test_fail_on_exits_with_3_where_a_finding_stands(broken, severity):
    assert run("diagnose", broken, "--fail-on", severity).exit_code == 3


def test_fail_on_exits_with_4_where_nothing_could_be_judged(tmp_path):
    record(tmp_path / "short", "short-01", steps=4, columns=("loss",))

    result = run("diagnose", tmp_path / "short", "--fail-on", "warning", "--json")

    assert json.loads(result.stdout)["judged"] == []
    assert result.exit_code == 4
    assert run("diagnose", tmp_path / "short").exit_code == 0


@pytest.mark.parametrize(
    ("finding", "fail_on", "code"),
    [
        ({"state": "firing", "severity": "info"}, "warning", 0),
        ({"state": "firing", "severity": "warning"}, "warning", 3),
        ({"state": "firing", "severity": "critical"}, "warning", 3),
        ({"state": "resolved", "severity": "critical"}, "warning", 0),
        ({"state": "firing", "severity": "critical", "acknowledged": True}, "info", 0),
        ({"state": "firing", "severity": "critical"}, None, 0),
    ],
)
def test_the_exit_code_weighs_severity_and_state(finding, fail_on, code):
    assert exit_code({"judged": ["plateau"], "findings": [finding]}, fail_on) == code


def test_the_verdict_in_words_says_what_to_set(broken):
    said = run("diagnose", broken).stdout

    for part in ("broken-01", "critical", "Seen", "Set", "Verify", "Judged:", "Not judged:"):
        assert part in said


def test_names_are_printed_as_they_are_and_not_as_markup(tmp_path):
    directory = record(tmp_path / "rec", "marked-01", bad_from=150)
    events = (directory / "events.jsonl").read_text()
    (directory / "events.jsonl").write_text(events.replace("max_steps", "[red]x[/]"))
    meta = json.loads((directory / "meta.json").read_text())
    (directory / "meta.json").write_text(json.dumps({**meta, "name": "[bold]a[/bold]"}))

    assert run("diagnose", directory).exit_code == 0


def test_the_report_is_one_file_without_requests(broken, tmp_path):
    result = run("report", broken, "-o", tmp_path / "run.html")

    page = (tmp_path / "run.html").read_text()
    assert result.exit_code == 0
    assert str(tmp_path / "run.html") in result.stdout
    assert "<svg" in page and "<script" not in page
    assert "src=" not in page.replace('src="data:', "") and "@import" not in page


def test_the_report_into_a_missing_folder_is_a_usage_error(broken, tmp_path):
    result = run("report", broken, "-o", tmp_path / "none" / "run.html")

    assert result.exit_code == 2
    assert "--output" in result.stderr


def test_rules_lists_the_catalogue():
    rows = json.loads(run("rules", "--json").stdout)

    ids = {row["id"] for row in rows}
    assert {"non_finite", "lr_too_high", "dead_units", "exploding_gradients"} <= ids
    said = run("rules").stdout
    assert all(name in said for name in ids)


def test_one_rule_is_told_with_its_numbers_and_what_each_may_be():
    said = run("rules", "plateau").stdout
    assert "What" in said and "Why" in said
    assert "cool_down" in said and "a whole number from" in said

    wrong = run("rules", "platow")
    assert wrong.exit_code == 2
    assert "did you mean plateau?" in wrong.stderr


def test_a_damaged_recording_is_judged_as_far_as_it_is_sound_and_says_so(broken):
    spool = next(broken.glob("*.spool"))
    spool.write_bytes(spool.read_bytes()[:-7])

    result = run("diagnose", broken, "--json")

    assert result.exit_code == 0
    assert "damaged: " in result.stderr and spool.name in result.stderr
    assert json.loads(result.stdout)["findings"][0]["rule"] == "non_finite"


def test_show_sends_a_folder_to_diagnose(broken):
    result = run("show", broken)

    assert result.exit_code == 2
    assert f"otoscope diagnose {broken}" in result.stderr.replace("\n", " ")


@pytest.mark.redis
def test_runs_and_show_read_the_store(redis_url, broken):
    # Given a run in a server that no daemon has judged
    store = connect(redis_url)
    replay(broken, store.home)

    rows = json.loads(run("runs", "--url", redis_url, "--json").stdout)
    row = next(row for row in rows if row["id"] == "broken-01")
    shown = json.loads(run("show", "broken-01", "--url", redis_url, "--json").stdout)

    assert (row["name"], row["status"], row["loss_last"]) == ("toy", "finished", None)
    assert shown["state"] == "not_judged"
    assert "broken-01" in run("runs", "--url", redis_url).stdout


@pytest.mark.redis
def test_an_unknown_run_is_1_and_names_the_listing(redis_url):
    result = run("show", "no-such-run", "--url", redis_url)

    assert result.exit_code == 1
    assert "otoscope runs" in result.stderr


def test_no_progress_bar_reaches_a_pipe(broken):
    result = otoscope("diagnose", broken, "--json")

    assert json.loads(result.stdout)["run"] == "broken-01"
    assert result.stderr == ""


def test_a_reader_that_goes_away_is_no_error(broken):
    command = f"{sys.executable} -m otoscope.cli.main diagnose {broken} | head -n 1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )

    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["runs", "diagnose", "report"])
def test_the_command_imports_neither_torch_nor_dash(command, broken, tmp_path):
    program = (
        "import sys; from otoscope.cli.main import cli\n"
        f"try: cli({[command, *([str(broken)] if command != 'runs' else ['--help'])]!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'dash', 'flask', 'plotly', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert result.stdout.splitlines()[-1] == "[]"


def test_not_a_number_is_null_in_json(broken):
    answer = run("diagnose", broken, "--json").stdout

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    assert json.loads(answer, parse_constant=refuse)


@pytest.mark.parametrize("command", ["up", "daemon"])
def test_a_lifetime_of_runs_that_is_none_is_refused_before_anything_starts(command):
    result = CliRunner().invoke(cli, [command], env={"OTOSCOPE_TTL": "a while"})

    assert result.exit_code == 1
    assert "OTOSCOPE_TTL" in result.stderr and "write 90min, 12h, 30d or 4w" in result.stderr
