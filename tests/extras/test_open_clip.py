"""``OpenClipEncoder`` beside open_clip used plainly: the same vectors and pixels, and errors that say what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from mmsearch.encoders import load_encoder
from mmsearch.encoders.known import KNOWN
from mmsearch.encoders.open_clip import OpenClipEncoder, import_open_clip
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.torch_device import bfloat16_is_fast
from mmsearch.errors import ConfigError, ModelError
from mmsearch.types import Vectors
from tests.clip_models import FAMILIES, save_tiny
from tests.e2e.conftest import in_process

ROOT = Path(__file__).parents[2]
WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"
TEXTS = [
    "a red car",
    "the dog in the snow",
    "",
    "ünïcode 狗 and a very long text that goes on " * 20,
    "A  Photo of a CAT.",
]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
open_clip = import_open_clip()
import torch  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model, made at its first use. Not to be written to: see ``copy_of``."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(family: str) -> Path:
        return root / family if (root / family).is_dir() else save_tiny(root / family, family)

    return folder


@pytest.fixture
def copy_of(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(family: str) -> Path:
        return Path(shutil.copytree(tiny(family), tmp_path / family))

    return copy


@pytest.fixture(scope="session")
def photos() -> list[PIL.Image.Image]:
    paths = sorted((ROOT / "data" / "photos").glob("*.jpg"))[:5]
    return [PIL.Image.open(path).convert("RGB") for path in paths]


def encoder_of(folder: Path, **options: Any) -> OpenClipEncoder:
    encoder = load_encoder(
        f"local-dir:{folder}", **{"threads": 1, "device": "cpu", "precision": "fp32", **options}
    )
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def plain(folder: Path, images: list[PIL.Image.Image], texts: list[str]) -> tuple[Vectors, Vectors]:
    """What open_clip's own functions make of pictures and texts, one by one."""
    name, trunk = f"local-dir:{folder}", {}
    config = json.loads((folder / CONFIG).read_text())["model_cfg"]
    if "hf_model_name" in config["text_cfg"]:  # or it would ask the hub
        trunk = {"text_cfg": {**config["text_cfg"], "hf_model_name": str(folder / "text")}}
        trunk["text_cfg"]["hf_model_pretrained"] = False
    model, transform = open_clip.create_model_from_pretrained(name, **trunk)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    with torch.no_grad():
        pictures = [model.encode_image(transform(image)[None], normalize=True) for image in images]
        words = [model.encode_text(tokenizer([text]), normalize=True) for text in texts]
    return torch.cat(pictures).numpy(), torch.cat(words).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_open_clip(
    family: str, tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    encoder = encoder_of(tiny(family))
    pictures, words = plain(tiny(family), photos, TEXTS)
    # Layers that are added up before they run (MobileCLIP) round otherwise.
    tolerance = 1e-4 if family == "mobileclip2" else 1e-5
    np.testing.assert_allclose(encoder.encode_images(photos), pictures, atol=tolerance)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), words, atol=1e-5)
    assert encoder.space.dim == pictures.shape[1]
    unlike = pictures @ pictures.T + np.eye(len(photos)) * -2
    assert unlike.max() < 0.999, "a model that sees no difference between pictures proves nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_known_that_the_tokenizer_leaves_whole(family: str, tiny: Callable[[str], Path]) -> None:
    encoder = encoder_of(tiny(family))
    tokenizer = encoder.load().tokenizer
    own = getattr(tokenizer, "tokenizer", None)  # of transformers; else open_clip's
    for word in ("a", "horse", "leather", "lether", "hrose", "sunglases"):
        pieces = own.encode(word, add_special_tokens=False) if own else tokenizer.encode(word)  # type: ignore[attr-defined]
        assert encoder.knows(word) is (len(pieces) == 1), word


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_makes_nearly_the_same_vectors(
    family: str, tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    whole, half = encoder_of(tiny(family)), encoder_of(tiny(family), precision="bf16")
    assert next(half.load().model.visual.parameters()).dtype in (torch.bfloat16, torch.float32)
    images = np.sum(whole.encode_images(photos) * half.encode_images(photos), axis=1)
    texts = np.sum(whole.encode_texts(TEXTS) * half.encode_texts(TEXTS), axis=1)
    # Through the forty random layers of MobileCLIP any rounding grows; open_clip's own bfloat16 comes to 0.82.
    assert images.min() > (0.9 if family == "mobileclip2" else 0.99), images
    assert texts.min() > 0.99, texts
    assert images.min() < 1 - 1e-7, "nothing was rounded: it ran in float32"


def test_float16_is_refused_on_a_cpu(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="bf16 or fp32 on a CPU"):
        encoder_of(tiny("vit"), precision="fp16").encode_texts(["x"])


def test_auto_takes_bfloat16_where_the_cpu_has_it(tiny: Callable[[str], Path]) -> None:
    model = encoder_of(tiny("vit"), precision="auto").load().model
    expected = torch.bfloat16 if bfloat16_is_fast() else torch.float32
    assert model.visual.conv1.weight.dtype == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        encoder_of(tiny("vit"), device="cuda").encode_texts(["x"])


def test_a_compiled_tower_makes_the_same_vectors(
    tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    if not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("torch.compile needs a C++ compiler here")
    expected = encoder_of(tiny("vit")).encode_images(photos)
    compiled = encoder_of(tiny("vit"), compile=True)
    np.testing.assert_allclose(compiled.encode_images(photos), expected, atol=1e-5)
    np.testing.assert_allclose(compiled.encode_images(photos[:2]), expected[:2], atol=1e-5)


def test_a_tower_that_cannot_be_compiled_is_an_error(
    tiny: Callable[[str], Path], photos: list[PIL.Image.Image], tmp_path: Path
) -> None:
    """In a process of its own, because torch looks for a compiler once and keeps what it compiled before."""
    code = (
        "import sys, PIL.Image; from mmsearch import load_encoder; from mmsearch.errors import ModelError\n"
        f"encoder = load_encoder('local-dir:{tiny('vit')}', threads=1, device='cpu', precision='fp32', compile=True)\n"
        "try: encoder.encode_images([PIL.Image.new('RGB', (64, 64))])\n"
        "except ModelError as error: print(error)\n"
    )
    env = {
        "PATH": "/nowhere",
        "CXX": "/nowhere/g++",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Leave --compile out" in ran.stdout, ran.stderr


# -- preprocessing -----------------------------------------------------------------------------------------------

MODES = {"squash": "squash", "shortest": "crop", "longest": "pad"}


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)).filter(lambda pair: max(pair) <= 8 * min(pair)),
    resize_mode=st.sampled_from(sorted(MODES)),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    target=st.sampled_from([(32, 32), (33, 33), (24, 40)]),
    mode=st.sampled_from(["RGB", "L", "RGBA", "LA", "P", "CMYK"]),
    seed=st.integers(0, 99),
)
def test_pixels_are_those_of_open_clips_transform(
    size: tuple[int, int], resize_mode: str, interpolation: str, target: tuple[int, int], mode: str, seed: int
) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    hypothesis.assume(
        not (mode in ("P", "RGBA", "LA", "CMYK") and resize_mode == "longest")
    )  # padded in its own mode
    random = np.random.default_rng(seed)
    image = PIL.Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    if mode in ("RGBA", "LA"):
        image.putalpha(PIL.Image.fromarray(random.integers(0, 256, (size[1], size[0]), dtype=np.uint8)))
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    mean, std = (0.1, 0.5, 0.9), (0.3, 0.2, 0.25)
    height, width = target
    rules = PreprocessCfg(
        size=height if height == width else target,
        mean=mean,
        std=std,
        interpolation=interpolation,
        resize_mode=resize_mode,
        fill_color=7,
    )
    expected = image_transform_v2(rules, is_train=False)(image).numpy()
    ours = Preprocess(
        size=(width, height),
        resize=MODES[resize_mode],  # type: ignore[arg-type]
        interpolation=interpolation,  # type: ignore[arg-type]
        pad_color=(7, 7, 7),
        layout="NCHW",
        mean=tuple(255 * value for value in mean),  # type: ignore[arg-type]
        std=tuple(255 * value for value in std),  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(ours.pixels([image])[0], expected, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_the_pixels_of_its_own_configuration(
    family: str, tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    """SigLIP2 and PE have a mean of 0.5 and squash, MobileCLIP none at all, CLIP OpenAI's and crops."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    told = json.loads((tiny(family) / CONFIG).read_text())
    size = told["model_cfg"]["vision_cfg"]["image_size"]
    transform = image_transform_v2(PreprocessCfg(**{**told["preprocess_cfg"], "size": size}), is_train=False)
    ours = encoder_of(tiny(family)).preprocess.pixels(photos)
    for image, pixels in zip(photos, ours, strict=True):
        np.testing.assert_allclose(pixels, transform(image).numpy(), atol=1e-3)


@pytest.mark.parametrize("removed", ["preprocess_cfg", "mean", "std"])
def test_preprocessing_that_the_model_does_not_tell_is_an_error(
    removed: str, copy_of: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    folder = copy_of("siglip2")
    told = json.loads((folder / CONFIG).read_text())
    (told if removed == "preprocess_cfg" else told["preprocess_cfg"]).pop(removed)
    (folder / CONFIG).write_text(json.dumps(told))
    with pytest.raises(ModelError, match="no default is right for every model"):
        encoder_of(folder).encode_images(photos)


def test_weights_of_a_file_take_the_preprocessing_on_which_all_of_the_architecture_agree(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "own.safetensors"
    weights.touch()

    def rules(architecture: str) -> Preprocess:
        encoder = load_encoder(f"open-clip:{architecture}/{weights}")
        assert isinstance(encoder, OpenClipEncoder)
        return encoder.preprocess

    assert rules("ViT-B-16-SigLIP2").mean == pytest.approx((127.5,) * 3)
    assert rules("ViT-B-16-SigLIP2").resize == "squash"
    assert rules("ViT-B-32").mean == pytest.approx((122.77, 116.75, 104.09), abs=0.01)
    with pytest.raises(ModelError, match="depends on its weights"):  # LAION's have another mean than OpenAI's
        rules("ViT-L-14")
    with pytest.raises(ModelError, match="no architecture"):
        rules("ViT-X-99")


# -- weights that do not load ------------------------------------------------------------------------------------


def test_a_tokenizer_of_bytes_is_read_as_the_family_reads_it(tiny: Callable[[str], Path]) -> None:
    """SigLIP2: no <bos>, small letters, punctuation gone, <eos>, filled up with <pad>."""
    ids = encoder_of(tiny("siglip2")).load().tokenizer(["A red, CAR!"])[0].tolist()
    same = encoder_of(tiny("siglip2")).load().tokenizer(["a red car"])[0].tolist()
    assert ids == same
    assert ids[0] != 2
    end = ids.index(1)
    assert set(ids[end + 1 :]) == {0}


def damaged(folder: Path, what: str) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / WEIGHTS
    weights = load_file(path)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif what == "a key is missing":
        del weights["visual.proj"]
        save_file(weights, path)
    elif what == "a key too much":
        save_file({**weights, "visual.other": torch.zeros(3)}, path)
    elif what == "another shape":
        save_file({**weights, "text_projection": torch.zeros(64, 33)}, path)
    elif what == "no weights at all":
        path.write_bytes(b"")
    elif what == "another architecture":
        told = json.loads((folder / CONFIG).read_text())
        told["model_cfg"]["vision_cfg"]["layers"] = 3
        (folder / CONFIG).write_text(json.dumps(told))
    elif what == "a configuration that means nothing":
        told = json.loads((folder / CONFIG).read_text())
        told["model_cfg"]["vision_cfg"]["colour"] = "red"
        (folder / CONFIG).write_text(json.dumps(told))


@pytest.mark.parametrize(
    "what",
    [
        "truncated",
        "a key is missing",
        "a key too much",
        "another shape",
        "no weights at all",
        "another architecture",
        "a configuration that means nothing",
    ],
)
def test_weights_that_do_not_fit_are_an_error(what: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("vit")
    damaged(folder, what)
    with pytest.raises(ModelError, match="weights did not load"):
        encoder_of(folder).encode_texts(["x"])


def test_a_folder_with_a_pt_file_only_says_what_to_do(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("vit")
    (folder / WEIGHTS).rename(folder / "open_clip_model.pt")
    with pytest.raises(ModelError, match=r"Rename a \.pt file"):
        encoder_of(folder).encode_texts(["x"])


def test_a_folder_without_weights_or_configuration_is_no_model(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("vit")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="not a folder of a model"):
        encoder_of(folder)
    for content, said in {
        "[1": "cannot be read",
        "{}": "no configuration of open_clip",
        "[]": "no configuration",
    }.items():
        (folder / WEIGHTS).touch()
        (folder / CONFIG).write_text(content)
        with pytest.raises(ModelError, match=said):
            encoder_of(folder)


@pytest.mark.parametrize(
    ("family", "file", "said"),
    [
        ("siglip2", "tokenizer.json", "tokenizer files of timm/ViT-B-16-SigLIP2"),
        ("xlm-roberta", "tokenizer.json", "tokenizer files of xlm-roberta-base"),
        ("xlm-roberta", "text/config.json", "config.json of xlm-roberta-base"),
    ],
)
def test_files_that_open_clip_would_fetch_from_the_hub_have_to_be_there(
    family: str, file: str, said: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(family)
    (folder / file).unlink()
    with pytest.raises(ModelError, match=said):
        encoder_of(folder).encode_texts(["x"])


def test_of_several_files_the_weights_of_open_clip_are_taken(
    copy_of: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    """Repositories also hold the weights of another library, which have other keys."""
    folder = copy_of("vit")
    expected = encoder_of(folder).encode_images(photos)
    for name in ("a.safetensors", "model.safetensors", "pytorch_model.bin", "z.bin"):
        (folder / name).write_bytes(b"of another library")
    np.testing.assert_array_equal(encoder_of(folder).encode_images(photos), expected)


def test_the_activation_is_that_of_the_configuration(
    tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    """The same weights with GELU and with QuickGELU: vectors that look right and are others."""
    assert (tiny("vit") / WEIGHTS).read_bytes() == (tiny("vit-quickgelu") / WEIGHTS).read_bytes()
    one, other = (encoder_of(tiny(family)).encode_images(photos) for family in ("vit", "vit-quickgelu"))
    cosines = np.sum(one * other, axis=1)
    assert np.all((cosines > 0.9) & (cosines < 1 - 1e-5)), cosines


def test_numbers_that_are_not_finite_are_an_error(
    copy_of: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of("vit")
    weights = load_file(folder / WEIGHTS)
    weights["visual.proj"][0] = float("inf")
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ModelError, match="not finite"):
        encoder_of(folder).encode_images(photos)


# -- memory, threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 7])
def test_when_memory_runs_out_batches_are_halved_and_the_vectors_stay(
    most: int, tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    images, texts = (photos * 4)[:18], [f"a photo of {number}" for number in range(18)]
    expected = encoder_of(tiny("vit"))
    encoder = encoder_of(tiny("vit"))
    model, tried = encoder.load().model, []

    def hook(module: Any, inputs: Any) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    model.visual.register_forward_pre_hook(hook)
    model.transformer.register_forward_pre_hook(hook)
    np.testing.assert_allclose(encoder.encode_images(images), expected.encode_images(images), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_texts(texts), expected.encode_texts(texts), atol=1e-6)
    assert max(tried) > most
    tried.clear()
    encoder.encode_images(images)
    encoder.encode_texts(texts)
    assert max(tried) <= most, "what did not fit once is not tried again"


def test_memory_for_not_even_one_is_an_error(
    tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    encoder = encoder_of(tiny("vit"))

    def hook(module: Any, inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    encoder.load().model.visual.register_forward_pre_hook(hook)
    with pytest.raises(ModelError, match="too small for a single input"):
        encoder.encode_images(photos)


@pytest.mark.parametrize("family", ["vit", "siglip2", "xlm-roberta"])
def test_several_threads_may_encode_at_once(
    family: str, tiny: Callable[[str], Path], photos: list[PIL.Image.Image]
) -> None:
    texts = [f"{word} number {number}" for number in range(12) for word in ("dog", "snow", "a red car")]
    expected = encoder_of(tiny(family)).encode_texts(texts)
    encoder = encoder_of(tiny(family))  # loaded by whoever comes first
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: encoder.encode_texts([text])[0], texts))
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)


def test_nothing_in_is_nothing_out(tiny: Callable[[str], Path]) -> None:
    encoder = encoder_of(tiny("vit"))
    assert encoder.encode_images([]).shape == (0, 32)
    assert encoder.encode_texts([]).shape == (0, 32)
    np.testing.assert_allclose(
        np.linalg.norm(encoder.encode_texts(["", "\0", "\ud800"]), axis=1), 1, atol=1e-5
    )
    with pytest.raises(ModelError, match="no audio tower"):
        encoder.encode_audio([])


# -- the table ---------------------------------------------------------------------------------------------------


def test_the_table_is_true_to_open_clip() -> None:
    """Names, repositories, dimensions and parameters, counted without memory for them."""
    from open_clip.model import CLIP, CustomTextCLIP

    for short, known in KNOWN.items():
        if known.source.startswith("hf-hub:"):
            assert known.source == f"hf-hub:{known.repo}"
            continue
        architecture, _, tag = known.source.removeprefix("open-clip:").partition("/")
        assert open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"] == f"{known.repo}/", short
        config = open_clip.get_model_config(architecture)
        assert config["embed_dim"] == known.dim, short
        if "hf_model_name" in config["text_cfg"]:
            continue  # the trunk's size is told by its own repository
        custom = config.pop("custom_text", False)
        with torch.device("meta"):
            model = (CustomTextCLIP if custom else CLIP)(**config)
        assert sum(weights.numel() for weights in model.parameters()) == known.parameters, short
    assert not any(known.research_only and known.licence in ("MIT", "Apache-2.0") for known in KNOWN.values())
    assert all(known.published for known in KNOWN.values() if known.recall)


def test_commands_about_models_do_not_import_torch() -> None:
    for arguments in (["models", "list"], ["models", "show", "clip-b32"], ["models", "list", "--json"]):
        code = (
            f"import sys, mmsearch.cli; assert mmsearch.cli.run({arguments!r}) == 0; "
            "print([name for name in sys.modules if name in ('torch', 'open_clip', 'huggingface_hub', 'transformers')])"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert ran.stdout.splitlines()[-1] == "[]"


def test_without_the_extra_the_error_names_it(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """torch and open_clip hidden, as in a base install."""
    code = (
        "import importlib.util, sys, mmsearch.cli; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name in ('torch', 'open_clip') else find(name, *more)\n"
        "sys.exit(mmsearch.cli.run(sys.argv[1:]))"
    )
    photos = ROOT / "data" / "photos"
    for arguments in (
        ["index", photos, "--model", "clip-b32", "--home", tmp_path / "home"],
        ["index", photos, "--model", f"local-dir:{tiny('vit')}", "--home", tmp_path / "home"],
        ["models", "pull", "clip-b32"],
    ):
        ran = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert ran.returncode == 5
        assert 'pip install "mmsearch[clip]"' in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_folder_is_indexed_and_searched_by_the_command_line(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """The best of ten, by name and score, is the one that the vectors themselves say."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((ROOT / "data" / "photos").glob("*.jpg"))[:10]:
        PIL.Image.open(path).resize((120, 90)).save(photos / f"{path.stem}.png")
    home = ["--home", tmp_path / "home", "--threads", 1]
    ran = in_process("index", photos, "--model", f"local-dir:{tiny('siglip2')}", "--precision", "fp32", *home)
    assert ran.code == 0, ran.err
    ran = in_process("search", "a red car", "--json", "-k", 3, *home[:2])
    assert ran.code == 0, ran.err

    encoder = encoder_of(tiny("siglip2"))
    paths = sorted(photos.iterdir())
    vectors = encoder.encode_images([PIL.Image.open(path) for path in paths])
    scores = vectors @ encoder.encode_texts(["a red car"])[0]
    best = np.argsort(-scores)[:3]
    assert [Path(record["path"]).name for record in ran.records()] == [paths[number].name for number in best]
    found = [record["score"] for record in ran.records()]
    np.testing.assert_allclose(found, scores[best], atol=2e-3 if not bfloat16_is_fast() else 2e-2)
