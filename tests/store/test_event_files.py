"""TensorBoard's event files: those that are cut off, damaged or written on, and steps that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from otoscope.store import Store, UnreadableLogError
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
