"""Responses: text that a model wrote, or that is given, after a prompt; their tokens are marked ``response``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from interp.engine.forward.generation import generate
from interp.models.model import Model
from interp.tasks import Example, Task, make_task

RESPONSE = "response"


@dataclass(frozen=True)
class ResponseOptions:
    """Which texts, and how a model goes on with them; the names are those of ``preplan_anchor``."""

    task: str
    n_prompts: int
    prompt: str | None
    response: str | None
    n_tokens: int
    temperature: float
    seed: int


class Text(NamedTuple):
    """Token ids, the place where the response starts, and whether the model goes on with it."""

    tokens: tuple[int, ...]
    start: int
    goes_on: bool


def texts_of(
    model: Model, question: ResponseOptions, prompts: Task | Sequence[Sequence[int]] | None, starts: Sequence[int] | None
) -> tuple[str, list[Text]]:
    """The texts that are asked for, and what they are called.

    The response of a task's prompt starts at its mark ``response``; other prompts are all prompt. Raises ValueError when there are none,
    and for a response without a prompt or ``starts`` of another number.
    """
    if prompts is None and question.prompt is not None:
        ids = model.to_tokens(question.prompt)
        given = [] if question.response is None else model.to_tokens_without_special(question.response)
        return "text", [Text((*ids, *given), len(ids), question.response is None)]
    if question.response is not None:
        raise ValueError("response= was given without prompt=, the text that it answers: give both.")
    if prompts is None:
        prompts = make_task(question.task, model, question.n_prompts, question.seed)
    if isinstance(prompts, Task):
        return prompts.name, [Text(e.clean, e.marks.get(RESPONSE, (len(e.clean),))[0], True) for e in prompts]
    if not len(prompts) or (starts is not None and len(starts) != len(prompts)):
        raise ValueError(
            f"{len(prompts)} texts with {starts and len(starts)} response_start: give at least one text, and a place for each or none."
        )
    places = [len(ids) for ids in prompts] if starts is None else starts
    return "tokens", [Text(tuple(ids), place, starts is None) for ids, place in zip(prompts, places, strict=True)]


def with_response(model: Model, text: Text, question: ResponseOptions, row: int) -> Example:
    """A text with its response, marked; what is drawn at random is drawn anew for each ``row``."""
    tokens = text.tokens
    if text.goes_on:
        seed = int(np.random.SeedSequence([question.seed, row]).generate_state(1)[0])
        how = {"temperature": question.temperature, "seed": seed, "stop": True}
        tokens = (*tokens, *generate(model, tokens, question.n_tokens, **how).tokens)
    return Example(tokens, tokens, (), (), {RESPONSE: (text.start, len(tokens))})


def check_responses(examples: Sequence[Example], low: int) -> None:
    """Raises ValueError for a text without a response, and for one of which fewer than 3 tokens are followed by ``low`` others."""
    for row, example in enumerate(examples):
        start, end = example.marks[RESPONSE]
        if not 0 <= start < end:
            raise ValueError(
                f"Text {row} has {end} tokens and no response from place {start} on: the model wrote nothing, or the place is wrong."
            )
        if end - start < low + 3:
            raise ValueError(
                f"The response of text {row} has {end - start} tokens, and the horizon begins {low} tokens ahead: take responses of "
                f"{low + 3} tokens or more, or a smaller low."
            )
