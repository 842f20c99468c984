# SPDX-License-Identifier: MIT
# What needs a running tailer: topics with a log, read from their past on.
load helper

# A topic with a log, small enough that most of its past is on disk only.
durable() { # TOPIC OPTION...
	export SHMQ_DATA_DIR=$DIR/data
	shmq create "$1" -q --depth 1024 --log block --sync batch --time "${@:2}"
}

written() { # TOPIC: seq behind the last in its log's files
	shmq stat "$1" --json | json '$_->{partition_list}[0]{log}{written}'
}

synced() {
	shmq stat "$1" --json | json '$_->{partition_list}[0]{log}{synced}'
}

now() { # as a time of --from and --to
	date -u +%Y-%m-%dT%H:%M:%S.%NZ
}

# ---- create and stat ------------------------------------------------------

@test "create_takes_options_of_a_log_and_stat_shows_them" {
	durable t --sync-after 20ms --segment 2M --retain 64M --retain-for 2d
	shmq stat t --json >out
	[ "$(json '$_->{log}{mode}' <out)" = block ]
	[ "$(json '$_->{log}{sync}' <out)" = batch ]
	[ "$(json '$_->{log}{sync_ns}' <out)" = 20000000 ]
	[ "$(json '$_->{log}{segment_bytes}' <out)" = 2097152 ]
	[ "$(json '$_->{log}{retain_bytes}' <out)" = 67108864 ]
	[ "$(json '$_->{log}{retain_ns}' <out)" = 172800000000000 ]
	run -0 shmq stat t
	has "$output" "block, sync batch 20 ms, segments of 2 MiB"
	has "$output" "64 MiB of each partition, 2 d 0 h"
	[ "$(shmq ls --json | json '$_->[0]{log}{mode}')" = block ]
	shmq create plain -q
	[ "$(shmq stat plain --json | json '$_->{log}')" = null ]
	[ "$(shmq stat plain --json | json '$_->{partition_list}[0]{log}')" = null ]
	[ "$(json '$_->{log}{retain_cursors}' <out)" = false ]
	durable kept --retain 1M --retain-cursors
	[ "$(shmq stat kept --json | json '$_->{log}{retain_cursors}')" = true ]
	has "$(shmq stat kept)" "1 MiB of each partition, and what stored cursors need"
	run -0 shmq create t --if-missing --log gap
	has "$output" "log block, not gap"
}

@test "options_of_what_becomes_of_segments_are_shown_and_checked" {
	durable t --retain-keys --tombstones 2h --compress zstd
	shmq stat t --json >out
	[ "$(json '$_->{log}{retain_keys}' <out)" = true ]
	[ "$(json '$_->{log}{tombstone_ns}' <out)" = 7200000000000 ]
	[ "$(json '$_->{log}{compress}' <out)" = 3 ]
	has "$(shmq stat t)" "all, of each key the last; compressed, level 3"
	durable fast --compress 1
	[ "$(shmq stat fast --json | json '$_->{log}{compress}')" = 1 ]
	[ "$(shmq stat fast --json | json '$_->{log}{retain_keys}')" = false ]
	run -2 shmq create x --log block --compress 20
	run -2 shmq create x --log block --compress lz4
	run -2 shmq create x --compress 3
	has "$output" "needs --log"
	run -2 shmq create x --retain-keys
	has "$output" "needs --log"
	run -2 shmq create x --log block --tombstones 1h
	has "$output" "needs --retain-keys"
}

@test "ls_of_logs_leaves_out_what_is_only_reserved" {
	durable t --segment 64M
	seq 1000 | shmq pub t
	await '[ "$(written t)" = 1000 ]'
	[ "$(shmq log ls t --json | json '$_->[0]{bytes}')" -lt 1000000 ]
}

@test "stat_shows_how_far_a_log_has_come" {
	durable t
	seq 3000 | shmq pub t
	await '[ "$(written t)" = 3000 ]'
	await '[ "$(synced t)" = 3000 ]'
	[ "$(shmq stat t --json | json '$_->{partition_list}[0]{log}{first}')" = 0 ]
	[ "$(shmq stat t --json | json '$_->{partition_list}[0]{log}{error}')" = null ]
	[ "$(shmq stat t --json | json '$_->{partition_list}[0]{log}{disk_left} // 0')" -gt 0 ]
	run -0 shmq stat t
	has "$output" "LOG OF"
	has "$output" "DISK LEFT"
	[ "$(shmq stat --json | json '$_->{disks}[0]{dir}')" = "$DIR/data/$SHMQ_BUS" ]
	await '[ "$(shmq stat --json | json "\$_->{disks}[0]{written_bytes}")" -gt 60000 ]'
	has "$(shmq stat)" "logs in $DIR/data/$SHMQ_BUS: "
	durable gaps --log gap --sync every
	echo x | shmq pub gaps
	await '[ "$(synced gaps)" = 1 ]'
}

