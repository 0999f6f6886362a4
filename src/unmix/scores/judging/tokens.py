"""TokenJudge: explains a feature by the tokens at, before, after and around its activations; no network, no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.scores.judging.base import Context, Evidence, Explanation, Judge

SLOTS = ("at", "before", "after", "near")
PHRASES = {"at": "fires on", "before": "after", "after": "before", "near": "near"}
SHOWN = {"at": 6, "before": 3, "after": 3, "near": 5}

Words = list[tuple[str, str]]


class TokenJudge(Judge):
    """Naive Bayes on tokens: smoothed log-odds of the token where the feature fires, its neighbours, and its window.

    w(t) = log((c_t + a p_t) / (n + a)) - log p_t, with c_t of n sightings in the examples and p_t the background's
    rate (smoothed by half a sighting); an informative Dirichlet prior of a sightings. A place scores
    w_at + w_before + w_after, a context its best place (detection) or the mean of its marked places (fuzzing), plus
    w_near of its other tokens. A context is answered with yes where its score is above a threshold that separates
    examples, each scored without its own sightings, from the contrast; nothing that is asked about is ever seen.

    prior: a, in sightings. surprise: a neighbouring or surrounding token counts only where as many sightings would
    come up by chance (binomial tail at the background's rate) with less than this probability.
    """

    equation: ClassVar[str] = "w(t) = log((c_t + a p_t) / (n + a)) - log p_t;  yes where sum w > threshold"
    reference: ClassVar[str] = "unmix; naive Bayes with the prior of Monroe, Colaresi, Quinn 2008"

    prior: float = Field(default=10.0, gt=0)
    surprise: float = Field(default=1e-3, gt=0, le=1)

    def explain(self, evidence: Evidence) -> Explanation:
        seen = [_sightings(context) for context in evidence.examples]
        counts = {slot: Counter(t for words in seen for s, t in words if s == slot) for slot in SLOTS}
        totals = {slot: sum(counts[slot].values()) for slot in SLOTS} | {"near": len(seen)}
        rates = _Rates([*evidence.background, *evidence.contrast])
        weights = {slot: self._weights(slot, counts[slot], totals[slot], rates) for slot in SLOTS}
        detail: dict[str, Any] = {**weights, "unseen": math.log(self.prior / (totals["at"] + self.prior))}
        alone = [self._without(words, counts, totals, rates) for words in seen]
        for task in ("detect", "fuzz"):
            inside = [_score(task, own, c) for own, c in zip(alone, evidence.examples, strict=True)]
            outside = [_score(task, detail, context) for context in evidence.contrast]
            detail[f"{task}_threshold"] = _threshold(inside, outside)
        return Explanation(_words(weights, counts), detail)

    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return _answers("detect", explanation.detail, contexts)

    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return _answers("fuzz", explanation.detail, contexts)

    def _weights(self, slot: str, counts: Counter[str], total: float, rates: _Rates) -> dict[str, float]:
        if not counts:
            return {}
        from scipy.special import bdtrc

        seen = np.array(list(counts.values()), dtype=float)
        rate = np.array([rates(slot, token) for token in counts])
        weights = np.log((seen + self.prior * rate) / (total + self.prior)) - np.log(rate)
        keep = np.ones(len(seen), bool) if slot == "at" else bdtrc(seen - 1, total, rate) < self.surprise
        return {token: float(w) for token, w, kept in zip(counts, weights, keep, strict=True) if kept}

    def _without(
        self, words: Words, counts: dict[str, Counter[str]], totals: dict[str, int], rates: _Rates
    ) -> dict[str, Any]:
        """The weights that this example's own words would have had without it."""
        own: dict[str, Counter[str]] = {slot: Counter(t for s, t in words if s == slot) for slot in SLOTS}
        size = {slot: sum(own[slot].values()) for slot in SLOTS} | {"near": 1}
        detail: dict[str, Any] = {"unseen": math.log(self.prior / (totals["at"] - size["at"] + self.prior))}
        for slot in SLOTS:
            left = Counter({t: n for t, c in counts[slot].items() if (n := c - own[slot][t]) > 0})
            detail[slot] = self._weights(slot, left, totals[slot] - size[slot], rates)
        return detail


class _Rates:
    """How often a token stands anywhere (at, before, after) and how many windows have it (near), in a background."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        texts = [[_plain(token) for token in context.tokens] for context in contexts]
        self.single = Counter(token for text in texts for token in text)
        self.window = Counter(token for text in texts for token in set(text))
        self.places, self.windows = sum(self.single.values()), len(texts)

    def __call__(self, slot: str, token: str) -> float:
        if slot == "near":
            return (self.window[token] + 0.5) / (self.windows + 1)
        return (self.single[token] + 0.5) / (self.places + 0.5 * (len(self.single) + 1))


def _plain(token: str) -> str:
    """A token as it is compared: without blanks and case, where anything is left of it."""
    return token.strip().lower() or token


def _sightings(context: Context) -> Words:
    """(slot, token) of every marked place of an example, and of the window's other tokens, once each."""
    tokens = [_plain(token) for token in context.tokens]
    words: Words = []
    for place in context.marks:
        words.append(("at", tokens[place]))
        if place:
            words.append(("before", tokens[place - 1]))
        if place + 1 < len(tokens):
            words.append(("after", tokens[place + 1]))
    marked = set(context.marks)
    words += [("near", token) for token in sorted({t for i, t in enumerate(tokens) if i not in marked})]
    return words


def _score(task: str, detail: dict[str, Any], context: Context) -> float:
    tokens = [_plain(token) for token in context.tokens]
    places: Iterable[int] = range(len(tokens)) if task == "detect" else context.marks
    scores = []
    for place in places:
        score = detail["at"].get(tokens[place], detail["unseen"])
        score += detail["before"].get(tokens[place - 1], 0.0) if place else 0.0
        score += detail["after"].get(tokens[place + 1], 0.0) if place + 1 < len(tokens) else 0.0
        scores.append(score)
    near = sum(detail["near"].get(token, 0.0) for token in set(tokens))
    if not scores:
        return near + detail["unseen"]
    return near + (max(scores) if task == "detect" else sum(scores) / len(scores))


def _answers(task: str, detail: dict[str, Any], contexts: Sequence[Context]) -> np.ndarray:
    scores = np.array([_score(task, detail, context) for context in contexts], dtype=float)
    return 1 / (1 + np.exp(-np.clip(scores - detail[f"{task}_threshold"], -50, 50)))


def _threshold(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The middle of the widest gap between neighbouring scores among those of the highest balanced accuracy."""
    scores = np.unique(np.concatenate([np.asarray(inside, float), np.asarray(outside, float)]))
    if len(scores) < 2 or not len(inside) or not len(outside):
        return float(scores[0]) if len(scores) else 0.0
    middles = (scores[1:] + scores[:-1]) / 2
    hits = (np.asarray(inside)[:, None] > middles).mean(0) + (np.asarray(outside)[:, None] <= middles).mean(0)
    best = np.flatnonzero(hits >= hits.max() - 1e-12)
    return float(middles[best[np.argmax(np.diff(scores)[best])]])


def _words(weights: dict[str, dict[str, float]], counts: dict[str, Counter[str]]) -> str:
    """The strongest words of each slot in a phrase; a word is as strong as its sightings times its log-odds."""
    parts = []
    for slot in SLOTS:
        often = {t: counts[slot][t] * w for t, w in weights[slot].items() if w > 1 and counts[slot][t] > 1}
        strength = often or {t: w for t, w in weights[slot].items() if w > 0 and slot == "at"}
        best = sorted(strength, key=lambda t: (-strength[t], t))[: SHOWN[slot]]
        if best:
            parts.append(f"{PHRASES[slot]} {', '.join(best)}")
    return "; ".join(parts) or "no token stands out"
