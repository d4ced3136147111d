"""Which checkpoints there are to go back to: files are deleted and written over while a run trains."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from otoscope.callbacks import Otoscope
from otoscope.callbacks.checkpoints import LOOKED_AT, Checkpoints, Files
from otoscope.diagnostics.facts import Facts
from otoscope.store import Store

from .fits import PACKAGES, fit, package, recorded


def kept_at(store: Store, run: str) -> list[list[str]]:
    """Return the files that are left to go back to, by name, behind each event of a checkpoint."""
    facts, kept = Facts(), []
    for event in store.events(run):
        if event.kind == "checkpoint":
            facts.checkpointed(event)
            kept.append([f"{Path(str(e['path'])).stem} {e['step']}" for e in facts.checkpoints])
    return kept


def saving(where: Path, **options: Any) -> Any:
    kind = package(PACKAGES[0]).callbacks.ModelCheckpoint
    return kind(where / "saved", every_n_train_steps=4, filename="{step}", **options)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [["step=4 4"], ["step=8 8"], ["step=12 12"]]),
        (
            {"save_top_k": -1},
            [["step=4 4"], ["step=4 4", "step=8 8"], ["step=4 4", "step=8 8", "step=12 12"]],
        ),
        ({"save_top_k": 0, "save_last": True}, [["last 4"], ["last 8"], ["last 12"]]),
    ],
    ids=["the last one", "all", "one that is written over"],
)
def test_what_was_deleted_or_written_over_is_nothing_to_go_back_to(
    options: dict[str, Any], kept: list[list[str]], tmp_path: Path
) -> None:
    watching = Otoscope(spool=tmp_path, strict=True, verdict=False)
    callbacks = [watching, saving(tmp_path, **options)]
    fit(PACKAGES[0], tmp_path, callbacks, validate=False, enable_checkpointing=True)
    run = str(watching.run_id)
    assert kept_at(recorded(tmp_path, run), run) == kept


def test_a_file_that_is_written_over_beside_others_is_told_with_each_of_them(
    tmp_path: Path,
) -> None:
    watching = Otoscope(spool=tmp_path, strict=True, verdict=False)
    callbacks = [watching, saving(tmp_path, save_top_k=-1, save_last=True)]
    fit(PACKAGES[0], tmp_path, callbacks, validate=False, enable_checkpointing=True)
    run = str(watching.run_id)
    kept = kept_at(recorded(tmp_path, run), run)[-1]
    # the last one is a file that stays: it is the one that is gone back to
    assert kept == ["step=4 4", "step=8 8", "last 12", "step=12 12"]


def test_what_an_earlier_attempt_saved_and_this_one_deletes_is_gone(tmp_path: Path) -> None:
    first, second = (Otoscope(spool=tmp_path, strict=True, verdict=False) for _ in range(2))
    options: dict[str, Any] = {"validate": False, "enable_checkpointing": True}
    fit(PACKAGES[0], tmp_path, [first, saving(tmp_path)], max_steps=9, **options)
    (path,) = (tmp_path / "saved").glob("*.ckpt")
    # from a copy: the file that a fit goes on from is never deleted by it
    copy = shutil.copy(path, tmp_path / "copy.ckpt")
    fit(PACKAGES[0], tmp_path, [second, saving(tmp_path)], ckpt_path=str(copy), **options)
    assert not path.exists()
    assert second.run_id == first.run_id
    run = str(first.run_id)
    assert kept_at(recorded(tmp_path, run), run)[-1] == ["step=12 12"]


def test_a_file_that_is_told_before_it_is_written_is_not_gone(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / "a.pt"
    files.add(str(path))
    files.add("s3://bucket/b.pt")
    assert files.gone() == []
    path.write_text("weights")
    assert files.gone() == []
    path.unlink()
    assert files.gone() == [str(path)]
    assert files.gone() == [], "once each"


def test_a_path_is_looked_at_where_it_lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pt").write_text("weights")
    files = Files()
    files.add("a.pt")
    monkeypatch.chdir("/")
    assert files.gone() == []
    (tmp_path / "a.pt").unlink()
    assert files.gone() == ["a.pt"]


def test_a_disk_that_does_not_answer_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    path.write_text("weights")
    files = Files()
    files.add(str(path))

    def stale(self: Path, **options: Any) -> Any:
        raise OSError(116, "stale file handle")

    monkeypatch.setattr(Path, "stat", stale)
    assert files.gone() == []


def test_of_many_files_the_newest_are_looked_at(tmp_path: Path) -> None:
    files = Files()
    for number in range(LOOKED_AT + 20):
        (tmp_path / str(number)).write_text("")
        files.add(str(tmp_path / str(number)))
    for path in tmp_path.iterdir():
        path.unlink()
    assert len(files.gone()) == LOOKED_AT


def test_a_place_that_cannot_be_looked_at_is_told_by_its_name() -> None:
    told: list[str] = []
    recorder: Any = SimpleNamespace(
        files=Files(), checkpoint=lambda path, finite: told.append(path)
    )
    callback = SimpleNamespace(last_model_path="", best_model_path="", _last_checkpoint_saved="")
    trainer = SimpleNamespace(checkpoint_callbacks=[callback])
    checkpoints, finite = Checkpoints(), True
    checkpoints.begin(trainer, recorder)
    for path in ("s3://bucket/4.ckpt", "s3://bucket/8.ckpt", "s3://bucket/8.ckpt"):
        callback._last_checkpoint_saved = path
        checkpoints.saved = finite
        checkpoints.tell(trainer, recorder)
    assert told == ["s3://bucket/4.ckpt", "s3://bucket/8.ckpt", "s3://bucket/8.ckpt"]
