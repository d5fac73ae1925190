"""The table of models that are worth having: short names, what they are, and under which licence.

Dimensions and parameters are those of open_clip's architectures, counted. Recall is what others measured and
published, never our own; where nothing was found the field is empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

__all__ = ["KNOWN", "KnownModel"]

_OPEN_CLIP = "https://github.com/mlfoundations/open_clip/blob/main/docs/openclip_retrieval_results.csv"
_SIGLIP2 = "https://github.com/google-research/big_vision/blob/main/big_vision/configs/proj/image_text/README_siglip2.md"
_PE = "https://github.com/facebookresearch/perception_models/blob/main/apps/pe/README.md"
_MARQO = "https://github.com/marqo-ai/marqo-FashionCLIP/blob/main/README.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A public model of pictures and texts. ``source`` is its full name, ``repo`` the repository its files come from
    (Hugging Face Hub).

    ``dim`` is that of its vectors, ``parameters`` those of both towers together. ``licence`` is that of the weights;
    ``research_only``: it forbids commercial use, and such a model is never a default. ``recall`` is what was
    published, per cent, text to picture, and ``published`` where; ``coco`` is the one figure that compares: how
    often the right picture of 5,000 of MS COCO comes first for a caption.
    """

    source: str
    repo: str
    dim: int
    parameters: int
    licence: str
    research_only: bool = False
    about: str
    coco: float | None = None
    recall: str = ""
    published: str = ""

    @property
    def download_bytes(self) -> int:
        """About the size of the weights, four bytes a parameter."""
        return 4 * self.parameters


