"""Manual ablation: the continuation of a prompt with some heads ablated, and the probabilities of the next token."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from interp.ablation import Continuation, compare_next_tokens, continue_prompt
from interp.ablation.ablations import NEEDS, ablations, build_variants
from interp.heads import Head
from interp.interventions import INTERVENTIONS
from interp.tasks import make_task
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptChoice
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import plain, visible
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import View
from interp_dashboard.selectable_figures_and_tables import show_table
from interp_dashboard.suggested_texts_and_unknown_words import unknown_in, warn_of_unknown
from interp_dashboard.url import Field, choice, heads, number

PER_EXAMPLE = NEEDS - {"means"}
"""Needs that are supplied for each example of a task, and that a single prompt does not have."""
MOST_TOKENS = 64
MEAN_TASK, MEAN_PROMPTS = "induction", 64
TOP = 10
NAMED = 6


def fields() -> tuple[Field, ...]:
    """The ablated heads, the kind of ablation, and the number of generated tokens."""
    return (
        heads("ablated"),
        choice("manual_ablation", list(ablations(PER_EXAMPLE)), "zero", noun="ablation"),
        number("n_tokens", 12, 1, MOST_TOKENS),
    )


def manual_ablation_panel(view: View) -> None:
    """Select heads and compare the continuation of the prompt with and without them."""
    state, facts = view.state, view.facts
    prompt = prompts.choose(view)
    known = facts.heads()
    absent = [head for head in state["ablated"] if head not in known]
    if absent:
        state.notices.append(f"{facts.name} has no head {absent[0]}: unknown heads were removed from the selection.")
        state.set(ablated=[head for head in state["ablated"] if head in known])
    described = ablations(PER_EXAMPLE)
    which, kind, length = st.columns([3, 2, 1], vertical_alignment="bottom")
    which.multiselect("Heads to ablate", known, placeholder="L0H0, L3H1 …", **state.widget_args("ablated"))
    named: Any = {"format_func": lambda name: f"{name}: {described[name]}", **state.widget_args("manual_ablation")}
    kind.selectbox("Ablation", list(described), **named)
    length.number_input("Tokens to generate", 1, MOST_TOKENS, **state.widget_args("n_tokens"))
    ablated, ablation = tuple(state["ablated"]), state["manual_ablation"]
    if not prompt.task:
        warn_of_unknown(view.model, unknown_in(view.model, facts.weights_digest, prompt.text))
    with st.spinner(f"{plain(view.model)} generates …", show_time=True):
        table, text, before, after = _compared(view.model, facts.weights_digest, prompt, ablated, ablation, state["n_tokens"])
    _texts(text, before, after, ablated)
    if not ablated:
        st.info("No head is ablated. Select heads to compare the continuation without them.", icon=":material/toggle_off:")
    _table(table, ablated)
    export_menu("next-tokens", python=_python(view.model, prompt, ablated, ablation, state["n_tokens"]), table=table)


@st.cache_resource(max_entries=64, show_spinner=False)
def _compared(
    model: str, weights: str, prompt: PromptChoice, ablated: tuple[Head, ...], ablation: str, n_tokens: int
) -> tuple[pd.DataFrame, str, str, str]:
    """The table of next tokens, the prompt as text, and its continuation by the intact and by the ablated model."""
    with model_cache().acquire(model) as loaded:
        before = _continuation(model, weights, prompt, (), ablation, n_tokens)
        after = _continuation(model, weights, prompt, ablated, ablation, n_tokens)
        texts = (loaded.to_string(prompt.tokens(loaded)), loaded.to_string(before.tokens), loaded.to_string(after.tokens))
        return (compare_next_tokens(loaded, before, after, TOP), *texts)


@st.cache_resource(max_entries=64, show_spinner=False)
def _continuation(
    model: str, weights: str, prompt: PromptChoice, ablated: tuple[Head, ...], ablation: str, n_tokens: int
) -> Continuation:
    constructor, change = INTERVENTIONS.get(ablation), ()
    with model_cache().acquire(model) as loaded:
        if ablated and not constructor.needs:  # no task, whose words not every tokenizer has
            change = (constructor(ablated),)
        elif ablated:
            means = make_task(prompt.task or MEAN_TASK, loaded, n_prompts=MEAN_PROMPTS, seed=prompt.seed)
            (change,) = build_variants(loaded, means, ablation, "all", [ablated], prompt.seed)
        return continue_prompt(loaded, prompt.tokens(loaded), n_tokens=n_tokens, intervene=change)


def _texts(prompt: str, before: str, after: str, ablated: tuple[Head, ...]) -> None:
    st.caption("Prompt")
    st.code(prompt, language=None, wrap_lines=True)
    shown = {"Continuation, intact": before} | ({f"Continuation, {_named(ablated)} ablated": after} if ablated else {})
    for side, (label, text) in zip(st.columns(2), shown.items(), strict=False):
        with side:
            st.caption(label)
            st.code(text, language=None, wrap_lines=True)


def _table(table: pd.DataFrame, ablated: tuple[Head, ...]) -> None:
    if ablated:
        first, then = (table.loc[table[side].idxmax()] for side in ("before", "after"))
        changes = "stays" if first["token"] == then["token"] else "changes from"
        now = f", now {then['after']:.1%}" if changes == "stays" else f" to {_likely(then, 'after')}"
        st.markdown(f"The most probable next token {changes} {_likely(first, 'before')}{now}.")
    difference = f"; difference = ablated − intact, with {_named(ablated)} ablated" if ablated else ""
    st.caption(f"Probability of the next token{difference}.")
    most = float(table[["before", "after"]].to_numpy().max())

    def bar(label: str) -> Any:
        return st.column_config.ProgressColumn(label, format="percent", min_value=0, max_value=most)

    columns = {
        "text": "next token",
        "token": st.column_config.NumberColumn("id", format="%d"),
        "before": bar("intact"),
        "after": bar("ablated"),
        "difference": st.column_config.NumberColumn("difference (pp)", format="%+.2f", help="in percentage points"),
    }
    order = ["text", "before", "after", "difference", "token"] if ablated else ["text", "before", "token"]
    shown = table.assign(text=table["text"].map(visible), difference=100 * table["difference"])
    show_table(shown, "next-tokens-table", column_config=columns, column_order=order)


def _likely(row: Any, side: str) -> str:
    return f"**{plain(visible(row['text']))}** ({row[side]:.1%})"


def _named(ablated: tuple[Head, ...]) -> str:
    return ", ".join(map(str, ablated)) if len(ablated) <= NAMED else f"{len(ablated)} heads"


def _python(model: str, prompt: PromptChoice, ablated: tuple[Head, ...], ablation: str, n_tokens: int) -> str:
    code = f"before = continue_prompt(model, tokens, n_tokens={n_tokens})\n"
    if ablated:
        task = f"interp.make_task({prompt.task or MEAN_TASK!r}, model, n_prompts={MEAN_PROMPTS}, seed={prompt.seed})"
        change = f"(change,) = build_variants(model, {task}, {ablation!r}, 'all', [tuple(ablated)], {prompt.seed})"
        if not INTERVENTIONS.get(ablation).needs:
            change = f"change = [interventions.{ablation}(ablated)]"
        code += (
            f"ablated = [Head.parse(label) for label in {' '.join(map(str, ablated))!r}.split()]\n"
            f"{change}\n"
            f"after = continue_prompt(model, tokens, n_tokens={n_tokens}, intervene=change)\n"
            f"print(compare_next_tokens(model, before, after, k={TOP}))\n"
        )
    names = (
        "from interp import Head, interventions\nfrom interp.ablation import compare_next_tokens, continue_prompt\n"
        "from interp.ablation.ablations import build_variants\n"
    )
    return prompts.python_code(prompt, model).replace("import interp\n", f"import interp\n{names}", 1) + code
