"""The text of a single token. Bytes that are no whole characters are written as \\xNN, so that different tokens keep different texts, and
lone surrogates as \\uNNNN, so that every text can be stored."""

import re
from typing import Any

from interp.files import encodable

LOST = "\ufffd"
FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A byte in a vocabulary of sentence pieces."""


def token_text(tokenizer: Any, token_id: int) -> str:
    """What the token adds to a text, with the bytes of a cut character as ``\\xNN`` and lone surrogates as ``\\uNNNN``."""
    text = tokenizer.decode([token_id])
    raw = _raw_bytes(tokenizer.convert_ids_to_tokens(token_id)) if LOST in text else None
    return encodable(text) if raw is None else raw.decode("utf-8", "backslashreplace")


def _raw_bytes(piece: str) -> bytes | None:
    """The bytes that a piece of a byte-level or byte-fallback vocabulary stands for; None for any other."""
    if found := FALLBACK.fullmatch(piece):
        return bytes.fromhex(found[1])
    return bytes(map(_BYTES.get, piece)) if _BYTES.keys() >= {*piece} else None  # type: ignore[arg-type]


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_letters()