KNOWN: Mapping[str, KnownModel] = {
    "clip-b32": KnownModel(
        source="open-clip:ViT-B-32/laion2b_s34b_b79k",
        repo="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        dim=512,
        parameters=151_277_313,
        licence="MIT",
        about="the fast one",
        coco=39.3,
        recall="COCO 39.3 at 1, 65.4 at 5; Flickr30k 66.8 at 1, 88.4 at 5",
        published=_OPEN_CLIP,
    ),
    "clip-b32-256": KnownModel(
        source="open-clip:ViT-B-32-256/datacomp_s34b_b86k",
        repo="laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
        dim=512,
        parameters=151_288_833,
        licence="MIT",
        about="as fast, better at naming things",
        coco=39.9,
        recall="COCO 39.9 at 1, 65.4 at 5; Flickr30k 64.9 at 1, 87.2 at 5",
        published=_OPEN_CLIP,
    ),
    "clip-b16": KnownModel(
        source="open-clip:ViT-B-16/laion2b_s34b_b88k",
        repo="laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        dim=512,
        parameters=149_620_737,
        licence="MIT",
        about="finer patches, a quarter of the speed",
        coco=42.3,
        recall="COCO 42.3 at 1, 67.7 at 5; Flickr30k 69.8 at 1, 90.4 at 5",
        published=_OPEN_CLIP,
    ),
    "clip-l14": KnownModel(
        source="open-clip:ViT-L-14/laion2b_s32b_b82k",
        repo="laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        dim=768,
        parameters=427_616_513,
        licence="MIT",
        about="large; wants a GPU",
        coco=46.5,
        recall="COCO 46.5 at 1, 71.1 at 5; Flickr30k 75.5 at 1, 92.9 at 5",
        published=_OPEN_CLIP,
    ),
    "clip-h14": KnownModel(
        source="open-clip:ViT-H-14/laion2b_s32b_b79k",
        repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        dim=1024,
        parameters=986_109_441,
        licence="MIT",
        about="huge; wants a GPU",
        coco=49.5,
        recall="COCO 49.5 at 1, 73.4 at 5; Flickr30k 77.6 at 1, 94.2 at 5",
        published=_OPEN_CLIP,
    ),
    "convnext-l": KnownModel(
        source="open-clip:convnext_large_d_320/laion2b_s29b_b131k_ft_soup",
        repo="laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
        dim=768,
        parameters=351_772_609,
        licence="MIT",
        about="a convolutional tower, 320 pixels",
        coco=48.3,
        recall="COCO 48.3 at 1, 72.5 at 5; Flickr30k 77.0 at 1, 93.9 at 5",
        published=_OPEN_CLIP,
    ),
    "siglip2-b16": KnownModel(
        source="open-clip:ViT-B-16-SigLIP2/webli",
        repo="timm/ViT-B-16-SigLIP2",
        dim=768,
        parameters=375_187_970,
        licence="Apache-2.0",
        about="the one to try first; many languages",
        coco=52.1,
        recall="COCO 52.1 at 1",
        published=_SIGLIP2,
    ),
    "siglip2-b16-256": KnownModel(
        source="open-clip:ViT-B-16-SigLIP2-256/webli",
        repo="timm/ViT-B-16-SigLIP2-256",
        dim=768,
        parameters=375_234_050,
        licence="Apache-2.0",
        about="the same at 256 pixels",
        coco=53.2,
        recall="COCO 53.2 at 1",
        published=_SIGLIP2,
    ),
    "siglip2-l16": KnownModel(
        source="open-clip:ViT-L-16-SigLIP2-256/webli",
        repo="timm/ViT-L-16-SigLIP2-256",
        dim=1024,
        parameters=881_526_786,
        licence="Apache-2.0",
        about="large; many languages",
        coco=54.7,
        recall="COCO 54.7 at 1",
        published=_SIGLIP2,
    ),
    "siglip2-so400m": KnownModel(
        source="open-clip:ViT-SO400M-16-SigLIP2-256/webli",
        repo="timm/ViT-SO400M-16-SigLIP2-256",
        dim=1152,
        parameters=1_135_670_962,
        licence="Apache-2.0",
        about="larger; many languages",
        coco=55.4,
        recall="COCO 55.4 at 1",
        published=_SIGLIP2,
    ),
    "pe-core-b16": KnownModel(
        source="open-clip:PE-Core-B-16/meta",
        repo="timm/PE-Core-B-16",
        dim=1024,
        parameters=447_660_545,
        licence="Apache-2.0",
        about="small image tower, large text tower",
        coco=50.9,
        recall="COCO 50.9 at 1",
        published=_PE,
    ),
    "pe-core-l14": KnownModel(
        source="open-clip:PE-Core-L-14-336/meta",
        repo="timm/PE-Core-L-14-336",
        dim=1024,
        parameters=671_138_817,
        licence="Apache-2.0",
        about="the best here with a free licence; 336 pixels",
        coco=57.1,
        recall="COCO 57.1 at 1",
        published=_PE,
    ),
    "clip-multilingual": KnownModel(
        source="open-clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        repo="laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
        dim=512,
        parameters=366_121_473,
        licence="MIT",
        about="fast, a hundred languages",
        coco=37.8,
        recall="COCO 37.8 at 1, 63.4 at 5; Flickr30k 64.5 at 1, 86.3 at 5",
        published=_OPEN_CLIP,
    ),
    "clip-multilingual-h14": KnownModel(
        source="open-clip:xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k",
        repo="laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k",
        dim=1024,
        parameters=1_193_014_785,
        licence="MIT",
        about="huge, a hundred languages",
        coco=49.2,
        recall="COCO 49.2 at 1, 73.1 at 5; Flickr30k 77.4 at 1, 93.9 at 5",
        published=_OPEN_CLIP,
    ),
    "fashion-siglip": KnownModel(
        source="hf-hub:Marqo/marqo-fashionSigLIP",
        repo="Marqo/marqo-fashionSigLIP",
        dim=768,
        parameters=203_155_970,
        licence="Apache-2.0",
        about="clothes and shoes",
        recall="mean of six fashion data sets 12.1 at 1, 34.0 at 10",
        published=_MARQO,
    ),
    "dfn-h14": KnownModel(
        source="open-clip:ViT-H-14-378-quickgelu/dfn5b",
        repo="apple/DFN5B-CLIP-ViT-H-14-378",
        dim=1024,
        parameters=986_714_881,
        licence="apple-amlr",
        research_only=True,
        about="huge, 378 pixels",
        coco=55.6,
        recall="COCO 55.6 at 1, 79.2 at 5; Flickr30k 82.0 at 1, 96.0 at 5",
        published=_OPEN_CLIP,
    ),
    "mobileclip2-s2": KnownModel(
        source="open-clip:MobileCLIP2-S2/dfndr2b",
        repo="timm/MobileCLIP2-S2-OpenCLIP",
        dim=512,
        parameters=99_243_329,
        licence="apple-amlr",
        research_only=True,
        about="made for phones",
    ),
}
