"""What Streamlit runs; in a folder of its own, because Streamlit takes a ``pages`` folder beside its script for pages of its own kind."""

from interp_dashboard.app import main

main()
