"""FAISS's GPU builds themselves: swapped in and out in environments of pip and of uv, upgraded, and searched with.

Each environment is made anew and installs mmsearch's wheel and 0.9 GB of CUDA libraries from the package index; where
that cannot be had, or where there is no GPU build for this platform, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpus import FIELDS

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)  # uv is one of the tools for developers

API = """
import inspect, json, sys
import faiss
fields = json.loads(sys.argv[1])
report = {}
for name, wanted in fields.items():
    if hasattr(faiss, name):
        missing = [field for field in wanted if not hasattr(getattr(faiss, name)(), field)]
        assert not missing, (name, missing)
        report[name] = "found"
resources = faiss.StandardGpuResources()
resources.setTempMemory(1 << 20)
metric = faiss.METRIC_INNER_PRODUCT
calls = {
    "GpuIndexFlatIP": lambda: faiss.GpuIndexFlatIP(resources, 8, faiss.GpuIndexFlatConfig()),
    "GpuIndexIVFPQ": lambda: faiss.GpuIndexIVFPQ(resources, 8, 4, 4, 8, metric, faiss.GpuIndexIVFPQConfig()),
}
if hasattr(faiss, "GpuIndexCagra"):
    calls["GpuIndexCagra"] = lambda: faiss.GpuIndexCagra(resources, 8, metric, faiss.GpuIndexCagraConfig())
    assert faiss.SearchParametersCagra().itopk_size > 0
for name, call in calls.items():
    for method in ("train", "add", "search"):
        assert hasattr(getattr(faiss, name), method), (name, method)
    try:
        call()
        report[name] = "made"
    except RuntimeError as error:  # the arguments are right, but there is no GPU; wrong ones are a TypeError
        assert "Invalid GPU device" in str(error), error
        report[name] = "no GPU"
