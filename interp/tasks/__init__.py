"""Tasks: pairs of clean and corrupted prompts with a known answer; one file for each task.

``make_task`` generates the prompts of a task for one model, ``task_from_jsonl`` reads your own; a task file: ``definition.py``.
"""

from itertools import islice
from typing import Any

from interp._check_argument_types import checks_arguments
from interp.errors import ExtensionError
from interp.models.model import Model
from interp.registry import Registry
from interp.tasks.definition import TaskDefinition, task_definition
from interp.tasks.jsonl import task_from_jsonl
from interp.tasks.task import Example, Prompt, Task
from interp.tasks.text_marks import mark, read_marks
from interp.tasks.tokenise import WordFilter, to_example

__all__ = [
    "TASKS",
    "Example",
    "Prompt",
    "Task",
    "TaskDefinition",
    "WordFilter",
    "make_task",
    "mark",
    "read_marks",
    "task_definition",
    "task_from_jsonl",
    "task_names",
    "write_prompts",
]

TASKS = Registry(
    "interp.tasks",
    "task",
    group="interp.tasks",
    exclude=(
        "texts_as_task",
        "definition",
        "jsonl",
        "position_names",
        "task",
        "vocabulary_report",
        "text_marks",
        "token_batch",
        "tokenise",
        "words_and_templates",
    ),
    kind="TaskDefinition",
)


def task_names() -> list[str]:
    """Names of all tasks, sorted."""
    return TASKS.names()


@checks_arguments
def make_task(name: str, model: Model, n_prompts: int = 64, seed: int = 0, **options: Any) -> Task:
    """The task called ``name`` with ``n_prompts`` different prompts in the model's own tokens. The same name, seed, options and
    tokenizer give the same examples; fewer prompts are the first ones of more. Raises LookupError for an unknown task,
    ValueError for an unknown option, too many prompts, or an unfit vocabulary."""
    examples = tuple(to_example(model, prompt) for prompt in write_prompts(name, model, n_prompts, seed, **options))
    definition = TASKS.get(name)
    return Task(name, examples, definition.metric, {"n_prompts": n_prompts, "seed": seed, **definition.options, **options})


@checks_arguments
def write_prompts(name: str, model: Model, n_prompts: int = 64, seed: int = 0, **options: Any) -> list[Prompt]:
    """The prompts of ``make_task`` as text. Raises ExtensionError where the code of the task fails."""
    if n_prompts < 1:
        raise ValueError(f"n_prompts={n_prompts} is too few: give at least 1.")
    definition: TaskDefinition = TASKS.get(name)
    distinct: dict[str, Prompt] = {}
    prompts = definition.prompts(WordFilter(model, name), seed, **options)
    with TASKS.naming(name):
        # A task with a small vocabulary repeats itself; repeats would count one observation twice.
        for prompt in islice(prompts, 20 * n_prompts + 100):
            if not isinstance(prompt, Prompt):
                raise ExtensionError(f"Task {name!r} must yield interp.tasks.Prompt, not {type(prompt).__name__}.")
            distinct.setdefault(prompt.clean, prompt)
            if len(distinct) == n_prompts:
                return list(distinct.values())
    found = f"{len(distinct)} distinct prompts with these options and {model.facts.name}"
    raise ValueError(f"Task {name!r} has only {found}, not {n_prompts}.")
