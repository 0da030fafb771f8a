#!/usr/bin/env bash
# theme-svg.sh FILE.svg: let gnuplot's ink follow the reader's light or dark theme.
# The canvas is transparent; in the dark its colours are inverted and keep their hue.
set -euo pipefail
style='<style>@media (prefers-color-scheme: dark){:root:not([data-theme=light]) #gnuplot_canvas'
style+='{filter:invert(1) hue-rotate(180deg)}}'
style+='[data-theme=dark] #gnuplot_canvas{filter:invert(1) hue-rotate(180deg)}</style>'
sed "s|<g id=\"gnuplot_canvas\">|$style\n&|" "$1" >"$1.new"
mv "$1.new" "$1"
