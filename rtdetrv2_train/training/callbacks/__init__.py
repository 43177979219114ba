"""Lightning callbacks: EMA, checkpointing, preemption, NaN guard, resuming, progress, pictures, curves, pruning."""
