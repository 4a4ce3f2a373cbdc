"""The dashboard: a Streamlit app whose pages are thin over ``interp``.

A page is one file in ``pages/`` that defines ``PAGE`` (see ``page``). What a page shows stands in the address (``url``); models are
held one at a time (``model_cache``); what was read of a prompt is kept by digest (``attention_cache``). ``interp dashboard`` starts it.
"""
