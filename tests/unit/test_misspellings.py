"""Words as shoppers misspell them, and how many are read as they were meant."""

from __future__ import annotations

import pytest

from mmsearch import Engine, fulltext
from mmsearch.columns import Columns
from mmsearch.fulltext import FullText
from mmsearch.wording import corrected
from mmsearch.words import stems
from tests.oracle import directions
from tests.shop import Product
from tests.toy import ToyEncoder

TITLES = 200
MOST = 4780

OFTEN = """
adidas:404 arrow:186 assn:160 back:9 backpack:94 backpacks:13 baggit:146 ballet:1 bello:1 belt:129
belts:43 benetton:839 black:1777 blanc:1 blue:1400 born:2 bpack:1 bracelet:1 breifs:3 brief:29
briefs:54 brown:586 casual:881 catwalk:167 check:496 classic:137 colors:821 daypack:3 dress:13
dresses:10 eyewear:101 flats:131 flip:115 flips:1 flying:193 formal:199 formula:1 gran:1 green:457
grey:640 handbag:117 handbags:99 handle:3 hit:1 jack:1 jacket:63 janes:2 jeans:180 kids:256
kurta:118 kurtas:173 kutta:1 leather:123 lee:152 leggings:12 levi:40 levis:97 levisi:1 machine:191
maroon:142 men:4780 mens:21 navy:404 necklace:2 nike:404 perfume:2 perfumes:16 pink:228 polo:449
printed:729 puma:491 purple:363 rambler:1 ranger:3 red:520 reebok:42 ringer:5 runng:7 running:22
sandal:54 sandals:163 shirt:956 shirts:575 shoe:159 shoes:874 shorts:76 skechers:41 skirt:9
skirts:16 slipper:56 slippers:65 sliver:2 socks:145 solid:1012 speeder:4 sports:319 stilettos:3
stripe:14 striped:214 striper:2 stripes:417 sunglass:1 sunglasses:241 sweater:124 sweaters:79
sweatshirt:102 sweatshirts:69 sweet:7 taylor:222 timberland:81 top:190 trouser:54 trousers:101
tshirt:401 tshirts:580 unisex:388 united:874 wales:1 wallet:157 wallets:46 watch:160 watches:115
white:950 women:2373 wrangler:238 yellow:111
"""
"""Words of the titles of a clothes shop, each with how many of its titles hold it."""

MISSPELT = """
jens:jeans jaens:jeans jeens:jeans shrit:shirt shirst:shirts shrts:shirts shooes:shoes sheos:shoes
shose:shoes snadals:sandals sandels:sandals sandles:sandals sunglases:sunglasses
sunglassess:sunglasses sunglsses:sunglasses wathc:watch wacth:watch watchs:watches walet:wallet
wallett:wallet wallat:wallet bakpack:backpack backpak:backpack bacpack:backpack swetshirt:sweatshirt
sweatshrit:sweatshirt sweter:sweater sweeter:sweater trousrs:trousers truosers:trousers
trowsers:trousers jackt:jacket jakcet:jacket jackit:jacket slipers:slippers slippres:slippers
handbga:handbag hanbag:handbag handbagg:handbag kurat:kurta kurtta:kurta adiddas:adidas
addidas:adidas adidsa:adidas wranglr:wrangler rangler:wrangler wrangelr:wrangler benneton:benetton
beneton:benetton skecher:skechers sketchers:skechers reebock:reebok rebok:reebok
timberlnd:timberland tiberland:timberland lether:leather leathr:leather lethar:leather blakc:black
balck:black blak:black gren:green grean:green gery:grey whit:white whtie:white wihte:white
purpel:purple puple:purple yelow:yellow yellwo:yellow maron:maroon maroom:maroon priinted:printed
pritned:printed strpies:stripes stiped:striped formla:formal fromal:formal casaul:casual
caual:casual runing:running runnign:running wommen:women womne:women beltt:belt bellt:belt
sokcs:socks sockes:socks brwon:brown borwn:brown brifs:briefs briefes:briefs eyewera:eyewear
leggins:leggings legings:leggings braclet:bracelet bracelt:bracelet neclace:necklace
necklase:necklace dreses:dresses skrit:skirt skrts:skirts levsi:levis perfum:perfume
perfumne:perfume stiletos:stilettos flipp:flip
"""
"""Letters left out, doubled, swapped and hit beside: what was typed, and what was meant."""


@pytest.fixture(scope="module")
def full_text(tmp_path_factory: pytest.TempPathFactory) -> FullText:
    """As many words as the shop's, in as many of fewer titles."""
    said: list[list[str]] = [[] for _ in range(TITLES)]
    for n, told in enumerate(OFTEN.split()):
        word, often = told.split(":")
        count = max(1, round(int(often) / MOST * TITLES))
        for title in range(count):
            said[(n + title) % TITLES].append(word)
    vector = directions(1, 4)[0]
    with Engine.open(tmp_path_factory.mktemp("shop"), model=ToyEncoder()) as engine:
        engine.add(
            [Product(f"k{n}", [vector], " ".join(title)).new() for n, title in enumerate(said) if title]
        )
        return fulltext.read(engine.catalog, 1, Columns(engine.catalog, 1))


def test_nearly_all_are_read_as_they_were_meant(full_text: FullText) -> None:
    pairs = [told.split(":") for told in MISSPELT.split()]
    assert len(pairs) >= 100
    wrong = []
    for typed, meant in pairs:
        assert typed not in full_text.surfaces
        read = [other for other, _ in corrected(typed, full_text)]
        if stems(read[:1]) != stems([meant]):
            wrong.append((typed, meant, read))
    assert len(wrong) <= 0.04 * len(pairs), wrong
    assert not any(meant == "jeans" for _, meant, _ in wrong), (
        "mens is nearer to jens for who counts letters only"
    )
