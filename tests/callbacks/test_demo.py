"""The demo's training: its faults, recommendations applied as they stand, and what it prints."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from otoscope.callbacks.applying import apply
from otoscope.callbacks.demo import main, prepared, train
from otoscope.callbacks.digits import (
    FAULTS,
    TRAINING,
    Batches,
    DigitsNet,
    Fault,
    Settings,
    load_digits,
)
from otoscope.store import ConfigError, connect
from torch import nn


def advice(parameter, proposed, **more):
    return {"parameter": parameter, "proposed": proposed, **more}


@pytest.mark.parametrize(
    ("parameter", "proposed"),
    [
        ("lr", 0.02),
        ("gradient_clip_val", 1.5),
        ("accumulate_grad_batches", 2),
        ("batch_size", 32),
        ("warmup_steps", 40),
        ("weight_decay", 0.01),
        ("dropout", 0.1),
    ],
)
def test_a_plain_value_is_set_as_it_was_proposed(parameter, proposed):
    assert getattr(apply(Settings(), advice(parameter, proposed)), parameter) == proposed


def test_what_goes_together_is_applied_together():
    told = advice("lr", 0.02, also=[advice("gradient_clip_val", 1.0), advice("betas", [0.9, 0.95])])
    settings = apply(Settings(), told)
    assert (settings.lr, settings.gradient_clip_val, settings.betas) == (0.02, 1.0, (0.9, 0.95))


def test_an_optimizer_brings_its_learning_rate():
    settings = apply(Settings(), advice("optimizer", {"name": "AdamW", "lr": 0.002}))
    assert (settings.optimizer, settings.lr) == ("AdamW", 0.002)


def test_layers_are_named_as_in_the_module_that_was_watched():
    told = advice("activation", {"net.act3": "LeakyReLU"})
    settings = apply(Settings(), told, prefix="net.")
    assert settings.activation == {"act3": "LeakyReLU"}
    assert isinstance(DigitsNet(Fault(), settings).act3, nn.LeakyReLU)


def test_an_initialization_reaches_the_weights_and_clears_the_bias():
    told = advice("weight_init", {"net.dense": {"kind": "kaiming_normal", "std": 0.5}})
    net = DigitsNet(FAULTS["dead_units"], apply(Settings(), told, prefix="net."))
    assert isinstance(net.dense, nn.Linear)
    assert net.dense.weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert not net.dense.bias.any()


def test_a_rollback_sets_the_place_and_what_comes_then():
    told = advice("rollback", {"step": 200, "path": "a.ckpt", "then": {"lr": 0.003}})
    settings = apply(Settings(), told)
    assert settings.rollback == {"step": 200, "path": "a.ckpt"}
    assert settings.lr == 0.003


def test_a_parameter_that_the_training_does_not_have_is_refused_not_ignored():
    with pytest.raises(
        ConfigError, match=r"no setting 'num_workers' to set to 4.*gradient_clip_val"
    ):
        apply(Settings(), advice("num_workers", 4))
    with pytest.raises(ConfigError, match="needs parameter and proposed"):
        apply(Settings(), {"lr": 0.1})


def test_any_dataclass_of_settings_can_be_advised():
    @dataclass
    class Mine:
        lr: float = 1.0

    assert apply(Mine(), advice("lr", 0.5)).lr == 0.5


def test_impossible_values_are_refused_by_name():
    with pytest.raises(ConfigError, match="activation must be one of"):
        DigitsNet(Fault(), Settings(activation={"act1": "Swishy"}))
    with pytest.raises(ConfigError, match="weight_init needs a std or a kind"):
        DigitsNet(Fault(), Settings(weight_init={"dense": {"kind": "magic"}}))
    with pytest.raises(ConfigError, match="optimizer must be SGD, Adam or AdamW"):
        train(Settings(optimizer="Lion"), Fault(), 0, steps=1)


def test_batches_depend_on_the_seed_alone_and_cover_the_set_once_an_epoch():
    digits = load_digits()
    one, two, other = (Batches(digits, 64, seed, Fault()) for seed in (1, 1, 2))
    epoch = list(one)
    assert len(epoch) == len(one) == TRAINING // 64
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch, two, strict=True))
    assert not torch.equal(epoch[0][0], next(iter(other))[0])


def test_a_glitch_scales_single_batches_from_its_first_on():
    fault = Fault(glitch_every=5, glitch_from=12, glitch_scale=100.0)
    peaks = [images.max().item() for images, _ in Batches(load_digits(), 64, 0, fault)]
    assert [i + 1 for i, peak in enumerate(peaks) if peak > 1] == [12, 17]


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_run():
    settings = Settings()
    one, two = (train(settings, Fault(), 0, steps=40) for _ in range(2))
    assert one["val_loss"] == two["val_loss"]
    assert train(settings, Fault(), 1, steps=40)["val_loss"] != one["val_loss"]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_hurts_the_held_out_loss_and_its_twin_learns(name):
    fault = FAULTS[name]
    healthy = train(fault.healthy, fault.twin, 0, steps=400)
    faulty = train(fault.settings, fault, 0, steps=400)
    assert healthy["val_loss"] < 0.2
    assert not faulty["val_loss"] < 1.0


def test_half_of_the_rate_that_is_too_high_does_not_mend_it():
    fault = FAULTS["lr_too_high"]
    half = replace(fault.settings, lr=fault.settings.lr / 2)
    assert not train(half, fault, 0, steps=400)["val_loss"] < 1.0


def test_a_rollback_begins_with_the_weights_of_its_checkpoint(tmp_path):
    trained = DigitsNet(Fault())
    state = {f"net.{key}": value for key, value in trained.state_dict().items()}
    path = tmp_path / "200.ckpt"
    torch.save({"state_dict": state}, path)
    images = load_digits()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(
            trained(images.held_out_images), images.held_out_labels
        ).item()

    told = advice("rollback", {"step": 9, "path": str(path), "then": {"lr": 0.0}})
    result = train(apply(Settings(), told), Fault(), 0, steps=10)

    assert result["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert result["steps"] == 1  # what is left of the ten


def test_the_advised_training_keeps_the_fault_and_takes_the_advice():
    settings, fault = prepared("advised", "exploding_gradients", advice("gradient_clip_val", 2.0))
    assert fault.glitch_every > 0
    assert settings.gradient_clip_val == 2.0
    with pytest.raises(ConfigError, match="needs --advice"):
        prepared("advised", "exploding_gradients", None)


def test_it_prints_lines_a_program_can_follow_and_records_the_run(tmp_path):
    path = tmp_path / "advice.json"
    path.write_text(json.dumps(advice("lr", 0.05)))
    command = [sys.executable, "-m", "otoscope.callbacks.demo", "--role", "advised", "--seed", "1"]
    command += ["--fault", "lr_too_high", "--steps", "30", "--advice", f"@{path}"]
    command += ["--result", "result.json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTOSCOPE_")}
    environment |= {"OTOSCOPE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in lines[:-1]] == [10, 20, 30]
    assert all(math.isfinite(line["loss"]) for line in lines[:-1])
    result = lines[-1]
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["done"] is True
    assert result["settings"]["lr"] == 0.05
    assert result["applied"] == advice("lr", 0.05)
    assert {line["run"] for line in lines} == {result["run"]}
    recorded = connect(str(tmp_path / ".otoscope" / result["run"]))
    assert recorded.run(result["run"]).step == 30


def test_a_command_line_that_cannot_be_used_is_an_error_of_its_own(capsys):
    assert main(["--role", "advised", "--advice", "{"]) == 2
    assert "no recommendation as JSON" in capsys.readouterr().err
