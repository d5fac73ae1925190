"""The models that ship with the package; each is a folder with a ``model.json``."""
