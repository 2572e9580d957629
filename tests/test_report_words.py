"""The command line that repeats a run, and JSON that every reader accepts."""

from __future__ import annotations

import json
import math
import shlex
from typing import Any

import pytest
from test_report import page

from ravine.report import command_line, to_strict_json


@pytest.mark.parametrize(
    "config",
    [
        {"task": "digits", "optimizer": "adam(lr=warmup(5) >> cosine(9, peak=1e-3))"},
        {"task": "my tasks/one.py", "optimizer": "adam", "regularize": ["dropout(0.1)", "l1(1)"]},
        {"task": "digits", "loss": "plateau(mode='min')", "batch_size": "all", "seed": 0},
        {"task": 'a"b$c`d!\\e\n', "optimizer": "'"},
        {"task": "-x.py", "epochs": 3, "device": "cpu"},
        {"task": "δigits", "optimizer": None},
    ],
)
def test_the_command_line_means_the_configuration(config: dict[str, Any]) -> None:
    line = command_line(config)
    assert line is not None
    words = shlex.split(line)
    expected: dict[str, list[str]] = {}
    for name, value in config.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None and name != "task":
                expected.setdefault("--" + name.replace("_", "-"), []).append(str(one))
    assert words[:2] == ["ravine", "train"]
    rest = words[3:] if words[2] == config["task"] else words[2:-2]
    assert config["task"] in (words[2], words[-1])
    found: dict[str, list[str]] = {}
    for option, one in zip(rest[::2], rest[1::2], strict=True):
        found.setdefault(option, []).append(one)
    assert found == expected


def test_the_command_line_is_text_on_the_page() -> None:
    config = {"task": "a&lt;b.py", "loss": "'\"&amp;"}
    assert str(command_line(config)) in page(config=config).text


def test_objects_without_a_written_form_have_no_command_line() -> None:
    assert command_line({"task": "digits", "loss": "<function f at 0x7f00>"}) is None
    assert command_line({}) is None
    assert "no command line repeats it" in page(config={"task": "<lambda>"}).text


def test_strict_json_reads_back_and_refuses_what_is_no_data() -> None:
    import numpy as np

    value = {"a": [1, True, None, "ü"], "b": (math.inf, -math.inf), "c": np.float32(0.5), 3: 1.5}
    text = to_strict_json(value)
    assert json.loads(text) == {
        "a": [1, True, None, "ü"],
        "b": ["Infinity", "-Infinity"],
        "c": 0.5,
        "3": 1.5,
    }
    assert math.isnan(float(json.loads(to_strict_json(math.nan))))
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_strict_json({"a": object()})
