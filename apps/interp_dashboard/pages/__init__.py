"""The pages, one file each; see ``interp_dashboard.page`` for the form."""
