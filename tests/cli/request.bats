# SPDX-License-Identifier: MIT
load helper

# A topic to ask on, and who answers it by ARG...
serve() {
	shmq create svc -q --shared --max 1M
	start server reply svc "$@"
	await '[ "$(subscribers svc)" = 1 ]'
}

@test "request_prints_the_reply" {
	serve --echo --count 1
	run -0 shmq request svc hello
	[ "$output" = hello ]
	finish server
	[ ! -s server.err ] || fail "$(cat server.err)"
}

@test "request_waits_for_who_answers" {
	shmq create svc -q --shared
	start asker request svc hello --timeout 30
	await '[ "$(shmq stat svc --json | json "\$_->{publishers}")" = 1 ]'
	start server reply svc --echo --count 1
	finish asker
	[ "$(cat asker.out)" = hello ]
	finish server
}

@test "each_line_of_stdin_is_a_request" {
	serve --exec 'tr a-z A-Z' --count 3
	printf 'one\n\nlast without newline' >in
	shmq request svc <in >out
	printf 'ONE\n\nLAST WITHOUT NEWLINE\n' | cmp - out
	finish server
}

@test "key_and_type_go_there_and_back" {
	serve --echo --count 2
	[ "$(shmq request svc x --key K --type 7 --json |
		json '"$_->{outcome} $_->{type} $_->{key} $_->{data}"')" = 'replied 7 K x' ]
	run -0 shmq request svc x --key K --print-key
	[ "$output" = "$(printf 'K\tx')" ]
	finish server
}

@test "the_command_has_topic_and_key_and_any_amount_of_data" {
	serve --exec 'echo $SHMQ_TOPIC $SHMQ_KEY; wc -c; yes | head -c 300000' --count 1
	perl -e 'print "x" x 200000' >in
	shmq request svc --key K --max-reply 1M <in >out
	[ "$(head -n 2 out)" = "$(printf 'svc K\n200000')" ]
	[ "$(wc -c <out)" -gt 300000 ]
	finish server
}

@test "a_command_that_fails_is_a_refusal_and_exit_1" {
	serve --exec 'exit 3' --count 2
	run -1 --separate-stderr shmq request svc x
	[ "$stderr" = 'shmq: asking "svc": the request was refused: the command ended with exit code 3' ]
	run -1 --separate-stderr shmq request svc x --json
	[ "$(json '"$_->{outcome} $_->{data}"' <<<"$output")" = 'refused the command ended with exit code 3' ]
	finish server
}

# As few bytes of it would be another key.
@test "request_shows_the_command_all_of_its_key_or_is_refused" {
	[ -z "${SHMQ_SANITIZED-}" ] || skip 'Python loads no library that is instrumented'
	serve --exec 'printf %s "$SHMQ_KEY" | wc -c' --count 2
	[ "$(shmq request svc x --key "$(head -c 60000 /dev/zero | tr '\0' k)")" = 60000 ]
	PYTHONPATH=$BATS_TEST_DIRNAME/../../libshmq/python SHMQ_LIBRARY=$BIN/libshmq.so python3 -c '
import os, shmq
with shmq.Bus(os.environ["SHMQ_BUS"]) as bus, bus.requester("svc") as ask:
    try:
        ask.request(b"x", key=b"admin\0not")
    except shmq.Refused as refused:
        assert "byte 0" in refused.why, refused.why
    else:
        raise AssertionError("answered")'
	finish server
}

@test "the_first_line_without_a_reply_is_the_last" {
	serve --exec 'read -r w; [ "$w" != two ] && echo "$w"' --count 2
	printf 'one\ntwo\nthree\n' >in
	code=0
	shmq request svc <in >out 2>err || code=$?
	[ $code = 1 ]
	[ "$(cat out)" = one ]
	finish server
}

@test "a_reply_that_is_too_large_is_a_refusal" {
	serve --exec 'yes | head -c 100000' --count 1
	run -1 --separate-stderr shmq request svc x --max-reply 1k
	has "$stderr" 'the reply has 100000 bytes'
	finish server
}

@test "request_times_out_with_exit_3_and_says_who_had_it" {
	serve --exec 'echo $$ >pid; exec sleep 600' --json --count 1
	run -3 --separate-stderr shmq request svc x --timeout 0.2
	has "$stderr" 'shmq: asking "svc": timed out (hint: client '
	has "$stderr" 'has received it and did not answer'
	finish server
	[ "$(json '"$_->{outcome} $_->{length}"' <server.out)" = 'late 1' ]
	has "$(cat server.err)" 'the request had timed out'
	ended "$(cat pid)"
}

@test "what_a_command_left_in_the_background_ends_with_the_request" {
	serve --exec 'sleep 600 & echo $! >pid; echo partly' --count 1
	run --separate-stderr -3 shmq request svc x --timeout 100ms
	[ -z "$output" ]
	finish server
	await 'ended "$(cat pid)"'
}

