# SPDX-License-Identifier: MIT
load helper

@test "clients_lists_who_is_attached_with_what" {
	shmq create t -q --max 100k
	seq 10 >in
	start reader sub t --name reader --count 11
	await '[ "$(subscribers t)" = 1 ]'
	shmq pub t <in
	await '[ "$(shmq clients --json | json "map { \$_->{received} } grep { \$_->{name} eq q(reader) } @\$_")" = 10 ]'
	shmq clients --json >out
	json 'map { "$_->{pid} $_->{topics} $_->{publishers} $_->{subscribers} $_->{lost} $_->{own}" }
		grep { $_->{name} eq "reader" } @$_' <out >is
	[ "$(cat is)" = "$(pid_of reader) 1 0 1 0 0" ] || fail "$(cat is out)"
	[ "$(json 'map { $_->{ring_bytes} } grep { $_->{name} eq "reader" } @$_' <out)" = \
		"$(shmq stat t --json | json '$_->{ring_bytes}')" ]
	run -0 shmq clients
	[[ ${lines[0]} =~ ^CLIENT.*HOLDS ]]
	grep -Eq "^ *[0-9]+ +$(pid_of reader) +$(id -u) +reader +1 +0 +1 " <<<"$output"
	echo last | shmq pub t
	finish reader
}

@test "clients_names_who_holds_others_back" {
	shmq create t -q --depth 1024
	start stuck sub t --name stuck
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$(pid_of stuck)"
	seq 2000 >in
	"$BIN/shmq" pub t <in 2>pub.err 3>&- &
	STARTED+=($!)
	await 'shmq clients --json | json "map { @{\$_->{holds_back}} } grep { \$_->{name} eq q(stuck) } @\$_" | grep -qx t'
	shmq clients | grep -E ' stuck .* t$'
	kill -CONT "$(pid_of stuck)"
	kill "$(pid_of stuck)"
	finish stuck
}

@test "wrong_usage_of_clients_is_exit_2" {
	run -2 --separate-stderr shmq clients all
	has "$stderr" "(hint: "
}
