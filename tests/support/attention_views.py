"""Texts and patterns for the tests of the attention viewer."""

import numpy as np

WORDS = ["<|bos|>", "When", " Mary", " and", " John", " went", " to", " the", " store", ",\n", " John", " gave", " a", " drink"]

HOSTILE = (
    "</script><script>alert(1)</script>", "</iframe><script>alert(2)</script>", "<img src=x onerror=alert(3)>", '"><svg onload=alert(4)>',
    "' onmouseover='alert(5)", "<!--", "-->", "<!--<script>", "]]>", "javascript:alert(6)", "<b>bold</b>", "&lt;img&gt;",
    "&amp;", "&#60;b&#62;", "${alert(7)}", "{{7*7}}", "`${x}`", "\\u003cb\\u003e", "\u202eevil\u202c", "\u2066left\u2069", "\u200b",
    "\u200d", "\ufeff", "\x00", "\x07\x1b[31m", "\ud800", "\udfff", "a\ud83d", "\u2028", "\u2029", "\r\n", "\t", " ", "",
    '=HYPERLINK("http://x","y")', "+1+cmd|' /C calc'!A0",
    "$x^2$", "|---|", "x" * 10_000, "مرحبا", "👩‍👩‍👧‍👦", "__proto__", "constructor", "<style>*{display:none}</style>", "<base href=//x>",
)  # fmt: skip


def patterns(n_layers, n_heads, length, seed=0):
    """Causal rows that sum to 1, different in every head."""
    scores = np.random.default_rng(seed).normal(scale=2.5, size=(n_layers, n_heads, length, length))
    weights = np.exp(scores) * np.tri(length)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