assert hasattr(faiss.GpuIndexIVFPQ, "cp")
assert faiss.SearchParametersIVF(nprobe=3).nprobe == 3
from mmsearch.gpu import _cuda, gpu_count, gpu_kinds
assert any(_cuda(name) for name in (None, "libcudart.so.13", "libcudart.so.12")), "no way to ask for free memory"
report["kinds"], report["gpus"] = gpu_kinds(), gpu_count()
print(json.dumps(report))
"""
"""Whether a GPU build has the classes, fields and signatures that ``mmsearch.gpu`` uses."""


class Environment:
    """An environment of its own with mmsearch's wheel, made and upgraded by pip or by uv."""

    def __init__(self, folder: Path, tool: str, wheels: Path) -> None:
        self.folder, self.tool, self.wheels = folder, tool, wheels
        self.env = {**os.environ, "PATH": PATH, "MMSEARCH_HOME": str(folder / "home"), "UV_LINK_MODE": "copy"}
        self.env.pop("PYTHONPATH", None)
        if tool == "uv":
            self.run("uv", "venv", "--quiet", folder / "env")
        else:
            self.run(sys.executable, "-m", "venv", folder / "env")
        # uv is much the quicker of the two, and what it installs pip can uninstall.
        self.run("uv", "pip", "install", "--quiet", "--python", self.python, self.wheel("0"))

    @property
    def python(self) -> Path:
        return self.folder / "env" / "bin" / "python"

    def wheel(self, major: str) -> Path:
        (found,) = self.wheels.glob(f"mmsearch-{major}.*.whl")
        return found

    def run(self, *command: object, allowed: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        line = [str(word) for word in command]
        ran = subprocess.run(line, env=self.env, capture_output=True, text=True, check=False, cwd=self.folder)
        assert ran.returncode in allowed, f"{line}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def mmsearch(
        self, *arguments: object, allowed: tuple[int, ...] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        return self.run(self.python, "-m", "mmsearch", *arguments, allowed=allowed)

    def upgrade(self) -> None:
        if self.tool == "uv":
            self.run("uv", "pip", "install", "-U", "--python", self.python, self.wheel("9"))
        else:
            self.run(
                self.python, "-m", "pip", "install", "--upgrade", "--find-links", self.wheels, "mmsearch"
            )

    def versions(self) -> dict[str, str]:
        code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        found: dict[str, str] = json.loads(self.run(self.python, "-c", code).stdout)
        return {name: version for name, version in found.items() if name.startswith(("faiss", "mmsearch"))}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, and the same with a higher version."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("mmsearch-*.whl")
    version = wheel.name.split("-")[1]
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(folder / "mmsearch-9.0.0-py3-none-any.whl", "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".dist-info/METADATA"):
                content = content.replace(f"\nVersion: {version}".encode(), b"\nVersion: 9.0.0", 1)
            if name.endswith(".dist-info/RECORD"):
                content = content.replace(
                    f"mmsearch-{version}.dist-info".encode(), b"mmsearch-9.0.0.dist-info"
                )
                content = re.sub(rb"(METADATA),sha256=[^,]*,\d*", rb"\1,,", content)
            new.writestr(name.replace(f"mmsearch-{version}.dist-info", "mmsearch-9.0.0.dist-info"), content)
    return folder


@pytest.fixture(scope="module", params=["pip", "uv"])
def environment(
    request: pytest.FixtureRequest, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip(f"FAISS has no GPU build for {sys.platform} on {platform.machine()}")
    uv = shutil.which("uv", path=PATH)
    if uv is None:
        pytest.skip("uv is not installed")
    if shutil.disk_usage(tmp_path_factory.getbasetemp()).free < 6 << 30:
        pytest.skip("not enough room for CUDA's libraries")
    probe = subprocess.run(
        [uv, "pip", "compile", "--quiet", "-"],
        input="faiss-gpu\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(f"the package index cannot be reached: {probe.stderr.strip()[-200:]}")
    folder = tmp_path_factory.mktemp(str(request.param))
    yield Environment(folder, str(request.param), wheels)
    shutil.rmtree(folder, ignore_errors=True)  # 2 GB


def test_the_gpu_build_replaces_the_cpus_survives_an_upgrade_and_goes_again(environment: Environment) -> None:
    photos = ROOT / "data" / "photos"
    environment.mmsearch("index", photos)
    before = environment.mmsearch("search", "a dog", "--json").stdout
    old = environment.versions()["mmsearch"]

    environment.mmsearch("gpu", "install")
    versions = environment.versions()
    gpu = versions["faiss-gpu"]
    assert versions == {"mmsearch": old, "faiss-gpu": gpu, "faiss-cpu": f"{gpu}+gpu"}
    status = json.loads(environment.mmsearch("gpu", "status", "--json").stdout)
    assert (status["build"], status["version"]) == ("faiss-gpu", gpu)
    assert status["kinds"] == ["flat", "ivfpq"]
    assert environment.mmsearch("search", "a dog", "--json").stdout == before

    report = json.loads(
        environment.run(
            environment.python, "-c", API, json.dumps({k: [*v] for k, v in FIELDS.items()})
        ).stdout
    )
    assert report["GpuIndexFlatIP"] in {"made", "no GPU"}
    if not report["gpus"]:
        refused = environment.mmsearch("search", "a dog", "--device", "cuda", allowed=(2,))
        assert "sees no GPU" in refused.stderr

    environment.upgrade()
    assert environment.versions() == {**versions, "mmsearch": "9.0.0"}
    assert environment.mmsearch("search", "a dog", "--json").stdout == before

    environment.mmsearch("gpu", "remove")
    assert set(environment.versions()) == {"mmsearch", "faiss-cpu"}
    assert environment.mmsearch("search", "a dog", "--json").stdout == before


def test_a_second_build_beside_it_is_an_error_that_one_command_mends(environment: Environment) -> None:
    install = ["uv", "pip", "install", "--python", environment.python, "--no-deps", "faiss-gpu"]
    environment.run(*install)
    refused = environment.mmsearch("search", "a dog", allowed=(2,))
    assert "faiss-cpu and faiss-gpu are installed at once" in refused.stderr
    environment.mmsearch("gpu", "remove")
    assert set(environment.versions()) == {"mmsearch", "faiss-cpu"}
    assert environment.mmsearch("search", "a dog", "--paths").stdout


def test_the_installed_gpu_build_has_what_is_used_of_it() -> None:
    from mmsearch.gpu import gpu_kinds

    if not gpu_kinds():
        pytest.skip("the CPU build is installed here")
    fields = json.dumps({name: [*names] for name, names in FIELDS.items()})
    ran = subprocess.run(
        [sys.executable, "-c", API, fields], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["kinds"] == gpu_kinds()
