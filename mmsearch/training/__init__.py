"""Training of the built-in model; needs the extra ``train`` (torch) and is never imported at search time."""
