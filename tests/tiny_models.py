"""Tiny models with random weights and a tokenizer of their own, made in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "a",
    "bird",
    "sang",
    "in",
    "tree",
    "and",
    "it",
    "was",
    "green",
    "run",
    ".",
    ",",
    "!",
]


def tokenizer_into(folder: Path, start: str = "<s>") -> int:
    """Write a tokenizer of whole words that begins a text with `start`; the size of its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<unk>", start, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, unk_token="<unk>", model_max_length=64
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def causal_folder(folder: Path, tied: bool = True) -> Path:
    """A causal model (Llama) of width 16 with 2 layers; its weights are large enough to predict unevenly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = tokenizer_into(folder)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.5,
        bos_token_id=1,
    )
    return _saved(LlamaForCausalLM, config, folder)


def sentence_folder(folder: Path) -> Path:
    """A sentence encoder (BERT) of width 16 with 2 layers."""
    from transformers import BertConfig, BertModel

    size = tokenizer_into(folder, "[CLS]")
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    return _saved(BertModel, config, folder)


def folder_of(config: object, folder: Path, head: str = "AutoModel") -> Path:
    """Any model of transformers, with a tokenizer that sets <s> and </s> around a text; ids 0 to 3 are special."""
    import transformers

    marked_tokenizer_into(folder)
    kind = getattr(transformers, head)
    return _saved(getattr(kind, "from_config", kind), config, folder)


def marked_tokenizer_into(folder: Path) -> int:
    """Write a tokenizer of whole words with <s>, </s> and <pad>; the size of its vocabulary, `MARKED`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    marks = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return len(vocabulary)


MARKED = 4 + len(WORDS)


def stories(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Short documents of words the tokenizer knows, of unlike lengths."""
    rng = np.random.default_rng(seed)
    return [(f"story {i}", " ".join(rng.choice(WORDS, 3 + int(rng.integers(40))))) for i in range(count)]


def _saved(kind: type, config: object, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind(config)
    model.save_pretrained(folder)
    return folder
