"""``mmsearch models pull`` against a server that speaks the protocol of the hub. The library of the hub reads its
environment when it is imported, so each command is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from filelock import FileLock

from mmsearch.encoders import load_encoder
from mmsearch.encoders.known import KNOWN
from tests.clip_models import save_tiny
from tests.e2e.conftest import Ran, command_line
from tests.hub import Hub, proxy, serving

ROOT = Path(__file__).parents[2]
WEIGHTS = "open_clip_model.safetensors"
CHUNK = 10 * 1024 * 1024  # huggingface_hub writes no less at once
NAME = "hf-hub:tiny/vit"
TEXTS = ["a red car", "the dog in the snow"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "vit", "vit")


@pytest.fixture
def hub(vit: Path) -> Iterator[Hub]:
    hub = Hub()
    hub.put("tiny/vit", vit)
    with serving(hub):
        yield hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def folder(models: Path) -> Path:
    """Where ``NAME`` goes."""
    return models / "hf-hub--tiny--vit"


def environment(models: Path, url: str, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    own = {
        "MMSEARCH_MODELS": str(models),
        "MMSEARCH_HOME": str(models.parent / "home"),
        "HF_HOME": str(models.parent / "hf"),
        "HF_ENDPOINT": url,
        "OMP_NUM_THREADS": "1",
    }
    return {**kept, **own, **more}


def mmsearch(models: Path, url: str, *arguments: object, **more: str) -> Ran:
    ran = subprocess.run(
        command_line(*arguments),
        capture_output=True,
        check=False,
        env=environment(models, url, **more),
        cwd=ROOT,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr.decode())


def nobody() -> str:
    """The address of a port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_model_arrives_whole_and_says_so(hub: Hub, vit: Path, models: Path, folder: Path) -> None:
    ran = mmsearch(models, hub.url, "models", "pull", NAME)
    assert ran.code == 0, ran.err
    assert (folder / WEIGHTS).read_bytes() == (vit / WEIGHTS).read_bytes()
    assert json.loads((folder / "open_clip_config.json").read_text()) == json.loads(
        (vit / "open_clip_config.json").read_text()
    )
    assert [path.name for path in models.iterdir()] == [folder.name], "nothing is left of the download"
    told = json.loads((folder / "pulled.json").read_text())["files"][WEIGHTS]
    assert told["sha256"] == hashlib.sha256((vit / WEIGHTS).read_bytes()).hexdigest()

    asked = len(hub.requests)
    assert "nothing to fetch" in mmsearch(models, hub.url, "models", "pull", NAME).out
    assert len(hub.requests) == asked
    assert "as they should be" in mmsearch(models, nobody(), "models", "verify", NAME).out
    (row,) = [
        row for row in mmsearch(models, nobody(), "models", "list", "--json").records() if row["name"] == NAME
    ]
    assert row["here"] == "yes"
    shown = mmsearch(models, nobody(), "models", "show", NAME).out
    assert str(folder / WEIGHTS) in shown


