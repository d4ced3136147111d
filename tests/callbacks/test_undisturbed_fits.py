"""A run ends in the same bits with Otoscope and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, Gradients, Otoscope, System
from otoscope.callbacks.probes.curvature import Curvature

from tests.callbacks.fits import PACKAGES, Failing, fit, module, package, random_states, recorded


def ended(name: str, where: Path, callbacks: list[Any], **options: Any) -> tuple[Any, Any]:
    trainer, net = fit(name, where, callbacks, **options)
    return (
        {key: value.clone() for key, value in net.state_dict().items()},
        (random_states(), {k: float(v) for k, v in trainer.callback_metrics.items()}),
    )


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 4, "gradient_clip_val": 0.1},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ],
    ids=["plain", "accumulated-and-clipped-by-norm", "clipped-by-value"],
)
def test_weights_buffers_metrics_and_random_states_are_bit_identical(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    package(name)
    callback = Otoscope(spool=tmp_path, strict=True, budget=1.0, verdict=False)

    bare = ended(name, tmp_path, [], **options)
    watched = ended(name, tmp_path, [callback], **options)

    assert bare[0].keys() == watched[0].keys()
    for key, value in bare[0].items():
        assert torch.equal(value, watched[0][key]), key
    assert bare[1] == watched[1]
    assert callback.run_id is not None
    assert len(recorded(tmp_path, callback.run_id).read(callback.run_id, "gradients")) > 0


def test_a_sampled_curvature_leaves_no_trace(tmp_path: Path) -> None:
    probes = [Curvature(every=3), Gradients(every=1), Activations(every=1)]
    callback = Otoscope(spool=tmp_path, strict=True, probes=probes, verdict=False)

    bare = ended(PACKAGES[0], tmp_path, [], max_epochs=5)
    watched = ended(PACKAGES[0], tmp_path, [callback], max_epochs=5)

    for key, value in bare[0].items():
        assert torch.equal(value, watched[0][key]), key
    assert bare[1] == watched[1]
    assert callback.run_id is not None
    series = recorded(tmp_path, callback.run_id).read(callback.run_id, "curvature")
    assert list(series.steps) == [20, 23, 26, 29]
    assert (series.column("lambda_1") > 0).all()


@pytest.mark.parametrize("where", ["attach", "arm", "sample", "hungry", "disarm", "detach"])
def test_a_probe_that_raises_in_any_hook_never_reaches_the_run(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = Otoscope(spool=tmp_path, probes=[Failing(where), System(every=1)], verdict=False)

    bare = ended(PACKAGES[0], tmp_path, [])
    watched = ended(PACKAGES[0], tmp_path, [callback])

    for key, value in bare[0].items():
        assert torch.equal(value, watched[0][key]), key
    assert bare[1] == watched[1]
    assert f"planted in {where}" in caplog.text
    assert callback.run_id is not None
    store = recorded(tmp_path, callback.run_id)
    assert len(store.read(callback.run_id, "train")) == 12
    assert len(store.read(callback.run_id, "system")) == 12
    off = [e for e in store.events(callback.run_id) if e.kind == "probe_off"]
    if where != "detach":
        assert [event.body["probe"] for event in off] == ["failing"]
        assert f"planted in {where}" in off[0].body["why"]


def test_strict_raises_our_own_errors(tmp_path: Path) -> None:
    callback = Otoscope(spool=tmp_path, probes=[Failing("sample")], strict=True, verdict=False)
    with pytest.raises(RuntimeError, match="planted in sample"):
        fit(PACKAGES[0], tmp_path, [callback])


def test_no_hook_is_left_on_model_or_optimizer(tmp_path: Path) -> None:
    net = module(PACKAGES[0])
    trainer, _ = fit(PACKAGES[0], tmp_path, [Otoscope(spool=tmp_path, verdict=False)], net=net)
    assert all(not m._forward_hooks for m in net.modules())
    assert all(not p._post_accumulate_grad_hooks for p in net.parameters())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
