"""Three small models that differ in how they cut text; the weights behind them do not exist.

- ``word``: whole words, as `interp-mini` (unknown words become <unk>, a newline is <nl>);
- ``bpe``: leading-space bytes, as GPT-2: " Mary" is one token wherever " Mary" was learnt, "Mary" at the start of a text only where
  that form was learnt too. It lacks the name Lisa, and has 1860 to 1869 as single tokens;
- ``piece``: sentence pieces, as Llama 2: words carry their space, digits stand alone.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import transformers as T
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

if TYPE_CHECKING:
    from interp.models import Model

STARTING = (
    "Mary John Tom James Dan Anna The On In I When After While Then Since Because One There At France Italy Spain def".split()
)
"""Words that ``bpe`` knows without a space."""
NOT_STARTING = "Lisa Sarah David Peter Paul Mark Laura Kate".split()
"""Names that ``bpe`` cuts at the start of a text."""


@cache
def task_model(name: str) -> Model:
    """One of the three models, the same object on every call."""
    tokenizer = {"word": _word, "bpe": _bpe, "piece": _piece}[name]()
    return bare_model(tokenizer, name)


def bare_model(tokenizer, name: str = "bare", *, max_length: int | None = 512) -> Model:
    """A model that has a tokenizer and facts only; BOS is prepended if the tokenizer has one."""
    from interp.models import Model, ModelFacts

    bos = tokenizer.bos_token_id if tokenizer else None
    sizes = {"n_layers": 3, "n_heads": 5, "n_kv_heads": 5, "d_model": 40, "d_head": 8, "d_mlp": 56, "d_vocab": 97}
    facts = ModelFacts(
        name=name, architecture="none", **sizes, max_length=max_length, positions="rotary", sliding_windows=(None,) * 3,
        parallel_attn_mlp=False, causal=True,
        prepend_bos=bos is not None, bos_token_id=bos, n_parameters=0, dtype="float32", revision="", weights_digest="",
    )  # fmt: skip
    return Model(facts, tokenizer, None, None)


def _known() -> list[str]:
    from interp.tasks import words_and_templates

    return words_and_templates.vocabulary()


def _wrapped(tokenizer: Tokenizer, **names: str) -> T.PreTrainedTokenizerFast:
    return T.PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def _word() -> T.PreTrainedTokenizerFast:
    from interp.tasks import words_and_templates

    ids = {token: i for i, token in enumerate(["<unk>", "<bos>", *_known()])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace("\n", " <nl> ")
    cut = pre_tokenizers.Split(Regex(words_and_templates.TOKEN_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    return _wrapped(tokenizer, unk_token="<unk>", bos_token="<bos>")


def _bpe() -> T.PreTrainedTokenizerFast:
    spaced = [f"Ġ{word}" for word in _known() if word.isalpha() and word != "Lisa"]
    numbers = [f"Ġ{century}" for century in range(11, 19)] + [f"Ġ18{year}" for year in range(60, 70)]
    numbers += [f"{number:02d}" for number in range(100)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = dict.fromkeys((w[: i + 1], w[i + 1]) for w in [*spaced, *numbers, *STARTING] for i in range(len(w) - 1))
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(["<|end|>", *alphabet, *(a + b for a, b in merges)]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer, unk_token="<|end|>", bos_token="<|end|>", eos_token="<|end|>")


def _piece() -> T.PreTrainedTokenizerFast:
    letters = sorted({letter for word in _known() for letter in word} | set(".,:;?()=+-#\"'!*/\n▁<>"))
    scored = [("<unk>", 0.0), ("<s>", 0.0), *((letter, -20.0) for letter in letters)]
    scored += [(f"▁{word}", -5.0) for word in _known() if word.isalpha()]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return _wrapped(tokenizer, unk_token="<unk>", bos_token="<s>")


def whole_year_tokenizer() -> T.PreTrainedTokenizerFast:
    """Whole words, a year among them."""
    ids = {token: i for i, token in enumerate(["<unk>", *_known(), *map(str, range(1100, 1900))])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _wrapped(tokenizer, unk_token="<unk>")
