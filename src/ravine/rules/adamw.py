"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from ravine.rules.adam import adam

adamw = adam.derive(
    "AdamW",
    """Adam whose weight decay is a step of its own, outside of the moments.

    Equation:
        w <- w - lr weight_decay w
        w <- the step of Adam

    Differs from: the paper's decay is independent of lr (``decay="independent"``); here, in torch,
    optax and Keras it is multiplied by lr. optax has a default decay of 1e-4, Keras 4e-3.

    Source: Loshchilov & Hutter 2019, algorithm 2; `torch.optim.AdamW`.
    """,
    weight_decay=1e-2,
    decay="decoupled",
)
