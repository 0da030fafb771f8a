#!/bin/sh
# tests/comm/launched.sh: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle".
# The tests of the collectives in worlds that another launcher starts.
#   usage: launched.sh NAME PROGRAM LAUNCHER...     up to the number of ranks
set -u
name=$1 program=$2
shift 2
# name the tests
all='every_algorithm a_group all_to_all_v rows_and communicators disagr all_reduce_is
  broadcast_is messages_and_host mismatched unequal_host a_rank_that_left ring_ a_late
  broadcast_takes two_streams the_shape_of transports_of_any slow_ranks'
tests="@(collectives|comm)/@($(echo $all | tr ' ' '|'))*"
cat <<'END'
not run here: worlds of more than 4 ranks; tests of the launcher itself (launch_*,
elastic, the watchdog, killed ranks: mpirun ends the job its own way), of the shared
memory (meetings, heap, shortcut, mailboxes), of the search for deadlocks, which reads it
(two roots that wait for each other), of stores, and one that reads what its ranks write
(the seed)
END
# run the tests and count
log=$(mktemp) output=$(mktemp)
DLS_TEST_BY="$*" DLS_TEST_LOG=$log "$program" --jobs 1 --filter "$tests" >"$output" 2>&1
failed=$?
tail -n 40 "$output"
awk -v name="$name" '
  $3 == "ran" { worlds++; checks += $4; ranks[$2]++; test[$1] = 1 }
  $3 == "skipped" { skipped++ }
  END { for (t in test) tests++
        printf "%s: %d tests, %d worlds (of 1 to 4 ranks: %d, %d, %d, %d), ", name, tests,
               worlds, ranks[1], ranks[2], ranks[3], ranks[4]
        printf "%d expectations; %d larger worlds left out\n", checks, skipped }' "$log"
rm -f "$log" "$output"
exit $failed
