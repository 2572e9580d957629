"""Muon: momentum whose matrices are orthogonalised."""

from __future__ import annotations

import math

import torch

from ravine.rules.matrices import as_matrices, newton_schulz
from ravine.rules.matrix_rule import DESCEND, elementwise, matrices, matrix_rule, not_a_matrix

TYPES = ("bfloat16", "float32", "float64")
ADJUST = (None, "original", "match_rms_adamw")


def accumulate(g, b, *, momentum=0.95, nesterov=True):
    b = momentum * b + (1 - momentum) * g
    u = b
    if nesterov:
        u = momentum * b + (1 - momentum) * g
    return u, b


def orthogonalise(
    u,
    *,
    ns_coefficients=(3.4445, -4.775, 2.0315),
    ns_steps=5,
    ns_dtype="bfloat16",
    eps=1e-7,
    adjust_lr_fn=None,
    stacked=None,
):
    x = as_matrices(u, stacked)
    rows, columns = x.shape[-2:]
    if adjust_lr_fn == "match_rms_adamw":
        ratio = 0.2 * math.sqrt(max(rows, columns))
    else:
        ratio = math.sqrt(max(1, rows / columns))
    x = newton_schulz(x, ns_coefficients, ns_steps, eps, getattr(torch, ns_dtype))
    return (ratio * x.to(u.dtype)).reshape(u.shape)


muon = matrix_rule(
    "Muon",
    """Muon: momentum, orthogonalised matrix by matrix; AdamW for weights that are no matrices.

    Equation:
        b <- momentum b + (1 - momentum) g
        u  = momentum b + (1 - momentum) g  with nesterov, else  b
        w <- w - lr weight_decay w - lr ratio U V^T   of u = U S V^T, roughly: ns_steps of
             Newton-Schulz in ns_dtype leave singular values between 0.7 and 1.2
        ratio = sqrt(max(1, rows / columns)), or 0.2 sqrt(max(rows, columns)) with match_rms_adamw

    A weight [r, c] is a matrix, [k, r, c] a stack of k, a kernel [o, i, ...] the matrix o x (i ...);
    ``stacked=False`` flattens [k, r, c] too (Conv1d). Weights below 2 dimensions, and groups with
    ``matrix=False`` (embeddings, heads), are stepped by AdamW: options ``adamw_...``, see `explain`.

    Differs from: `torch.optim.Muon` takes matrices only, one at a time; batched products round
    otherwise in bfloat16. Jordan's b sums gradients, a scale that is divided out.

    Source: Jordan et al. 2024; Liu et al. 2025 for match_rms_adamw; `torch.optim.Muon`.
    """,
    elementwise(accumulate, "u", "b"),
    matrices(orthogonalise, "u"),
    DESCEND,
    kept={"b": "momentum_buffer"},
    moments={"b": "signed"},
    refuses=not_a_matrix,
    fallback={},
    defaults={"lr": 1e-3, "weight_decay": 0.1, "decay": "decoupled"},
    bounds={
        "ns_coefficients": ("numbers", lambda x: len(x) == 3),
        "ns_steps": ("a whole number from 0 to 99", lambda x: x in range(100)),
        "ns_dtype": (f"one of {TYPES}", lambda x: x in TYPES),
        "adjust_lr_fn": (f"one of {ADJUST}", lambda x: x in ADJUST),
        "stacked": ("True, False or None", lambda x: x in (None, True, False)),
    },
)
