#!/bin/sh
# points.sh FIRST LAST SEED OUTPUT: one line "event x y" for each event, from the event's own seed.
set -eu
awk -v first="$1" -v last="$2" -v seed="$3" '
function draw() {            # a Lehmer generator: exact in the doubles every awk has, on every machine
    state = (state * 48271) % 2147483647
    return state / 2147483647
}
BEGIN {
    for (event = first; event < last; event++) {
        state = 1 + (seed * 1000003 + event) % 2147483646
        for (i = 0; i < 8; i++) draw()      # neighbouring seeds begin alike
        x = draw(); y = draw()
        printf "%d %.9f %.9f\n", event, x, y
    }
}' > "$4"
