"""The tokenizer of a model, compared with the tokenizer.json beside its weights.

transformers rebuilds the tokenizers of some families from the vocabulary alone, with the pre-tokenizer of the family, whatever the file
says; ids then differ from those that the model was trained on, and every text still decodes to itself.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from interp.errors import ModelUnavailable, first_line

PROBES = (
    "2023", " 10007.5", "The CAT", " iPhone's", "a  b   c", "x\n\n\ty ", "naïve Ünï", " 你好", "мир", "🙂", "x_1=(-y)", "don't", "A", " a",
)  # fmt: skip
"""Texts with digits, capitals, spaces, punctuation and other scripts."""


def load_tokenizer(source: str, name: str, **options: Any) -> Any:
    """transformers' tokenizer of the folder or Hub name ``source``; where it and the model's own tokenizer.json cut a probe text
    differently, the file's, with a warning. Raises ModelUnavailable when a file cannot be read."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils.hub import cached_file

    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    places = {key: value for key, value in options.items() if key in ("revision", "local_files_only")}
    file = cached_file(source, "tokenizer.json", **places, **missing)
    own = None if file is None else read_tokenizer_file(file)
    try:
        loaded = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # as many types as there are kinds of tokenizer
        reason = first_line(error).removesuffix(" from one of")  # a list of causes follows
        raise ModelUnavailable(f"The tokenizer of {name} could not be loaded ({reason}): copy its files again.") from error
    if own is None:
        return loaded
    for text in PROBES:
        ids, wanted = loaded(text, add_special_tokens=False)["input_ids"], own.encode(text, add_special_tokens=False).ids
        if ids != wanted:
            warnings.warn(
                f"{name}: transformers' {type(loaded).__name__} makes {ids} of {text!r}, and the model's own tokenizer.json "
                f"{wanted}; the file is used.",
                stacklevel=2,
            )
            special = {
                key: token for key, token in loaded.special_tokens_map.items() if own.token_to_id(str(token)) is not None
            }
            return PreTrainedTokenizerFast(tokenizer_object=own, model_max_length=loaded.model_max_length, **special)
    return loaded


def read_tokenizer_file(file: str | Path) -> Any:
    """The tokenizer in ``file``, which neither pads nor cuts. Raises ModelUnavailable when it is none."""
    from tokenizers import Tokenizer

    try:
        own = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise ModelUnavailable(f"{file} is damaged, or of a newer format ({first_line(error)}): copy it again.") from error
    own.no_padding()
    own.no_truncation()
    return own
