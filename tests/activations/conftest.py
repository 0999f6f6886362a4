"""A tiny BERT in a temporary folder, with random weights and a WordPiece vocabulary of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

TEXT = "the cat dog sat on mat a bird sang in tree and it was green huge zap run ##ning ##s . , !"
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder: BERT of width 16 with 3 layers; "huge" has a hundredfold embedding."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = BertModel(config)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[vocabulary.index("huge")] *= 100
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def story() -> list[tuple[str, str]]:
    """Forty short documents of words the tiny model knows, of unlike lengths."""
    import numpy as np

    rng = np.random.default_rng(0)
    words = [word for word in WORDS if word not in ("huge", "zap") and not word.startswith("##")]
    return [(f"story {i}", " ".join(rng.choice(words, 3 + int(rng.integers(40))))) for i in range(40)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small lose time to threads, very much so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
