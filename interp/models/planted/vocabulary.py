"""The tokens of a planted model: six signs, then names, then fillers; one word each, separated by spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, END, QUERY, MARK, DELIMITER, UNKNOWN = range(6)
SIGNS = ("<s>", "END", "QUERY", "MARK", "DELIMITER", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of names, which can be answers to every task, and of fillers, only when they are repeated; ranges of their token ids."""

    n_names: int = 9
    n_fillers: int = 10

    def __post_init__(self) -> None:
        if self.n_names < 4 or self.n_fillers < 10:
            sizes = f"{self.n_names} names and {self.n_fillers} fillers"
            raise ValueError(f"A planted model cannot have {sizes}: its prompts need at least 4 and 10.")

    def __len__(self) -> int:
        return len(SIGNS) + self.n_names + self.n_fillers

    @property
    def names(self) -> range:
        return range(len(SIGNS), len(SIGNS) + self.n_names)

    @property
    def fillers(self) -> range:
        return range(len(SIGNS) + self.n_names, len(self))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer of these words, separated by spaces; every other word is unknown."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = [*SIGNS, *(f"name{i}" for i in range(self.n_names)), *(f"word{i}" for i in range(self.n_fillers))]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SIGNS[UNKNOWN]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SIGNS[BOS], unk_token=SIGNS[UNKNOWN])
