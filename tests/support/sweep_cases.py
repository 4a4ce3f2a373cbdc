"""A small task of random tokens for the tiny models: two prompt lengths, several answers, one mark."""

import torch

from interp.heads import Head
from interp.tasks.task import Example, Task
from tests.support.tiny_models import D_VOCAB


def random_task(n_long: int = 3, n_short: int = 2, *, seed: int = 1) -> Task:
    """``n_long`` prompts of 11 tokens and ``n_short`` of 9, with a corrupted twin that differs at position 2."""
    generator = torch.Generator().manual_seed(seed)

    def example(length: int) -> Example:
        clean = torch.randint(4, D_VOCAB, (length,), generator=generator).tolist()
        corrupted = [*clean[:2], (clean[2] + 1) % D_VOCAB, *clean[3:]]
        answers = torch.randperm(D_VOCAB, generator=generator)[:3].tolist()
        return Example(tuple(clean), tuple(corrupted), (answers[0], answers[1]), (answers[2],), {"middle": (2, 5)})

    return Task("random", tuple(example(11) for _ in range(n_long)) + tuple(example(9) for _ in range(n_short)), "logit_diff")


def some_heads(model, *, every: int = 4) -> list[Head]:
    """A few heads of every layer."""
    return model.facts.heads()[::every]
