"""Any prompts as a task, so that what runs over a task runs over plain texts as well."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from interp.engine.attention.attention_observer import read_prompts
from interp.models.model import Model
from interp.tasks.task import Example, Task


def as_task(model: Model, prompts: Task | str | Sequence[int] | Sequence[Sequence[int]] | Tensor | Sequence[Example]) -> Task:
    """The task itself; or texts (as in ``observe``), examples too, as one whose answers mean nothing.

    Raises ValueError for empty texts, for more tokens than the model's context, and for images.
    """
    if isinstance(prompts, Task):
        return prompts
    texts, _ = read_prompts(model, prompts)
    if texts.grid is not None:
        raise ValueError("Images have no tokens, and this is measured on texts: read their attention with observe_attention.")
    rows = [tuple(ids[token_mask].tolist()) for ids, token_mask in zip(texts.tokens, texts.token_mask, strict=True)]
    return Task("texts", tuple(Example(row, row, (0,), ()) for row in rows), "loss")
