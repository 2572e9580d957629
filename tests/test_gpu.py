"""The GPU executor: in Triton's interpreter, compiled without a GPU, and on a GPU where one is.

Triton decides when it is imported whether it interprets, so each of these has a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import programs
import pytest
import torch

HERE = Path(__file__).parent
OPTIMIZERS = (
    "gpu_cases.py", "gpu_function_cases.py", "gpu_lean_cases.py", "gpu_optimizer_cases.py",
)  # fmt: skip
LOSSES = (
    "gpu_distance_cases.py", "gpu_hinge_cases.py", "gpu_linear_cases.py", "gpu_loss_cases.py",
    "gpu_mask_cases.py", "gpu_overlap_cases.py", "gpu_row_cases.py", "gpu_row_uses.py",
    "gpu_wait_cases.py",
)  # fmt: skip

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def python(*arguments: str, interpret: bool = False) -> str:
    """Run Python in a process of its own and return what it says; it must end well."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if interpret:
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = programs.run(arguments, env=environment, timeout=280)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def cases(*names: str, interpret: bool = False) -> None:
    files = [str(HERE / name) for name in names]
    output = python("-m", "pytest", *files, "-p", "no:cacheprovider", interpret=interpret)
    assert "passed" in output and "skipped" not in output


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("files", [OPTIMIZERS, LOSSES], ids=["optimizers", "losses"])
def test_in_the_interpreter(files):
    cases(*files, interpret=True)


@needs_triton
@pytest.mark.slow
def test_compiled_for_a_gpu_that_is_not_there():
    cases("gpu_compile_cases.py")


@needs_triton
@needs_gpu
@pytest.mark.slow
def test_on_the_gpu():
    cases(*OPTIMIZERS, *LOSSES, "gpu_device_cases.py")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_does_not_load_triton():
    said = python(
        "-c",
        "import sys; from ravine.engine import gpu; "
        "print(gpu.unavailable(), 'triton' in sys.modules)",
    )
    assert said.split("\n")[0] == "there is no GPU that PyTorch can use False"


def test_without_triton_it_says_so():
    said = python(
        "-c",
        "import sys; sys.modules['triton'] = None; from ravine.engine import gpu; "
        "print(gpu.unavailable())",
        interpret=True,
    )
    assert said.startswith("Triton cannot be imported (")


def test_the_interpreter_is_kept_from_a_gpus_addresses():
    said = python(
        "-c",
        "import torch; torch.cuda.is_available = lambda: True; from ravine.engine import gpu; "
        "print(gpu.unavailable())",
        interpret=True,
    )
    assert said.strip() == "TRITON_INTERPRET is set, and Triton's interpreter cannot reach the GPU"
