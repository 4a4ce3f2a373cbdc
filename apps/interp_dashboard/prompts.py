"""The prompt selector of all pages: the user's own text, or a prompt of a task."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import streamlit as st

from interp.tasks import task_from_jsonl, task_names
from interp_dashboard import jobs
from interp_dashboard.attention_cache import PromptAttention, PromptChoice, attention_cache, place_in_task
from interp_dashboard.formatting import plain
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import View, needs_causal
from interp_dashboard.settings import settings
from interp_dashboard.suggested_texts_and_unknown_words import suggested_texts, unknown_in, warn_of_unknown
from interp_dashboard.url import Field, State, choice, flag, number, text

OWN = ""
FIRST_TASK = "induction"
MOST_EXAMPLES, MOST_PROMPTS = 1000, 4096
FILE = re.compile(r"[0-9a-f]{12}/[A-Za-z0-9_-]{1,60}")


def fields(suffix: str = "") -> tuple[Field, ...]:
    """The fields of a prompt; a page with a second prompt adds a ``suffix`` to their names. A text of None is the suggested one."""
    return (
        choice(f"task{suffix}", [OWN, *task_names()], FIRST_TASK, noun="task"),
        replace(text(f"text{suffix}"), default=None),
        number(f"seed{suffix}", 0, 0, 10**6),
        number(f"example{suffix}", 0, 0, MOST_EXAMPLES - 1),
        flag(f"corrupted{suffix}"),
    )


def prompts_file(state: State, needed: str = "clean and answer") -> Path | None:
    """The uploaded file of prompts, or the one named by the field ``file``, with the upload widget; None while there is none. ``needed``
    lists the keys that every line must have."""
    root = settings().root
    upload = st.file_uploader("JSON Lines file", type="jsonl", max_upload_size=20, key="prompts-file")
    if upload is not None:
        saved = jobs.save_uploaded_prompts(root, upload.name, upload.getvalue())
        state.set(file=f"{saved.parent.name}/{saved.stem}")
    named = state["file"]
    path = root / jobs.PROMPTS / f"{named}.jsonl"
    if named and FILE.fullmatch(named) and path.is_file():
        st.caption(f"Prompts of {path.stem}.jsonl")
        return path
    if named:
        state.notices.append("The prompts named by this address are not on this server: upload them.")
        state.set(file="")
    line = '{"clean": "Paris is in", "corrupted": "Rome is in", "answer": "France", "distractor": "Italy"}'
    st.info(f"One prompt per line, such as {line}; {needed} are required.", icon=":material/upload_file:")
    return None


@st.cache_resource(max_entries=8, show_spinner=False)
def prompt_texts(model: str, weights: str, file: str) -> list[str]:
    """The clean prompts of a file as text, without the beginning-of-sequence token."""
    with model_cache().acquire(model) as loaded:
        skip = int(loaded.facts.prepend_bos)
        return [loaded.to_string(example.clean[skip:]) for example in task_from_jsonl(file, loaded)]


def choose(view: View, suffix: str = "") -> PromptChoice:
    """The selected prompt, with its widgets; a bidirectional model has no task to choose."""
    state, facts = view.state, view.facts
    what, where = st.columns([1, 3], vertical_alignment="bottom")
    named: Any = {"format_func": lambda name: name or "Custom text"}
    if facts.causal:
        what.selectbox("Prompt", [OWN, *task_names()], **named, **state.widget_args(f"task{suffix}"))
    else:
        reason = needs_causal("Tasks", view)
        what.selectbox("Prompt", [OWN], disabled=True, help=plain(reason), key=f"own{suffix}", **named)
        if state[f"task{suffix}"] not in (OWN, FIRST_TASK):
            state.notices.append(f"{reason} A custom text is shown instead of the task {state[f'task{suffix}']}.")
    if not facts.causal or not state[f"task{suffix}"]:
        suggested = suggested_texts(view.model, facts.weights_digest)[bool(suffix)]
        with where:
            st.text_area("Text", height=80, placeholder="Any text", **state.widget_args(f"text{suffix}", suggested))
        return PromptChoice(text=suggested if state[f"text{suffix}"] is None else state[f"text{suffix}"])
    with where:
        example, seed, side = st.columns([3, 3, 5], vertical_alignment="bottom")
        example.number_input("Example", 0, MOST_EXAMPLES - 1, **state.widget_args(f"example{suffix}"))
        seed.number_input("Seed", 0, 10**6, **state.widget_args(f"seed{suffix}"))
        side.toggle("Corrupted prompt", **state.widget_args(f"corrupted{suffix}"))
    return PromptChoice(**{name: state[f"{name}{suffix}"] for name in ("task", "seed", "example", "corrupted")})


def read(view: View, prompt: PromptChoice, model: str | None = None) -> PromptAttention:
    """The attention of the selected model on the prompt, with a warning of unknown words. Raises as ``PromptAttentionCache.get``."""
    with st.spinner(f"{plain(model or view.model)} reads …", show_time=True):
        attention = attention_cache().get(model or view.model, prompt)
    if not prompt.task:
        warn_of_unknown(model or view.model, unknown_in(model or view.model, attention.facts.weights_digest, prompt.text))
    return attention


def python_code(prompt: PromptChoice, model: str) -> str:
    """Code that loads the model and makes ``tokens``, the prompt's token ids."""
    start = f"import interp\n\nmodel = interp.load_model({model!r})\n"
    if not prompt.task:
        return f"{start}tokens = model.to_tokens({prompt.text!r})\n"
    side = "corrupted" if prompt.corrupted else "clean"
    task = f"interp.make_task({prompt.task!r}, model, n_prompts={prompt.example + 1}, seed={prompt.seed})"
    return f"{start}task = {task}\ntokens = list(task.examples[{prompt.example}].{side})\n"


def name(prompt: PromptChoice) -> str:
    """The prompt in a few words: the beginning of the user's own text, or its place in a task."""
    if not prompt.task:
        return f"own text “{shorten(prompt.text, 60, placeholder=' …')}”"
    return f"{place_in_task(prompt)}, seed {prompt.seed}"


def caption(model: str, prompt: PromptChoice, attention: PromptAttention) -> str:
    """Model, prompt, length and digest of what is shown."""
    return f"{model} · {name(prompt)} · {len(attention.words):,} tokens · digest {attention.digest}"


def command(prompt: PromptChoice, model: str, metrics: Sequence[str]) -> str:
    """The command that computes these metrics on the prompt; empty for a later or corrupted prompt of a task, because the command uses the
    first clean ones."""
    if prompt.task and (prompt.example or prompt.corrupted):
        return ""
    what = f"--task {prompt.task} --n-prompts 1 --seed {prompt.seed}" if prompt.task else f"--text {shlex.quote(prompt.text)}"
    return f"interp attention --model {shlex.quote(model)} {what} --metrics {','.join(metrics)}"
