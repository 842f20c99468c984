# SPDX-License-Identifier: MIT
# Logs without a bus: made by mklog, read, checked, taken out.
load helper

MKLOG=$BIN/tests/cli/mklog

# make_log DIR: 0: 100 to 103, a gap of 5, 109 in a second segment; 1: 7 and 8.
# Messages are a second apart, from 2026-11-26T07:00:00Z on.
make_log() {
	"$MKLOG" "$1" prices 2 <<-END
		partition 0 100
		message 1795676400000000000 1 10 AAPL one
		message 1795676401000000000 2 11 - two "quoted" \\
		message 1795676402000000000 3 10 MSFT three
		message 1795676403500000000 4 11 AAPL four
		gap 5
		roll
		message 1795676404000000000 5 10 - five
		partition 1 7
		message 1795676401000000001 1 10 AAPL other
		message 1795676405000000000 1 10 AAPL last
	END
}

# spoil FILE OFFSET: change one byte there.
spoil() {
	printf '\252' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

data() {
	json '$_->{data}' | paste -sd' '
}

in_data_dir() {
	export SHMQ_DATA_DIR=$DIR/data
	mkdir -p data/a data/b
	make_log data/a/md.trades
	make_log data/a/md.quotes
	make_log data/b/orders
	touch data/a/lock
}

# ---- ls -------------------------------------------------------------------

@test "log_ls_shows_the_logs_of_all_buses_or_of_one" {
	in_data_dir
	unset SHMQ_BUS
	run -0 shmq log ls
	has "$output" "a/md.quotes"
	has "$output" "b/orders"
	has "$output" "2026-11-26T07:00:00.000000000Z"
	[ "${#lines[@]}" = 4 ]
	run -0 shmq --bus b log ls
	[ "${#lines[@]}" = 2 ]
	SHMQ_BUS=a run -0 shmq log ls --json
	[ "$(json 'join " ", map { $_->{name} } @$_' <<<"$output")" = "a/md.quotes a/md.trades" ]
	run -0 shmq log ls --bus nobody
	[ -z "$output" ]
	[ "$(shmq log ls --bus nobody --json)" = "[]" ]
}

@test "log_ls_finds_a_log_by_topic_bus_and_directory" {
	in_data_dir
	unset SHMQ_BUS
	[ "$(shmq --bus a log ls md.trades --json | json '$_->[0]{topic}')" = prices ]
	[ "$(shmq log ls b/orders --json | json '$_->[0]{name}')" = b/orders ]
	[ "$(shmq log ls ./data/b/orders --json | json '$_->[0]{directory}')" = ./data/b/orders ]
	[ "$(shmq log ls "$DIR/data/b/orders" a/md.quotes --json | json 'scalar @$_')" = 2 ]
	SHMQ_DATA_DIR=/nowhere run -0 shmq log ls --data-dir data b/orders
	run -5 shmq log ls b/nothing
	is_said_well "$output"
	run -2 shmq log ls b/../a
	is_said_well "$output"
	run -1 shmq log ls ./data
	is_said_well "$output"
}

@test "log_ls_json_has_everything" {
	make_log log
	shmq log ls ./log --json >out
	[ "$(json '$_->[0]{seqs}' <out)" = 12 ]
	[ "$(json '$_->[0]{segments}' <out)" = 3 ]
	[ "$(json '$_->[0]{first_ts}' <out)" = 1795676400000000000 ]
	[ "$(json '$_->[0]{last_ts}' <out)" = 1795676405000000000 ]
	[ "$(json '$_->[0]{options}{log}' <out)" = block ]
	[ "$(json '$_->[0]{damaged}' <out)" = false ]
	[ "$(json '$_->[0]{partition_list}[0]{first}' <out)" = 100 ]
	[ "$(json '$_->[0]{partition_list}[0]{next}' <out)" = 110 ]
	[ "$(json '$_->[0]{partition_list}[1]{next}' <out)" = 9 ]
	run -0 shmq log ls ./log --long
	[ "${#lines[@]}" = 3 ]
	spoil log/topic 200
	[ "$(shmq log ls ./log --json | json '$_->[0]{damaged}')" = true ]
	has "$(shmq log ls ./log)" damaged
}

# ---- dump and export ------------------------------------------------------

@test "log_dump_is_a_line_for_each_message_and_gap" {
	make_log log
	run -4 --separate-stderr shmq log dump ./log
	[ "${#lines[@]}" = 8 ]
	has "${lines[0]}" '0/100  2026-11-26T07:00:00.000000000Z  type 1  tag 0x000000000000000a  key "AAPL"  3 bytes  "one"'
	has "${lines[1]}" '"two \"quoted\" \\"'
	has "${lines[4]}" '0/104  gap: 5 seqs'
	has "${lines[7]}" '1/8 '
	is_said_well "$stderr"
	printf 'message 1 0 0 - %s' "$(printf '%0100d' 0)" | sed '1i partition 0 0' | "$MKLOG" long long 1
	run -0 shmq log dump ./long
	has "$output" '"...'
	run -0 shmq log dump ./long --whole
	[[ $output != *...* ]]
	[ "$(shmq log dump ./long --json | json 'length $_->{data}')" = 100 ]
}

@test "log_dump_tells_where_fewer_may_be_missing_than_it_counts" {
	"$MKLOG" log prices 1 <<-END
		partition 0 100
		unknown 5
		message 1795676400000000000 1 10 AAPL one
		gap 3
		message 1795676400000000000 1 10 AAPL two
	END
	run -4 --separate-stderr shmq log dump ./log
	has "${lines[0]}" '0/100  gap: 5 seqs are from there on not in the log, messages or not'
	[[ ${lines[2]} != *"messages or not" ]]
	has "$stderr" "lost at most 5"
	run -4 --separate-stderr shmq log dump ./log --json
	[ "$(json '$_->{lost}' <<<"$output" | paste -sd' ')" = "5 3" ]
	[ "$(json '$_->{lost_is_bound} ? 1 : 0' <<<"$output" | paste -sd' ')" = "1 0" ]
}

@test "log_export_writes_json_with_all_there_is" {
	make_log log
	run -4 --separate-stderr shmq log export ./log
	has "$stderr" "7 messages"
	[ "$(data <<<"$output")" = 'one two "quoted" \ three four five other last' ]
	[ "$(json '$_->{lost}' <<<"$output" | paste -sd' ')" = "0 0 0 0 5 0 0" ]
	[ "$(json '$_->{seq}' <<<"$output" | paste -sd' ')" = "100 101 102 103 109 7 8" ]
	[ "$(json '$_->{key}' <<<"${lines[0]}")" = AAPL ]
	[ "$(json '$_->{tag}' <<<"${lines[0]}")" = 0x000000000000000a ]
	[ "$(json '$_->{ts}' <<<"${lines[3]}")" = 1795676403500000000 ]
	[ "$(json '$_->{type}' <<<"${lines[3]}")" = 4 ]
	[ "$(json '$_->{topic}' <<<"${lines[3]}")" = prices ]
	run -4 --separate-stderr shmq log export ./log -q
	has "$stderr" "lost 5"
}

@test "log_export_writes_frames" {
	make_log log
	shmq log export ./log --format frames --count 1 -q >out
	[ "$(od -An -tx1 out | tr -d ' \n')" = 030000006f6e65 ]
	run -2 shmq log export ./log --format text
}

@test "ranges_choose_by_seq_time_partition_tag_key_and_count" {
	make_log log
	export_log() { shmq log export ./log -q "$@" 2>/dev/null | data; }
	[ "$(export_log --partition 0 --from 102 --to 104)" = "three four" ]
	[ "$(export_log --from 2026-11-26T07:00:02Z --to 2026-11-26T07:00:03.6Z)" = "three four" ]
	[ "$(export_log --from 2026-11-26T09:00:04+02:00)" = "five last" ]
	[ "$(export_log --from 2026-11-26 --partition 1)" = "other last" ]
	[ "$(export_log --to '2026-11-26 07:00:02' --partition 1)" = other ]
	[ "$(export_log --tag 11)" = 'two "quoted" \ four' ]
	[ "$(export_log --tag 0xb --key AAPL)" = four ]
	[ "$(export_log --key AAPL)" = "one four other last" ]
	[ "$(export_log --count 2)" = 'one two "quoted" \' ]
	run -2 shmq log export ./log --from 100
	has "$output" --partition
	run -2 shmq log export ./log --partition 2
	run -2 shmq log export ./log --from soon
	run -2 shmq log export ./log --to 2026-02-30
	run -2 shmq log export ./log --to 2026-11-26T25:00
	run -2 shmq log export ./log --tag x
	run -2 shmq log export ./log ./log
	run -2 shmq log export
}

@test "what_cannot_be_read_is_said_and_the_rest_is_written" {
	make_log log
	spoil log/0/00000000000000000109.log 4137
	run -1 --separate-stderr shmq log export ./log -q
	[ "$(data <<<"$output")" = 'one two "quoted" \ three four other last' ]
	has "$stderr" "00000000000000000109.log"
	rm -r log/0
	run -1 --separate-stderr shmq log dump ./log
	has "$output" '"other"'
}

# ---- verify and repair ----------------------------------------------------

@test "log_verify_of_a_good_log_is_exit_0" {
	make_log log
	run -0 shmq log verify ./log
	has "$output" "good"
	has "$output" "5 seqs in gaps"
	[ -z "$(shmq log verify ./log --quiet)" ]
	shmq log verify ./log --json >out
	[ "$(json '$_->{damaged}' <out)" = 0 ]
	[ "$(json '$_->{records}' <out)" = 8 ]
	[ "$(json '$_->{gaps}' <out)" = 5 ]
	[ "$(json 'scalar @{$_->{findings}}' <out)" = 0 ]
	rm log/1/*.idx
	run -0 shmq log verify ./log
	has "$output" "partition 1: 00000000000000000007.idx is missing"
}

@test "log_verify_of_a_damaged_log_is_exit_1_and_a_line_each" {
	make_log log
	spoil log/1/00000000000000000007.log 4140
	run -1 shmq log verify ./log
	has "${lines[0]}" "./log, partition 1: 00000000000000000007.log is damaged at offset 4096"
	has "${lines[1]}" "1 damaged place"
	run -1 shmq log verify ./log --json
	[ "$(json '$_->{findings}[0]{partition}' <<<"$output")" = 1 ]
	run -0 shmq log verify ./log --partition 0
	run -5 shmq log verify ./nothing
	make_log log2
	run -1 shmq log verify ./log ./log2
	has "$output" "./log2: 8 records"
	run -2 shmq log verify
}

@test "log_repair_cuts_and_makes_indexes_anew" {
	make_log log
	spoil log/1/00000000000000000007.log 4140
	rm log/0/00000000000000000100.idx
	run -0 shmq log repair ./log
	has "$output" "partition 1: "
	has "$output" "cut/"
	has "$output" "00000000000000000100.idx is missing: made anew"
	has "$output" "1 index made anew"
	[ -e log/0/00000000000000000100.idx ]
	[ "$(ls log/1/cut | wc -l)" = 1 ]
	run -0 shmq log verify ./log
	[ "$(shmq log repair ./log --json | json '$_->{cut_bytes}')" = 0 ]
	[ ! -e lock ]
}

# Its bus could not set aside what it finds next, nor its subscribers store where they are.
@test "log_that_root_repairs_and_stores_cursors_in_stays_its_owners" {
	[ "$(id -u)" = 0 ] || skip 'only root can be two users'
	make_log log
	spoil log/1/00000000000000000007.log 4140
	rm log/0/00000000000000000100.idx
	chown -R 4711:4711 log
	run -0 shmq log repair ./log
	shmq cursor set ./log risk --from oldest
	[ -e log/0/00000000000000000100.idx ] && [ -e log/cursors/risk ]
	[ "$(ls log/1/cut | wc -l)" = 1 ]
	[ -z "$(find log ! -user 4711)" ]
	chown 0:0 log log/0 log/1
	rm log/0/*.idx
	run -0 shmq log repair ./log
	[ "$(stat -c %u log/0/*.idx | sort -u)" = 0 ]
}

@test "log_repair_refuses_while_somebody_writes" {
	make_log log
	exec 8>lock
	flock 8
	run -6 shmq log repair ./log
	is_said_well "$output"
	exec 8>&-
	run -0 shmq log repair ./log
}

# ---- usage ----------------------------------------------------------------

@test "log_has_help_for_each_of_its_commands" {
	run -0 shmq log --help
	for command in ls dump verify repair export import; do
		has "$output" "$command"
		has "$(shmq log $command --help)" "usage: shmq [OPTION]... log $command"
	done
	has "$(shmq help log)" "verify"
	run -2 shmq log
	run -2 shmq log nothing
}

# ---- import ---------------------------------------------------------------

@test "what_was_exported_is_imported_with_all_there_is" {
	make_log log
	shmq log export ./log -q >file 2>/dev/null || [ $? = 4 ]
	shmq create t -q --partitions 2 --time --tag --shared
	run -4 --separate-stderr shmq log import t file --json
	[ "$(json '$_->{sent}' <<<"$output")" = 7 ]
	has "$stderr" "5 messages that it does not have"
	shmq sub t --from oldest --count 7 --json >out
	for field in data key type tag ts partition; do
		[ "$(json "\$_->{$field}" <out | sort)" = "$(json "\$_->{$field}" <file | sort)" ] ||
			fail "$field differs"
	done
}

@test "what_was_imported_is_in_the_log_at_once" {
	export SHMQ_DATA_DIR=$DIR/data
	for n in $(seq 3000); do echo "{\"data\":\"$n\",\"key\":\"k$((n % 7))\",\"type\":$((n % 100))}"; done >file
	for sync in none interval batch every; do
		shmq create "t.$sync" -q --depth 1024 --log block --sync "$sync"
		run -0 shmq log import "t.$sync" file
		shmq log export "t.$sync" -q >out
		[ "$(json '"$_->{data} $_->{key} $_->{type}"' <out)" = \
			"$(json '"$_->{data} $_->{key} $_->{type}"' <file)" ] || fail "$sync differs"
	done
	shmq log export t.every -q --format frames >frames
	shmq create again -q --depth 1024 --log block
	run -0 shmq log import again frames --format frames
	shmq log export again -q --format frames | cmp - frames
}

@test "import_reads_frames_stdin_and_all_bytes" {
	shmq create t -q
	printf '\377\0x' | shmq pub t --file -
	shmq sub t --from oldest --count 1 --json >line
	shmq create u -q
	run -0 shmq log import u <line
	shmq sub u --from oldest --count 1 --format raw >out
	[ "$(od -An -tx1 out)" = " ff 00 78" ]
	shmq create w -q
	printf '{"data_base64":"%s"}\n' /w== //8= '' | shmq log import w
	[ "$(shmq sub w --from oldest --count 3 --format hex | paste -sd,)" = ff,ffff, ]
	seq 3 | shmq pub u
	shmq sub u --from oldest --count 4 --format frames >frames
	shmq create v -q
	shmq log import v frames --format frames --rate 1k/s
	[ "$(shmq sub v --from oldest --count 4 | tail -n 3)" = "$(seq 3)" ]
}

@test "import_says_which_line_is_wrong" {
	shmq create t -q
	for line in 'no json' '[]' '{}' '{"data":1}' '{"data":"x","type":70000}' '{"data":"x","tag":"y"}' \
		'{"data_base64":"abc"}' '{"data_base64":"a=bc"}' '{"data":"x","ts":-1}'; do
		run -1 shmq log import t <<<"$line"
		has "$output" "line 1"
		is_said_well "$output"
	done
	printf '{"data":"good"}\n{"data":' >file
	run -1 shmq log import t file
	has "$output" "line 2"
	printf '\5\0\0\0abc' >file
	run -1 shmq log import t file --format frames
	has "$output" "frame 1"
	run -1 shmq log import t nothing
	run -5 --separate-stderr shmq log import nothing </dev/null
	run -2 shmq log import
	run -2 shmq log import t a b
}

@test "import_that_ends_early_says_how_much_was_sent" {
	shmq create t -q
	printf '{"data":"%s"}\n' 1 2 3 >file
	echo '{"data":4}' >>file
	run -1 shmq log import t file
	is_said_well "$output"
	has "$output" "line 4 of file"
	has "$output" "the 3 messages before it were sent"
	has "$output" "--skip 3"
	sed -i '4s/.*/{"data":"4"}/' file
	run -0 shmq log import t file --skip 3
	[ "$(shmq sub t --from oldest -c 4 | paste -sd' ')" = "1 2 3 4" ]
}

@test "import_that_is_interrupted_says_where_to_go_on" {
	shmq create t -q
	printf '{"data":"%s"}\n' $(seq 2000) >file
	start import log import t file --rate 500
	await '[ "$(head_of t)" -gt 0 ]'
	kill -TERM "$(pid_of import)"
	finish import 1
	has "$(cat import.err)" "--skip $(head_of t)"
	shmq log import t file --skip "$(head_of t)"
	[ "$(shmq sub t --from oldest -c 2000 | md5sum)" = "$(seq 2000 | md5sum)" ]
}

@test "import_places_by_key_if_asked_or_if_the_partition_is_not_there" {
	shmq create two -q --partitions 2
	printf '{"data":"%s","key":"same","partition":%d}\n' a 0 b 1 c 7 >file
	shmq log import two file
	[ "$(shmq sub two --from oldest --partition 0 --timeout 0 | head -1)" = a ]
	has "$(shmq sub two --from oldest --partition 1 --timeout 0)" b
	shmq create keyed -q --partitions 2
	shmq log import keyed file --by-key
	[ "$(shmq sub keyed --from oldest --json --count 3 | json '$_->{partition}' | sort -u | wc -l)" = 1 ]
}

@test "a_log_that_is_not_there_is_said_once" {
	run -5 shmq log verify nowhere
	is_said_well "$output"
	[ "$(grep -o 'No such file' <<<"$output" | wc -l)" = 1 ] || fail "$output"
}
