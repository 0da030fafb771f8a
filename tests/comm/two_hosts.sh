#!/bin/sh
# tests/comm/two_hosts.sh: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle".
# Ranks on two "hosts": network namespaces a and b with a cable between them, half of the
# ranks in each, a rendezvous over TCP at a's address.
#   usage: two_hosts.sh RANKS PROGRAM...; two_hosts.sh try: 1 if there can be two hosts
set -u
ranks=$1 a=dls-a-$$ b=dls-b-$$
shift
# make two hosts
remove() { ip netns del "$a" 2>/dev/null; ip netns del "$b" 2>/dev/null; }
trap remove EXIT
if ! { ip netns add "$a" && ip netns add "$b" &&
       ip -n "$a" link add cable type veth peer name cable netns "$b"; } 2>/dev/null; then
  echo "two hosts: not tried, no network namespaces here (they need root)"
  exit 1
fi
[ "$ranks" = try ] && exit 0
ip -n "$a" link set lo up # a host reaches its own address by the loopback
ip -n "$a" addr add 10.77.0.1/24 dev cable && ip -n "$a" link set cable up
ip -n "$b" link set lo up
ip -n "$b" addr add 10.77.0.2/24 dev cable && ip -n "$b" link set cable up
# start ranks on both
pids='' rank=0
while [ $rank -lt "$ranks" ]; do
  host=$a
  [ $((2 * rank)) -ge "$ranks" ] && host=$b
  RANK=$rank WORLD_SIZE=$ranks MASTER_ADDR=10.77.0.1 MASTER_PORT=29500 \
    DLS_RENDEZVOUS_SECONDS=20 timeout 60 ip netns exec "$host" "$@" &
  pids="$pids $!" rank=$((rank + 1))
done
failed=0
for pid in $pids; do wait "$pid" || failed=1; done
exit $failed
