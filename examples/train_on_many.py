"""One script for one process, for all processors of a machine, and for several machines.

One process::

    python examples/train_on_many.py

Two processes of one machine (on GPUs one each: NCCL; on a CPU: gloo)::

    torchrun --standalone --nproc-per-node 2 examples/train_on_many.py

Two machines with eight GPUs each; the same line on both, with the address of one of them::

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        examples/train_on_many.py

The losses are the same, whatever the number. A run that ended goes on with any other number:
``ravine.train(resume=RUN_DIR)``; the built-in tasks need no script at all::

    torchrun --standalone --nproc-per-node 2 -m ravine train digits --parallel sharded
"""

from __future__ import annotations

import os

import ravine


def main() -> None:
    """Train; every process gets the record, and the first one prints it."""
    record = ravine.train(
        "digits",
        "adamw(lr=1e-3, clip_norm=1)",
        epochs=3,
        batch_size=64,  # of all processes together
        accumulate=2,  # passes that each process makes for its part of them
        precision="bfloat16",
        parallel="sharded",  # or "data"; one process has nothing to divide
        checkpoint_activations=True,
    )
    if os.environ.get("RANK", "0") == "0":
        print(record)


if __name__ == "__main__":
    main()
