"""The prompts of a run: a registered task, or a JSON Lines file of the user's own."""

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from interp.files import check_file
from interp.options_text import parse_options
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.models.model import Model
    from interp.tasks.task import Task


def check_prompts(task: str | None, prompts: str | None, chat: bool) -> None:
    """Raises ValueError unless exactly one of task and prompts is given, and for a task with ``chat``; LookupError for an unknown task,
    FileNotFoundError for a missing file."""
    from interp.tasks import TASKS

    if task is not None and prompts is not None:
        raise ValueError(f"--task {task} and --prompts {prompts} exclude each other: leave one of them out.")
    if task is None and prompts is None:
        raise ValueError(f"Give either --task or --prompts FILE.jsonl. Tasks: {', '.join(TASKS.names())}.")
    if task is not None:
        check_name(task, TASKS.names(), "task")
        check_chat(task, chat)
    if prompts is not None:
        check_file(prompts)


def task_settings(task: str | None, settings: Sequence[str] | None) -> dict[str, Any]:
    """The options of a task written as ``name=value``. Raises LookupError for one that it does not have, ValueError for a value of another
    kind."""
    return parse_options(settings or [], *task_parameters(task))


def task_parameters(task: str | None) -> tuple[dict[str, Parameter], str]:
    """The options of a task beside the number of prompts and the seed, and what has them; none for a file of prompts."""
    from interp.tasks import TASKS

    if task is None:
        return {}, "A file of prompts"
    return TASKS.get(task).parameters, f"Task {task!r}"


def check_chat(task: str, chat: bool) -> None:
    """Raises ValueError for ``chat``, which belongs to prompts of the user's own."""
    if chat:
        raise ValueError(
            f"--chat writes your own prompts as messages, and the prompts of the task {task} are texts to be continued: leave it out, or "
            f"give --prompts FILE.jsonl."
        )


def load_task(
    model: "Model",
    task: str | None,
    prompts: str | None,
    n_prompts: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    *,
    chat: bool = False,
    at_least: int = 2,
) -> "Task":
    """The prompts in the model's tokens, with ``chat`` those of a file in its chat template. Raises ValueError for fewer than
    ``at_least`` prompts or clusters; an interval over them needs two."""
    from interp.tasks import make_task, task_from_jsonl

    if prompts is not None:
        loaded = task_from_jsonl(prompts, model, chat=chat)
    else:
        assert task is not None
        loaded = make_task(task, model, n_prompts=n_prompts, seed=seed, **(options or {}))
    what, n = _units(loaded)
    if n < at_least:
        raise ValueError(f"An interval over {what} needs at least {at_least} of them, and {loaded.name} has {n}: add prompts.")
    return loaded


def discovery_and_test_tasks(
    model: "Model",
    task: str | None,
    prompts: str | None,
    n_prompts: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    *,
    chat: bool = False,
    paired: bool = True,
) -> "tuple[Task, Task]":
    """The prompts on which a circuit is found and those on which it is tested: of a task the prompts of this seed and of the next, of a
    file its two halves in an order drawn with the seed.

    Raises ValueError for a file of fewer than four prompts or clusters, and, where they must be ``paired``, for prompts without a
    corrupted version.
    """
    if prompts is None:
        discovery, test = (load_task(model, task, None, n_prompts, own, options) for own in (seed, seed + 1))
        return discovery, test
    whole = load_task(model, None, prompts, n_prompts, seed, chat=chat)
    if paired and (n_unpaired := sum(example.clean == example.corrupted for example in whole)):
        raise ValueError(
            f"{n_unpaired} of the {len(whole)} prompts of {prompts} have no corrupted version that differs, which counterfactual "
            f'ablation needs: add "corrupted" to their lines, or choose another --ablation.'
        )
    what, n = _units(whole)
    if n < 4:
        raise ValueError(
            f"A circuit is found on one half of the {what} and tested on the other, at least 2 each, and {prompts} has {n} in all: give 4 "
            f"or more."
        )
    return whole.halves(seed)


def _units(task: "Task") -> tuple[str, int]:
    """What is independent in a task, and how many of them it has."""
    return ("clusters of prompts", task.n_clusters) if task.n_clusters else ("prompts", len(task))


def performance_sentences(model: "Model", tasks: "Sequence[Task]", metric: str) -> list[str]:
    """How well the unchanged model does each of the tasks, from a run of their prompts."""
    from interp.engine.sweep.sweep import outcome_and_performance
    from interp.metrics.outcomes import OUTCOMES

    outcome = OUTCOMES.get(metric)
    return [outcome_and_performance(model, task, outcome)[1].sentence(model.facts.name, task.name) for task in tasks]
