from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from unmix.activations.models import FolderModel
from unmix.activations.tokens import END, SPECIAL, START, passages, readable_vocabulary, surroundings
from unmix.core.errors import Notice, UsageError


def test_passages_hold_all_tokens_and_know_their_roles(tiny: Path) -> None:
    tokenizer = FolderModel(tiny).tokenizer()
    data = [("one", "the cat sat on the mat"), ("none", " "), ("two", "a dog [SEP] running strangely")]
    with pytest.warns(Notice, match="1 of the documents have no token and are left out, the first is 'none'"):
        text = passages(data, tokenizer, 100, 6)
    assert text.unread == 0
    assert surroundings(tokenizer) == ([2], [3])
    words = [readable_vocabulary(tokenizer)[i] for i in text.stream]
    assert " ".join(words) == (
        "[CLS] the cat sat on [SEP] [CLS] the mat [SEP] [CLS] a dog [SEP] run [SEP] [CLS] ##ning [UNK] [SEP]"
    )
    assert text.titles == ("one", "two") and text.starts.tolist() == [0, 10, 20]
    assert text.bounds.tolist() == [0, 6, 10, 16, 20]
    assert np.flatnonzero(text.roles == START).tolist() == [0, 6, 10, 16]
    assert np.flatnonzero(text.roles == END).tolist() == [5, 9, 13, 15, 19]
    assert np.flatnonzero(text.roles == SPECIAL).tolist() == [18]


def test_tokens_are_counted_without_start_and_end(tiny: Path) -> None:
    tokenizer = FolderModel(tiny).tokenizer()
    text = passages([("a", "the cat sat"), ("b", "on the mat")], tokenizer, 4, 64)
    assert len(text.stream) == 4 + 2 * 2 and text.titles == ("a", "b") and text.unread == 1
    assert passages([("a", "the cat sat"), ("b", "on the mat")], tokenizer, 3, 64).unread == 1
    with pytest.raises(UsageError, match="context=2: no room beside 2"):
        passages([("a", "the")], tokenizer, 4, 2)
    with pytest.raises(UsageError, match="the text is empty"):
        passages([("a", " ")], tokenizer, 4, 8)


def test_vocabularies_are_made_readable() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    byte_level.train_from_iterator(["the cat sat\n on the café"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level, eos_token="<|end|>")
    words = readable_vocabulary(tokenizer)
    shown = [words[i] for i in tokenizer("the cat\n on café")["input_ids"]]
    assert "".join(shown) == "the cat\n on café" and " cat" in shown
    assert words[tokenizer.eos_token_id] == "<|end|>" and surroundings(tokenizer) == ([], [])

    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581cat", -1.0), ("s", -2.0), ("<0x41>", -3.0)], 0))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Metaspace()
    words = readable_vocabulary(PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>"))
    assert words[:4] == ("<unk>", " cat", "s", "A")
