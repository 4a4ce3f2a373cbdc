"""The user's own text: a suggestion in words that the model knows, and a warning of those that it does not know."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from interp.models.model import Model
from interp.tasks import make_task
from interp.tasks.tokenise import unknown_pieces, unknown_words
from interp_dashboard.formatting import plain
from interp_dashboard.model_cache import model_cache

SUGGESTIONS = (
    ("The cat sat on the mat because the cat was tired.", "The dog sat on the mat because the dog was tired."),
    (
        "When Mary and John went to the store, John gave a drink to Mary.",
        "When Sarah and Mark went to the store, Mark gave a drink to Sarah.",
    ),
)
"""Pairs of sentences: the first is suggested, the second beside it where two texts are compared."""
N_WORDS = 8
"""Number of words of a suggestion made of a vocabulary's own words."""
NAMED = 5
"""Unknown words that a warning names."""


@st.cache_data(max_entries=64, show_spinner=False)
def suggested_texts(model: str, weights: str) -> tuple[str, str]:
    """A sentence without unknown tokens and another one to compare with it; words of the vocabulary where it knows no pair of them."""
    with model_cache().acquire(model) as loaded:
        if loaded.tokenizer is None:
            return SUGGESTIONS[0]
        pairs = (*SUGGESTIONS, _own_words(loaded))
        return next((pair for pair in pairs if pair[0] and not any(_n_unknown(loaded, text) for text in pair)), SUGGESTIONS[0])


@st.cache_data(max_entries=16, show_spinner=False)
def suggested_prompt(model: str, weights: str) -> str:
    """A prompt that a model continues, with a plan to follow; the first suggested text where it does not know the words."""
    with model_cache().acquire(model) as loaded:
        try:
            example = make_task("plan_following", loaded, n_prompts=1, seed=0).examples[0]
        except (ValueError, LookupError):
            return suggested_texts(model, weights)[0]
        tokens = example.clean[: example.marks["response"][0]]
        return str(loaded.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


@st.cache_data(max_entries=256, show_spinner=False)
def unknown_in(model: str, weights: str, *texts: str) -> list[str]:
    """The words of the texts that the model does not know, each once."""
    with model_cache().acquire(model) as loaded:
        return list(dict.fromkeys(word for text in texts if _n_unknown(loaded, text) for word in unknown_words(loaded, text)))


def warn_of_unknown(model: str, words: Sequence[str]) -> None:
    """A warning that names the unknown words. Nothing if there are none."""
    if words:
        named = ", ".join(words[:NAMED]) + (f" and {len(words) - NAMED} more" if len(words) > NAMED else "")
        warning = f"{model} does not know {named}: each is read as the same unknown token, which repetition scores leave out."
        st.warning(plain(warning), icon=":material/help:")


def name_unknown(model: Model, texts: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """The tokens ``words`` of the texts, one after the other, with the original word before each unknown token."""
    pieces = iter([piece for text in texts if _n_unknown(model, text) for piece in unknown_pieces(model, text)])
    unknown = None if model.unknown_id is None else model.to_str_tokens([model.unknown_id])[0]
    return tuple(_named(word, next(pieces, "")) if word == unknown else word for word in words)


def _named(unknown: str, piece: str) -> str:
    return unknown if piece == unknown else f"{piece}{unknown}"


def _n_unknown(model: Model, text: str) -> int:
    """Number of unknown tokens; 0 for a tokenizer that does not tell which words they are."""
    if model.unknown_id is None or not getattr(model.tokenizer, "is_fast", False):
        return 0
    return model.to_tokens_without_special(text).count(model.unknown_id)


def _own_words(model: Model) -> tuple[str, str]:
    """The first words of the vocabulary, and the same in another order."""
    words = sorted(
        {word for token in model.tokenizer.get_vocab() if (word := token.lstrip("Ġ▁")).isalnum() and not word.isdigit()}
    )[:N_WORDS]
    return " ".join(words), " ".join(reversed(words))
