"""The HTTP server: search, products and a page, over the same catalog as the command line. Needs the extra ``server``."""