@pytest.mark.parametrize("family", ["siglip2", "xlm-roberta"])
def test_with_tokenizer_and_trunk_of_other_repositories_it_works_without_a_network(
    family: str, models: Path, tmp_path: Path
) -> None:
    """XLM-RoBERTa's own tokenizer, unlike ours, does not say its class: the model's configuration does."""
    made = save_tiny(tmp_path / "made", family)
    expected = load_encoder(f"local-dir:{made}", threads=1).encode_texts(TEXTS)
    hub = Hub()
    tokenizer = {name: (made / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    hub.files["tiny/model"] = {
        name: (made / name).read_bytes() for name in ("open_clip_config.json", WEIGHTS)
    } | {"model.safetensors": b"of another library"}
    if family == "siglip2":
        hub.files["timm/ViT-B-16-SigLIP2"] = {**tokenizer, "config.json": b'{"architecture": "of timm"}'}
    else:
        told = json.loads(tokenizer["tokenizer_config.json"])
        del told["tokenizer_class"]
        tokenizer["tokenizer_config.json"] = json.dumps(told).encode()
        hub.files["xlm-roberta-base"] = {
            **tokenizer,
            "config.json": (made / "text" / "config.json").read_bytes(),
            "model.safetensors": b"the trunk as it was before",
        }
    with serving(hub):
        ran = mmsearch(models, hub.url, "models", "pull", "hf-hub:tiny/model")
    assert ran.code == 0, ran.err
    assert not hub.fetched("/model.safetensors")
    code = (
        "import sys, numpy; from mmsearch import load_encoder; "
        f"vectors = load_encoder('hf-hub:tiny/model', threads=1).encode_texts({TEXTS!r}); "
        "numpy.save(sys.argv[1], vectors)"
    )
    hub.requests.clear()
    with serving(hub):
        loaded = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "vectors.npy")],
            env=environment(models, hub.url),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert loaded.returncode == 0, loaded.stderr
    assert hub.requests == [], "loading asks the hub for nothing"
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-6)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: Hub, vit: Path, models: Path, folder: Path
) -> None:
    hub.cut = [3_000_000, 11_000_000]
    ran = mmsearch(models, hub.url, "models", "pull", NAME)
    assert ran.code == 0, ran.err
    assert [asked.first for asked in hub.fetched(WEIGHTS) if asked.path.startswith("/cdn")] == [
        0,
        0,
        CHUNK,
    ]
    assert (folder / WEIGHTS).read_bytes() == (vit / WEIGHTS).read_bytes()


