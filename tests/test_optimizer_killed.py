"""A process that is killed between two steps: another goes on from the file with the same bits."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch
from ranks import exit_code
from torch import nn

import ravine.optim
from ravine.schedules import cosine, warmup

WAYS = {
    "after-backward": {"clip_norm": 0.1, "skip_nonfinite": True},
    "in-backward": {"in_backward": True},
}


def training(folder, kill_at, way):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 2))
    lr = warmup(3) >> cosine(9, peak=0.05)
    optimizer = ravine.optim.AdamW(net.parameters(), lr=lr, average=0.9, **WAYS[way])
    path, new = Path(folder) / "saved", Path(folder) / "new"
    step = 0
    if path.exists():
        saved = torch.load(path)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    while step < 8:
        if step == kill_at:
            signal.raise_signal(signal.SIGKILL)
        rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        factor = math.nan if step == 4 and way == "after-backward" else 1.0
        optimizer.zero_grad()
        (net(rows).square().mean() * factor).backward()
        optimizer.step()
        step += 1
        saved = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(saved, new)
        new.replace(path)
    with optimizer.averaged():
        averages = [w.detach().clone() for w in net.parameters()]
    end = [*net.parameters(), *averages, torch.tensor(optimizer.skipped_steps)]
    torch.save([w.detach() for w in end], Path(folder) / "end")


@pytest.mark.parametrize("way", WAYS)
def test_killed_twice_and_gone_on_with_the_same_bits(tmp_path, way):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
    assert exit_code(training, straight, None, way) == 0
    assert exit_code(training, killed, 3, way) == -signal.SIGKILL
    assert exit_code(training, killed, 6, way) == -signal.SIGKILL
    assert exit_code(training, killed, None, way) == 0
    ends = [torch.load(folder / "end") for folder in (straight, killed)]
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert ends[0][-1] == (1 if way == "after-backward" else 0)
