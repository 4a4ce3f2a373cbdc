"""What a tokenizer leaves of a task: the words of its lists that are single tokens, and the distinct prompts made of them."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

from interp.models.model import Model
from interp.tasks.task import Task
from interp.tasks.tokenise import WordFilter

MOST_PROMPTS = 1000
"""The number of distinct prompts up to which they are counted."""


@dataclass(frozen=True)
class TaskVocabulary:
    """``n_words`` words of the task's lists, of which ``n_single`` are single tokens wherever the task uses them; ``left_out`` are the
    others. ``n_distinct`` distinct prompts can be made of them; ``MOST_PROMPTS`` stands for that or more."""

    n_words: int
    n_single: int
    left_out: tuple[str, ...]
    n_distinct: int

    def sentence(self) -> str:
        """The counts in words."""
        some = ", ".join(self.left_out[:5]) + ", ..." * (len(self.left_out) > 5)
        left_out = f" ({len(self.left_out)} left out: {some})" if self.left_out else ""
        at_least = "at least " * (self.n_distinct == MOST_PROMPTS)
        return (
            f"{self.n_single} of {self.n_words} words are single tokens{left_out}, which leaves {at_least}{self.n_distinct} "
            f"distinct prompts."
        )


def task_vocabulary(model: Model, task: Task) -> TaskVocabulary:
    """The vocabulary of a built-in task, with the options that its prompts were made with."""
    from interp.tasks import TASKS

    usable = WordFilter(model, task.name)
    options: dict[str, Any] = {name: task.arguments[name] for name in TASKS.get(task.name).options if name in task.arguments}
    prompts = TASKS.get(task.name).prompts(usable, task.arguments.get("seed", 0), **options)
    distinct: set[str] = set()
    for prompt in islice(prompts, 2 * MOST_PROMPTS):
        distinct.add(prompt.clean)
        if len(distinct) == MOST_PROMPTS:
            break
    left_out = tuple(word for word, kept in usable.verdicts.items() if not kept)
    return TaskVocabulary(len(usable.verdicts), len(usable.verdicts) - len(left_out), left_out, len(distinct))
