"""Checkpoints of a run that is interrupted, in one process."""

from __future__ import annotations

import errno
import io
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from rtdetrv2_train.errors import Stopped, UserError
from rtdetrv2_train.runs.checkpoints import damage_of
from rtdetrv2_train.training import atomic_checkpoint_io
from rtdetrv2_train.training.atomic_checkpoint_io import AtomicCheckpointIO
from rtdetrv2_train.training.callbacks.checkpointing import Checkpointing


class Line(LightningModule):
    """Fits a line; gets a signal in one of its steps."""

    def __init__(self, signal_at: int = -1, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.layer.weight, 0.5)
        torch.nn.init.zeros_(self.layer.bias)
        self.signal_at = signal_at
        self.number = number

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == self.signal_at:
            self.signal_at = -1
            os.kill(os.getpid(), self.number)
        return (self.layer(batch[0]) - 2 * batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(
    module: Line,
    folder: Path,
    resume: Path | None = None,
    accumulate: int = 1,
    epochs: int = 2,
    interval: int = 1,
    **settings: Any,
) -> Trainer:
    checkpoint = Checkpointing(
        dirpath=folder / "checkpoints", filename="best", save_last=True, enable_version_counter=False, **settings
    )
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[checkpoint], plugins=[AtomicCheckpointIO()], logger=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=interval,
    )  # fmt: skip
    # the same batch each time, as this data loader cannot resume
    data = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=1)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_signal_stops_after_the_step_with_a_checkpoint_that_resumes_bit_equal(
    tmp_path: Path, number: signal.Signals, accumulate: int
) -> None:
    straight = Line()
    fit(straight, tmp_path / "straight", accumulate=accumulate)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        fit(Line(signal_at=2, number=number), tmp_path / "stopped", accumulate=accumulate)
    assert stopped.value.code == 75
    assert signal.getsignal(number) == before
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3
    resumed = Line()
    trainer = fit(resumed, tmp_path / "stopped", last, accumulate=accumulate)
    assert trainer.global_step == 16 // accumulate
    assert torch.equal(resumed.layer.weight, straight.layer.weight)


def test_last_checkpoint_is_written_every_few_steps_and_the_previous_one_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".last.ckpt.x1y2").write_bytes(b"half")  # of a run that was killed while it wrote
    with pytest.raises(ZeroDivisionError):
        fit(_Failing(at=5), tmp_path, last_every_steps=2)
    steps = {path.stem: torch.load(path, weights_only=True)["global_step"] for path in folder.iterdir()}
    assert steps == {"last": 4, "last_previous": 2}


def test_last_checkpoint_is_written_after_epochs_that_are_validated_and_after_the_last_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(_Failing(at=28), tmp_path / "failed", epochs=5, interval=2)
    fit(Line(), tmp_path / "whole", epochs=5, interval=2)
    saved = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("failed", "whole")]
    assert [torch.load(path, weights_only=True)["global_step"] for path in saved] == [16, 40]


def test_a_disk_that_fills_within_a_checkpoint_is_a_user_error_wherever_it_does(tmp_path: Path) -> None:
    class Full(io.FileIO):
        """Has room for some bytes."""

        room = 0

        def write(self, content: Any) -> int:
            if self.tell() + len(content) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    checkpoint = {f"weight {number}": torch.zeros(1000) for number in range(5)}
    whole = AtomicCheckpointIO()
    whole.save_checkpoint(checkpoint, tmp_path / "whole.ckpt")
    size = (tmp_path / "whole.ckpt").stat().st_size
    for Full.room in range(0, size, size // 12):
        with (
            mock.patch.object(Path, "open", lambda path, _: Full(path, "wb")),
            pytest.raises(UserError, match="No space"),
        ):
            AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.ckpt"]


def test_a_full_disk_is_a_user_error_and_leaves_earlier_checkpoints_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def save(content: Any, file: Any) -> None:
        calls.append(file)
        if len(calls) == 3:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(content, file)

    monkeypatch.setattr(atomic_checkpoint_io.torch, "save", save)
    with pytest.raises(UserError, match=r"last.ckpt' could not be written \(No space left on device\).*resume="):
        fit(Line(), tmp_path, last_every_steps=2)
    paths = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in paths] == ["last.ckpt", "last_previous.ckpt"]
    assert [damage_of(path) for path in paths] == [None, None]


def test_a_damaged_last_checkpoint_never_replaces_the_intact_previous_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(_Failing(at=5), tmp_path, last_every_steps=2)
    last, previous = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "last_previous"))
    last.write_bytes(b"broken")
    with pytest.raises(ZeroDivisionError):
        fit(_Failing(at=5), tmp_path, resume=previous, last_every_steps=2)
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert torch.load(previous, weights_only=True)["global_step"] == 2


class _Measured(Line):
    """Has the AP of a list after each epoch."""

    def __init__(self, aps: list[float]) -> None:
        super().__init__()
        self.aps = aps

    def on_train_epoch_end(self) -> None:
        self.log("val/AP", torch.tensor(self.aps[self.trainer.current_epoch]))


def best_step(folder: Path) -> int:
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("aps", "step"), [([0.0, 0.0], 16), ([-1.0, -1.0], 16), ([0.5, 0.5], 16), ([0.5, 0.4], 8), ([0.4, 0.5], 16)]
)
def test_of_equal_epochs_the_later_one_is_the_best(tmp_path: Path, aps: list[float], step: int) -> None:
    fit(_Measured(aps), tmp_path, monitor="val/AP", mode="max")
    assert best_step(tmp_path) == step


def test_the_best_epoch_is_known_after_the_folder_has_moved(tmp_path: Path) -> None:
    fit(_Measured([0.5, 0.4]), tmp_path / "before", monitor="val/AP", mode="max", epochs=1)
    last = torch.load(tmp_path / "before" / "checkpoints" / "last.ckpt", weights_only=True)
    assert str(tmp_path) not in str(last["callbacks"])
    after = (tmp_path / "before").rename(tmp_path / "after")
    trainer = fit(_Measured([0.5, 0.4]), after, after / "checkpoints" / "last.ckpt", monitor="val/AP", mode="max")
    assert best_step(after) == 8
    assert trainer.checkpoint_callback.best_model_path == str(after / "checkpoints" / "best.ckpt")
    assert trainer.checkpoint_callback.best_model_score == 0.5


class _Failing(Line):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == self.at:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)
