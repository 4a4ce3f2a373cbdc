"""The outcomes of one work unit by one hooked forward pass per variant: slow, and right for every model that has a bridge."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.forward.run import answer_logits
from interp.engine.sweep.outcome import Answers, Outcome
from interp.engine.sweep.variant import Variant
from interp.engine.sweep.work_units import WorkUnit
from interp.models.model import Model
from interp.tasks.task import Task
from interp.tasks.token_batch import as_batch


def hooked_outcomes(
    model: Model, task: Task, unit: WorkUnit, variants: Sequence[Variant], outcome: Outcome
) -> tuple[Float[np.ndarray, "n_runs n_examples"], Float[Tensor, "n_examples *n_tokens d_vocab"]]:
    """Outcomes of the unit's variants and, in the last row, of the clean run, and the logits of the clean run."""
    values, clean_logits = np.empty((len(unit.variants) + 1, len(unit.example_ids))), {}
    n_tokens = task.examples[unit.example_ids[0]].n_answer_tokens
    for length in {len(task.examples[i].clean) for i in unit.example_ids}:
        columns = [c for c, i in enumerate(unit.example_ids) if len(task.examples[i].clean) == length]
        examples = [task.examples[unit.example_ids[c]] for c in columns]
        example_ids = torch.tensor([unit.example_ids[c] for c in columns], device=model.device)
        answers, batch = Answers.of(examples, model.device), as_batch(model, examples)
        runs: list[Variant] = [*(variants[v] for v in unit.variants), ()]
        *changed, clean = [answer_logits(model, batch, example_ids, run, n_tokens) for run in runs]
        outcomes = torch.stack([outcome.of_logits(logits, answers, clean) for logits in [*changed, clean]])
        values[:, columns] = outcomes.cpu().double().numpy()
        clean_logits.update(zip(columns, clean, strict=True))
    return values, torch.stack([clean_logits[c] for c in range(len(unit.example_ids))])
