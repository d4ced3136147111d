"""What a word on the command line names: a run of the store, a recording, or a folder of them."""

import pytest
from click.testing import CliRunner
from otoscope.cli.main import cli


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_folder_that_can_be_no_name_is_looked_into(name, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = CliRunner().invoke(cli, ["diagnose", name])
    assert found.exit_code == 1
    assert "nor the folder of a recorded run" in found.stderr


def test_of_a_folder_that_holds_recordings_each_is_named(broken, healthy):
    several = CliRunner().invoke(cli, ["diagnose", str(healthy.parent)])
    assert several.exit_code == 1
    assert "holds 2 of them" in several.stderr and str(healthy) in several.stderr


def test_a_run_is_found_though_a_folder_has_its_name(redis_url, broken, tmp_path, monkeypatch):
    assert CliRunner().invoke(cli, ["replay", str(broken), "--url", redis_url]).exit_code == 0
    (tmp_path / "work" / "toy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for command in (["diagnose"], ["show"], ["compare", "toy"], ["rules", "--run"]):
        found = CliRunner().invoke(cli, [*command, "toy", "--url", redis_url, "--json"])
        assert (found.exit_code, found.stderr) == (0, "")
        assert "broken-01" in found.stdout
