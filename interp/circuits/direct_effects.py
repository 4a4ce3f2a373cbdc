"""What heads, MLPs and the embedding contribute to the residual stream at END, and their direct effects on a token's logit.

The logit of a token is taken minus the mean logit, which makes it independent of a shift of all logits. ``effect = logit(with
the contribution replaced by its mean over prompts) - logit``; negative = the contribution promotes the token. Effects are
direct: those through later layers are not included. Tables call this ablation ``mean``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp._short_repr import short_repr
from interp.engine.edges.edge_patching import graph_of
from interp.engine.edges.residual_decomposition import decompose_residual
from interp.engine.sweep.outcome import check_single_tokens
from interp.engine.sweep.readout import Readout
from interp.engine.sweep.work_units import batches
from interp.graph import Node
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model
from interp.tasks.task import Task


@short_repr
@dataclass(frozen=True, eq=False)
class ResidualContributions:
    """``contributions`` [n_writers n_examples d_model] of ``writers`` at END; ``final_residual`` is what all of them give.

    ``logits(residual) -> [n_examples d_vocab]`` gives the logits of a residual at END, minus their mean.
    """

    writers: tuple[Node, ...]
    contributions: Float[Tensor, "n_writers n_examples d_model"]
    final_residual: Float[Tensor, "n_examples d_model"]
    logits: Callable[[Tensor], Tensor]

    def __getitem__(self, node: Node) -> Float[Tensor, "n_examples d_model"]:
        return self.contributions[self.writers.index(node)]

    def effects(self, tokens: Int[np.ndarray, " n_examples"]) -> Float[np.ndarray, "n_writers n_examples"]:
        """Direct effect of every writer on the logit of each example's token, in logits."""
        ids = torch.from_numpy(tokens).to(self.final_residual.device)[:, None]
        with torch.inference_mode():
            ablated = [self.logits(self.final_residual - own + own.mean(0)).gather(1, ids)[:, 0] for own in self.contributions]
            return (torch.stack(ablated) - self.logits(self.final_residual).gather(1, ids)[:, 0]).cpu().double().numpy()


def residual_contributions(model: Model, task: Task) -> ResidualContributions:
    """What every writer of the model's graph adds to the residual stream at END of the clean prompts.

    Raises ValueError for a model without a residual graph (``score_edges``).
    """
    check_single_tokens(task.examples, "Direct effects")
    graph, order, contributions, final = graph_of(model), [], [], []
    with model.lock, torch.no_grad():
        for example_ids in batches(task):
            decomposition = decompose_residual(model, [task.examples[i] for i in example_ids])
            order += example_ids
            contributions.append(decomposition.outputs[:, :, -1])
            final.append(decomposition.clean.final_residual)
            read = Readout(model, decomposition.clean.examples, OUTCOMES.get("answer_logprob"), decomposition.clean.logits)
    in_order = torch.tensor(order).argsort()

    def logits(residual: Tensor) -> Tensor:
        raw = read.logits(residual)
        return raw - raw.mean(-1, keepdim=True)

    return ResidualContributions(graph.writers, torch.cat(contributions, 1)[:, in_order], torch.cat(final)[in_order], logits)
