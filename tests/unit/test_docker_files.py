"""The files of docker/, read by the linters and against the schema that others use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dockerfile
import pytest
from ruamel.yaml import YAML

from mmsearch.server.options import Options

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
FILES = ["Dockerfile", "Dockerfile.gpu"]


def tool(name: str) -> str:
    """A program that was installed beside this Python."""
    return str(Path(sys.executable).parent / name)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(DOCKER / "compose.yaml")["services"]
    return found


@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name: str) -> None:
    ran = subprocess.run([tool("hadolint"), str(DOCKER / name)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_compose_file_keeps_to_the_specification() -> None:
    check = [
        tool("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        str(DOCKER / "compose.yaml"),
    ]
    ran = subprocess.run(check, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", FILES)
def test_images_run_as_an_ordinary_user_and_start_the_command(name: str) -> None:
    steps = dockerfile.parse_file(str(DOCKER / name))
    last = max(number for number, step in enumerate(steps) if step.cmd == "FROM")
    final = {step.cmd: step for step in steps[last:]}
    assert final["USER"].value == ("10001:10001",)
    assert (final["ENTRYPOINT"].value, final["ENTRYPOINT"].json) == (("mmsearch",), True)
    assert (final["CMD"].value, final["CMD"].json) == (("serve", "--host", "0.0.0.0"), True)
    assert "HEALTHCHECK" in final


def test_compose_asks_about_health_as_the_images_do(services: dict[str, Any]) -> None:
    for name, service in zip(FILES, services.values(), strict=True):
        steps = dockerfile.parse_file(str(DOCKER / name))
        (health,) = [step for step in steps if step.cmd == "HEALTHCHECK"]
        flags = dict(flag.removeprefix("--").split("=") for flag in health.flags)
        told = dict(service["healthcheck"])
        assert tuple(told.pop("test")) == health.value
        assert told == {name.replace("-", "_"): value for name, value in flags.items()}


def test_the_gpu_image_is_the_cpu_image_with_the_swap_and_what_nvidias_runtime_reads() -> None:
    cpu, gpu = (
        [step.original for step in dockerfile.parse_file(str(DOCKER / name)) if step.cmd != "ENV"]
        for name in FILES
    )
    assert [line for line in gpu if line not in cpu] == [
        "ARG CUVS=",
        "RUN /opt/mmsearch/bin/mmsearch gpu install ${CUVS:+--cuvs}",
    ]
    assert [line for line in cpu if line not in gpu] == []


def test_services_have_a_profile_each_and_see_the_media_read_only(services: dict[str, Any]) -> None:
    assert {name: service["profiles"] for name, service in services.items()} == {
        "mmsearch": ["cpu"],
        "mmsearch-gpu": ["gpu"],
    }
    for service in services.values():
        assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["user"] == "10001:10001"
        assert service["read_only"]
        assert service["restart"] == "unless-stopped"
        assert service["ports"] == ["127.0.0.1:${PORT:-8080}:8080"], "this machine alone"
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > Options().timeout + 5, "longer than uvicorn drains"
        home, media = service["volumes"]
        assert home == "home:/data"
        assert media.endswith(":/media:ro")
    (device,) = services["mmsearch-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_images_are_built_from_the_package_and_nothing_else(tmp_path: Path) -> None:
    from tests.image import _sent

    for name in (
        "mmsearch/a.py",
        "mmsearch/__pycache__/a.pyc",
        "indexer/b.py",
        "tests/c.py",
        ".git/config",
        "data/d.jpg",
    ):
        (tmp_path / "context" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "context" / name).touch()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "Makefile"):
        (tmp_path / "context" / name).touch()
    (tmp_path / "context" / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    sent = _sent(tmp_path / "context", tmp_path / "sent")
    assert {str(path.relative_to(sent)) for path in sent.rglob("*") if path.is_file()} == {
        "mmsearch/a.py",
        "indexer/b.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "NOTICE",
    }
