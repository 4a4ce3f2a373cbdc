"""Attention metrics of every head on a text, or on the prompts of a task: patterns are read in blocks and never stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from interp.errors import counted
from interp.experiments.experiment import OneShotExperiment, Progress, Spec, python_arguments, python_task
from interp.experiments.prompts import check_chat, load_task
from interp.experiments.run_folder import Notify
from interp.files import check_file, read_file, user_path
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.engine.attention.attention_metric import AttentionMetric
    from interp.engine.attention.attention_observer import Observation
    from interp.models.model import Model
    from interp.store import StoredRun
    from interp.tasks.task import Task

INPUTS = ("text", "file", "task", "prompts")
DEFAULT_METRICS = tuple(
    "attention_distance entropy received_attention self_attention_score prev_token_score induction_score".split()
)


@dataclass(frozen=True, kw_only=True)
class AttentionSpec(Spec):
    """What ``observe_attention`` is to read: one of ``text``, ``file`` (one text, or with ``lines`` one on each line), ``task`` and
    ``prompts`` (JSON Lines). ``chat``: each text of your own is the user's message in the model's chat template.

    ``metrics`` are names with optional parameters, such as ``windowed_distance:window=20``.
    """

    command: ClassVar[str] = "attention"

    text: str | None = None
    file: str | None = None
    lines: bool = False
    task: str | None = None
    prompts: str | None = None
    chat: bool = False
    metrics: tuple[str, ...] = DEFAULT_METRICS
    n_prompts: int = 64
    seed: int = 0

    def check(self) -> None:
        from interp.tasks import TASKS

        given = [f"--{name}" for name in INPUTS if getattr(self, name) is not None]
        if len(given) != 1:
            problem = f"{' and '.join(given)} do not go together" if given else "The text or task to read is missing"
            raise ValueError(f"{problem}: give one of --{', --'.join(INPUTS)}. Tasks: {', '.join(TASKS.names())}.")
        if self.task is not None:
            check_name(self.task, TASKS.names(), "task")
            check_chat(self.task, self.chat)
        if self.lines and self.file is None:
            raise ValueError("--lines reads a file line by line: give --file, or leave it out.")
        for file in (self.file, self.prompts):
            if file is not None:
                check_file(file)
        self.attention_metrics()

    def attention_metrics(self) -> list[AttentionMetric]:
        """The metrics with their parameters, at least one, each once."""
        from interp.metrics import attention_metrics

        chosen = attention_metrics(list(self.metrics))
        if not chosen:
            raise ValueError("--metrics names no metric: write entropy,attention_distance (`interp metrics` lists them).")
        names = [metric.name for metric in chosen]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(
                f"--metrics names {repeated} twice, and a run holds each metric once: use another --out for the second one."
            )
        if images := [metric.name for metric in chosen if "grid" in metric.needs]:
            raise ValueError(f"{images[0]} is a metric of image patches, and this command reads text: leave it out.")
        return chosen

    def bind(self, model: Model) -> AttentionExperiment:
        from interp.records import digest
        from interp.tasks.token_batch import check_lengths

        if self.text is not None or self.file is not None:
            name, text, arguments = read_text(self.text, self.file)
            texts = {"The text" if self.file is None else name: text}
            if self.lines:
                texts = {f"{name}, line {n}": line for n, line in enumerate(text.splitlines(), 1) if line.strip()}
            rows = [(model.to_chat_tokens if self.chat else model.to_tokens)(text) for text in texts.values()]
            check_lengths(model, rows, list(texts))
            arguments |= {name: True for name in ("lines", "chat") if getattr(self, name)}
            size = {"n_prompts": len(rows)} if self.lines else {}
            size["n_tokens"] = sum(map(len, rows))
            return AttentionExperiment(self, model, rows, name, {**arguments, **size}, digest(rows))
        task = load_task(model, self.task, self.prompts, self.n_prompts, self.seed, chat=self.chat, at_least=1)
        size = {"n_prompts": len(task), "n_tokens": sum(len(example.clean) for example in task)}
        return AttentionExperiment(self, model, task, task.name, {**task.arguments, **size}, task.digest())

    def to_python(self) -> str:
        encode = "model.to_chat_tokens" if self.chat else "model.to_tokens"
        if self.text is not None:
            read = f"prompts = {encode}({self.text!r})"
        elif self.file is None:
            read = f"prompts = {python_task(self.task, self.prompts, self.n_prompts, self.seed, chat=self.chat)}"
        else:
            each = f"[{encode}(line) for line in text.splitlines() if line.strip()]"
            read = f"text = pathlib.Path({str(user_path(self.file))!r}).read_text(encoding='utf-8-sig')\n"
            read += f"prompts = {each if self.lines else f'{encode}(text)'}"
        start = "import pathlib\n\n" if self.file is not None else ""
        observed = f"observation = interp.observe_attention(model, prompts, {python_arguments(list(self.metrics))})\n"
        return f"{start}{self.python_model()}{read}\n{observed}"


@dataclass(frozen=True)
class AttentionExperiment(OneShotExperiment[AttentionSpec]):
    """The metrics of one model on ``prompts`` (a task, or the token ids of each text), with their name and a digest of their tokens."""

    kind: ClassVar[str] = "attention"
    prompts: Task | list[list[int]]
    name: str
    arguments: dict[str, Any]
    tokens: str

    def inputs(self) -> dict[str, Any]:
        read = {"input": self.name, "arguments": self.arguments, "tokens": self.tokens, "seed": self.spec.seed}
        return {**read, "metrics": [metric.label for metric in self.spec.attention_metrics()]}

    def name_parts(self) -> tuple[str, ...]:
        return "attention", Path(self.name).stem, self.model_name

    def title(self) -> str:
        n_tokens, facts = self.arguments["n_tokens"], self.model.facts
        metrics, heads = counted(len(self.spec.metrics), "metric"), counted(len(facts.heads()), "head")
        return f"{metrics} of {heads} on {counted(n_tokens, 'token')}"

    def plan(self, memory: int | None = None) -> CostEstimate:
        """One unit per text; the bytes of a forward pass over the longest one, seconds NaN."""
        from interp.ablation.ablate_heads import CostEstimate
        from interp.models.memory import forward_bytes

        lengths = [len(row) for row in self._rows()]
        return CostEstimate(len(lengths), forward_bytes(self.model.facts, 1, max(lengths), patterns=False), float("nan"))

    def measure(self, progress: Progress | None, memory: int | None, notify: Notify) -> Observation:
        from interp.metrics import observe_attention

        observation = observe_attention(self.model, self.prompts, self.spec.attention_metrics(), memory=memory)
        self._notify_unknown_words(notify)
        record = replace(observation.record, task=self.name, arguments=self.arguments, seed=self.spec.seed)
        return replace(observation, record=record)

    def save(self, result: Observation, folder: Path) -> StoredRun:
        from interp.store import save_observation

        return save_observation(result, self.model.facts, folder, self.identity)

    def _notify_unknown_words(self, notify: Notify) -> None:
        unknown = getattr(self.model.tokenizer, "unk_token_id", None)
        tokens = [token for row in self._rows() for token in row]
        if n := sum(token == unknown for token in tokens):
            notify(f"Note: {self.model.facts.name} does not know all words: {n:,} of {len(tokens):,} tokens are unknown.")

    def _rows(self) -> Sequence[Sequence[int]]:
        """The token ids of each text."""
        return self.prompts if isinstance(self.prompts, list) else [example.clean for example in self.prompts]


def read_text(text: str | None, file: str | None) -> tuple[str, str, dict[str, Any]]:
    """Name, text, and what to record of a file. Raises ValueError for text that is empty or not UTF-8."""
    if file is None:
        assert text is not None
        if not text.strip():
            raise ValueError("--text is empty: give at least one word.")
        return "text", text, {}
    file, content = read_file(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start:,}): save it as UTF-8.") from None
    if not text.strip():
        raise ValueError(f"{file} is empty: give a file with at least one word.")
    name = Path(file).name
    return name, text, {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
