"""Inputs and Initialization: what a run's first steps tell, against computations of their own."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Initialization, Inputs, Otoscope, attach, measures
from otoscope.callbacks.measures.batches import batch_parts, input_statistics, label_order
from otoscope.store import Series
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.callbacks.fits import PACKAGES, fit, recorded

NAME = PACKAGES[0]


def last(series: Series, column: str, row: int = -1) -> float:
    assert column in series.columns, series.columns
    return float(series.column(column)[row])


def train(
    where: Path,
    model: nn.Module,
    batches: list[Any],
    loss_of: Any,
    *,
    watch: bool = True,
    probes: Any = None,
    optimizer: Any = None,
    hand_over: bool = True,
) -> tuple[Any, str]:
    """Train a plain loop over some batches; returns the store and the run's id."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1)
    probes = [Initialization(), Inputs(every=1)] if probes is None else probes
    recorder: Any = None
    if watch:
        settings: Any = {"spool": where, "strict": True, "verdict": False, "budget": 1.0}
        recorder = attach(model, optimizer, probes=probes, **settings)
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        if watch:
            recorder.step(loss, 32, batch=batch if hand_over else None)
    if not watch:
        return None, ""
    recorder.finish()
    return recorded(where, recorder.run_id), recorder.run_id


def net() -> nn.Sequential:
    torch.manual_seed(2)
    layers: list[nn.Module] = []
    for width in (24, 40, 40):
        layers += [nn.LazyLinear(width), nn.ReLU(inplace=True), nn.Dropout(0.1)]
    model = nn.Sequential(*layers, nn.Linear(40, 5))
    model(torch.zeros(2, 24))
    return model


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def batches(count: int = 3, seed: int = 4) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            3 + 2 * torch.randn(32, 24, generator=generator),
            torch.randint(0, 5, (32,), generator=generator),
        ]
        for _ in range(count)
    ]


def test_the_first_step_of_a_run_tells_how_signal_and_gradient_pass_its_layers(
    tmp_path: Path,
) -> None:
    model, data = net(), batches()
    begun = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    store, run = train(tmp_path, model, data, cross_entropy)
    found = store.read(run, "initialization")

    # the same first step again, by hand and in float64-free plain torch
    again = net()
    again.load_state_dict(begun)
    torch.set_rng_state(state)
    kept: dict[int, torch.Tensor] = {}
    x = data[0][0]
    for place, layer in enumerate(again):
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
        x = layer(x)
        if isinstance(layer, nn.Linear):
            x.retain_grad()
            kept[place] = x
    functional.cross_entropy(x, data[0][1]).backward()

    squares = {place: float(y.detach().square().mean()) for place, y in kept.items()}
    returned = {
        place: float(y.grad.square().mean()) for place, y in kept.items() if y.grad is not None
    }
    assert found.steps.tolist() == [1]
    entered = float(data[0][0].square().mean())
    assert last(found, "forward_gain/0") == pytest.approx(squares[0] / entered, rel=1e-5)
    assert math.isnan(last(found, "backward_gain/0"))
    for before, place in ((0, 3), (3, 6), (6, 9)):
        forward = squares[place] / squares[before]
        backward = returned[before] / returned[place]
        assert last(found, f"forward_gain/{place}") == pytest.approx(forward, rel=1e-5)
        assert last(found, f"backward_gain/{place}") == pytest.approx(backward, rel=1e-5)
    weight = begun["3.weight"]
    assert last(found, "weight_std/3") == pytest.approx(float(weight.std(correction=0)), rel=1e-5)
    assert last(found, "he_std/3") == pytest.approx(math.sqrt(2 / 24), rel=1e-6)
    assert last(found, "xavier_std/3") == pytest.approx(math.sqrt(2 / 64), rel=1e-6)
    assert last(found, "identical_rows/3") == 0
    assert last(found, "expected_loss") == pytest.approx(math.log(5), rel=1e-6)
    first = last(store.read(run, "train", ["loss"]), "loss", 0)
    assert last(found, "initial_loss") == pytest.approx(first, rel=1e-6)
    assert last(found, "loss_ratio") == pytest.approx(first / math.log(5), rel=1e-5)


def test_it_is_what_the_report_of_the_measures_says_where_nothing_is_random(tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 4))
    rows = next(model.parameters())
    rows.data[:] = rows.data[0].clone()
    x, y = torch.randn(32, 1, 8, 8), torch.randint(0, 4, (32,))
    report = measures.initialization_report(model, [x, y], loss_fn=cross_entropy)
    store, run = train(tmp_path, model, [[x, y]] * 2, cross_entropy)
    found = store.read(run, "initialization")
    assert [row.layer for row in report] == ["0", "3"]
    for row in report:
        for column, value in {
            "forward_gain": row.forward_gain,
            "backward_gain": row.backward_gain,
            "weight_std": row.std,
            "xavier_std": row.xavier_std,
            "he_std": row.he_std,
            "identical_rows": row.identical_rows,
            "rms": row.rms,
        }.items():
            assert last(found, f"{column}/{row.layer}") == pytest.approx(
                value, rel=1e-5, nan_ok=True
            )
    assert last(found, "identical_rows/0") == 1.0


