"""The HTTP server: search, products and a page over the catalog of the command line. Needs the extra ``server``."""