@test "pub_ends_when_what_it_sent_is_confirmed" {
	durable t --sync every
	seq 100 | shmq pub t --confirm written
	[ "$(written t)" = 100 ]
	seq 100 | shmq pub t --confirm synced
	[ "$(synced t)" = 200 ]
	durable never --sync none
	echo x | shmq pub never --confirm written
	run -3 shmq pub never --confirm synced --timeout 0.1 <<<x
	has "$output" "shmq stat shows it"
	start waits pub never three words more --confirm synced
	await '[ "$(head_of never)" = 5 ]'
	kill "$(pid_of waits)"
	finish waits 1
	has "$(cat waits.err)" 'waiting for the log of "never": interrupted, all 3 messages are sent'
	shmq create plain -q
	run -2 shmq pub plain --confirm written <<<x
	has "$output" "create it with --log"
	run -2 shmq pub t --confirm maybe </dev/null
}

@test "a_full_disk_is_named_to_who_waits_for_it" {
	local pid
	unshare -m true 2>/dev/null || skip "no mounts of its own"
	mkdir -p "$DIR/data"
	unshare -m sh -c 'mount -t tmpfs -o size=3m none "$0" && exec "$@"' "$DIR/data" \
		"$BIN/shmqd" --bus "$SHMQ_BUS" --data-dir "$DIR/data" 3>&-
	durable t --max 4k --segment 1M
	head -c 8000000 /dev/zero | tr '\0' x | fold -w 1000 >lines
	run -3 shmq pub t --timeout 1 <lines
	has "$output" "it waits for its log: No space left on device"
	shmq stat | grep -q '^t .* its log: No space left on device$'
	shmq top --once | grep -q '^t .* its log: No space left on device$'
	pid=$(shmq stat --json | json '$_->{bus}{daemon_pid}')
	run -1 shmq create more --log block
	has "$output" 'making the log in'
	nsenter -m -t "$pid" sh -c '! ls -d "$0"/*/more' "$DIR/data" # nor is half of it there
	nsenter -m -t "$pid" mount -o remount,size=64m "$DIR/data"
}

@test "options_of_a_log_need_one_and_fit_together" {
	for option in "--sync every" "--sync-after 1s" "--segment 2M" "--retain 1G" "--retain-for 1d"; do
		run -2 shmq create t $option
		has "$output" "needs --log"
		run -2 shmq create t --log none $option
	done
	run -2 shmq create t --log maybe
	run -2 shmq create t --log block --sync sometimes
	run -2 shmq create t --log block --sync every --sync-after 1s
	run -2 shmq create t --log block --sync interval --sync-after forever
	run -2 shmq create t --log block --retain-for forever
	run -2 shmq create t --log block --policy lossy
	run -2 shmq pub t --log block </dev/null
	has "$output" --create
}

# ---- sub ------------------------------------------------------------------

@test "sub_reads_the_whole_past_and_goes_on" {
	durable t
	seq 5000 | shmq pub t
	start reader sub t --from oldest --count 5003
	await '[ "$(tail -n 1 reader.out)" = 5000 ]'
	seq 5001 5003 | shmq pub t
	finish reader
	[ "$(cat reader.out)" = "$(seq 5003)" ]
	[ "$(shmq sub t --from 17 --to 20)" = "$(seq 18 20)" ]
	[ "$(shmq sub t --from 5000 --to 5003)" = "$(seq 5001 5003)" ]
	[ "$(shmq sub t --from 4990 --count 3 --json | json '$_->{seq}' | paste -sd' ')" = "4990 4991 4992" ]
}