@test "where_nobody_answers_it_is_exit_5" {
	shmq create svc -q --shared
	run -5 --separate-stderr shmq request svc x --timeout 0
	has "$stderr" 'nobody is there to answer (hint: '
	run -5 --separate-stderr shmq request svc x --timeout 0 --json
	[ "$(json '$_->{outcome}' <<<"$output")" = nobody ]
	run -5 --separate-stderr shmq request none x
	is_said_well "$stderr"
	run -5 --separate-stderr shmq reply none --echo
	is_said_well "$stderr"
}

@test "where_there_is_no_room_in_time_nothing_is_sent" {
	shmq create svc -q --shared --depth 1024
	start stuck sub svc
	await '[ "$(subscribers svc)" = 1 ]'
	kill -STOP "$(pid_of stuck)"
	seq 2000 | shmq pub svc --timeout 0 2>/dev/null || :
	run -3 --separate-stderr shmq request svc x --timeout 0.05 --json
	[ "$(json '$_->{outcome}' <<<"$output")" = not-sent ]
	has "$stderr" 'the topic is full and nothing was sent'
	[ "$(head_of svc)" = 1024 ]
}

@test "a_responder_that_is_killed_is_told_at_once" {
	serve --exec 'echo $$ >pid; exec sleep 600'
	start asker request svc x --timeout forever
	await '[ -s pid ]'
	kill -KILL "$(pid_of server)"
	finish asker 1
	has "$(cat asker.err)" 'the peer process is dead (hint: client '
	await 'ended "$(cat pid)"'
}

@test "plain_messages_are_told_and_not_counted" {
	serve --echo --count 1
	echo plain | shmq pub svc
	shmq request svc asked >/dev/null
	finish server
	has "$(cat server.err)" 'seq 0 is a plain message'
}

@test "reply_ends_when_nobody_asks" {
	shmq create svc -q --shared
	run -3 shmq reply svc --echo --timeout 0.05
	has "$output" 'answering "svc": timed out: no request came for 50 ms (hint: '
}

@test "reply_answers_a_pattern" {
	shmq create rpc.a -q --shared
	start server reply 'rpc.*' --exec 'echo $SHMQ_TOPIC' --count 2
	await '[ "$(subscribers rpc.a)" = 1 ]'
	shmq create rpc.b -q --shared
	[ "$(shmq request rpc.a x)" = rpc.a ]
	[ "$(shmq request rpc.b x)" = rpc.b ]
	finish server
}

@test "private_topics_are_listed_by_their_own_name_only" {
	serve --exec 'echo $$ >pid; exec sleep 600'
	start asker request svc x --timeout forever
	await '[ -s pid ]'
	[ "$(shmq ls)" = svc ]
	[ "$(shmq ls '*')" = svc ]
	has "$(shmq ls '$')" '$reply.'
	has "$(shmq ls '$reply.#')" .svc
	has "$(shmq ls '$reply.*.*.svc')" .svc
	[ "$(shmq top --once -i 10ms | awk '{print $1}')" = "$(printf '%s\n' TOPIC svc)" ]
	has "$(shmq top --once -i 10ms --all)" '$reply.'
	has "$(shmq top --once -i 10ms --filter '$')" '$reply.'
	[ "$(shmq top --json --once -i 10ms | json 'scalar @{$_->{topics}}')" = 1 ]
	[ "$(shmq top --json --all --once -i 10ms | json 'scalar @{$_->{topics}}')" = 2 ]
	[[ $(shmq metrics) != *'$reply.'* ]]
	has "$(shmq metrics)" 'topic="svc"'
	[ "$(shmq stat --json | json 'scalar @{$_->{topics}}')" = 1 ]
	run -2 shmq rm "$(shmq ls '$')"
	kill -KILL "$(pid_of asker)"
	finish asker 137
	kill -KILL "$(pid_of server)"
	finish server 137
	await '[ -z "$(shmq ls "\$")" ]'
	await 'ended "$(cat pid)"'
}

@test "wrong_usage_of_request_and_reply_is_exit_2" {
	while read -r arguments; do
		run -2 --separate-stderr shmq $arguments
		has "$stderr" "(hint: "
	done <<-'END'
		request
		request a b c
		request a --type 70000
		request a --max-reply 0
		request a --max-reply 17M
		request a b --json --format hex
		reply
		reply a
		reply a b --echo
		reply a --echo --exec true
	END
}

@test "a_responder_that_is_ended_refuses_what_it_is_at" {
	serve --exec 'echo $$ >pid; exec sleep 600'
	start asker request svc x --timeout 60
	await '[ -s pid ]'
	kill -TERM "$(pid_of server)"
	finish server
	finish asker 1
	has "$(cat asker.err)" 'the request was refused'
	ended "$(cat pid)"
}
