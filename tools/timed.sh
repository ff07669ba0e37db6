#!/bin/sh
# timed.sh NAME COMMAND...: run the command, then say how long it took and whether it succeeded; ends as the command did.
name=$1
shift
echo "== $name: $*"
started=$(date +%s%N)
"$@"
status=$?
tenths=$((($(date +%s%N) - started) / 100000000))
[ "$status" -eq 0 ] && word=ok || word="FAILED ($status)"
echo "== $name: $word after $((tenths / 10)).$((tenths % 10)) s"
exit "$status"
