#!/bin/sh
# tests/parallel/page_in_browser.sh: from chapters/05-pipeline-pictures-tests.md. Edit the chapter, or edit here and run "make untangle".
# page_in_browser.sh PAGE: opens the page at some addresses and looks at what it shows.
set -eu
browser=$(command -v chromium || command -v chromium-browser) || {
    echo "page: not tried: no chromium"
    exit 0
}
# open the page at
page=$(realpath "$1")
open_at() {
    "$browser" --headless=new --no-sandbox --disable-gpu --virtual-time-budget=5000 \
        --dump-dom "file://$page#try=$1" 2>/dev/null
}
failed=0
expect() { # ADDRESS, then texts that the page must hold
    at=$1
    shown=$(open_at "$at")
    shift
    for text; do
        case $shown in
        *"$text"*) ;;
        *) echo "page: #try=$at does not show: $text" && failed=1 ;;
        esac
    done
}

# expect in the page
expect "zb-h1+--stages+4+--microbatches+8" ">makespan 27<" \
    ">dls schedule zb-h1 --stages 4 --microbatches 8<" \
    "zb-h1: 4 ranks, 8 micro-batches" "<title>3F7, "
expect "interleaved+--stages+3+--microbatches+5+--chunks+3+--cost+1,1/3,2/3" \
    "--chunks 3 --cost 1,1/3,2/3<" "3 chunks per rank" "<title>8F4, "
expect "dualpipe+--stages+4+--microbatches+8+--overlap-cost+5/2" \
    ">dls schedule dualpipe --stages 4 --microbatches 8 --overlap-cost 5/2<" \
    ">makespan 24<" "one above the other: a pair" "<title>3F5, "
expect "own%0A0F0%2C0B0%0A1F0%2C1B0" ">dls schedule your.csv<" ">makespan 6<"
expect "own%0A0B0%2C0F0%0A1F0%2C1B0" "rank 0: 0B0 stands before 0F0, which it needs"
expect "1f1b+--stages+0" "--stages: expected a number from 1 to 4096"
[ $failed -eq 0 ] && echo "page: shows what it was asked for"
exit $failed
