"""Settings come from defaults, a TOML file, the environment and flags, in this order."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.config import Settings, config_file, default_home, env_name, load_settings
from mmsearch.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def env_of(toml: Path, **more: str) -> dict[str, str]:
    return {"MMSEARCH_CONFIG": str(toml), **more}


def test_later_layers_win(toml: Path, tmp_path: Path) -> None:
    toml.write_text('collection = "file"\nmodel = "file"\ndevice = "cpu"\nthreads = 2\n')
    env = env_of(toml, MMSEARCH_COLLECTION="env", MMSEARCH_MODEL="env", MMSEARCH_HOME=str(tmp_path / "env"))
    settings = load_settings(env=env, collection="flag", threads=None)
    assert settings == Settings(
        home=tmp_path / "env", collection="flag", model="env", device="cpu", threads=2
    )


def test_defaults_without_any_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    settings = load_settings(env={})
    assert (settings.collection, settings.model, settings.device, settings.threads) == (
        "default",
        None,
        "auto",
        None,
    )
    assert settings.home.name == "mmsearch"


def test_default_home_reads_environment_and_file(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text('home = "catalog"\n')
    monkeypatch.setenv("MMSEARCH_CONFIG", str(toml))
    monkeypatch.delenv("MMSEARCH_HOME", raising=False)
    assert default_home() == tmp_path / "catalog"  # relative to the file, not to where the user stands
    monkeypatch.setenv("MMSEARCH_HOME", "/elsewhere")
    assert default_home() == Path("/elsewhere")


def test_tilde_is_the_users_folder(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/ann")
    toml.write_text('home = "~/photos"\n')
    assert load_settings(env=env_of(toml)).home == Path("/people/ann/photos")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("threads = 'many'", ["threads", "whole number", "'many'"]),
        ("threads = 0", ["threads", "at least 1"]),
        ("threads = true", ["threads", "True"]),
        ("collection = 7", ["collection", "text", "7"]),
        ("collection = ' '", ["collection", "not empty"]),
        ("home = ['a']", ["home", "text"]),
        ("device = 'tpu'", ["device", "auto, cpu or cuda"]),
        ("device = 'cuda:0'", ["device", "cuda:flat", "'cuda:0'"]),
        ("device = 'cpu:flat'", ["device", "'cpu:flat'"]),
        ("device = 'cuda:shards:flat'", ["device", "'cuda:shards:flat'"]),
        ("colection = 'x'", ["unknown setting 'colection'", "collection"]),
        ("collection = ", ["not valid TOML"]),
    ],
)
def test_a_wrong_line_names_the_file_and_the_key(toml: Path, line: str, words: list[str]) -> None:
    toml.write_text(line)
    with pytest.raises(ConfigError) as caught:
        load_settings(env=env_of(toml))
    for word in [str(toml), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "device", ["auto", "cpu", "cuda", "cuda:ivfpq", "cuda:shards", "cuda:cagra:replicas", "cuda:flat:shards"]
)
def test_a_device_may_say_what_lies_on_the_gpus(toml: Path, device: str) -> None:
    toml.write_text(f"device = '{device}'")
    assert load_settings(env=env_of(toml)).device == device


def test_a_wrong_variable_is_named(toml: Path) -> None:
    toml.write_text("")
    with pytest.raises(ConfigError, match="MMSEARCH_THREADS: threads must be a whole number"):
        load_settings(env=env_of(toml, MMSEARCH_THREADS="-1"))


def test_a_wrong_flag_is_named(toml: Path) -> None:
    toml.write_text("")
    with pytest.raises(ConfigError, match="--threads: threads must be a whole number"):
        load_settings(env=env_of(toml), threads=0)


def test_variables_that_container_managers_make_up_do_no_harm(toml: Path) -> None:
    toml.write_text("")
    load_settings(env=env_of(toml, MMSEARCH_PORT="tcp://10.0.0.1:80"))


def test_a_file_named_by_the_environment_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(env=env_of(tmp_path / "missing.toml"))


def test_a_file_that_is_no_text_is_named(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config\.toml: the settings cannot be read"):
        load_settings(env=env_of(toml))


def test_every_setting_has_help_and_a_variable() -> None:
    for field in dataclasses.fields(Settings):
        assert field.metadata["help"].endswith(".")
        assert env_name(field.name) == f"MMSEARCH_{field.name.upper()}"


def test_platformdirs_is_not_loaded_when_every_place_is_given(tmp_path: Path) -> None:
    toml = tmp_path / "config.toml"
    toml.write_text("")
    code = (
        "import sys, os; from mmsearch.config import load_settings; load_settings();"
        "sys.exit('platformdirs' in sys.modules)"
    )
    env = {"MMSEARCH_CONFIG": str(toml), "MMSEARCH_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=env, cwd=Path(__file__).parents[2], check=True)


def test_config_file_lies_in_the_users_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file({}).parts[-2:] == ("mmsearch", "config.toml")
