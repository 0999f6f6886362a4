"""CommandJudge: any program as a judge, a language model behind it or not; JSON lines in, JSON lines out."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.errors import Failure, UsageError
from unmix.core.named import own_environment
from unmix.scores.judging.base import AtWork, Context, Evidence, Explanation, Judge


class CommandJudge(Judge):
    """A program that reads one JSON object a line and answers each with one line; it is started once and kept.

    Explain: {"task": "explain", "examples": [...], "contrast": [...]} -> {"explanation": "words"}.
    Detect and fuzz: {"task": "detect" or "fuzz", "explanation": "words", "contexts": [...]} ->
    {"probabilities": [one number in 0..1 for each context]}. A context is {"tokens": [...], "marks": [positions]};
    those of examples have "activations" too, those of questions never. Standard error is passed on when it fails.

    command: program and arguments, split as a shell would, run without a shell. timeout: seconds for one answer.
    examples: of each kind, at most so many are sent to be explained.
    Raises `UsageError` where there is no such program, and `Failure` where it dies, takes too long, or answers with
    anything else.
    """

    reference: ClassVar[str] = "protocol of unmix; tasks as in Paulo et al. 2024, arXiv 2410.13928"

    command: str = Field(default="", description="program and arguments")
    timeout: float = Field(default=120.0, gt=0)
    examples: int = Field(default=20, ge=1)

    @property
    def code(self) -> str | None:
        """The command."""
        return self.command or None

    @contextlib.contextmanager
    def open(self) -> Iterator[AtWork]:
        with _Process(self) as process:
            yield process

    def explain(self, evidence: Evidence) -> Explanation:
        with self.open() as judge:
            return judge.explain(evidence)

    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        with self.open() as judge:
            return judge.detect(explanation, contexts)

    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        with self.open() as judge:
            return judge.fuzz(explanation, contexts)


class _Process:
    """The program at work."""

    def __init__(self, recipe: CommandJudge) -> None:
        self.recipe = recipe
        try:
            words = shlex.split(recipe.command)
        except ValueError as error:
            raise UsageError(f"CommandJudge.command={recipe.command!r}: {error}") from None
        if not words:
            raise UsageError("CommandJudge.command: must be given, such as 'python my_judge.py'")
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=self.errors, env=own_environment())
        except OSError as error:
            self.errors.close()
            raise UsageError(
                f"CommandJudge.command={recipe.command!r}: cannot be started ({error.strerror or error})"
            ) from None
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=5)
        self.process.stdout.close()  # type: ignore[union-attr]
        self.errors.close()

    def explain(self, evidence: Evidence) -> Explanation:
        most = self.recipe.examples
        parts = {"examples": evidence.examples[:most], "contrast": evidence.contrast[:most]}
        answer = self._ask({"task": "explain", **{name: [_sent(c) for c in part] for name, part in parts.items()}})
        text = answer.get("explanation")
        if not isinstance(text, str) or not text.strip() or answer.keys() != {"explanation"}:
            raise self._failure(f'answered explain with {_short(answer)}; wanted {{"explanation": "words"}}')
        return Explanation(text.strip())

    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return self._judge("detect", explanation, contexts)

    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return self._judge("fuzz", explanation, contexts)

    def _judge(self, task: str, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        sent = [_sent(context) for context in contexts]
        answer = self._ask({"task": task, "explanation": explanation.text, "contexts": sent})
        found = answer.get("probabilities")
        good = isinstance(found, list) and len(found) == len(sent) and answer.keys() == {"probabilities"}
        if not good or not all(isinstance(p, (int, float)) and math.isfinite(p) and 0 <= p <= 1 for p in found or ()):
            raise self._failure(
                f'answered {task} with {_short(answer)}; wanted {{"probabilities": [{len(sent)} numbers in 0..1]}}'
            )
        return np.array(found, dtype=float)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        line = json.dumps(request).encode() + b"\n"
        # In a thread: a program that does not read would block a long request for ever.
        threading.Thread(target=self._write, args=(line,), daemon=True).start()
        try:
            reply = self.lines.get(timeout=self.recipe.timeout)
        except queue.Empty:
            self.process.kill()
            raise self._failure(f"gave no answer in {self.recipe.timeout:g} s; raise timeout") from None
        if reply is None:
            raise self._failure("ended without an answer")
        try:
            answer = json.loads(reply)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise self._failure(f"answered with a line that is not JSON: {_short(reply)}") from None
        if not isinstance(answer, dict):
            raise self._failure(f"answered with {_short(answer)}, which is no JSON object")
        return answer

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # a dead program is noticed where its answer is waited for
            self.process.stdin.write(line)  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line)
        self.lines.put(None)

    def _failure(self, what: str) -> Failure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=0.2)
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        status = "" if self.process.returncode in (None, 0) else f" (status {self.process.returncode})"
        return Failure(
            f"judge {self.recipe.command!r} {what}{status}{f'; it said: {said[-1][:200]}' if said else ''}"
        )


def _sent(context: Context) -> dict[str, Any]:
    sent: dict[str, Any] = {"tokens": list(context.tokens), "marks": list(context.marks)}
    if context.activations is not None:
        sent["activations"] = [round(value, 4) for value in context.activations]
    return sent


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