@pytest.mark.parametrize("watched", ["weights", "random"])
def test_both_leave_weights_and_random_states_as_they_would_be(
    watched: str, tmp_path: Path
) -> None:
    ends = []
    for watch in (False, True):
        torch.manual_seed(1)
        model = net()
        train(tmp_path / str(watch), model, batches(), cross_entropy, watch=watch)
        weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        ends.append(weights if watched == "weights" else torch.get_rng_state())
        assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(*ends)


def test_a_regression_is_held_against_the_variance_of_its_targets(tmp_path: Path) -> None:
    torch.manual_seed(3)
    x = torch.randn(32, 6)
    model = nn.Linear(6, 2)
    for y, expected in (
        (4 * torch.randn(32, 2), None),
        (torch.randint(0, 2, (32, 2)).float(), math.log(2)),
    ):
        where = tmp_path / str(expected)
        store, run = train(where, model, [[x, y]], lambda m, b: (m(b[0]) - b[1]).square().mean())
        want = expected or float(y.var(correction=0))
        found = store.read(run, "initialization")
        assert last(found, "expected_loss") == pytest.approx(want, rel=1e-5)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.embed(input_ids))
        return {"loss": functional.cross_entropy(logits.flatten(0, 1), labels.flatten()),
                "logits": logits}  # fmt: skip


def test_tokens_have_no_scale_and_their_loss_is_that_of_the_whole_vocabulary(
    tmp_path: Path,
) -> None:
    torch.manual_seed(3)
    ids = torch.randint(0, 11, (32, 7))
    batch = {"attention_mask": torch.ones(32, 7), "labels": ids, "input_ids": ids.clone()}
    loss_of = lambda m, b: m(b["input_ids"], b["labels"])["loss"]  # noqa: E731
    store, run = train(tmp_path, Tokens(), [batch, batch], loss_of)
    found, inputs = store.read(run, "initialization"), store.read(run, "inputs")
    assert last(found, "expected_loss") == pytest.approx(math.log(11), rel=1e-6)
    assert math.isnan(last(found, "he_std/embed")) and last(found, "weight_std/embed") > 0
    assert last(inputs, "is_integer") == 1 and math.isnan(last(inputs, "std"))
    assert math.isnan(last(inputs, "label_entropy"))


