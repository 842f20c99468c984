# SPDX-License-Identifier: MIT
load helper

conf() { # text of the bus's configuration
	mkdir -p "$XDG_CONFIG_HOME/shmq"
	printf '%s\n' "$@" >"$XDG_CONFIG_HOME/shmq/$SHMQ_BUS.conf"
}

@test "check_counts_the_settings" {
	conf 'linger = 2s' 'topic "a" { depth = 2k }'
	run -0 shmq config check
	[ "$output" = '2 settings, no mistake' ]
}

@test "check_names_line_and_column_and_is_exit_2" {
	conf 'linger = 2s' 'topic "a" { depht = 2k }'
	run -2 shmq config check
	has "$output" "$SHMQ_BUS.conf:2:13: there is no setting \"depht\" in topic: is it \"depth\"?"
	printf 'guests = none\n' >other.conf
	run -2 shmq config check other.conf
	has "$output" 'other.conf:1:10: guests takes a number'
	run -2 shmq config check missing.conf
	has "$output" 'missing.conf'
	run -2 shmq config check "$DIR"
	has "$output" "reading the configuration $DIR: Not a regular file: check the path"
}

@test "a_bus_with_a_mistake_does_not_start" {
	conf 'linger = soon'
	run -2 --separate-stderr shmqd --bus "$SHMQ_BUS" --foreground
	has "$stderr" ':1:10: linger takes a duration'
}

@test "show_prints_what_is_in_force" {
	conf 'linger = 2s' 'allow = { "a.# publish uid:1" }' 'topic "a" { depth = 2k }'
	[ -z "$(shmq config show)" ]
	shmq ls >/dev/null
	conf 'linger = 3s'
	run -0 shmq config show
	[ "$output" = 'linger = 2s
allow = a.# publish uid:1
topic "a": depth = 2k' ]
	run -0 shmq config show --json
	[ "$(json 'scalar @$_' <<<"$output")" = 3 ]
	has "$output" ',{"section":"topic","title":"a","setting":"depth","value":"2k"}]'
	run -0 shmq config show "$XDG_CONFIG_HOME/shmq/$SHMQ_BUS.conf"
	[ "$output" = 'linger = 3s' ]
}

@test "without_a_file_it_is_the_one_that_the_bus_was_started_with" {
	printf 'guests = 3\n' >its.conf
	shmqd --bus "$SHMQ_BUS" --config its.conf
	run -0 shmq config diff
	[ -z "$output" ]
	printf 'guests = 3\ntopic "a" { depth = 2k }\n' >its.conf
	run -0 shmq config diff
	[ "$output" = '+ topic "a": depth = 2k' ]
	shmq reload
	[ -z "$(shmq config diff)" ]
	echo 'linger = soon' >>its.conf
	run -2 shmq config check
	has "$output" "$DIR/its.conf:3:10: linger takes a duration"
}

@test "nothing_is_said_in_json_too" {
	run -0 --separate-stderr shmq config show
	[ -z "$output" ]
	has "$stderr" 'no setting is made: all have their defaults (hint: '
	[ "$(shmq config show --json)" = '[]' ]
	[ "$(shmq config diff --json)" = '[]' ]
	[ "$(shmq config check --json)" = '{"settings":0}' ]
}

@test "diff_and_reload_say_what_changes" {
	conf 'linger = 2s'
	shmq ls >/dev/null
	run -0 shmq config diff
	[ -z "$output" ]
	conf 'linger = 3s' 'log = "/tmp/x"'
	run -0 shmq config diff
	[ "$output" = '- linger = 2s
+ linger = 3s
+ log = /tmp/x (when the bus is started next)' ]
	run -0 shmq config diff --json
	has "$output" ',{"change":"+","section":"","title":"","setting":"linger","value":"3s","at_next_start":false},'
	run -0 shmq reload
	[ "$output" = '2 settings changed
linger: 2s -> 3s
log: not set -> /tmp/x (when the bus is started next)' ]
	run -0 shmq reload --json
	[ "$output" = '{"changed":0,"changes":[]}' ]
}

@test "a_file_with_a_mistake_is_not_reloaded" {
	conf 'linger = 2s'
	shmq ls >/dev/null
	conf 'linger = 3s' 'guests = 0'
	run -2 shmq reload
	is_said_well "$output"
	has "$output" "$SHMQ_BUS.conf:2:10: guests must be at least 1"
	[ "$(shmq config show)" = 'linger = 2s' ]
	rm "$XDG_CONFIG_HOME/shmq/$SHMQ_BUS.conf"
	mkdir "$XDG_CONFIG_HOME/shmq/$SHMQ_BUS.conf"
	run -2 shmq reload
	has "$output" "Is a directory: put a file there"
	[[ $output != *--help* ]]
}

@test "the_command_line_counts_more" {
	conf 'log-level = debug' 'data-dir = /nonexistent/there'
	shmqd --bus "$SHMQ_BUS" --data-dir "$DIR/data"
	shmq create t --log block -q
	[ -d "$DIR/data/$SHMQ_BUS" ]
}

@test "topics_are_kept_in_the_log_directories_that_the_file_says" {
	mkdir one two
	conf "data-dir = $DIR/data" "log-dirs = $DIR/one:$DIR/two" \
		"defaults { log-dir = $DIR/one }" \
		"topic \"t\" { log = block segment = 1M log-dir = $DIR/two }"
	shmq ls >/dev/null
	await '[ "$(shmq ls)" = t ]'
	[ -d "two/$SHMQ_BUS/t/0" ]
	shmq create u --log block --segment 1M -q
	[ -d "one/$SHMQ_BUS/u/0" ]
	shmq create v --log block --segment 1M --log-dir "$DIR/two" -q
	[ -d "two/$SHMQ_BUS/v/0" ]
	shmq create plain -q
	run -2 shmq create w --log-dir "$DIR/two"
	has "$output" "--log-dir needs --log"
	run ! shmq create w --log block --log-dir "$DIR/three"
	has "$output" "--log-dirs"
	seq 10 | shmq pub v --confirm synced
	[ "$(shmq sub v --from oldest --count 10 | tail -n 1)" = 10 ]
	shmq stop
	[ "$(shmq log ls --data-dir "$DIR/data" | grep -c "^$SHMQ_BUS/[tuv] ")" = 3 ]
}

@test "config_needs_to_be_told_what" {
	run -2 shmq config
	run -2 shmq config frobnicate
	has "$output" 'check, show or diff'
	run -2 shmq reload now
	run -5 shmq reload
}

@test "the_example_has_no_mistake" {
	run -0 shmq config check "$BATS_TEST_DIRNAME/../../examples/shmqd.conf"
}
