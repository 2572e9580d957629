"""An update rule of one's own: six lines, fused on the CPU and the GPU like the built-in ones."""

import torch

import ravine


@ravine.update_rule
def lion(w, g, m, *, lr=1e-4, beta1=0.9, beta2=0.99):
    """Lion (Chen et al. 2023): the sign of an interpolated momentum."""
    u = beta1 * m + (1 - beta1) * g
    m = beta2 * m + (1 - beta2) * g
    return w - lr * ((u > 0) * 1.0 - (u < 0) * 1.0), m


def main() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 1)
    inputs = torch.randn(256, 20)
    targets = inputs.sum(1, keepdim=True)
    optimizer = lion(model.parameters(), lr=1e-2, weight_decay=1e-3, clip_norm=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss = ravine.losses.mse(model(inputs), targets)
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.4f}")
    print(optimizer)
    print(optimizer.explain())


if __name__ == "__main__":
    main()