def test_a_resumed_run_has_no_initialization_and_says_so(tmp_path: Path) -> None:
    callback = Otoscope(probes=[Initialization()], spool=tmp_path, strict=True, verdict=False)
    trainer, _ = fit(NAME, tmp_path, [callback], max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Otoscope(probes=[Initialization()], spool=tmp_path, strict=True, verdict=False)
    fit(NAME, tmp_path, [again], max_epochs=2, ckpt_path=str(tmp_path / "a.ckpt"))
    assert again.run_id == callback.run_id
    store = recorded(tmp_path, str(callback.run_id))
    assert store.read(str(callback.run_id), "initialization").steps.tolist() == [1]
    off = [event for event in store.events(str(callback.run_id)) if event.kind == "probe_off"]
    assert [(event.attempt, event.body["probe"]) for event in off] == [(2, "initialization")]
    assert "checkpoint" in str(off[0].body["why"])


def test_a_loaded_optimizer_tells_of_a_checkpoint_that_knows_nothing_of_us(tmp_path: Path) -> None:
    model, data = net(), batches()
    optimizer = torch.optim.Adam(model.parameters())
    train(tmp_path, model, data, cross_entropy, watch=False, optimizer=optimizer)
    store, run = train(tmp_path, model, data, cross_entropy, optimizer=optimizer)
    assert len(store.read(run, "initialization")) == 0


def test_inputs_are_those_of_the_batch(tmp_path: Path) -> None:
    data = batches()
    data[1][0][0, 0] = math.inf
    data[1][0][:, 5] = 2 * data[1][0][:, 6] + 1
    store, run = train(tmp_path, net(), data, cross_entropy, probes=[Inputs(every=1)])
    found = store.read(run, "inputs")
    assert found.steps.tolist() == [1, 2, 3]
    x = data[0][0]
    assert last(found, "mean", 0) == pytest.approx(float(x.mean()), rel=1e-5)
    assert last(found, "std", 0) == pytest.approx(float(x.std(correction=0)), rel=1e-5)
    assert last(found, "min", 0) == pytest.approx(float(x.min()))
    assert last(found, "max", 0) == pytest.approx(float(x.max()))
    pairs = torch.corrcoef(x.T).abs().fill_diagonal_(0)
    assert last(found, "correlation", 0) == pytest.approx(float(pairs.max()), rel=1e-4)
    finite = data[1][0][data[1][0].isfinite()]
    assert last(found, "non_finite", 1) == pytest.approx(1 / (32 * 24), rel=1e-4)
    assert last(found, "max", 1) == pytest.approx(float(finite.max()))
    assert last(found, "correlation", 1) == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(torch.cat([y for _, y in data]))
    assert last(found, "top_class_share") == pytest.approx(float(counts.max() / counts.sum()))
    assert last(found, "label_classes") == 5
    assert last(found, "feature_mean_3", 0) == pytest.approx(float(x[:, 3].mean()), rel=1e-4)
    assert last(found, "feature_std_23", 0) == pytest.approx(float(x[:, 23].std(correction=0)))
    assert math.isnan(last(found, "feature_std_24", 0))
    assert math.isinf(last(found, "feature_mean_0", 1))


def test_sorted_labels_show_as_low_entropy_and_shuffled_ones_do_not() -> None:
    labels = torch.arange(1000) // 100
    shuffled = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    for order, low, high in ((labels, 0.0, 0.4), (shuffled, 0.85, 1.15)):
        running, seen = torch.zeros(4096), []
        for batch in order.split(32):
            counts = measures.label_counts(batch)
            running = running + counts
            seen.append(float(label_order(counts, running)[0]))
        assert low <= torch.tensor(seen[len(seen) // 2 :]).median() <= high


def test_a_sample_that_wants_the_batch_leaves_none_behind(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    settings: Any = {"spool": tmp_path, "strict": True, "verdict": False}
    with attach(model, optimizer, probes=[Inputs(every=2)], **settings) as recorder:
        for batch in batches():
            loss = cross_entropy(model, batch)
            loss.backward()
            optimizer.step()
            recorder.step(loss, 32, batch=batch)
            assert not recorder._sampling.batches


def test_without_a_batch_the_probe_says_how_to_hand_it_over(tmp_path: Path) -> None:
    store, run = train(
        tmp_path, net(), batches(), cross_entropy, probes=[Inputs()], hand_over=False
    )
    off = [event.body for event in store.events(run) if event.kind == "probe_off"]
    assert off[0]["probe"] == "inputs" and "batch=batch" in str(off[0]["why"])


def test_the_parts_of_a_batch_are_found_by_name_or_by_place() -> None:
    x, y, ids = torch.zeros(8, 3), torch.arange(8), torch.zeros(8, 5, dtype=torch.long)
    for batch, inputs, labels in (
        ((x, y), x, y),
        ((y, x), x, y),
        ({"label": y, "weight": torch.ones(8), "pixel_values": x}, x, y),
        ({"ids": ids, "sizes": y}, ids, None),
        ([ids, y], ids, y),
        (((x, torch.ones(8)), y), x, None),
        (x, x, None),
        ((y,), y, None),
    ):
        parts = batch_parts(batch)
        assert parts is not None and parts.inputs is inputs
        assert (parts.labels is None) == (labels is None)
        assert parts.labels is None or torch.equal(parts.labels, y)
    assert batch_parts({"text": ["a", "b"], "mask": torch.ones(2, dtype=torch.bool)}) is None


@pytest.mark.parametrize("x", [torch.zeros(8, 3), torch.full((8, 3), math.nan), torch.ones(1, 1)])
def test_an_input_without_any_spread_has_no_correlation(x: torch.Tensor) -> None:
    assert math.isnan(float(input_statistics(x)[5]))


@pytest.mark.parametrize("how", ["inside", "untold", "in place"])
def test_a_compiled_model_keeps_its_graphs_and_tells_what_can_be_told(
    how: str, tmp_path: Path
) -> None:
    torch._dynamo.reset()
    counts = []
    for watch in (False, True):
        torch._dynamo.reset()
        counter, model = CompileCounter(), net()
        run: Any = model
        if how == "in place":
            model.compile(backend=counter)
        else:
            run = torch.compile(model, backend=counter)
            model = nn.Sequential(run) if how == "inside" else model
        probes = [Initialization(), Inputs(every=1)]
        store, name = train(
            tmp_path,
            model,
            batches(),
            lambda m, batch, run=run: functional.cross_entropy(run(batch[0]), batch[1]),
            watch=watch,
            probes=probes,
        )
        counts.append((counter.frame_count, counter.op_count))
    torch._dynamo.reset()
    counters.clear()  # by which we tell whether something is compiled
    assert counts[0] == counts[1]
    found = store.read(name, "initialization")
    path = next(c for c in found.columns if c.startswith("weight_std/"))
    assert last(found, path) > 0 and last(found, "initial_loss") > 0
    assert len(store.read(name, "inputs")) == 3


def test_checkpointed_layers_and_micro_batches_count_with_their_first_pass(tmp_path: Path) -> None:
    torch.manual_seed(9)
    layers = [nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 5)]
    plain, model = nn.Sequential(*copy.deepcopy(layers)), nn.Sequential(*layers)

    def twice(m: nn.Module, batch: Any) -> Tensor:
        first = checkpoint(m, batch[0][:16], use_reentrant=False)
        second = m(2 * batch[0][16:])
        assert isinstance(first, Tensor)
        return functional.cross_entropy(torch.cat([first, second]), batch[1])

    data = batches(1)
    store, run = train(tmp_path, model, data, twice)
    found = store.read(run, "initialization")
    hidden = plain[0](data[0][0][:16])
    output = plain[1:](hidden)
    want = float((output.square().mean() / hidden.square().mean()).detach())
    assert last(found, "forward_gain/2") == pytest.approx(want, rel=1e-5)
    assert last(found, "backward_gain/2") > 0
