"""Prompts in any form as a task, so that what runs over a task also runs over plain texts."""

from interp.models.model import Model
from interp.tasks.task import Example, Task
from interp.tasks.token_batch import Prompts, as_batch


def as_task(model: Model, prompts: Prompts) -> Task:
    """The task itself, or prompts as a task ``texts`` whose answers are placeholders: only the loss of its own tokens has a meaning. Raises
    ValueError as ``as_batch`` does, and for images."""
    if isinstance(prompts, Task):
        return prompts
    batch = as_batch(model, prompts)
    if batch.grid is not None:
        raise ValueError("Images have no tokens, which a task needs: read their attention with observe_attention.")
    rows = [tuple(ids[token_mask].tolist()) for ids, token_mask in zip(batch.tokens, batch.token_mask, strict=True)]
    return Task("texts", tuple(Example(row, row, (0,), ()) for row in rows), "answer_loss")
