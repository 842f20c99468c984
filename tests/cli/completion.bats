# SPDX-License-Identifier: MIT
load helper

complete() { :; } # of readline: the function is called by hand
source "$BATS_TEST_DIRNAME/../../daemon/completion/shmq.bash"

# What is offered where the last word stands, one per line.
offers() {
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	_shmq
	printf '%s\n' "${COMPREPLY[@]}"
}

@test "commands_are_completed" {
	[ "$(offers shmq cre)" = create ]
	[ "$(offers shmq log ver)" = verify ]
	has "$(offers shmq '')" replay
	[ "$(offers shmq help cre)" = create ]
	[ "$(offers shmq help log ver)" = verify ]
	[ -z "$(offers shmq help log verify '')$(offers shmq help pub '')" ]
}

@test "options_are_completed_and_their_words" {
	[ "$(offers shmq create --poli)" = --policy ]
	[ "$(offers shmq create t --policy e)" = evict ]
	[ "$(offers shmq log dump --js)" = --json ]
	[ "$(offers shmqd --on-)" = --on-demand ]
	[ -z "$(offers shmq create --depth '')" ]
}

@test "topics_are_completed_of_the_bus_that_is_named" {
	[ -z "$(offers shmq stat a)" ]
	shmq create a.one -q
	shmq create b.two -q
	[ "$(offers shmq stat a)" = a.one ]
	[ "$(offers shmq --bus other stat a)" = '' ]
}

@test "buses_logs_cursors_and_files_are_completed_where_they_are_meant" {
	shmq create a.one -q
	shmq create b.two --log block -q
	shmq cursor set b.two risk
	touch some.conf
	[ "$(offers shmq -b cli-)" = "$SHMQ_BUS" ]
	[ "$(offers shmq sub t -o h)" = hex ]
	[ "$(offers shmq log dump b)" = b.two ]
	[ "$(offers shmq log dump cli-)" = "$SHMQ_BUS/b.two" ]
	[ "$(offers shmq log import '')" = $'a.one\nb.two' ]
	[ "$(offers shmq log import b.two so)" = some.conf ]
	[ "$(offers shmq cursor rm b)" = b.two ]
	[ "$(offers shmq cursor rm b.two '')" = risk ]
	[ "$(offers shmq replay b.two --into a)" = a.one ]
	[ "$(offers shmq pub a.one --file so)" = some.conf ]
	[ "$(offers shmq config '')" = $'check\nshow\ndiff' ]
	[ "$(offers shmq config check so)" = some.conf ]
}

# As others can where the directory is one that is shared, or the bus is theirs.
@test "no_name_that_is_completed_is_executed" {
	mkdir "$BATS_TEST_TMPDIR/shared" "$BATS_TEST_TMPDIR/bin"
	touch "$BATS_TEST_TMPDIR/shared/"'$(touch executed).sock'
	[ -z "$(SHMQ_RUNTIME_DIR=$BATS_TEST_TMPDIR/shared offers shmq --bus '')" ]
	cat >"$BATS_TEST_TMPDIR/bin/shmq" <<-'END'
		#!/bin/sh
		case $* in
		*--help*) echo '  -b, --bus NAME which' ;;
		*) printf 'LOG CURSOR\na.b\n$(touch${IFS}executed)\nx $(touch${IFS}executed)\n' ;;
		esac
	END
	chmod +x "$BATS_TEST_TMPDIR/bin/shmq"
	[ "$(offers "$BATS_TEST_TMPDIR/bin/shmq" stat a)" = a.b ]
	[ "$(offers "$BATS_TEST_TMPDIR/bin/shmq" log dump a)" = a.b ]
	[ -z "$(offers "$BATS_TEST_TMPDIR/bin/shmq" cursor rm a.b '')" ]
	[ ! -e executed ]
}

@test "every_command_of_the_help_has_options_to_complete" {
	for command in $(offers shmq ''); do
		case $command in
		log | cursor | config) [ -n "$(offers shmq "$command" '')" ] ;;
		*) has "$(offers shmq "$command" --)" --help ;;
		esac
	done
}

@test "zsh_completes_on_a_terminal" {
	command -v zsh >/dev/null || skip 'no zsh'
	zsh -fc 'zmodload zsh/zpty' 2>/dev/null || skip 'no zsh/zpty'
	shmq create a.one -q
	shmq create b.two --log block -q
	shmq cursor set b.two risk
	touch some.conf
	while IFS='|' read -r typed offered; do
		printf '%s\n' "$typed" >&8
		printf '%s\n' "$typed$offered" >&9
	done 8>typed 9>wanted <<-'END'
		shmq cre|ate 
		shmq log ver|ify 
		shmq create --poli|cy 
		shmq create t --policy |block drop-new evict lossy 
		shmq create --depth |
		shmq stat |a.one b.two 
		shmq stat b|.two 
		shmq --bus other stat b|
		shmq config |check diff show 
		shmq config check so|me.conf 
		shmq sub b.two -o h|ex 
		shmq replay b.two --into a|.one 
		shmq log dump b|.two 
		shmq cursor rm b.two |risk 
		shmqd --on-|demand 
	END
	PATH=$BIN:$PATH timeout 60 zsh -f "$BATS_TEST_DIRNAME/offers.zsh" \
		"$BATS_TEST_DIRNAME/../../daemon/completion" <typed >offered 3>&-
	diff wanted offered
}
