"""Measurements of mmsearch, beside its closest peer where there is one. ``make bench DATA=folder`` runs them all."""
