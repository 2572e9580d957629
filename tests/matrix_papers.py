"""The matrix rules' papers, written out weight by weight in plain torch: oracles in float64.

Each follows its source line by line and shares nothing with the rules that are tested.
"""

from __future__ import annotations

import math

import torch


def as_matrix(w, stacked=None):
    """The matrices of a weight, a list of views with the way back."""
    if w.dim() == 2:
        return [w]
    if stacked or (stacked is None and w.dim() == 3):
        return list(w.reshape(-1, *w.shape[-2:]))
    return [w.reshape(w.shape[0], -1)]


def orthogonal(x, coefficients, steps, eps):
    """Jordan's Newton-Schulz on one matrix."""
    a, b, c = coefficients
    turned = x.shape[0] > x.shape[1]
    x = x.T if turned else x
    x = x / max(float(torch.linalg.matrix_norm(x)), eps)
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.T if turned else x


def muon(
    w,
    g,
    state,
    t,
    *,
    lr,
    momentum=0.95,
    nesterov=True,
    weight_decay=0.1,
    ns_coefficients=(3.4445, -4.7750, 2.0315),
    ns_steps=5,
    eps=1e-7,
    adjust_lr_fn=None,
    stacked=None,
):
    """`torch.optim.Muon`'s algorithm on the matrices of a weight; Jordan et al. 2024."""
    state["b"] = momentum * state.get("b", torch.zeros_like(w)) + (1 - momentum) * g
    u = momentum * state["b"] + (1 - momentum) * g if nesterov else state["b"]
    parts = []
    for x in as_matrix(u, stacked):
        rows, columns = x.shape
        ratio = math.sqrt(max(1, rows / columns))
        if adjust_lr_fn == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        parts.append(ratio * orthogonal(x, ns_coefficients, ns_steps, eps))
    return w * (1 - lr * weight_decay) - lr * torch.stack(parts).reshape(w.shape)


def adamw(w, g, state, t, *, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Loshchilov & Hutter 2019, decay times lr."""
    m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g * g
    step = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return w * (1 - lr * weight_decay) - lr * step


def unfolded(g, k):
    return g.movedim(k, 0).reshape(g.shape[k], -1)


def folded(x, k, shape):
    moved = (shape[k], *shape[:k], *shape[k + 1 :])
    return x.reshape(moved).movedim(0, k)


def shampoo(
    w,
    g,
    state,
    t,
    *,
    lr,
    momentum=0.0,
    epsilon=1e-4,
    precondition_frequency=1,
    max_precond_dim=8192,
    weight_decay=0.0,
):
    """Gupta, Koren & Singer 2018, algorithm 2; section 5's diagonal above max_precond_dim."""
    if not state:
        state["H"] = [epsilon * torch.eye(d, dtype=w.dtype) for d in w.shape]
        state["m"] = torch.zeros_like(w)
    for k, h in enumerate(state["H"]):
        added = unfolded(g, k) @ unfolded(g, k).T
        whole = w.shape[k] <= max_precond_dim
        state["H"][k] = h + (added if whole else torch.diag(added.diagonal()))
    if t == 1 or t % precondition_frequency == 0:
        state["P"] = []
        for h in state["H"]:
            u, s, _ = torch.linalg.svd(h)
            state["P"].append(u @ torch.diag(s ** (-1 / (2 * w.dim()))) @ u.T)
    state["m"] = momentum * state["m"] + (1 - momentum) * g
    u = state["m"] if momentum else g
    for k, p in enumerate(state["P"]):
        u = folded(p @ unfolded(u, k), k, w.shape)
    return w * (1 - lr * weight_decay) - lr * u


def soap(
    w,
    g,
    state,
    t,
    *,
    lr,
    betas=(0.95, 0.95),
    eps=1e-8,
    shampoo_beta=0.95,
    precondition_frequency=10,
    max_precond_dim=10000,
    weight_decay=0.01,
):
    """Vyas et al. 2024, algorithm 3, with what the authors' code adds to it."""
    w = w * (1 - lr * weight_decay)
    dims = [k for k, d in enumerate(w.shape) if d <= max_precond_dim]

    def turn(x, back=False):
        for k in dims:
            q = state["Q"][k]
            x = folded((q if back else q.T) @ unfolded(x, k), k, x.shape)
        return x

    if not state:  # the first step makes the basis, and no update
        state["M"], state["V"] = torch.zeros_like(w), torch.zeros_like(w)
        outer = {k: unfolded(g, k) @ unfolded(g, k).T for k in dims}
        state["H"] = {k: (1 - shampoo_beta) * outer[k] for k in dims}
        state["Q"] = {k: torch.linalg.eigh(state["H"][k])[1].flip(1) for k in dims}
        return w
    step = t - 1
    state["M"] = betas[0] * state["M"] + (1 - betas[0]) * g
    rotated = turn(g)
    state["V"] = betas[1] * state["V"] + (1 - betas[1]) * rotated**2
    direction = turn(state["M"]) / (state["V"].sqrt() + eps)
    rate = lr * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    w = w - rate * turn(direction, back=True)
    for k in dims:
        outer = unfolded(g, k) @ unfolded(g, k).T
        state["H"][k] = shampoo_beta * state["H"][k] + (1 - shampoo_beta) * outer
    if step % precondition_frequency == 0:
        for k in dims:
            h, q = state["H"][k], state["Q"][k]
            order = torch.diag(q.T @ h @ q).argsort(descending=True)
            state["V"] = state["V"].index_select(k, order)
            state["Q"][k] = torch.linalg.qr(h @ q[:, order])[0]
    return w
