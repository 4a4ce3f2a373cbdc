"""Attention variants: published ways to change which keys a head attends to, and how much, one file each."""
