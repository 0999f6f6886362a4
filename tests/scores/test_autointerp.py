"""Automated interpretability: judges against planted features, halves apart, negatives from the sources asked for."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from unmix.core.codes import Codes
from unmix.core.errors import Failure, UsageError
from unmix.core.items import TextItems, VectorItems
from unmix.core.seeds import Stream, untouched
from unmix.scores import SCORES
from unmix.scores.autointerp import (
    AutoInterp,
    as_plain,
    balanced_accuracy,
    from_plain,
    macro_f1,
    paired_difference,
    shuffled,
)
from unmix.scores.base import Inputs
from unmix.scores.contexts import Firing, Windows, divided
from unmix.scores.judging.base import Evidence, Explanation, Judge
from unmix.scores.judging.command import CommandJudge
from unmix.scores.judging.tokens import TokenJudge

APPLE, RED = 7, 8


@pytest.fixture(scope="module")
def text():
    """300 documents of 60 words; a third of the apples are red."""
    draw = np.random.default_rng(0)
    vocabulary = tuple(f"word{i}" for i in range(400))
    vocabulary = (*vocabulary[:APPLE], "apple", "red", *vocabulary[RED + 1 :])
    weights = 1 / np.arange(1, 401)
    stream = draw.choice(400, 300 * 60, p=weights / weights.sum()).astype(np.int32)
    stream[np.isin(stream, [APPLE, RED])] = 0
    spots = draw.permutation(np.arange(1, len(stream), 12))[:700]
    stream[spots] = APPLE
    stream[spots[:230] - 1] = RED
    starts = np.arange(0, len(stream) + 1, 60)
    return TextItems(stream, starts, np.arange(len(stream)), vocabulary, tuple(f"d{i}" for i in range(300)))


@pytest.fixture(scope="module")
def codes(text):
    """Features: apple; red apple; noise with 1 % of the rows; another noise; one that never fires; word 3 to 6."""
    draw = np.random.default_rng(1)
    stream, n = text.stream, len(text)
    dense = np.zeros((n, 6), dtype=np.float32)
    dense[stream == APPLE, 0] = 1
    dense[1:, 1] = (stream[1:] == APPLE) & (stream[:-1] == RED)
    dense[draw.random(n) < 0.01, 2] = 1
    dense[draw.random(n) < 0.01, 3] = 1
    dense[np.isin(stream, [3, 4, 5, 6]), 5] = 1
    dense *= draw.uniform(0.5, 1.5, dense.shape)
    rows, columns = np.nonzero(dense)
    values = torch.from_numpy(dense[rows, columns])
    pointers = torch.from_numpy(np.concatenate([[0], np.bincount(rows, minlength=n).cumsum()]))
    return Codes(values, torch.from_numpy(columns), 6, pointers)


@pytest.fixture(scope="module")
def atoms():
    atoms = torch.eye(6) + 0.1
    atoms[1] = atoms[0] + 0.2 * atoms[1]
    return atoms


class Perfect(Judge):
    """Knows where every feature fires."""

    active: object = None  # [n, m] bool

    def explain(self, evidence: Evidence) -> Explanation:
        fires, silent = ([context.row for context in part] for part in (evidence.examples, evidence.contrast))
        feature = (self.active[fires].all(0) & ~self.active[silent].any(0)).argmax()
        return Explanation("the feature", {"feature": int(feature)})

    def detect(self, explanation, contexts):
        return self.active[[context.row for context in contexts], explanation.detail["feature"]].astype(float)

    fuzz = detect


def test_a_perfect_judge_scores_one_and_the_controls_a_third_and_a_half(text, codes, atoms):
    active = codes.dense().numpy() > 0
    found = AutoInterp(judge=Perfect(active=active), only=(0, 1, 2, 3)).interpret(codes, text, atoms)
    for task in ("detect", "fuzz"):
        outcome = found.outcome(task)
        assert outcome.value == 1 and outcome.interval == (1, 1)
        assert outcome.detail["accuracy"] == 1
        assert outcome.detail["always_yes"] == pytest.approx(1 / 3)


def test_a_coin_scores_about_a_half_and_always_yes_a_third(text, atoms):
    draw = np.random.default_rng(5)
    noise = Codes(torch.from_numpy((draw.random((len(text), 60)) < 0.01).astype(np.float32)), None, 60)
    directions = torch.from_numpy(draw.standard_normal((60, 8)))
    for judge, expected in (("Coin", 0.49), ("AlwaysYes", 1 / 3)):
        found = AutoInterp(judge=judge, features=60).interpret(noise, text, directions)
        outcome = found.outcome()
        assert len(found.features) == 60
        assert outcome.value == pytest.approx(expected, abs=0.03)
        assert outcome.detail["coin"] == pytest.approx(0.49, abs=0.03)
        assert outcome.chance == outcome.detail["coin"]
        assert outcome.interval[0] - 1e-12 <= outcome.value <= outcome.interval[1] + 1e-12


def test_macro_f1_and_balanced_accuracy_equal_scikit_learn():
    with untouched():
        from sklearn.metrics import balanced_accuracy_score, f1_score

    draw = np.random.default_rng(2)
    for _ in range(20):
        truth, said = draw.random(15) < 0.5, draw.random(15) < 0.7
        truth[:2] = (True, False)
        assert macro_f1(truth, said) == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
        assert balanced_accuracy(truth, said) == pytest.approx(balanced_accuracy_score(truth, said))


def test_the_token_judge_finds_a_planted_word_and_no_sense_in_noise(text, codes, atoms):
    found = AutoInterp(only=(0, 1, 2, 3, 5)).interpret(codes, text, atoms)
    by = {feature.feature: feature for feature in found.features}
    assert by[0].explanation.startswith("fires on apple")
    assert by[0].f1["detect"] > 0.95 and by[0].f1["fuzz"] > 0.95
    assert "apple" in by[1].explanation and "after red" in by[1].explanation
    assert by[1].f1["detect"] > 0.9 and by[1].f1["fuzz"] > 0.9
    assert by[5].f1["detect"] > 0.9
    noise = AutoInterp(features=40).interpret(
        Codes(
            torch.from_numpy((np.random.default_rng(3).random((len(text), 40)) < 0.01).astype(np.float32)), None, 40
        ),
        text,
        torch.from_numpy(np.random.default_rng(4).standard_normal((40, 8))),
    )
    for task in ("detect", "fuzz"):
        outcome = noise.outcome(task)
        assert outcome.detail["accuracy"] == pytest.approx(0.5, abs=0.05)
        assert outcome.value < 0.55


def test_negatives_around_a_token_have_the_tokens_of_the_contexts_asked_about_and_tell_a_judge_of_noise_nothing(text):
    """Frequent tokens must not be more frequent among them: a judge would find these rather than what fires."""
    draw = np.random.default_rng(5)
    noise = Codes(torch.from_numpy((draw.random((len(text), 40)) < 0.01).astype(np.float32)), None, 40)
    atoms = torch.from_numpy(draw.standard_normal((40, 8)))
    found = AutoInterp(random=0, neighbour=0).interpret(noise, text, atoms)
    ids = text.stream[text.places]
    shares = [np.log(np.bincount(ids, minlength=401)[ids[list(rows)]]).mean() for one in found.features
              for rows in (one.scored, one.negatives)]  # fmt: skip
    assert np.mean(shares[::2]) == pytest.approx(np.mean(shares[1::2]), abs=0.1)
    for task in ("detect", "fuzz"):
        assert found.outcome(task).detail["accuracy"] == pytest.approx(0.5, abs=0.03)


def test_contexts_of_equal_activation_come_from_the_whole_text(text, codes, atoms):
    """A feature that is on or off fires equally everywhere: its contexts must not be those of the first documents."""
    found = AutoInterp(only=(0,), contexts=20).interpret(codes, text, atoms).features[0]
    documents = text.documents()[[*found.explained, *found.scored]]
    assert documents.max() > 200 and 60 < documents.mean() < 240


def test_explained_and_scored_halves_share_no_window_and_no_document(text, codes, atoms):
    found = AutoInterp(only=(0, 1, 2), contexts=30).interpret(codes, text, atoms)
    documents = text.documents()
    for feature in found.features:
        explained, scored = feature.explained, feature.scored
        assert abs(len(explained) - len(scored)) <= 3 and len(scored) == len(feature.negatives)
        assert not set(documents[list(explained)]) & set(documents[list(scored)])
        rows = sorted([*explained, *scored, *feature.negatives])
        spans = [(int(r) - 12, int(r) + 8) for r in rows]
        apart = [
            a[1] < b[0] or documents[x] != documents[y]
            for a, b, x, y in zip(spans, spans[1:], rows, rows[1:], strict=False)
        ]
        assert all(apart)


def test_nothing_that_is_asked_about_shows_activations_or_reaches_the_explanation(text, codes, atoms):
    seen: list[set[int]] = []

    class Watching(Judge):
        def explain(self, evidence):
            parts = [*evidence.examples, *evidence.contrast]
            seen.append({context.row for context in parts})
            assert all(c.activations is not None for c in evidence.examples)
            assert all(max(c.activations[i] for i in c.marks) == max(c.activations) for c in evidence.examples)
            return Explanation("x")

        def detect(self, explanation, contexts):
            assert all(c.activations is None and not c.marks for c in contexts)
            assert not {context.row for context in contexts} & seen[-1]
            return np.zeros(len(contexts))

        def fuzz(self, explanation, contexts):
            assert all(c.activations is None and c.marks for c in contexts)
            return np.zeros(len(contexts))

    AutoInterp(judge=Watching(), only=(0, 1, 2)).interpret(codes, text, atoms)
    assert len(seen) == 3


@pytest.mark.parametrize("parts", [(1, 1, 1), (2, 1, 1), (0, 1, 1), (1, 0, 3)])
def test_negatives_have_the_shares_asked_for(text, codes, atoms, parts):
    names = dict(zip(("random", "neighbour", "token"), parts, strict=True))
    found = AutoInterp(only=(1,), contexts=24, **names).interpret(codes, text, atoms).features[0]
    wanted = divided(names, len(found.negatives))
    for name, part in names.items():
        assert found.sources[name] * len(found.negatives) == pytest.approx(wanted[name])
        assert found.sources[name] == pytest.approx(part / sum(parts), abs=0.1)
    stream = text.stream
    near = [row for row in found.negatives if (stream[max(0, row - 12) : row + 9] == APPLE).any()]
    assert len(near) >= wanted["token"]
    active = codes.dense().numpy()[:, 1] > 0
    assert not any(
        active[max(0, row - 12) : row + 9][: 60 - row % 60 + 12].any() for row in found.negatives if row % 60 > 12
    )


def test_a_feature_that_owns_its_word_gets_random_negatives_instead(text, codes, atoms):
    found = AutoInterp(only=(0,), random=0, neighbour=0, token=1).interpret(codes, text, atoms).features[0]
    assert found.sources == {"random": 1.0, "neighbour": 0.0, "token": 0.0}


def test_neighbours_are_several(text, codes, atoms):
    windows = Windows(text, Firing(codes), atoms, 12, 8)
    assert windows.neighbours(0)[0] == 1 and 4 not in windows.neighbours(0)
    chosen = windows.choose(0, 40, 8, {"random": 0, "neighbour": 1, "token": 0}, False, Stream(0))
    assert len({drawn.owner for drawn in chosen.negatives}) >= 3
    assert not windows._used.any()


def test_shuffled_activations_are_at_chance_and_keep_their_rates(text, codes, atoms):
    mixed = shuffled(codes)
    assert torch.equal(mixed.firing(), codes.firing())
    assert not torch.equal(mixed.dense(), codes.dense())
    found = AutoInterp(only=(0, 1, 2, 5)).interpret(mixed, text, atoms)
    assert found.outcome().value < 0.65
    difference = paired_difference(AutoInterp(only=(0, 1, 5)).interpret(codes, text, atoms), found)
    assert difference.value > 0.3 and difference.interval[0] > 0
    assert len(difference.detail["pairs"]) == 3


def test_results_are_the_same_again_whatever_else_is_asked(text, codes, atoms):
    one = AutoInterp(only=(0, 1, 2)).interpret(codes, text, atoms, rng=3)
    two = AutoInterp(only=(1,)).interpret(codes, text, atoms, rng=3)
    assert one.features[1] == two.features[0]
    assert from_plain(as_plain(one.features[0])) == one.features[0]
    kept = []
    known = {feature.feature: feature for feature in one.features[:2]}
    again = AutoInterp(only=(0, 1, 2)).interpret(codes, text, atoms, rng=3, known=known, keep=kept.append)
    assert again == one and [feature.feature for feature in kept] == [2]
    with pytest.raises(Failure, match="not whole"):
        from_plain({"feature": 1})


def test_as_a_score_and_its_refusals(text, codes, atoms):
    score = SCORES["autointerp"](only=(0,))
    assert score.measure(Inputs(codes=codes, items=text, atoms=atoms)).value > 0.95
    with pytest.raises(UsageError, match="needs items"):
        score.measure(Inputs(codes=codes, atoms=atoms))
    with pytest.raises(UsageError, match="text only, these rows are vector items"):
        score.measure(Inputs(codes=codes, items=VectorItems(np.arange(len(codes))), atoms=atoms))
    with pytest.raises(UsageError, match="give the same rows"):
        score.measure(Inputs(codes=codes, items=text.take(np.arange(50)), atoms=atoms))
    with pytest.raises(UsageError, match="numbered 0 to 5"):
        AutoInterp(only=(6,)).interpret(codes, text, atoms)
    with pytest.raises(UsageError, match="must not all be 0"):
        AutoInterp(random=0, neighbour=0, token=0)
    with pytest.raises(Failure, match="1 too few contexts"):
        AutoInterp(only=(4,)).interpret(codes, text, atoms)
    full = Codes(torch.ones(len(text), 6), None, 6)
    with pytest.raises(Failure, match="1 too few contexts without it"):
        AutoInterp(only=(0,)).interpret(full, text, atoms)


JUDGE = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["task"] == "explain":
        words = [c["tokens"][m] for c in asked["examples"] for m in c["marks"]]
        answer = {"explanation": max(sorted(set(words)), key=words.count)}
    elif asked["task"] == "detect":
        answer = {"probabilities": [float(asked["explanation"] in c["tokens"]) for c in asked["contexts"]]}
    else:
        answer = {"probabilities": [all(c["tokens"][m] == asked["explanation"] for m in c["marks"])
                  for c in asked["contexts"]]}
    print(json.dumps(answer), flush=True)
"""


