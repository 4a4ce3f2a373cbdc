"""The null of retrieval heads: the same attention scored against wrong targets.

There are two kinds, and the larger counts, since a head can match by chance because of the word at a position or of the
position itself. A wrong word is another token of the context (in given prompts: another prompt's answer), the same in all
prompts of one needle and matched wherever it occurs, which is conservative. A wrong position is equally far from the start or
the end of the context in all prompts of one depth. With all answers at one position the two coincide, and the threshold is high.

A step at which a head copies counts for no wrong target, so the draws of a head that copies are low whatever its reason, and
say nothing of itself: the threshold is that of all heads together (``pooled``).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from interp.detectors.support.copied_answers import CopiedAnswer


def wrong_target_scores(
    answers: Sequence[CopiedAnswer], n_null_draws: int, seed: int
) -> Float[np.ndarray, "n_null_draws n_layers n_heads"]:
    """Mean scores with wrong targets: the larger of those for wrong words and for wrong positions."""
    words, starts_of = _wrong_words(answers, n_null_draws, seed), _wrong_positions(answers, n_null_draws, seed)
    total = np.zeros((2, n_null_draws, *answers[0].argmax_positions.shape[:2]))
    for answer, substitutes, starts in zip(answers, words, starts_of, strict=True):
        trial, argmax_positions, written = answer.trial, answer.argmax_positions, np.array(answer.written)
        inside = (argmax_positions >= trial.context[0]) & (argmax_positions < trial.context[1]) & ~answer.hits
        word = np.where(inside, np.array(answer.tokens)[argmax_positions], -1)
        for token in set(trial.answer) & set(answer.written):
            steps, share = written == token, trial.answer.count(token) / len(trial.answer)
            total[0] += share * np.stack([(word[..., steps] == other).any(-1) for other in substitutes[token]])
        offset = np.array([trial.answer.index(token) if token in trial.answer else -1 for token in answer.written])
        first = np.where(inside & (offset >= 0), argmax_positions - offset, -1)
        total[1] += np.stack([(first == start).sum(-1).clip(max=len(trial.answer)) for start in starts]) / len(trial.answer)
    return total.max(0) / len(answers)


def _wrong_words(answers: Sequence[CopiedAnswer], n_null_draws: int, seed: int) -> list[dict[int, np.ndarray]]:
    """For each answer and each of its tokens a wrong token per draw: one that occurs in all prompts of the needle, the same in all."""
    rivals: dict[int, frozenset[int]] = {}
    right: dict[int, set[int]] = {}
    for trial in (answer.trial for answer in answers):
        rivals[trial.needle] = rivals.get(trial.needle, trial.rivals) & trial.rivals
        right.setdefault(trial.needle, set()).update(trial.answer)
    rng = np.random.default_rng([seed, 0])
    drawn = {
        needle: {token: rng.choice(sorted(rivals[needle]), n_null_draws) for token in sorted(tokens)}
        for needle, tokens in right.items()
    }
    return [drawn[answer.trial.needle] for answer in answers]


def _wrong_positions(answers: Sequence[CopiedAnswer], n_null_draws: int, seed: int) -> list[Int[np.ndarray, " n_null_draws"]]:
    """For each answer a wrong position of its first token per draw, equally far from an end of the context at each depth."""
    rng = np.random.default_rng([seed, 1])
    room = {}
    for trial in (answer.trial for answer in answers):
        free = trial.context[1] - trial.context[0] - len(trial.answer)
        room[trial.depth] = min(room.get(trial.depth, free), free)
    rooms = sorted(room.items())
    drawn = {depth: (rng.integers(0, free + 1, n_null_draws), rng.random(n_null_draws) < 0.5) for depth, free in rooms}
    positions = []
    for trial in (answer.trial for answer in answers):
        distance, from_start = drawn[trial.depth]
        positions.append(np.where(from_start, trial.context[0] + distance, trial.context[1] - len(trial.answer) - distance))
    return positions
