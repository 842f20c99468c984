# SPDX-License-Identifier: MIT
load helper

populate() {
	for t in md.equities.AAPL md.equities.MSFT md.fx other; do shmq create $t -q; done
}

@test "ls_of_an_empty_bus_is_empty" {
	run -0 shmq ls
	[ -z "$output" ]
	[ "$(shmq ls --json)" = "[]" ]
}

@test "ls_lists_names_in_order" {
	populate
	run -0 shmq ls
	[ "$output" = "$(printf '%s\n' md.equities.AAPL md.equities.MSFT md.fx other)" ]
}

@test "ls_takes_the_start_of_names" {
	populate
	run -0 shmq ls md.eq
	[ "$output" = "$(printf '%s\n' md.equities.AAPL md.equities.MSFT)" ]
	run -0 shmq ls nothing
	[ -z "$output" ]
}

@test "ls_takes_patterns" {
	populate
	run -0 shmq ls '*.?[SX]*'
	[ "$output" = md.equities.MSFT ]
	run -0 shmq ls '*x'
	[ "$output" = md.fx ]
	run -0 shmq ls 'md.eq*'
	[ "$output" = "$(printf '%s\n' md.equities.AAPL md.equities.MSFT)" ]
}

@test "ls_takes_what_sub_takes" {
	populate
	shmq create md -q
	run -0 shmq ls 'md.#'
	[ "$output" = "$(printf '%s\n' md md.equities.AAPL md.equities.MSFT md.fx)" ]
	run -0 shmq ls 'md.*'
	[ "$output" = md.fx ]
	run -0 shmq ls '*.*.AAPL'
	[ "$output" = md.equities.AAPL ]
	run -0 shmq ls '#'
	[ "${#lines[@]}" = 5 ]
}

@test "ls_long_is_a_table" {
	populate
	run -0 shmq ls -l md.fx
	[[ ${lines[0]} == TOPIC*POLICY*MODE*DEPTH*HEAD* ]]
	[[ ${lines[1]} == md.fx*block*exclusive*8192* ]]
	[ "${#lines[@]}" = 2 ]
}

@test "ls_json_has_stable_keys" {
	populate
	shmq ls md.fx --json >list
	[ "$(json 'scalar @$_' <list)" = 1 ]
	[ "$(json 'join " ", sort keys %{$_->[0]}' <list)" = "arena_bytes depth ended head id inline_bytes locked log \
max_message_bytes mode name node node_asked note page_bytes partitions policy publishers ring_bytes \
sleepers slot_bytes spin_only stall stats subscribers tag time wait" ]
	[ "$(json '$_->[0]{name}' <list)" = md.fx ]
}

@test "ls_counts_handles" {
	shmq create t -q
	start reader sub t
	await '[ "$(shmq ls --json | json "\$_->[0]{subscribers}")" = 1 ]'
}
