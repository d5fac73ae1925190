#!/bin/sh
# Index a feed of products, serve it, and open the storefront in the browser. make shop calls it: sh data/shop.sh BIN HOME FEED PORT
set -eu
bin=$1
feed=$3
port=$4
case $feed in
    data/products.csv) MMSEARCH_HOME=$2 ;;
    *) MMSEARCH_HOME=$2/$(printf %s "$feed" | cksum | cut -d " " -f 1) ;; # a shop of its own, not one with our hammers in it
esac
export MMSEARCH_HOME
url="http://127.0.0.1:$port/?c=shop&view=shop"

"$bin/mmsearch" index --feed "$feed" --collection shop
printf '\nThe shop opens at %s (Ctrl-C stops it)\n\n' "$url"

if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || [ "$(uname)" = Darwin ]; then
    "$bin/python" - "$url" <<'EOF' &
import sys, time, urllib.request, webbrowser
for _ in range(300):
    try:
        urllib.request.urlopen(sys.argv[1].partition("?")[0] + "readyz", timeout=1).close()
    except OSError:
        time.sleep(0.2)
    else:
        webbrowser.open(sys.argv[1])
        break
EOF
fi
exec "$bin/mmsearch" serve --port "$port" --log-level warning
