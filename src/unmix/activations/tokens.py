"""Tokens: documents to passages that fit a model's context, and the vocabulary made readable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.errors import UsageError, notice

ORDINARY, START, END, SPECIAL = 0, 1, 2, 3
ROLES = ("ordinary", "start", "end", "special")


@dataclass(frozen=True, eq=False)
class Passages:
    """Documents as one stream of token ids, cut into passages that the model reads one by one.

    stream: [t] ids, start and end tokens included. roles: [t] ORDINARY, START, END or SPECIAL.
    bounds: [passages + 1] where each passage begins. starts: [documents + 1] where each document begins.
    titles: [documents]. unread: documents, or ends of one, that were not read since there were tokens enough.
    """

    stream: np.ndarray
    roles: np.ndarray
    bounds: np.ndarray
    starts: np.ndarray
    titles: tuple[str, ...]
    unread: int = 0

    def __len__(self) -> int:
        return len(self.bounds) - 1


def passages(data: Sequence[tuple[str, str]], tokenizer: Any, tokens: int, context: int) -> Passages:
    """Passages of at most `context` tokens from documents in their order, until `tokens` are read.

    Start and end tokens are set around each passage as the tokenizer does it, and do not count; the last document
    is cut. Raises `UsageError` where no token is left or the context has no room, or the tokenizer fails. A `Notice`
    says how many documents have no token, and where the tokenizer does not know most of the text.
    """
    before, after = surroundings(tokenizer)
    room = context - len(before) - len(after)
    if room < 1:
        raise UsageError(f"context={context}: no room beside {len(before) + len(after)} start and end tokens")
    stream: list[int] = []
    bounds, starts, titles, left = [0], [0], [], tokens
    read, empty = 0, []
    for first in range(0, len(data), 64):
        part = data[first : first + 64]
        for (title, _), whole in zip(part, _coded(tokenizer, part), strict=True):
            ids = whole[:left]
            if whole and not ids:
                break
            left -= len(ids)
            read += len(ids) == len(whole)
            for begin in range(0, len(ids), room):
                stream += [*before, *ids[begin : begin + room], *after]
                bounds.append(len(stream))
            if ids:
                starts.append(len(stream))
                titles.append(title)
            else:
                empty.append(title)
        if not left:
            break
    if not titles:
        raise UsageError("data: the text is empty; give a text with words in it")
    if empty:
        notice(f"data: {len(empty)} of the documents have no token and are left out, the first is {empty[0]!r}")
    held, edges = np.asarray(stream, np.int32), np.asarray(bounds)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is not None and (share := float((held == unknown).sum()) / (tokens - left)) > 0.5:
        notice(f"data: {share:.0%} of the tokens are unknown to the tokenizer; is it text of its language?")
    roles = roles_of(held, edges, tokenizer, len(before), len(after))
    return Passages(held, roles, edges, np.asarray(starts), tuple(titles), len(data) - read)


def _coded(tokenizer: Any, part: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Token ids of each document."""
    try:
        return tokenizer([text for _, text in part], add_special_tokens=False, verbose=False)["input_ids"]
    except Exception as error:  # tokenizers raise plain Exceptions
        if len(part) > 1:
            return [ids for pair in part for ids in _coded(tokenizer, [pair])]
        why = " ".join(str(error).split())[:120]
        raise UsageError(f"data: the tokenizer does not take document {part[0][0]!r} ({why})") from error


def surroundings(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer sets before and after a text, such as [CLS] and [SEP]; found by trying it."""
    for text in ("a", "the", "1", *sorted(tokenizer.get_vocab())[-8:]):
        plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        dressed = list(tokenizer(text)["input_ids"])
        for begin in range(len(dressed) - len(plain) + 1):
            if plain and dressed[begin : begin + len(plain)] == plain:
                return dressed[:begin], dressed[begin + len(plain) :]
    raise UsageError("model: its tokenizer changes a text when it adds start and end tokens; it cannot be used")


def roles_of(stream: np.ndarray, bounds: np.ndarray, tokenizer: Any, before: int, after: int) -> np.ndarray:
    """The role of every token of passages: [t].

    By id, so that a "[SEP]" written in the text counts too; by place, where one id is both start and end.
    """
    roles = np.zeros(len(stream), np.int8)
    ends = [getattr(tokenizer, name, None) for name in ("sep_token_id", "eos_token_id")]
    begins = [getattr(tokenizer, name, None) for name in ("cls_token_id", "bos_token_id")]
    special = [i for i in tokenizer.all_special_ids if i is not None]
    for ids, role in ((special, SPECIAL), (begins, START), (ends, END)):
        roles[np.isin(stream, [i for i in ids if i is not None])] = role
    for offset in range(before):
        roles[bounds[:-1] + offset] = START
    for offset in range(1, after + 1):
        roles[bounds[1:] - offset] = END
    return roles


def readable_vocabulary(tokenizer: Any) -> tuple[str, ...]:
    """The text of each token id, as it should be shown.

    WordPiece keeps its "##", which glues a token to the one before. Byte-level BPE and SentencePiece have markers
    of a space before a word; they become a plain leading space, and a token without it is glued to the one before.
    Bytes that are no whole character show as U+FFFD. Ids without a token are "".
    """
    table: dict[str, int] = tokenizer.get_vocab()
    words = [""] * (max(table.values()) + 1)
    special = set(tokenizer.all_special_tokens)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {}
    layout = json.dumps([parts.get("decoder"), parts.get("pre_tokenizer")])
    characters = byte_characters() if "ByteLevel" in layout else None
    pieces = "WordPiece" in layout or parts.get("model", {}).get("type") == "WordPiece"
    for token, number in table.items():
        if token in special or pieces:
            words[number] = token
        elif characters is not None:
            known = all(character in characters for character in token)
            raw = bytes(characters[c] for c in token) if known else token.encode()
            words[number] = raw.decode("utf-8", errors="replace")
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            words[number] = bytes([int(token[3:5], 16)]).decode("utf-8", errors="replace")
        else:
            words[number] = token.replace("\u2581", " ")
    return tuple(words)


def byte_characters() -> dict[str, int]:
    """The byte each character stands for in byte-level BPE: printable ones for themselves, others from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}