@test "what_a_log_does_not_have_is_not_laid_to_a_slow_reader" {
	local segments
	durable t --segment 1M --max 4k
	head -c 4000000 /dev/zero | tr '\0' x | fold -w 3000 | shmq pub t --confirm synced
	segments=("$DIR"/data/*/t/0/*.log)
	rm "${segments[1]}"
	run -4 --separate-stderr shmq sub t --from oldest --to now
	has "$stderr" "its log does not have them"
	run -4 --separate-stderr shmq replay t --speed flat --to now
	has "$stderr" "its log does not have them"
}

@test "sub_starts_and_ends_at_times" {
	durable t --partitions 3
	seq 1 3000 | shmq pub t
	one=$(now)
	seq 3001 6000 | shmq pub t
	two=$(now)
	seq 6001 9000 | shmq pub t
	[ "$(shmq sub t --from "$one" --to "$two" | sort -n)" = "$(seq 3001 6000)" ]
	[ "$(shmq sub t --from oldest --to "$one" | sort -n)" = "$(seq 3000)" ]
	[ "$(shmq sub t --from -1h --to now | sort -n)" = "$(seq 9000)" ]
	[ "$(shmq sub t --from -1h --partition 1 --to now | wc -l)" = 3000 ]
	[ "$(shmq sub t --from "$two" --count 3000 | sort -n)" = "$(seq 6001 9000)" ]
	[ -z "$(shmq sub t --from now --to now)" ]
}

@test "sub_ends_when_the_clock_shows_the_time" {
	durable t
	end=$(date -u -d '+1 second' +%Y-%m-%dT%H:%M:%S.%NZ)
	start reader sub t --to "$end"
	finish reader
	[ ! -s reader.out ]
}

@test "sub_refuses_places_that_mean_nothing" {
	durable t --partitions 2
	shmq create plain -q
	run -2 shmq sub t --to 5
	has "$output" --partition
	run -2 shmq sub t --from soon
	run -2 shmq sub t --to 2026-13-01
	run -2 shmq sub t --to latest
	run -2 shmq sub plain --to now
	has "$output" --time
	run -2 shmq sub plain --from -5min
	run -0 shmq sub plain --from oldest --to 0
	[ -z "$output" ] || fail "$output"
}

# ---- replay ---------------------------------------------------------------

# Messages with times of their own: five, a tenth of a second apart.
tell_a_story() {
	durable t --tag
	for i in 0 1 2 3 4; do
		printf '{"data":"part %d","key":"k%d","type":%d,"tag":"%d","ts":1795676400%d00000000}\n' \
			$i $i $i $((i + 7)) $i
	done >story
	shmq log import t story
	await '[ "$(written t)" = 5 ]'
}

@test "replay_prints_flat_out_or_at_a_pace" {
	tell_a_story
	want=$(printf 'part %d\n' 0 1 2 3 4)
	[ "$(shmq replay t --speed flat --to now)" = "$want" ]
	[ "$(shmq replay t --count 5)" = "$want" ]
	[ "$(shmq replay t --count 5 --speed 1000)" = "$want" ]
	[ "$(shmq replay t --count 5 --speed recorded --print-key | cut -f1 | paste -sd' ')" = "k0 k1 k2 k3 k4" ]
	[ "$(shmq replay t --from 1 --to 3 --speed flat | paste -sd,)" = "part 1,part 2" ]
	[ "$(shmq replay t --json --speed flat --to 1 | json '$_->{tag}')" = 0x0000000000000007 ]
}

# The recorded pace is at least as slow as the times: 400 ms at half of it
# are 800 ms, and a deaf clock would not tell.
@test "replay_waits_as_the_times_say" {
	tell_a_story
	before=$(date +%s%N)
	shmq replay t --count 5 --speed 0.5 >out
	[ $(($(date +%s%N) - before)) -ge 800000000 ]
}

@test "replay_merges_partitions_by_time" {
	durable t --partitions 2
	for i in 0 1 2 3 4 5; do
		printf '{"data":"%d","partition":%d,"ts":1795676400%d00000000}\n' $i $((i / 2 % 2)) $i
	done | shmq log import t
	[ "$(shmq replay t --speed flat --count 6 | paste -sd' ')" = "0 1 2 3 4 5" ]
}

@test "replay_publishes_into_another_topic_with_all_there_is" {
	tell_a_story
	shmq create u -q --time --tag
	run -0 --separate-stderr shmq replay t --speed flat --to now --into u --json
	[ "$(json '$_->{sent}' <<<"$output")" = 5 ]
	shmq sub u --from oldest --count 5 --json >out
	for field in data key type tag ts; do
		[ "$(json "\$_->{$field}" <out)" = "$(shmq log export t -q | json "\$_->{$field}")" ] ||
			fail "$field differs"
	done
	run -2 shmq replay t --into t
	run -2 shmq replay t --into u --format hex
	run -5 shmq replay t --into nothing
	run -5 shmq replay nothing
	run -2 shmq replay
	run -2 shmq replay t --speed backwards
	run -2 shmq replay t --speed 0
}

@test "replay_runs_on_into_what_is_published_then" {
	durable t --partitions 2
	seq 4000 | shmq pub t
	start reader replay t --speed flat --count 4100
	await '[ "$(wc -l <reader.out)" -ge 3900 ]'
	seq 4001 4100 | shmq pub t
	finish reader
	[ "$(sort -n reader.out)" = "$(seq 4100)" ]
	run -3 --separate-stderr shmq replay t --speed flat --timeout 50ms
	[ "${#lines[@]}" = 4100 ]
	is_said_well "$stderr"
	shmq create plain -q
	run -2 shmq replay plain
	has "$output" "--speed flat"
}

@test "the_head_of_a_log_goes_on_when_its_bus_starts_anew_and_counts_say_that_they_do_not" {
	shmq create plain -q
	run -0 shmq stat plain
	[[ $output != *counted* ]]
	durable t
	seq 2000 | shmq pub t --confirm synced
	shmq stop --force
	seq 5 | shmq pub t
	[ "$(head_of t)" = 2005 ]
	[ "$(shmq stat t --json | json '$_->{partition_list}[0]{head}')" = 2005 ]
	has "$(shmq ls -l)" " 2005"
	run -0 shmq stat t
	has "$output" "head         2005"
	has "$output" "counted      since the bus started"
	has "$output" "sent         5,"
	has "$(shmq metrics)" "shmq_topic_messages_total{bus=\"$SHMQ_BUS\",topic=\"t\"} 2005"
}

# ---- logs of a bus --------------------------------------------------------

@test "a_log_is_there_when_its_bus_is_not" {
	durable t
	seq 2000 | shmq pub t
	run -6 shmq log repair t
	is_said_well "$output"
	shmq stop --force
	[ "$(shmq log export t -q | json '$_->{data}')" = "$(seq 2000)" ]
	run -0 shmq log verify t
	run -0 shmq log repair t
	[ "$(shmq log ls --json | json '$_->[0]{seqs}')" = 2000 ]
	cp -r data/"$SHMQ_BUS"/t copy
	[ "$(shmq log export ./copy -q --from 1990 | json '$_->{data}' | paste -sd' ')" = "$(seq -s' ' 1991 2000)" ]
}

@test "indexes_of_compressed_files_are_made_anew" {
	durable t --segment 1M --max 4k --compress 1
	head -c 3000000 /dev/zero | tr '\0' x | fold -w 3000 | shmq pub t --confirm synced
	await '[ "$(ls "$DIR"/data/*/t/0/*.zst | wc -l)" -ge 2 ]'
	shmq stop
	for index in "$DIR"/data/*/t/0/*.idx; do head -c 5000 /dev/urandom >"$index"; done
	run -0 --separate-stderr shmq log verify t
	has "$output" "reading does without"
	run -0 --separate-stderr shmq log repair t
	[ -z "$stderr" ]
	run -0 --separate-stderr shmq log verify t
	[ "$(wc -l <<<"$output")" = 1 ]
	index=$(ls "$DIR"/data/*/t/0/*.idx | head -n 1)
	rm "$index"
	mkdir "$index"
	run -1 shmq log repair t
	has "$output" "making $(basename "$index") anew: Is a directory"
}

@test "a_log_of_which_nobody_knows_whose_it_is_says_the_way_out" {
	durable t
	seq 100 | shmq pub t --confirm synced
	shmq stop
	printf damage | dd of="$(ls -d "$DIR"/data/*/t/topic)" bs=1 seek=100 conv=notrunc status=none
	run -1 durable t
	has "$output" "export what the log has"
	shmq log export t -q >file
	mv "$(ls -d "$DIR"/data/*/t)" away
	durable t
	shmq log import t file
	[ "$(shmq sub t --from oldest --to now)" = "$(seq 100)" ]
}
