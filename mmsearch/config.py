"""Settings: defaults < TOML file < environment < flags, all from one table (the fields of ``Settings``)."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mmsearch.errors import ConfigError

__all__ = [
    "Device",
    "Precision",
    "Settings",
    "config_file",
    "default_home",
    "env_name",
    "load_settings",
    "models_folder",
]

Device: TypeAlias = str
"""Where vectors are searched and torch encodes: ``auto``, ``cpu``, or ``cuda`` with how vectors lie on the GPUs, as in
``cuda:flat`` or ``cuda:ivfpq:shards``: a kind of index (``flat``, ``ivfpq``, ``cagra``), and whether each GPU holds
all vectors (``replicas``) or a part of them (``shards``)."""
Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]

DEVICE = re.compile(r"auto|cpu|cuda(?::(flat|ivfpq|cagra))?(?::(replicas|shards))?")
"""What a ``Device`` may be; its groups are kind and layout."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value


def _folder(value: object) -> Path:
    return value if isinstance(value, Path) else Path(_text(value)).expanduser()


def _device(value: object) -> str:
    if not isinstance(value, str) or not DEVICE.fullmatch(value):
        raise ValueError(
            "must be auto, cpu or cuda (or cuda:flat, cuda:ivfpq, cuda:cagra, and :replicas or :shards behind)"
        )
    return value


def _choice(*words: str) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return value

    return read


def _switch(value: object) -> bool:
    if value in (True, "1", "true", "yes", "on"):
        return True
    if value in (False, "0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _count(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be a whole number of at least 1")
    return value


def _networks(value: object) -> tuple[str, ...]:
    import ipaddress

    listed = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise ValueError("must be networks like 10.0.0.0/8")
    for one in listed:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            raise ValueError(f"must be networks like 10.0.0.0/8 (not {one!r})") from None
    return tuple(listed)


def _about(read: Callable[[object], object], about: str) -> dict[str, Any]:
    return {"read": read, "help": about}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run of mmsearch uses where no argument says otherwise.

    The field names are the keys of the TOML file and, behind ``MMSEARCH_`` and in capitals, the environment
    variables.
    """

    home: Path = field(metadata=_about(_folder, "Folder with the catalog and the index files."))
    collection: str = field(default="default", metadata=_about(_text, "Collection to work on."))
    model: str | None = field(
        default=None,
        metadata=_about(
            _text, "Model: a name of `mmsearch models list` or a model folder. New collections: mini."
        ),
    )
    device: Device = field(
        default="auto",
        metadata=_about(
            _device,
            "Where vectors are searched, and where torch encodes: auto, cpu, cuda or cuda:KIND (docs/operations.md).",
        ),
    )
    threads: int | None = field(
        default=None, metadata=_about(_count, "CPU threads of the encoder. All cores if not given.")
    )
    precision: Precision = field(
        default="auto",
        metadata=_about(
            _choice("auto", "fp32", "fp16", "bf16"),
            "Precision of models that torch runs: auto (by device), fp32, fp16 or bf16.",
        ),
    )
    compile: bool = field(
        default=False,
        metadata=_about(
            _switch, "Whether torch compiles the towers: minutes at the start, then faster batches."
        ),
    )
    fetch_from: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            _networks,
            "Private networks that pictures of products may be fetched from, like 10.0.0.0/8, ::1. None if not given.",
        ),
    )
    models: Path | None = field(
        default=None,
        metadata=_about(_folder, "Folder of downloaded models. The user's data folder if not given."),
    )


def env_name(setting: str) -> str:
    """The environment variable of a setting."""
    return f"MMSEARCH_{setting.upper()}"


def config_file(env: Mapping[str, str] | None = None) -> Path:
    """The TOML file with the user's settings, whether it exists or not; ``MMSEARCH_CONFIG`` moves it."""
    chosen = (os.environ if env is None else env).get("MMSEARCH_CONFIG")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_config_path("mmsearch", appauthor=False) / "config.toml"


def load_settings(*, env: Mapping[str, str] | None = None, **flags: object) -> Settings:
    """Merge defaults, the TOML file, the environment and ``flags`` (None: not given), later ones winning.

    Raises ``ConfigError`` naming the file, variable or flag and its key if a value has the wrong type, a key of the
    file is unknown, or the file cannot be read. Unknown ``MMSEARCH_...`` variables are let pass, because container
    managers make some up for a service of this name.
    """
    env = os.environ if env is None else env
    fields = {known.name: known for known in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}

    def put(name: str, value: object, source: str) -> None:
        try:
            values[name] = fields[name].metadata["read"](value)
        except ValueError as error:
            raise ConfigError(f"{source}: {name} {error}, not {value!r}") from None

    path = config_file(env)
    for name, value in _read_toml(path, required="MMSEARCH_CONFIG" in env).items():
        if name not in fields:
            raise ConfigError(f"{path}: unknown setting {name!r}. Known are: {', '.join(fields)}")
        put(name, value, str(path))
        if name in ("home", "models"):  # a relative one in a file means: next to it, wherever the user stands
            values[name] = path.parent / values[name]
    for name in fields:
        if env.get(env_name(name)):
            put(name, env[env_name(name)], env_name(name))
    for name, value in flags.items():
        if value is not None:
            put(name, value, f"--{name}")
    if "home" not in values:
        import platformdirs

        values["home"] = platformdirs.user_data_path("mmsearch", appauthor=False)
    return Settings(**values)


def default_home() -> Path:
    """The home where none is given: from the environment or the TOML file, else the user's data folder."""
    return load_settings().home


def models_folder() -> Path:
    """Where downloaded models are: from the environment or the TOML file, else in the user's data folder."""
    if (chosen := load_settings().models) is not None:
        return chosen
    import platformdirs

    return platformdirs.user_data_path("mmsearch", appauthor=False) / "models"


def _read_toml(path: Path, *, required: bool) -> dict[str, object]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: MMSEARCH_CONFIG names this file, and it does not exist") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the settings cannot be read: {error}") from error
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
