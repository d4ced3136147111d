"""A training of the demo as a subprocess: followed, failed, ended."""

import pytest
from otoscope.cli import training as module
from otoscope.cli.training import Training, TrainingFailedError
from otoscope.store.places import process_lives

from tests.cli.conftest import wait_until


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Return a function that starts a training whose module is a script of the test's own."""

    def start(text: str) -> Training:
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        (tmp_path / "scripted_training.py").write_text(text)
        monkeypatch.setattr(module, "MODULE", "scripted_training")
        return Training("faulty", [], log=tmp_path / "training.log", environment={})

    return start


def ended(training: Training) -> bool:
    return not training.follow()


def test_its_lines_say_how_far_it_is_and_how_it_ended(scripted):
    training = scripted(
        'print(\'{"run": "r-1", "step": 10, "steps": 600, "loss": 2.1}\', flush=True)\n'
        "print('a library says hello'); print('[1, 2]')\n"
        'print(\'{"done": true, "run": "r-1", "val_loss": null, "classes": 10}\')\n'
    )

    wait_until(lambda: ended(training))

    assert (training.run, training.step, training.steps) == ("r-1", 10, 600)
    assert training.result == {"done": True, "run": "r-1", "val_loss": None, "classes": 10}
    training.end()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit('the disk is full')", r"(?s)status 1.*the disk is full"),
        ("print('{}')", "status 0"),
    ],
)
def test_one_that_fails_is_named_with_its_last_words(scripted, text, said):
    training = scripted(text)

    with pytest.raises(TrainingFailedError, match=said):
        wait_until(lambda: ended(training))
    training.end()


def test_one_that_still_trains_is_ended(scripted):
    training = scripted("import time\nprint('{\"step\": 1}', flush=True)\ntime.sleep(600)")
    wait_until(lambda: training.follow() and training.step == 1)

    training.end()

    assert not process_lives(training.process.pid)
