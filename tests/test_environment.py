"""What a number was made with is named down to the processor and its threads."""

import json

import torch

from dfdc_video import environment


def test_processor_threads_and_versions_are_named():
    found = environment.environment()
    assert found["cpu"] and found["num_threads"] == torch.get_num_threads()
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0] or "+" in torch.__version__
    assert json.loads(json.dumps(found)) == found


def test_model_and_instruction_sets_come_from_cpuinfo(monkeypatch):
    lines = (("processor", "0"), ("model name", "Some Xeon"), ("flags", "fpu amx_bf16"), ("flags", "fpu"))
    monkeypatch.setattr(environment, "_cpuinfo", lambda: lines)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment.cpu_model() == "Some Xeon" and environment.cpu_flags() == {"fpu", "amx_bf16"}
    assert environment.bf16_is_native()
    monkeypatch.setattr(environment, "_cpuinfo", tuple)
    monkeypatch.setattr(environment.platform, "processor", lambda: "arm")
    assert environment.cpu_model() == "arm" and not environment.bf16_is_native()
