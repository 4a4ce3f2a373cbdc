"""Prompts in any form as one padded batch of token ids, the form in which a model runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp._short_repr import short_repr
from interp.models.model import Model
from interp.models.read_facts import reads_images
from interp.tasks.position_names import resolve_positions
from interp.tasks.task import Example, Span, Task

Prompts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor | Task | Sequence[Example]
"""Text, texts, token ids [pos] or [batch pos], a task or examples (their clean prompts); pixels for image models."""


@short_repr
@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Prompts of one run: ``tokens`` [batch pos], and ``token_mask`` [batch pos], which is False for padding, on either side.
    ``marks`` are half-open spans of own positions. For images ``tokens`` are 0, ``grid`` is (rows, columns, tokens before).
    ``unknown_id`` is the id that stands for every unknown word: two such tokens are no repetition."""

    tokens: Int[Tensor, "batch pos"]
    token_mask: Bool[Tensor, "batch pos"]
    marks: Sequence[dict[str, Span]] = ()
    grid: tuple[int, int, int] | None = None
    unknown_id: int | None = None
    _masks: dict[str | tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """Position of each token in its own prompt, from 0; negative for padding before it, counted on for padding after it."""
        first = self.token_mask.int().argmax(-1, keepdim=True)
        return torch.arange(self.token_mask.shape[1], device=self.token_mask.device) - first

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of each prompt."""
        return self.token_mask.sum(1).tolist()

    @cached_property
    def padded(self) -> bool:
        """Whether any prompt is padded."""
        return not bool(self.token_mask.all())

    def position_mask(self, positions: str | tuple[int, ...]) -> Bool[Tensor, "batch pos"]:
        """True at the tokens that ``positions`` (as in an Intervention) names, [batch pos]."""
        if positions not in self._masks:
            mask = torch.zeros_like(self.token_mask)
            for row, token_mask in enumerate(self.token_mask):
                start, marks = int(token_mask.int().argmax()), self.marks[row] if self.marks else {}
                mask[row, [start + i for i in resolve_positions(positions, self.lengths[row], marks)]] = True
            self._masks[positions] = mask
        return self._masks[positions]

    def prompt(self, index: int) -> TokenBatch:
        """One prompt alone, with its padding; nothing is copied."""
        one = slice(index, index + 1)
        return replace(self, tokens=self.tokens[one], token_mask=self.token_mask[one], marks=self.marks[one], _masks={})

    def cpu(self) -> TokenBatch:
        """The same batch on the CPU."""
        return replace(self, tokens=self.tokens.cpu(), token_mask=self.token_mask.cpu(), _masks={})


def as_batch(model: Model, prompts: Prompts, token_mask: Tensor | None = None) -> TokenBatch:
    """The prompts on the model's device, padded on the right with token 0. ``token_mask`` [batch pos] marks the tokens of a
    padded batch. Raises ValueError for a prompt without tokens or longer than the model's context, for an id that the model does not
    have, for padding between tokens, for text instead of images and the reverse."""
    if isinstance(prompts, Tensor) and prompts.dim() == 4:
        return _image_batch(model, prompts)
    if model.hf is not None and reads_images(model.hf):
        raise ValueError(f"{model.facts.name} reads images, not tokens: give pixels [batch channel height width].")
    examples = prompts.examples if isinstance(prompts, Task) else prompts
    marks = [e.marks for e in examples if isinstance(e, Example)] if not isinstance(examples, Tensor | str) else []
    rows = _token_rows(model, examples)
    check_lengths(model, rows)
    _check_ids(model, rows)
    longest = max(map(len, rows))
    if token_mask is None:
        token_mask = torch.tensor([[i < len(row) for i in range(longest)] for row in rows])
        rows = [[*row, *[0] * (longest - len(row))] for row in rows]
    _check_padding(token_mask, len(rows), longest)
    tokens, mask = torch.tensor(rows, device=model.device), token_mask.bool().to(model.device)
    return TokenBatch(tokens, mask, marks, unknown_id=model.unknown_id)


def by_length_class(model: Model, batch: TokenBatch) -> list[list[int]]:
    """Indices of the prompts that can share a pass: all of them, except in models whose frequencies depend on the length of the batch."""
    groups: dict[bytes, list[int]] = {}
    for i, length in enumerate(batch.lengths):
        groups.setdefault(model.length_class(length), []).append(i)
    return list(groups.values())


def check_one_pass(model: Model, batch: TokenBatch) -> None:
    """Raises ValueError for prompts that cannot share a pass, and for padding that would change the class of their length."""
    classes = {model.length_class(length) for length in (*batch.lengths, batch.tokens.shape[1])}
    if len(classes) > 1:
        found = f"The rotary frequencies of {model.facts.name} depend on the length of the whole batch"
        raise ValueError(
            f"{found}, and these prompts have {min(batch.lengths)} to {max(batch.lengths)} tokens: run each length by itself."
        )


def _token_rows(model: Model, prompts: Any) -> list[Sequence[int]]:
    """Token ids of each prompt; blank text has none."""
    rows: Any = [prompts] if isinstance(prompts, str) else prompts
    rows = rows.tolist() if hasattr(rows, "tolist") else list(rows)
    if rows and isinstance(rows[0], int):
        return [rows]
    if rows and isinstance(rows[0], str):
        return [model.to_tokens(text) if text.strip() else [] for text in rows]
    return [row.clean if isinstance(row, Example) else row for row in rows]


def check_lengths(model: Model, rows: Sequence[Sequence[int]], names: Sequence[str] | None = None) -> None:
    """Raises ValueError for no prompts at all, and for one that is empty or longer than the model's context; ``names`` are how the
    message calls them, by default by number."""
    if not rows:
        raise ValueError("There are no prompts: give text, token ids or examples.")
    limit = model.facts.max_length
    for i, row in enumerate(rows):
        name = names[i] if names else f"Prompt {i}"
        if not len(row):
            raise ValueError(f"{name} has no tokens: give at least one.")
        if limit is not None and len(row) > limit:
            found = f"{name} has {len(row)} tokens, more than the {limit} of {model.facts.name}'s context"
            raise ValueError(f"{found}: shorten it, or load a model with a longer context.")


def _check_ids(model: Model, rows: Sequence[Sequence[int]]) -> None:
    embed: Any = model.bridge.embed.W_E if model.hf is None else model.hf.get_input_embeddings().weight  # pyright: ignore[reportCallIssue]
    for i, row in enumerate(rows):
        low, high = min(row), max(row)
        if low < 0 or high >= len(embed):
            found = f"Prompt {i} has token id {low if low < 0 else high}, and {model.facts.name} has ids 0 to {len(embed) - 1}"
            raise ValueError(f"{found}: give ids of its own tokenizer, or load it with a tokenizer that belongs to it.")


def _check_padding(token_mask: Tensor, n_prompts: int, length: int) -> None:
    shape = tuple(token_mask.shape)
    if shape != (n_prompts, length):
        raise ValueError(f"`token_mask` has shape {shape}; for these prompts it must be ({n_prompts}, {length}).")
    mask = token_mask.bool()
    edges = (mask[:, 1:] != mask[:, :-1]).sum(1) + mask[:, 0] + mask[:, -1]  # one stretch of tokens has two
    holes = (edges != 2).nonzero().ravel().tolist()
    if holes:
        raise ValueError(f"Prompt {holes[0]} is empty or has padding between its tokens: pad before or after a prompt only.")


def _image_batch(model: Model, pixels: Float[Tensor, "batch channel height width"]) -> TokenBatch:
    config: Any = model.hf.config if model.hf is not None else None
    patch = getattr(config, "patch_size", None)
    if patch is None:
        raise ValueError(f"{model.facts.name} reads tokens, not images: give text or token ids.")
    down, right = (patch, patch) if isinstance(patch, int) else patch
    rows, columns, length = pixels.shape[2] // down, pixels.shape[3] // right, model.facts.max_length
    if length is None:
        raise ValueError(f"{model.facts.name} has no table of positions, which tells how many tokens precede the patches.")
    tokens = torch.zeros(len(pixels), length, dtype=torch.long, device=model.device)
    return TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), grid=(rows, columns, length - rows * columns))
