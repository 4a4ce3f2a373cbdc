"""Every token of a byte-level and of a byte-fallback vocabulary has a text that can be stored, and no two the same by loss of bytes."""

import json

import pandas as pd
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from interp.models.token_text import _BYTES, token_text
from interp.store.deterministic_parquet import from_parquet, to_parquet
from interp.store.tables_as_csv import to_csv

LETTERS = sorted(_BYTES, key=_BYTES.get)


def byte_level():
    """Every byte and every pair of bytes: more tokens than GPT-2 has, and every cut that a character of two bytes can have."""
    pieces = [*LETTERS, *(a + b for a in LETTERS for b in LETTERS)]
    bpe = models.BPE({piece: i for i, piece in enumerate(pieces)}, [(a, b) for a in LETTERS for b in LETTERS])
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def byte_fallback(n_words=50_000):
    """Llama's kind of vocabulary: 256 single bytes and 50,000 pieces, one of each range of Unicode among them."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(0x21 + 22 * i) for i in range(n_words)]
    words = [f"\u2581{letter}" for letter in letters if not 0xD800 <= ord(letter) <= 0xDFFF]
    bpe = models.BPE(
        {piece: i for i, piece in enumerate(["<unk>", *bytes_, *words])}, [], unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(bpe)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.slow
@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_every_token_of_fifty_thousand_is_stored_and_read_back(make):
    tokenizer = make()
    ids = range(len(tokenizer))
    texts = [token_text(tokenizer, i) for i in ids]
    assert len(texts) > 50_000
    table = pd.DataFrame({"token_id": ids, "token": texts})
    back = from_parquet(to_parquet(table))
    assert back["token"].tolist() == texts and back["token_id"].tolist() == [*ids]
    to_csv(table).encode()
    assert json.loads(json.dumps(texts)) == texts
    assert not [text for text in texts if "\ufffd" in text and text.strip() != "\ufffd"]


def test_a_cut_character_is_written_as_its_bytes():
    tokenizer = byte_level()

    def text(raw):
        (i,) = tokenizer.convert_tokens_to_ids(["".join(LETTERS[byte] for byte in raw)])
        return token_text(tokenizer, i)

    assert text(b"\xe2\x82") == r"\xe2\x82" and text(b"\xf0") == r"\xf0"
    assert text(b" \xe2") == r" \xe2" and text("é".encode()) == "é" and text(b"\x00a") == "\x00a"
    fallback = byte_fallback(10)
    assert [token_text(fallback, i) for i in (1 + 0x41, 1 + 0xE2, 257)] == ["A", r"\xe2", " !"]


def test_all_bytes_have_different_texts():
    tokenizer = byte_level()
    assert len({token_text(tokenizer, i) for i in range(256)}) == 256


def test_a_word_that_is_the_replacement_character_stays_one():
    words = {"<unk>": 0, "\ufffd": 1}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")))
    assert token_text(tokenizer, 1) == "\ufffd"


@pytest.mark.parametrize(("text", "stored"), [("a\ud800", "a\\ud800"), ("\udfff", "\\udfff"), ("é", "é")])
def test_half_a_character_is_escaped(text, stored):
    class Tokenizer:
        def decode(self, ids):
            return text

    assert token_text(Tokenizer(), 0) == stored
    assert stored.encode().decode() == stored
