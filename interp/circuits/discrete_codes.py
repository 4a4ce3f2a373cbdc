"""Heads whose outputs take discrete codes found only on prompts with the behaviour (arXiv 2405.12522). Exploratory.

One sparse autoencoder is trained, in seconds, on the outputs of all heads (mean over ``positions``) for a few clean and
corrupted prompts; the strongest feature of an output is its code, -1 if none is active. The score of a head is the share of its
distinct codes, on other prompts, that occur on clean prompts and never on corrupted ones; that of a pair is the same for codes
that occur together. There is no intervention: a head that merely differs between the two kinds of prompts scores as high as one
that causes the answer. Compare with a causal effect, and with the p-value, which permutes the two kinds.

Deviations from the paper, each motivated by planted models: outputs of each head are normalised to ``sqrt(d_model)`` on average
(otherwise strong heads take all codes); 100 codes instead of 200, and scores divided by the number of distinct codes (otherwise
heads with varied outputs collect more); scores are computed on held-out prompts.

Accuracy on planted models (mini-IOI of 4 x 6 heads, 10 + 10 prompts for training, 50 + 50 for scoring): the AUROC of the four
planted heads is .97 to 1 for sharp attention and .83 to .88 for soft attention, since no code expresses how much of its one
direction a head writes. Smaller models and fewer prompts do worse, down to chance for soft heads and in `interp-mini`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from interp.circuits.clean_and_corrupted_runs import measurement_record
from interp.circuits.edge_replacement import check_pairs
from interp.engine.sweep.z_cache import cache_z
from interp.heads import Head, HeadScores
from interp.models.model import Model
from interp.models.value_and_output_weights import output_weights
from interp.records import RunRecord
from interp.tasks.task import Task

SPARSITY, LEARNING_RATE, EPOCHS = 0.02, 1e-3, 500
NAME = "discrete_codes (exploratory: planted AUROC .59-1)"
NOTE = (
    "exploratory: codes that differ between two kinds of prompts, not effects; AUROC of the planted heads of mini-IOI .97 to 1 where "
    "attention is sharp, .59 to .88 where it is soft"
)
UNIT = "share of codes"


@dataclass(frozen=True, eq=False, repr=False)
class DiscreteCodes:
    """``codes`` [n_examples 2 n_layers n_heads] of every held-out prompt, clean then corrupted; -1 = none.

    ``scores`` is the share of a head's codes found only on clean prompts (0 to 1), ``p_values`` [n_layers n_heads] how often
    random labels give as much. ``explained`` is the share of the training outputs' variance that is reconstructed.
    """

    codes: Int[np.ndarray, "n_examples 2 n_layers n_heads"]
    scores: HeadScores
    p_values: Float[np.ndarray, "n_layers n_heads"]
    explained: float
    record: RunRecord

    def __repr__(self) -> str:
        record, best = self.record, self.top(3)
        heads = ", ".join(f"{head} {self.scores[head]:.2f} (p {self.p_values[head]:.3f})" for head in best)
        return f"DiscreteCodes of {record.model} on {record.task}, {len(self.codes)} prompts scored: {heads} ... {NOTE}"

    def top(self, k: int) -> list[Head]:
        """The ``k`` heads with the highest scores, in order."""
        return self.scores.top(k, by="highest")

    def to_dataframe(self) -> pd.DataFrame:
        """One row per head: the columns of the scores, ``p_value``, and a ``note`` on their reliability."""
        return self.scores.to_dataframe().assign(p_value=self.p_values.ravel(), note=NOTE)

    def pairs_to_dataframe(self) -> pd.DataFrame:
        """One row per pair of a head and one of a later layer, ``writer reader value unit note``: the share of their joint
        codes found only on clean prompts."""
        n_layers, n_heads = self.p_values.shape
        codes = self.codes.swapaxes(0, 1).reshape(-1, n_layers * n_heads)
        layer = np.arange(n_layers * n_heads) // n_heads
        writer, reader = np.nonzero(layer[:, None] < layer)
        both = codes[:, writer] * (codes.max() + 1) + codes[:, reader]
        both[(codes[:, writer] < 0) | (codes[:, reader] < 0)] = -1
        names = [[str(Head(*divmod(int(i), n_heads))) for i in side] for side in (writer, reader)]
        shares = unique_share(both, np.arange(len(both)) < len(self.codes))
        return pd.DataFrame({"writer": names[0], "reader": names[1], "value": shares, "unit": UNIT, "note": NOTE})

    def plot(self, **options: Any) -> Any:
        """Layer x head heat map with the note in its caption; options as in ``interp.figures.head_map``."""
        return self.scores.plot(**{"notes": [NOTE], **options})


def find_codes(
    model: Model,
    task: Task,
    *,
    n_train: int = 10,
    n_codes: int = 100,
    positions: str = "all",
    n_permutations: int = 200,
    seed: int = 0,
) -> DiscreteCodes:
    """Codes of every head on the prompts of the task after the first ``n_train`` pairs, which train the autoencoder.

    Raises ValueError for prompts in clusters, for a task without corrupted prompts or without prompts left to score, and for no
    codes or permutations.
    """
    check_pairs(task)
    task.check_independent("find_codes, whose p-value permutes prompts,")
    if not 0 < n_train < len(task):
        raise ValueError(f"n_train={n_train} of {len(task)} prompts leaves none to score: train on fewer, or add prompts.")
    if min(n_codes, n_permutations) < 1:
        raise ValueError(f"n_codes={n_codes} and n_permutations={n_permutations}: use at least 1 of each.")
    x = _head_outputs(model, task, positions)
    x = x * (x.shape[-1] / x.square().sum(-1).mean((0, 1)).clamp(min=1e-12)).sqrt()[..., None]
    features, explained = _learn(x[:n_train].flatten(0, 3), x[n_train:], n_codes, seed)
    codes = torch.where(features.amax(-1) > 0, features.argmax(-1), -1).numpy()
    flat, positive = codes.swapaxes(0, 1).reshape(2 * len(codes), -1), np.arange(2 * len(codes)) < len(codes)
    share, rng = unique_share(flat, positive), np.random.default_rng(seed)
    drawn = np.stack([unique_share(flat, rng.permutation(positive)) for _ in range(n_permutations)])
    shape = (model.facts.n_layers, model.facts.n_heads)
    p_values = ((1 + (drawn >= share).sum(0)) / (1 + n_permutations)).reshape(shape)
    arguments = {"n_train": n_train, "n_codes": n_codes, "positions": positions, "note": NOTE}
    record = measurement_record(model, task, "", "discrete_codes", seed, **arguments)
    scores = HeadScores(NAME, share.reshape(shape), UNIT, (0.0, 1.0), record)
    return DiscreteCodes(codes, scores, p_values, explained, record)


def unique_share(codes: Int[np.ndarray, "n_prompts n"], positive: Bool[np.ndarray, " n_prompts"]) -> Float[np.ndarray, " n"]:
    """Share of the distinct codes of each column (-1 = none) that only positive prompts have, 0 to 1; 0 if it has none."""
    sides = [[set(column.tolist()) - {-1} for column in codes[side].T] for side in (positive, ~positive)]
    return np.array([len(yes - no) / max(1, len(yes | no)) for yes, no in zip(*sides, strict=True)])


def _head_outputs(model: Model, task: Task, positions: str) -> Float[Tensor, "n_examples 2 n_layers n_heads d_model"]:
    """The mean output of every head in the residual stream, for clean and corrupted prompts."""
    z = torch.stack([cache_z(model, task, side).each(positions, task.examples) for side in ("clean", "corrupted")], 1)
    weights = [output_weights(model, layer).detach().to(z).cpu() for layer in range(model.facts.n_layers)]
    return torch.stack([torch.einsum("nshd,hdm->nshm", z[:, :, layer], w) for layer, w in enumerate(weights)], 2)


def _learn(
    x: Float[Tensor, "n d_model"], held_out: Float[Tensor, "*rest d_model"], n_codes: int, seed: int
) -> tuple[Float[Tensor, "*rest n_codes"], float]:
    """Features of ``held_out`` in an autoencoder trained on ``x``, and the share of the variance of ``x`` that it reconstructs.

    ``h = relu(W_e (x - b) + b_e)``, ``x' = W_d h + b``, rows of unit norm; means of squared error plus ``|h|_1``, full-batch Adam.
    """
    start = normalize(torch.randn(n_codes, x.shape[-1], generator=torch.Generator().manual_seed(seed)), dim=-1)
    initial = (start.clone(), start.clone(), torch.zeros(n_codes), torch.zeros(x.shape[-1]))
    encoder, decoder, bias, middle = parameters = [tensor.requires_grad_() for tensor in initial]

    def features(x: Tensor) -> Tensor:
        return ((x - middle) @ normalize(encoder, dim=-1).T + bias).relu()

    def error(h: Tensor) -> Tensor:
        return (h @ normalize(decoder, dim=-1) + middle - x).square()

    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            h = features(x)
            loss = error(h).mean() + SPARSITY * h.sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        spread = (x - x.mean(0)).square().sum()
        return features(held_out), float(1 - error(features(x)).sum() / spread)
