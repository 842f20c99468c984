# SPDX-License-Identifier: MIT
load helper

field() { # TOPIC EXPRESSION: of stat --json
	shmq stat "$1" --json | json "\$_->{$2}"
}

@test "create_says_how_many_bytes_and_from_where" {
	run -0 shmq create md.trades
	has "$output" "md.trades: created"
	grep -Eq 'rings +[0-9.]+ MiB, ' <<<"$output"
	grep -Eq 'bus +grows by [0-9.]+ ([KM]i)?B' <<<"$output"
	grep -Eq 'from +[^ ]' <<<"$output"
	[ "$(shmq ls)" = md.trades ]
}

@test "the_plan_is_what_creation_takes" {
	shmq create t --depth 4096 --dry-run --json >plan
	[ "$(json '$_->{created}' <plan)" = false ]
	shmq create t --depth 4096 --json >made
	[ "$(json '$_->{created}' <made)" = true ]
	for key in ring_bytes control_bytes growth_bytes arena_bytes depth inline_bytes page_bytes; do
		[ "$(json "\$_->{$key}" <plan)" = "$(json "\$_->{$key}" <made)" ]
	done
	[ "$(field t ring_bytes)" = "$(json '$_->{ring_bytes}' <made)" ]
}

@test "dry_run_creates_nothing" {
	run -0 shmq create t --dry-run
	has "$output" "would be created"
	[ -z "$(shmq ls)" ]
}

@test "dry_run_refuses_what_creation_would" {
	shmq create t -q
	run -6 shmq create t --dry-run
	run -2 shmq create 'bad name' --dry-run
}

@test "quiet_prints_nothing" {
	run -0 shmq create t --quiet
	[ -z "$output" ]
}

@test "every_option_arrives" {
	shmq create t -q --depth 2000 --slot 256 --max 64k --partitions 3 --shared --policy lossy \
		--stall report --pages 4k --lock never --wait yield --tag --time
	shmq stat t --json >t
	[ "$(json '$_->{depth}' <t)" = 2048 ]
	[ "$(json '$_->{slot_bytes}' <t)" = 256 ]
	[ "$(json '$_->{inline_bytes}' <t)" = 224 ]
	[ "$(json '$_->{max_message_bytes}' <t)" = 65536 ]
	[ "$(json '$_->{partitions}' <t)" = 3 ]
	[ "$(json '$_->{mode}' <t)" = shared ]
	[ "$(json '$_->{policy}' <t)" = lossy ]
	[ "$(json '$_->{stall}' <t)" = report ]
	[ "$(json '$_->{wait}' <t)" = yield ]
	[ "$(json '$_->{page_bytes}' <t)" = 4096 ]
	[ "$(json '$_->{locked}' <t)" = false ]
	[ "$(json '$_->{tag}' <t)" = true ]
	[ "$(json '$_->{time}' <t)" = true ]
	[ "$(json '$_->{spin_only}' <t)" = false ]
}

@test "defaults_are_those_of_the_manual" {
	shmq create t -q
	shmq stat t --json >t
	[ "$(json '$_->{depth}' <t)" = 8192 ]
	[ "$(json '$_->{slot_bytes}' <t)" = 128 ]
	[ "$(json '$_->{inline_bytes}' <t)" = 112 ]
	[ "$(json '$_->{max_message_bytes}' <t)" = 112 ]
	[ "$(json '$_->{partitions}' <t)" = 1 ]
	[ "$(json '$_->{mode}' <t)" = exclusive ]
	[ "$(json '$_->{policy}' <t)" = block ]
	[ "$(json '$_->{stall}' <t)" = kill ]
	[ "$(json '$_->{wait}' <t)" = adaptive ]
}

@test "depth_is_counted_in_powers_of_1024" {
	shmq create t -q --depth 2k
	[ "$(field t depth)" = 2048 ]
}

