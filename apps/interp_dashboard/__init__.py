"""The dashboard: a Streamlit app whose pages are thin over ``interp``.

A page is one file in ``pages/`` that defines ``PAGE`` (see ``page_definition``). The address holds the state of a page (``url``); one
model is loaded at a time (``model_cache``); the attention of prompts is cached by digest (``attention_cache``). ``interp dashboard``
starts it.
"""
