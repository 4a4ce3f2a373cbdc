"""Texts as the user's message of a conversation, written with the chat template that comes with the model's tokenizer.

A template writes all special tokens itself, BOS included, so its text is encoded as it is. Whatever it adds beside the message (a
system prompt, the date) is the template's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.errors import first_line

if TYPE_CHECKING:
    from interp.models.model import Model

MESSAGE = "{the message of the user}"
"""A message whose place in the template is looked up."""


def chat_parts(model: Model, text: str) -> tuple[str, str, str]:
    """What the template writes before the message, the message, and what it writes after it, up to where the answer begins. The message is
    ``text``, without white space at its ends where the template removes that.

    Raises ValueError for an encoder, a tokenizer without a template, a template that refuses the text or changes it, and a text that
    begins with the special token with which the template begins.
    """
    name, tokenizer = model.facts.name, model.tokenizer
    model.to_tokens_without_special("")  # says so if there is no tokenizer
    if not model.facts.causal:
        raise ValueError(f"{name} is an encoder, which answers no message: leave out chat (--chat).")
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"The tokenizer of {name} has no chat template: leave out chat (--chat), or load a model that is made for conversations."
        )
    rendered = _render(name, tokenizer, text)
    before, _, after = _render(name, tokenizer, MESSAGE).partition(MESSAGE)
    message = next((part for part in (text, text.strip()) if rendered == f"{before}{part}{after}"), None)
    if message is None:
        raise ValueError(
            f"The chat template of {name} changes the text {text[:30]!r}: leave out chat (--chat), and write it in full."
        )
    starts = [model.to_tokens_without_special(part)[:1] for part in (rendered, message)]
    if starts[0] == starts[1] and set(starts[0]) <= set(tokenizer.all_special_ids):
        begin = model.to_string(starts[0])
        raise ValueError(f"The text begins with {begin}, which the chat template of {name} writes by itself: leave it out.")
    return before, message, after


def _render(name: str, tokenizer: Any, text: str) -> str:
    message = [{"role": "user", "content": text}]
    try:
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template is a program of the model's authors
        raise ValueError(
            f"The chat template of {name} fails for {text[:30]!r} ({first_line(error)}): leave out chat (--chat)."
        ) from error