@test "each_policy_wait_and_mode_can_be_asked_for" {
	for policy in block drop-new lossy evict; do
		shmq create p.$policy -q --policy $policy
		[ "$(field p.$policy policy)" = $policy ]
	done
	for wait in adaptive spin yield sleep; do
		shmq create w.$wait -q --wait $wait
		[ "$(field w.$wait wait)" = $wait ]
	done
	shmq create spin -q --spin-only --wait spin
	[ "$(field spin spin_only)" = true ]
	shmq create x -q --exclusive
	[ "$(field x mode)" = exclusive ]
	shmq create e -q --policy evict --evict-after 20ms
	shmq create b -q --policy block --block-timeout 1s
}

@test "existing_topic_is_exit_6" {
	shmq create t -q
	run -6 shmq create t
	is_said_well "$output"
	has "$output" '"t"'
}

@test "if_missing_takes_what_is_there_and_says_how_it_differs" {
	shmq create t -q --depth 4096
	run -0 --separate-stderr shmq create t --if-missing --depth 4096
	has "$output" "exists already"
	[ -z "$stderr" ]
	run -0 --separate-stderr shmq create t --if-missing --depth 8192 --policy lossy --tag
	has "$stderr" "depth 4096"
	has "$stderr" "policy block"
	has "$stderr" "without --tag"
	[ "$(shmq create t --if-missing --json | json '$_->{existed}')" = true ]
	shmq create new --if-missing -q
	[ "$(shmq ls new)" = new ]
}

@test "invalid_names_are_exit_2" {
	for name in '' . .a a. a..b 'a b' a/b 'a*' '$sys' "$(printf 'x%.0s' {1..256})"; do
		run -2 shmq create "$name"
		is_said_well "$output"
	done
	shmq create -q "$(printf 'x%.0s' {1..255})"
}

@test "invalid_shapes_are_exit_2" {
	for shape in '--slot 100' '--slot 32' '--slot 8192' '--partitions 5000' '--max 2GiB' \
		'--depth 1T'; do
		run -2 shmq create t $shape
		is_said_well "$output"
	done
	[ -z "$(shmq ls)" ]
}

@test "a_fall_back_and_the_way_out_of_it_have_a_line_each_and_a_table_has_neither" {
	run -0 prlimit --memlock=1:1 setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock \
		"$BIN/shmqd" --bus "$SHMQ_BUS" 3>&-
	run -0 shmq create t
	grep -Eq '^  note +not locked: the memlock limit is 1 B with .* locked$' <<<"$output"
	grep -Eq '^  hint +raise ulimit -l' <<<"$output"
	run -0 shmq stat t
	grep -Eq '^  hint +raise ulimit -l' <<<"$output"
	run -0 shmq ls --long
	[[ ${lines[0]} == *" NOTE" && ${lines[1]} == *"  not locked" ]]
}

@test "memory_that_is_not_there_is_exit_7_without_effect" {
	run -7 shmq create t --depth 4G --slot 4096
	is_said_well "$output"
	run -7 shmq create t --depth 4G --slot 4096 --dry-run
	[ -z "$(shmq ls)" ]
	shmq create t -q
}

@test "numa_node_that_does_not_exist_is_exit_7" {
	run -7 shmq create t --node 1000
	is_said_well "$output"
	shmq create t -q --node 0
	[ "$(shmq stat t --json | json '$_->{node_asked}')" = 0 ]
}

@test "a_topic_on_the_node_of_its_first_publisher_says_so" {
	shmq create t -q --node publisher
	[ "$(shmq stat t --json | json '$_->{node_asked}')" = publisher ]
	shmq stat t | grep -q '(asked publisher)'
	echo m | shmq pub t
	shmq stat t | grep -Eq 'node [0-9]+ \(asked publisher\)'
}

@test "hugepages_that_are_not_free_are_exit_7" {
	[ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 0)" = 0 ] ||
		skip "there are free hugepages"
	run -7 shmq create t --pages 2m
	is_said_well "$output"
	shmq create t -q --pages auto
	[ "$(field t page_bytes)" = 4096 ]
}

@test "sizes_take_units" {
	shmq create a -q --depth 2k
	[ "$(field a depth)" = 2048 ]
	shmq create b -q --max 1KiB
	[ "$(field b max_message_bytes)" = 1024 ]
	shmq create c -q --max 1kB
	[ "$(field c max_message_bytes)" = 1000 ]
	shmq create d -q --max 0.5M
	[ "$(field d max_message_bytes)" = 524288 ]
}
