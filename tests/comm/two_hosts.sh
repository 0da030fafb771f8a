#!/bin/sh
# tests/comm/two_hosts.sh: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle".
# Four ranks on two "hosts": network namespaces a and b with a cable between them, two
# ranks in each, a rendezvous over TCP at a's address.  usage: two_hosts.sh PROGRAM
set -u
program=$1 a=dls-a-$$ b=dls-b-$$
# make two hosts
remove() { ip netns del "$a" 2>/dev/null; ip netns del "$b" 2>/dev/null; }
trap remove EXIT
if ! { ip netns add "$a" && ip netns add "$b" &&
       ip -n "$a" link add cable type veth peer name cable netns "$b"; } 2>/dev/null; then
  echo "two hosts: not tried, no network namespaces here (they need root)"
  exit 0
fi
ip -n "$a" link set lo up # a host reaches its own address by the loopback
ip -n "$a" addr add 10.77.0.1/24 dev cable && ip -n "$a" link set cable up
ip -n "$b" link set lo up
ip -n "$b" addr add 10.77.0.2/24 dev cable && ip -n "$b" link set cable up
# start two ranks on each
pids=
for rank in 0 1 2 3; do
  host=$a
  [ $rank -ge 2 ] && host=$b
  RANK=$rank WORLD_SIZE=4 MASTER_ADDR=10.77.0.1 MASTER_PORT=29500 \
    DLS_RENDEZVOUS_SECONDS=20 timeout 60 ip netns exec "$host" "$program" &
  pids="$pids $!"
done
failed=0
for pid in $pids; do wait "$pid" || failed=1; done
[ $failed = 0 ] && echo "two hosts: 4 ranks, exact"
exit $failed
