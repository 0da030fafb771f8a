#!/usr/bin/env bash
# Make sure that the tools of the book are there.  On Debian and Ubuntu what is
# missing is installed (as root, or through sudo, saying so); elsewhere the list
# is printed.  `setup.sh core` is what `make test` needs, `setup.sh book` adds
# what the woven book needs.
set -euo pipefail

core=(gcc g++ make git pkg-config gdb gnuplot-nox pandoc libcmark-dev libyaml-dev
      libjansson-dev libxxhash-dev libutf8proc-dev libcriterion-dev libdnnl-dev libjs-lunr
      libdw-dev libcapstone-dev binutils)
book=(texlive-luatex texlive-latex-recommended fonts-texgyre fonts-texgyre-math
      fonts-dejavu-core librsvg2-bin clang lld)

case "${1:-}" in
  core) wanted=("${core[@]}") ;;
  book) wanted=("${book[@]}") ;;
  *) echo "usage: tangle/setup.sh core|book" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  missing=()
  for tool in gcc g++ pkg-config gdb gnuplot pandoc; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if command -v pkg-config >/dev/null; then
    for library in libcmark yaml-0.1 jansson libxxhash libutf8proc criterion libdw capstone; do
      pkg-config --exists "$library" || missing+=("$library")
    done
  fi
  [ "$1" = book ] && for tool in lualatex rsvg-convert clang wasm-ld; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} -eq 0 ] && exit 0
  echo "setup: this is not Debian or Ubuntu, so nothing was installed." >&2
  echo "setup: missing here: ${missing[*]}" >&2
  echo "setup: install what corresponds to these Debian packages: ${wanted[*]}" >&2
  exit 1
fi

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' ||
    missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: missing packages: ${missing[*]}" >&2
    echo "setup: not root and no sudo here; run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
  echo "setup: installing through sudo: ${missing[*]}"
else
  echo "setup: installing: ${missing[*]}"
fi
log=$(mktemp)
if ! { "${as_root[@]}" apt-get update -qq &&
       "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
         --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: apt-get failed; its last lines are above" >&2
  exit 1
fi
rm -f "$log"
