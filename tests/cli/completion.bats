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

@test "every_command_of_the_help_has_options_to_complete" {
	for command in $(offers shmq ''); do
		case $command in
		log | cursor) [ -n "$(offers shmq "$command" '')" ] ;;
		*) has "$(offers shmq "$command" --)" --help ;;
		esac
	done
}

@test "zsh_reads_its_completion" {
	command -v zsh >/dev/null || skip 'no zsh'
	zsh -n "$BATS_TEST_DIRNAME/../../daemon/completion/_shmq"
}
