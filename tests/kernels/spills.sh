#!/bin/sh
# tests/kernels/spills.sh: from chapters/10-flash-attention-measured.md. Edit the chapter, or edit here and run "make untangle".
# spills.sh NVCC FLAGS...: compiles the attention kernels for three architectures; fails,
# with the kernels' names, if ptxas reports a spill. At most two compilations at a time.
nvcc=$*
work=build/spills
mkdir -p $work
rm -f $work/*.log $work/failed
for arch in sm_80 sm_90 sm_90a; do
    for source in build/src/code/kernels/attention*.cu; do
        case $arch/$source in
            sm_80/*hopper*|sm_90/*hopper*) ;;  # these need wgmma
            *) echo "$arch $source" ;;
        esac
    done
done > $work/list
echo >> $work/list  # so that an odd last one has a partner
compile() {  # ARCHITECTURE SOURCE
    [ -n "$2" ] || return 0
    log=$work/$(basename "$2").$1.log
    $nvcc -gencode arch=compute_"${1#sm_}",code="$1" -Xptxas -v -c "$2" \
        -o "${log%.log}.o" > "$log" 2>&1 ||
        { cat "$log" >&2; : > $work/failed; }
}
while read -r arch source && read -r arch2 source2; do
    compile "$arch" "$source" &
    compile "$arch2" "$source2"
    wait
done < $work/list
awk '/Compiling entry|Function properties for/ { name = $NF }
     /spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ {
         print FILENAME ": " name ": " $0; bad = 1 }
     /Used [0-9]+ registers/ { kernels++ }
     END { print kernels " kernels compiled, " (bad ? "some spill" : "none spills")
           exit bad }' $work/*.log && [ ! -e $work/failed ]
