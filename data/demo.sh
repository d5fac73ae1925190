#!/bin/sh
# Index the sample beside this script, search it in six ways, and fail unless each finds what it should.
# make demo calls it: sh data/demo.sh MMSEARCH HOME
set -eu
mmsearch=$1
MMSEARCH_HOME=$2
export MMSEARCH_HOME
cd "$(dirname "$0")/.."

say() {
    printf '\n$ mmsearch'
    for word; do
        case $word in
            *[!A-Za-z0-9_./:-]*) printf ' "%s"' "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
}

# find FILE ARGUMENT...: search, show what was found, and expect FILE among it.
find() {
    expected=$1
    shift
    set -- "$@" -k 3
    say search "$@"
    found=$("$mmsearch" search "$@")
    printf '%s\n' "$found"
    case $found in
        *"$expected"*) ;;
        *) printf 'demo: expected %s among these\n' "$expected" >&2; exit 1 ;;
    esac
}

say index data/photos data/texts data/sounds
"$mmsearch" index data/photos data/texts data/sounds

printf '\n-- Words find photos.\n'
find koala.jpg "a koala in a tree" --modality image
find kingfisher.jpg "a bird with blue feathers" --modality image

printf '\n-- A photo finds photos like it.\n'
find kitten.jpg --image data/photos/cat.jpg --modality image

printf '\n-- Words find the passage of a text that says it in other words.\n'
find library-rules.txt "how long may I keep a book" --modality text

printf '\n-- Words find sounds.\n'
find choir.flac "a choir singing" --modality audio
find crow.flac "the call of a crow" --modality audio

printf '\n-- A sound finds words.\n'
find piano-practice.md --audio data/sounds/piano.flac --modality text

printf '\n-- Words and photos add up: like this photo, but a bird and not a cat.\n'
find kingfisher.jpg --image data/photos/cat.jpg --add "3:a bird" --subtract 2:cat

printf '\ndemo: every query found what it should\n'