def test_a_process_that_was_killed_leaves_no_model_and_the_next_goes_on(
    hub: Hub, vit: Path, models: Path, folder: Path
) -> None:
    hub.cut, hub.hang = [12_000_000], True
    started = subprocess.Popen(
        command_line("models", "pull", NAME),
        env=environment(models, hub.url),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert hub.reached.wait(120)
    (part,) = models.glob("*.part")
    while not sum(path.stat().st_size for path in part.glob(f"{WEIGHTS}.*")):
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert "not on this machine" in mmsearch(models, hub.url, "models", "show", NAME).out
    assert not folder.exists()

    ran = mmsearch(models, hub.url, "models", "pull", NAME)
    assert ran.code == 0, ran.err
    assert 0 < hub.fetched(WEIGHTS)[-1].first <= CHUNK, (
        "it goes on where it stopped, as far as that was written"
    )
    assert (folder / WEIGHTS).read_bytes() == (vit / WEIGHTS).read_bytes()


@pytest.mark.parametrize("what", [WEIGHTS, "tokenizer.json"])
def test_what_does_not_fit_its_checksum_is_refused_and_deleted(
    what: str, hub: Hub, models: Path, tmp_path: Path
) -> None:
    hub.put("timm/ViT-B-16-SigLIP2", save_tiny(tmp_path / "siglip2", "siglip2"))
    hub.corrupt = {what}
    name = "hf-hub:timm/ViT-B-16-SigLIP2"
    ran = mmsearch(models, hub.url, "models", "pull", name)
    assert ran.code == 5
    assert what in ran.err
    assert "deleted" in ran.err
    assert "Traceback" not in ran.err
    assert not list(models.glob(f"*/{what}.*"))
    assert mmsearch(models, hub.url, "search", "x", "--model", name).code != 0
    hub.corrupt = set()
    ran = mmsearch(models, hub.url, "models", "pull", name)
    assert ran.code == 0, ran.err


def test_a_file_that_was_damaged_later_is_found_and_fetched_again(
    hub: Hub, vit: Path, models: Path, folder: Path
) -> None:
    assert mmsearch(models, hub.url, "models", "pull", NAME).code == 0
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[1000] ^= 255
    (folder / WEIGHTS).write_bytes(content)
    ran = mmsearch(models, hub.url, "models", "verify", NAME)
    assert ran.code == 5
    assert WEIGHTS in ran.out
    assert f"mmsearch models pull {NAME}" in ran.err
    assert mmsearch(models, hub.url, "models", "pull", NAME).code == 0
    assert (folder / WEIGHTS).read_bytes() == (vit / WEIGHTS).read_bytes()


def test_a_mirror_is_reached_through_a_proxy(hub: Hub, vit: Path, models: Path, folder: Path) -> None:
    """No name server knows this mirror: only the proxy can reach it."""
    with proxy(hub.url) as (address, seen):
        ran = mmsearch(models, "http://mirror.invalid/", "models", "pull", NAME, HTTP_PROXY=address)
    assert ran.code == 0, ran.err
    assert (folder / WEIGHTS).read_bytes() == (vit / WEIGHTS).read_bytes()
    assert "http://mirror.invalid/api/models/tiny/vit" in seen
    assert any(url.startswith("http://localhost:") and url.endswith(WEIGHTS) for url in seen)


def test_without_a_network_the_error_lists_what_to_put_where(models: Path, tmp_path: Path) -> None:
    folder = models / "open-clip--ViT-B-16-SigLIP2--webli"
    for ran in (
        mmsearch(models, nobody(), "models", "pull", "siglip2-b16"),
        mmsearch(models, nobody(), "index", ROOT / "data" / "photos", "--model", "siglip2-b16"),
        mmsearch(models, nobody(), "models", "pull", "siglip2-b16", HF_HUB_OFFLINE="1"),
        mmsearch(models, nobody(), "models", "pull", "siglip2-b16", HTTP_PROXY=nobody()),
    ):
        assert ran.code == 5
        for file in ("open_clip_config.json", WEIGHTS, "tokenizer.json"):
            assert f"timm/ViT-B-16-SigLIP2/resolve/main/{file}" in ran.err
        assert str(folder) in ran.err
        assert "Traceback" not in ran.err
    assert not models.exists()


def test_a_search_with_a_model_that_is_not_here_says_how_to_get_it(hub: Hub, models: Path) -> None:
    ran = mmsearch(models, hub.url, "index", ROOT / "data" / "photos" / "kitten.jpg")
    assert ran.code == 0, ran.err
    ran = mmsearch(models, hub.url, "search", "x", "--model", NAME)
    assert ran.code == 5
    assert f"mmsearch models pull {NAME}" in ran.err
    assert hub.requests == [], "a search fetches nothing"


def test_the_first_index_fetches_the_model_and_a_search_finds_photos(
    hub: Hub, models: Path, vit: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((ROOT / "data" / "photos").glob("*.jpg"))[:10]:
        PIL.Image.open(path).resize((120, 90)).save(photos / f"{path.stem}.png")
    ran = mmsearch(models, hub.url, "index", photos, "--model", NAME, "--json")
    assert ran.code == 0, ran.err
    assert "13.7 MB" in ran.err
    (report,) = ran.records()
    assert report["added"] == 10

    encoder = load_encoder(f"local-dir:{vit}", threads=1)
    paths = sorted(photos.iterdir())
    vectors = encoder.encode_images([PIL.Image.open(path) for path in paths])
    scores = vectors @ encoder.encode_texts(["a red car"])[0]
    ran = mmsearch(models, nobody(), "search", "a red car", "--json", "-k", "5")
    assert ran.code == 0, ran.err
    best = [paths[number].name for number in np.argsort(-scores)[:5]]
    assert [Path(record["path"]).name for record in ran.records()] == best


def test_a_collection_of_another_model_fetches_nothing(hub: Hub, models: Path) -> None:
    photo = ROOT / "data" / "photos" / "kitten.jpg"
    assert mmsearch(models, hub.url, "index", photo).code == 0
    ran = mmsearch(models, hub.url, "index", photo, "--model", NAME)
    assert ran.code == 4
    assert "--collection" in ran.err
    assert hub.requests == []


def test_a_dry_run_says_what_would_come_from_where_and_writes_nothing(
    hub: Hub, models: Path, folder: Path
) -> None:
    ran = mmsearch(models, hub.url, "models", "pull", NAME, "--dry-run")
    assert ran.code == 0, ran.err
    assert f"{hub.url}/tiny/vit/resolve/0123456789abcdef0123456789abcdef01234567/{WEIGHTS}" in ran.out
    assert str(folder / WEIGHTS) in ran.out
    assert not models.exists()
    assert not hub.fetched(WEIGHTS)


def test_repositories_that_do_not_serve(hub: Hub, models: Path) -> None:
    hub.files["tiny/readme"] = {"README.md": b"of something else"}
    hub.files["tiny/bare"] = {"open_clip_config.json": hub.files["tiny/vit"]["open_clip_config.json"]}
    hub.files["tiny/gated"] = dict(hub.files["tiny/vit"])
    hub.gated = {"tiny/gated"}
    for name, said in {
        "hf-hub:tiny/nothing": "no such repository",
        "hf-hub:tiny/readme": "no open_clip_config.json",
        "hf-hub:tiny/bare": WEIGHTS,
        "hf-hub:tiny/gated": "HF_TOKEN",
        "hf-hub:noslash": "hf-hub:ORGANISATION/NAME",
        "local-dir:/nowhere": "on this machine",
    }.items():
        ran = mmsearch(models, hub.url, "models", "pull", name)
        assert ran.code == 5, name
        assert said in ran.err, ran.err
        assert "Traceback" not in ran.err
    assert not list(models.glob("*/open_clip_config.json"))


def test_a_tag_is_written_with_its_own_preprocessing_and_activation(hub: Hub, models: Path) -> None:
    """OpenAI's weights were trained with QuickGELU, which the architecture's name does not say."""
    hub.files["timm/vit_base_patch32_clip_224.openai"] = {WEIGHTS: b"weights"}
    ran = mmsearch(models, hub.url, "models", "pull", "open-clip:ViT-B-32/OpenAI")
    assert ran.code == 0, ran.err
    config = json.loads((models / "open-clip--ViT-B-32--openai" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["model_cfg"]["embed_dim"] == 512
    assert config["preprocess_cfg"]["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert config["preprocess_cfg"]["resize_mode"] == "shortest"

    ran = mmsearch(models, hub.url, "models", "pull", "open-clip:ViT-B-32/openais")
    assert ran.code == 5
    assert "ViT-B-32/openai" in ran.err


def test_a_research_licence_is_told_before_the_download(hub: Hub, models: Path) -> None:
    hub.files[KNOWN["mobileclip2-s2"].repo] = {WEIGHTS: b"weights"}
    ran = mmsearch(models, hub.url, "models", "pull", "mobileclip2-s2")
    assert ran.code == 0, ran.err
    assert "apple-amlr" in ran.err
    assert "research only" in ran.err
    config = json.loads((models / "open-clip--MobileCLIP2-S2--dfndr2b" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is False
    assert config["preprocess_cfg"]["mean"] == [0, 0, 0]


def test_two_processes_do_not_fetch_the_same_model(hub: Hub, models: Path, folder: Path) -> None:
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True)
    with FileLock(part / ".lock"):
        ran = mmsearch(models, hub.url, "models", "pull", NAME)
    assert ran.code == 5
    assert "another process" in ran.err


def test_files_put_there_by_hand_are_taken(hub: Hub, vit: Path, models: Path, folder: Path) -> None:
    shutil.copytree(vit, folder)
    assert "yes" in [
        row["here"] for row in mmsearch(models, nobody(), "models", "show", NAME, "--json").records()
    ]
    ran = mmsearch(models, nobody(), "index", ROOT / "data" / "photos" / "kitten.jpg", "--model", NAME)
    assert ran.code == 0, ran.err
    assert mmsearch(models, hub.url, "models", "pull", NAME).code == 0
    assert not hub.fetched(WEIGHTS), "what is there already is checked and not fetched"
