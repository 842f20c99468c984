#!/bin/sh
# The Python module, against a bus of its own.
command -v python3 >/dev/null 2>&1 || {
	echo "1..0 # SKIP python3 is missing"
	exit 0
}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir -m 700 "$dir/run"
export SHMQ_RUNTIME_DIR="$dir/run" SHMQ_DATA_DIR="$dir/data" SHMQ_DAEMON="${SHMQ_DAEMON:-$SHMQ_BUILD/shmqd}"
export SHMQ_LIBRARY="$SHMQ_BUILD/libshmq.so" PYTHONPATH=libshmq/python PYTHONDONTWRITEBYTECODE=1
timeout -k 5 120 python3 tests/python/module.py "$dir"
