#!/bin/sh
# code/parallel/pipeline/page/build.sh: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle".
# build.sh wasm|native OUT: the schedules of chapter 5 for a web page, with the small C
# library of this folder. wasm: OUT is a WebAssembly module, by clang and wasm-ld; native:
# OUT is an archive for the test, of the same sources and the same library.
set -eu
kind=$1 out=$2
here=code/parallel/pipeline
# choose the compiler
case $kind in
wasm)
    cc="clang --target=wasm32 -mthread-model single -Os"
    own=$(clang -print-resource-dir)/include
    ;;
native)
    cc="${CC:-gcc} -O1 -g"
    own=$(${CC:-gcc} -print-file-name=include)
    ;;
esac
flags="-std=c11 -Wall -Wextra -Werror -ffreestanding -fno-builtin -nostdinc -Icode
       -isystem $here/page/include -isystem $own"

# choose the sources
sources="code/base/status.c code/base/args.c code/base/suggest.c"
for file in $here/*.c $here/page/*.c; do
    if needs=$($cc $flags -MM "$file" 2>/dev/null) &&
        $cc $flags -E "$file" >/dev/null 2>&1 &&
        ! printf '%s\n' $needs | grep '^code/.*\.h$' |
            grep -qv "^code/base/\(status\|args\|suggest\)\.h$\|^$here/"; then
        sources="$sources $file"
    fi
done

# compile the page
mkdir -p "${out%/*}"
case $kind in
wasm)
    $cc $flags -nostdlib -Wl,--no-entry -Wl,--gc-sections -Wl,--strip-all \
        -Wl,-z,stack-size=1048576 $sources -o "$out.new"
    ;;
native)
    rm -rf "$out.parts" "$out.new" && mkdir "$out.parts"
    for file in $sources; do
        $cc $flags -c "$file" -o "$out.parts/${file##*/}.o"
    done
    ar rcs "$out.new" "$out.parts"/*.o
    rm -r "$out.parts"
    ;;
esac
mv "$out.new" "$out"
