"""The residual stream of a planted model before its basis is hidden: one coordinate for each property of a token."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from interp.models.planted.vocabulary import DELIMITER, Vocabulary

MASSIVE = 1024.0
"""Value of the massive activation: above 100, and above 1000 x the median of any residual here (arXiv 2402.17762)."""


@dataclass(frozen=True)
class ResidualCoordinates:
    """Unit vectors [n size], in blocks: one for each token in ``token previous suppressed anchored output``, one for each place
    in ``position``, one each in ``one duplicate massive``, and ``noise`` for what nothing reads.

    ``token``, ``position`` and ``one`` are written by the embedding and the others by heads; the unembedding reads ``output`` alone.
    ``gain`` is the logit that one head writes; ``seed`` draws the directions in ``noise`` that inert heads write.
    """

    vocabulary: Vocabulary
    length: int
    n_noise: int
    gain: float
    seed: int

    @property
    def size(self) -> int:
        return 5 * len(self.vocabulary) + self.length + 3 + self.n_noise

    @cached_property
    def _blocks(self) -> list[Float[ndarray, "_ size"]]:
        n = len(self.vocabulary)
        return np.split(np.eye(self.size), np.cumsum([n, n, n, n, n, self.length, 1, 1, 1]))

    token = property(lambda self: self._blocks[0])
    previous = property(lambda self: self._blocks[1])
    suppressed = property(lambda self: self._blocks[2])
    anchored = property(lambda self: self._blocks[3])
    output = property(lambda self: self._blocks[4])
    position = property(lambda self: self._blocks[5])
    one = property(lambda self: self._blocks[6])
    duplicate = property(lambda self: self._blocks[7])
    massive = property(lambda self: self._blocks[8])
    noise = property(lambda self: self._blocks[9])

    @cached_property
    def inert(self) -> Float[ndarray, "d_vocab size"]:
        """A random unit vector of ``noise`` for each token."""
        drawn = np.random.default_rng([self.seed, 1]).standard_normal((len(self.vocabulary), self.n_noise))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True) @ self.noise

    def embed(self, tokens: Int[ndarray, "batch pos"]) -> Float[ndarray, "batch pos size"]:
        """The embedding, including the massive activation of delimiters, which is present before any head reads it."""
        x = self.token[tokens] + self.position[: tokens.shape[1]] + self.one[0]
        return x + MASSIVE * (tokens == DELIMITER)[..., None] * self.massive[0]