def command(tmp_path, source: str) -> str:
    (tmp_path / "judge.py").write_text(source)
    return f"{sys.executable} {tmp_path / 'judge.py'}"


def test_an_external_command_judges(text, codes, atoms, tmp_path):
    judge = CommandJudge(command=command(tmp_path, JUDGE), timeout=60)
    found = AutoInterp(judge=judge, only=(0, 2)).interpret(codes, text, atoms)
    assert found.features[0].explanation == "apple"
    assert found.features[0].f1 == {"detect": 1.0, "fuzz": 1.0}
    assert judge.explain(
        Evidence([Windows(text, Firing(codes), atoms, 3, 3).example(0, found.features[0].explained[0])], [])
    ).text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import sys; sys.stderr.write('no key\\n'); sys.exit(3)",
            r"ended without an answer \(status 3\); it said: no key",
        ),
        ("print('hello', flush=True); input(); input()", "not JSON: b'hello"),
        ("print('[1]', flush=True); input(); input()", "no JSON object"),
        ("print('{\"explanation\": 3}', flush=True); input(); input()", 'wanted {"explanation": "words"}'),
        ('print(\'{"explanation": "a", "why": 1}\', flush=True); input(); input()', "wanted"),
        (
            'input(); print(\'{"explanation": "a"}\', flush=True); input();'
            "print('{\"probabilities\": [0.1]}', flush=True); input()",
            r"answered detect .* numbers in 0\.\.1",
        ),
        ("import time; time.sleep(60)", "gave no answer in 1 s"),
    ],
)
def test_a_command_that_misbehaves_is_one_clear_failure(text, codes, atoms, tmp_path, source, message):
    slow = "sleep" in source
    judge = CommandJudge(command=command(tmp_path, source), timeout=1 if slow else 60)
    with pytest.raises(Failure, match=message):
        AutoInterp(judge=judge, only=(0,)).interpret(codes, text, atoms)


def test_a_command_that_is_not_there_is_a_usage_error():
    for words, message in (
        ("", "must be given"),
        ("no-such-program-here x", "cannot be started"),
        ("'", "quotation"),
    ):
        with pytest.raises(UsageError, match=message), CommandJudge(command=words).open():
            pass


def test_the_token_judge_keeps_all_it_needs_as_plain_values(text, codes, atoms):
    import json

    windows = Windows(text, Firing(codes), atoms, 12, 8)
    examples = [windows.example(0, row) for row in Firing(codes)[0][0][:20].tolist()]
    explanation = TokenJudge().explain(Evidence(examples, [], []))
    again = Explanation(explanation.text, json.loads(json.dumps(explanation.detail)))
    assert np.array_equal(TokenJudge().detect(again, examples), TokenJudge().detect(explanation, examples))
    empty = TokenJudge().explain(Evidence([], [], []))
    assert empty.text == "no token stands out"
    assert np.isfinite(TokenJudge().detect(empty, examples)).all()
