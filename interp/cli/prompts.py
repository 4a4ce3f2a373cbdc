"""What is asked of a model: a task by its name, or prompts of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.exit_codes import UsageError
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.models.model import Model
    from interp.tasks.task import Task


def check_task_options(task: str | None, prompts: Path | None) -> None:
    """Raises where it is not one of both that is given, for an unknown task, and for a file that is not there."""
    from interp.tasks import TASKS

    if (task is None) == (prompts is None):
        raise UsageError(f"Give either --task or --prompts FILE.jsonl. Tasks: {', '.join(TASKS.names())}.")
    if task is not None:
        check_name(task, TASKS.names(), "task")
    if prompts is not None and not prompts.is_file():
        raise UsageError(f"There is no file {prompts}.")


def load_task(
    model: "Model", task: str | None, prompts: Path | None, n_prompts: int, seed: int, options: Mapping[str, Any] | None = None
) -> "Task":
    """The task with its own ``options``, or the prompts of the file as one. Raises UsageError where there are too few for an interval."""
    from interp.tasks import make_task, task_from_jsonl

    if prompts is not None:
        question = task_from_jsonl(prompts, model)
    else:
        assert task is not None
        question = make_task(task, model, n_prompts=n_prompts, seed=seed, **(options or {}))
    if len(question) < 2:
        raise UsageError(
            f"An interval over prompts needs at least 2 of them, and {question.name} has {len(question)}: give more."
        )
    return question


def discovery_and_test_tasks(
    model: "Model", task: str | None, prompts: Path | None, n_prompts: int, seed: int, *, paired: bool = True
) -> "tuple[Task, Task]":
    """What a circuit is found on, and what it is tested on: prompts of a task of this seed and of the next one, or the two halves of a file
    in an order drawn with the seed.

    Raises UsageError for a file of fewer than four prompts, and where they are to be ``paired`` and one has no corrupted prompt.
    """
    if prompts is None:
        return load_task(model, task, None, n_prompts, seed), load_task(model, task, None, n_prompts, seed + 1)
    whole = load_task(model, None, prompts, n_prompts, seed)
    if paired and (bare := sum(example.clean == example.corrupted for example in whole)):
        raise UsageError(
            f"{bare} of the {len(whole)} prompts of {prompts} have no corrupted one that differs, which edges are shown: add "
            f'"corrupted" to their lines, or take another --ablation.'
        )
    if len(whole) < 4:
        raise UsageError(
            f"A circuit is found on one half of the prompts and tested on the other, 2 at least, and {prompts} has {len(whole)} in "
            f"all: give 4 or more."
        )
    return whole.halves(seed)
