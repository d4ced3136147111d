"""TensorBoard's event files: those that are cut off, damaged or written on, and steps that cannot be read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from otoscope.store import Store, UnreadableLogError
from otoscope.store.event_files import read_events
from otoscope.store.foreign import read_foreign

pytest.importorskip("tensorboard")
writers = pytest.importorskip("torch.utils.tensorboard.writer")


def write(folder: Path, steps: range, value: float = 1.0, **more: int) -> Path:
    """Return the event file of a loss at each step."""
    folder.mkdir(exist_ok=True)
    known = set(folder.iterdir())
    with writers.SummaryWriter(str(folder), filename_suffix=f".{len(known)}", **more) as writer:
        for step in steps:
            writer.add_scalar("loss", value, step)
    (file,) = set(folder.iterdir()) - known
    return file


def read(path: Path) -> tuple[list[int], list[float], str]:
    """Return steps and losses, and what is said."""
    log = read_foreign(path)
    train = Store(log.home).read(log.run, "train")
    return list(train.steps), [float(loss) for loss in train.column("loss")], "; ".join(log.damage)


def test_a_whole_file_is_read_without_a_word(tmp_path: Path) -> None:
    steps, _, told = read(write(tmp_path / "tb", range(200)))
    assert steps == list(range(1, 201))
    assert told == "read 'loss' as loss"


@pytest.mark.parametrize("lost", [1, 7, 17, 100])
def test_a_file_that_ends_within_a_record_is_read_to_there_as_one_still_written(
    tmp_path: Path, lost: int
) -> None:
    file = write(tmp_path / "tb", range(200))
    file.write_bytes(file.read_bytes()[:-lost])
    steps, _, told = read(tmp_path / "tb")
    assert (
        f"ends within a record, as where it is still being written: read up to step {steps[-1] - 1}"
        in told
    )
    assert "damaged" not in told


def test_a_byte_that_changed_anywhere_in_a_record_is_told(tmp_path: Path) -> None:
    """Were it taken in silence, a run would be judged by its beginning."""
    file = write(tmp_path / "tb", range(20))
    whole = file.read_bytes()
    of_a_record = (len(whole) - whole.rindex(b"loss")) + 24
    for place in range(len(whole) // 2, len(whole) // 2 + of_a_record):
        changed = bytearray(whole)
        changed[place] ^= 255
        file.write_bytes(changed)
        steps, _, told = read(file)
        assert 5 < len(steps) < 15
        assert f"is damaged behind step {steps[-1] - 1}, at byte " in told
        assert f"of {len(whole):,}: what follows was not read" in told


def test_a_damaged_file_among_several_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    first = write(tmp_path / "tb", range(20))
    write(tmp_path / "tb", range(20, 40))
    changed = bytearray(first.read_bytes())
    changed[-30] ^= 1
    first.write_bytes(changed)
    steps, _, told = read(tmp_path / "tb")
    assert steps == [*range(1, 20), *range(21, 41)]
    assert f"{first.name!r} is damaged behind step 18" in told


def test_steps_below_zero_are_left_out_and_counted(tmp_path: Path) -> None:
    steps, _, told = read(write(tmp_path / "tb", range(-5, 50)))
    assert steps == list(range(1, 51))
    assert "5 points whose step is negative or too large were left out" in told
    with pytest.raises(UnreadableLogError, match="its 5 points have steps that are negative"):
        read_foreign(write(tmp_path / "none", range(-5, 0)))


def test_of_a_folder_that_each_start_wrote_to_the_last_one_counts(tmp_path: Path) -> None:
    write(tmp_path / "tb", range(100), 9.0)
    write(tmp_path / "tb", range(40), 1.0)
    steps, losses, told = read(tmp_path / "tb")
    assert (steps, set(losses)) == (list(range(1, 41)), {1.0})
    assert "as where a run was started again" in told and "100 earlier values" in told


def scalars(folder: Path, steps: Iterable[int], tags: Callable[[int], dict[str, float]]) -> None:
    """Write one more event file that holds some tags at each step."""
    folder.mkdir(exist_ok=True)
    with writers.SummaryWriter(
        str(folder), filename_suffix=f".{len([*folder.iterdir()])}"
    ) as writer:
        for step in steps:
            for tag, value in tags(step).items():
                writer.add_scalar(tag, value, step)


@pytest.mark.parametrize("others", [{}, {"epoch": 0.0, "val/epoch": 0.0}])
def test_a_start_that_goes_on_from_an_earlier_step_ends_validations_too(
    tmp_path: Path, others: dict[str, float]
) -> None:
    def tags(value: float) -> Callable[[int], dict[str, float]]:
        def of(step: int) -> dict[str, float]:
            return {"loss": value, "lr": 0.1, **others} | (
                {"val/loss": value} if step % 100 == 0 else {}
            )

        return of

    scalars(tmp_path / "tb", range(350), tags(9.0))
    scalars(tmp_path / "tb", range(250, 290), tags(1.0))
    log = read_foreign(tmp_path / "tb")
    store = Store(log.home)
    assert list(store.read(log.run, "train").steps) == list(range(1, 291))
    assert list(store.read(log.run, "validation").steps) == [1, 101, 201]
    assert "begin again once" in "; ".join(log.damage)


def test_points_out_of_order_and_validations_that_look_back_end_no_tag(tmp_path: Path) -> None:
    draw = random.Random(0)
    mixed = sorted(range(1000), key=lambda step: step + draw.uniform(0, 2))
    scalars(tmp_path / "tb", mixed, lambda step: {"loss": 1.0})
    scalars(tmp_path / "tb", range(0, 1000, 50), lambda step: {"val/loss": 1.0})
    scalars(tmp_path / "tb", range(0, 500, 50), lambda step: {"val/loss": 2.0, "epoch": 0.0})
    log = read_foreign(tmp_path / "tb")
    store, told = Store(log.home), "; ".join(log.damage)
    assert list(store.read(log.run, "train").steps) == list(range(1, 1001))
    assert list(store.read(log.run, "validation").column("val_loss")) == [2.0] * 10 + [1.0] * 10
    assert "begin again" not in told and "sorted in" in told


def test_a_tag_that_counts_something_else_ends_where_it_begins_again_itself(tmp_path: Path) -> None:
    scalars(tmp_path / "tb", range(100), lambda step: {"loss": 9.0})
    scalars(tmp_path / "tb", range(0, 3200, 32), lambda samples: {"lr": 0.1})
    scalars(tmp_path / "tb", range(10), lambda epoch: {"val/loss": 9.0})
    scalars(tmp_path / "tb", range(60, 100), lambda step: {"loss": 1.0})
    scalars(tmp_path / "tb", range(6, 10), lambda epoch: {"val/loss": 1.0})
    for epoch in range(3):
        scalars(
            tmp_path / "tb", range(100 + 9 * epoch, 109 + 9 * epoch), lambda step: {"loss": 1.0}
        )
        scalars(tmp_path / "tb", [epoch], lambda epoch: {"dev/loss": 1.0})
    log = read_events(tmp_path / "tb")
    assert list(log.curves["dev/loss"]) == [0, 1, 2]
    assert list(log.curves["loss"].values()) == [9.0] * 60 + [1.0] * 67
    assert len(log.curves["lr"]) == 100
    assert list(log.curves["val/loss"].values()) == [9.0] * 6 + [1.0] * 4


def test_a_writer_that_says_from_where_it_goes_on_ends_what_was_written_from_there(
    tmp_path: Path,
) -> None:
    write(tmp_path / "tb", range(0, 100, 10), 9.0)
    write(tmp_path / "tb", range(45, 50, 5), 1.0, purge_step=45)
    steps, losses, _ = read(tmp_path / "tb")
    assert steps == [1, 11, 21, 31, 41, 46]
    assert losses == [9.0] * 5 + [1.0]


def test_a_file_that_cannot_be_opened_is_refused_in_our_words(tmp_path: Path) -> None:
    with pytest.raises(UnreadableLogError, match="cannot read"):
        read_foreign(tmp_path / "events.out.tfevents.1")
