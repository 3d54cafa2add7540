#!/bin/sh
# The first process of a trainer's container, which ends when this one does. Asked to end, it asks every process, since dvc
# asks none, and stays until the last one has saved. Anywhere else it only runs the command.
[ $$ -eq 1 ] || exec "$@"
trap 'kill -TERM -1' TERM INT
"$@" &
wait $!
code=$?
while kill -0 -1 2>/dev/null; do sleep 1; done
exit $code
