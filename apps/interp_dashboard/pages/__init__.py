"""The pages, one file each; see ``interp_dashboard.page_definition`` for the form."""
