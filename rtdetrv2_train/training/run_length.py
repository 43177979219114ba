"""How long a run is, in steps and epochs, as the Trainer knows it."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer


def steps_per_epoch(trainer: Trainer) -> int:
    """Optimizer steps of one epoch. Makes the data loader if there is none yet."""
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    return max(math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches), 1)


def epochs_of(trainer: Trainer) -> int:
    """Epochs of the run; of one whose length is given in steps, the last may not be whole."""
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        return trainer.max_epochs
    return math.ceil(trainer.max_steps / steps_per_epoch(trainer))
