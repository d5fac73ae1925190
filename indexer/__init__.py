"""The ingest pipeline: scan, read, decode, encode, commit."""

from indexer.pipeline import index
from indexer.report import Listener, Progress, Report, Skipped

__all__ = ["Listener", "Progress", "Report", "Skipped", "index"]
