"""The Hugging Face Hub, or a mirror of it: what files a repository has, their checksums, and their bytes.

huggingface_hub speaks to the server and reads ``HF_ENDPOINT``, ``HF_TOKEN`` and the variables of proxies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mmsearch.encoders.connection import endpoint
from mmsearch.errors import MmsearchError, ModelError

__all__ = ["HubFile", "explained", "fetch", "find_file", "list_files", "problem", "read_file", "sha256"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository at one revision, and where it goes in the model's folder.

    ``etag`` is the sha256 of a large file and git's hash of a small one; it and ``size`` are None where the server
    does not tell.
    """

    url: str
    to: str
    size: int | None
    etag: str | None


def list_files(repo: str) -> tuple[set[str], str]:
    """The files of a repository and its newest revision."""
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return {sibling.rfilename for sibling in info.siblings or []}, info.sha or "main"


def find_file(repo: str, name: str, revision: str, *, to: str | None = None) -> HubFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo, name, revision=revision)
    told = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return HubFile(url=url, to=to or PurePosixPath(name).name, size=told.size, etag=told.etag)


def read_file(repo: str, name: str, revision: str) -> bytes:
    """A small file."""
    from huggingface_hub import hf_hub_url

    buffer = io.BytesIO()
    fetch(hf_hub_url(repo, name, revision=revision), buffer, None, lambda count: None)
    return buffer.getvalue()


def fetch(url: str, file: Any, size: int | None, advance: Callable[[int], None]) -> None:
    """Fetch what ``file`` does not have yet; a connection that breaks is taken up again a few times.

    ``hf_hub_download`` of huggingface_hub 2 begins a file anew in each process, so this is the function below it.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined, unused-ignore]

    class Bar:
        """What http_get draws with."""

        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            advance(initial)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            advance(count)

    http_get(
        url,
        file,
        resume_size=file.tell(),
        headers=build_hf_headers(),
        expected_size=size,
        tqdm_class=Bar,  # type: ignore[arg-type, unused-ignore]
    )


def problem(path: Path, file: HubFile) -> str | None:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes and not {file.size}"
    if file.etag is not None and len(file.etag) == 64 and (found := sha256(path)) != file.etag:
        return f"has the sha256 {found} and not {file.etag}"
    if file.etag is not None and len(file.etag) == 40:
        content = path.read_bytes()
        if hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False).hexdigest() != file.etag:
            return f"does not have the hash {file.etag}"
    return None


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def explained(short: str, repo: str | None) -> Iterator[None]:
    """Turn what the hub's library raises into an error that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except MmsearchError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{short}: its repository asks for your consent. Give it at {endpoint()}/{repo}, then set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{short}: {endpoint()} has no such repository (of a private one it says the same: set HF_TOKEN)"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{short}: a file is missing in its repository ({_first_line(error)})") from error
    except errors.HfHubHTTPError as error:
        raise ModelError(
            f"{short}: {endpoint()} refuses ({_first_line(error)}). Is it a hub, or a mirror of one?"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise  # of the disk
        raise ModelError(f"{short}: {_first_line(error)}. Try again; what has come is kept") from error
    except Exception as error:  # the library below it may be httpx or another
        raise ModelError(
            f"{short}: could not be fetched from {endpoint()} ({type(error).__name__}: {_first_line(error)}). "
            "Try again; what has come is kept"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
