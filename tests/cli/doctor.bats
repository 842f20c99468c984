# SPDX-License-Identifier: MIT
# Each finding on a machine made of files, on which nothing else is found.
load helper

THP=sys/kernel/mm/transparent_hugepage
CPUS=sys/devices/system/cpu
NODES=sys/devices/system/node
CLOCK=sys/devices/system/clocksource/clocksource0

put() { # FILE LINE...
	mkdir -p "$(dirname "m/$1")"
	printf '%s\n' "${@:2}" >"m/$1"
}

memory() { # TOTAL FREE SWAP
	put proc/meminfo "MemTotal: 8000000 kB" "SwapTotal: $3 kB" "HugePages_Total: $1" \
		"HugePages_Free: $2" "HugePages_Rsvd: 0" "Hugepagesize: 2048 kB"
}

limits() { # MEMLOCK DESCRIPTORS
	put proc/self/limits "Max locked memory         $1  $1  bytes" \
		"Max open files            $2  $2  files"
}

machine() {
	memory 64 60 0
	put $THP/shmem_enabled "always within_size [advise] never deny force"
	put $THP/defrag "always defer defer+madvise [madvise] never"
	limits unlimited 65536
	put proc/self/status "CapEff:	0000000000000000"
	put proc/sys/vm/max_map_count 262144
	put proc/sys/kernel/osrelease 6.12.0-test
	put proc/sys/kernel/io_uring_disabled 0
	put sys/kernel/security/lsm landlock,yama
	put $NODES/node0/cpulist 0-3
	for i in 0 1 2 3; do put $CPUS/cpu$i/cpufreq/scaling_governor performance; done
	put $CPUS/isolated 2-3
	put $CLOCK/current_clocksource tsc
	put $CLOCK/available_clocksource "tsc hpet"
}

doctor() {
	shmq doctor --root "$DIR/m" "$@"
}

# finds CHECK LEVEL COMMAND: this alone, with what it costs and what mends it.
finds() {
	local code=1
	[ "$2" != hint ] || code=0
	run "-$code" doctor --json
	[ "$(json 'join " ", map "$_->{check} $_->{level}", grep $_->{level} ne "ok", @$_' <<<"$output")" = "$1 $2" ] ||
		fail "not $1 alone: $output"
	has "$(json 'map $_->{fix}, grep $_->{level} ne "ok", @$_' <<<"$output")" "$3"
	[ -n "$(json 'map $_->{costs}, grep $_->{level} ne "ok", @$_' <<<"$output")" ]
}

# "echo VALUE > FILE" is done, in the machine of files.
mends() { # FILE VALUE
	run -0 doctor --fix
	has "$output" "fixed"
	[ "$(cat "m/$1")" = "$2" ]
	run -0 doctor
	[ "$output" = "0 of $(doctor --json | json 'scalar @$_') checks found something" ]
}

@test "doctor_finds_nothing_on_a_machine_that_is_well_set_up" {
	machine
	run -0 doctor
	[[ $output == "0 of "*" checks found something" ]]
	run -0 doctor --all
	has "$output" "ok    clock        tsc"
	doctor --json | json 'join " ", sort keys %{$_->[0]}' | grep -qx "check costs fix fixed level safe what"
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
}

@test "doctor_finds_that_no_hugepages_are_reserved_or_left" {
	machine
	memory 0 0 0
	finds hugepages warn "sysctl -w vm.nr_hugepages=64"
	memory 16 0 0
	finds hugepages warn "sysctl -w vm.nr_hugepages=32"
}

@test "doctor_finds_shared_memory_without_transparent_hugepages_and_mends_it" {
	machine
	put $THP/shmem_enabled "always within_size advise [never] deny force"
	finds thp warn "echo advise > /$THP/shmem_enabled"
	doctor --fix | grep -q '^fixed thp'
	[ "$(head -c 6 m/$THP/shmem_enabled)" = advise ]
}

@test "doctor_finds_faults_that_compact" {
	machine
	put $THP/defrag "[always] defer defer+madvise madvise never"
	finds thp-defrag warn "/$THP/defrag"
}

@test "doctor_finds_a_low_limit_of_locked_memory" {
	machine
	limits 8388608 65536
	finds memlock hint "memlock unlimited"
	memory 64 60 1000000
	finds memlock warn "memlock unlimited"
	put proc/self/status "CapEff:	0000000000004000"
	run -0 doctor
}

@test "doctor_finds_few_maps_and_mends_it" {
	machine
	put proc/sys/vm/max_map_count 1000
	finds maps warn "echo 262144 > /proc/sys/vm/max_map_count"
	printf 1000 >m/proc/sys/vm/max_map_count
	mends proc/sys/vm/max_map_count 262144
}

@test "doctor_finds_few_descriptors" {
	machine
	limits unlimited 256
	finds descriptors warn "ulimit -n 65536"
}

@test "doctor_finds_pages_that_move_and_a_node_without_hugepages" {
	machine
	put $NODES/node1/cpulist 4-7
	put proc/sys/kernel/numa_balancing 1
	finds numa warn "sysctl -w kernel.numa_balancing=0"
	put proc/sys/kernel/numa_balancing 0
	put $NODES/node0/hugepages/hugepages-2048kB/nr_hugepages 64
	put $NODES/node1/hugepages/hugepages-2048kB/nr_hugepages 0
	finds numa-pages warn "echo 64 > /$NODES/node1/hugepages/hugepages-2048kB/nr_hugepages"
}

@test "doctor_finds_a_governor_that_saves_power" {
	machine
	put $CPUS/cpu2/cpufreq/scaling_governor powersave
	finds governor warn "echo performance | tee /$CPUS/cpu*/cpufreq/scaling_governor"
}

@test "doctor_finds_that_no_processors_are_set_apart" {
	machine
	: >m/$CPUS/isolated
	finds isolation hint "isolcpus=managed_irq,domain,2-3"
}

@test "doctor_finds_a_slow_clock" {
	machine
	put $CLOCK/current_clocksource hpet
	finds clock warn "echo tsc > /$CLOCK/current_clocksource"
	put $CLOCK/available_clocksource "hpet acpi_pm"
	finds clock warn "tsc=reliable"
}

@test "doctor_finds_what_a_kernel_lacks" {
	local version check level
	machine
	# All but the newest of what each version lacks was looked at before.
	while read -r version checks; do
		put proc/sys/kernel/osrelease "$version"
		run doctor --json
		[ "$(json 'join " ", map $_->{check}, grep $_->{level} ne "ok", @$_' <<<"$output")" = "$checks" ] ||
			fail "$version: $output"
	done <<-'END'
		6.4.1 peerpidfd
		5.15.0-91-generic futex_waitv peerpidfd
		5.13 populate futex_waitv peerpidfd
		5.12.3 populate futex_waitv landlock peerpidfd
		5.2.0 pidfd populate futex_waitv landlock peerpidfd
		4.19.0 pidfd populate futex_waitv io_uring landlock peerpidfd
		4.14.0 pidfd populate membarrier futex_waitv io_uring landlock peerpidfd
	END
	put proc/sys/kernel/osrelease 6.4.1
	finds peerpidfd hint "linux-image"
	put proc/sys/kernel/osrelease 6.12.0
	put sys/kernel/security/lsm yama
	finds landlock hint "lsm=landlock"
	put sys/kernel/security/lsm landlock
	put proc/sys/kernel/io_uring_disabled 2
	finds io_uring warn "sysctl -w kernel.io_uring_disabled=0"
}

@test "doctor_finds_a_runtime_directory_that_others_may_write_in_and_mends_it" {
	machine
	chmod 777 "$SHMQ_RUNTIME_DIR"
	finds permissions bad "chmod go-w $SHMQ_RUNTIME_DIR"
	run -0 doctor --fix
	[ "$(stat -c %a "$SHMQ_RUNTIME_DIR")" = 755 ]
	run -0 doctor
}

@test "doctor_leaves_a_directory_that_is_meant_for_all_open_to_them" {
	machine
	chmod 1777 "$SHMQ_RUNTIME_DIR"
	finds permissions bad "export SHMQ_RUNTIME_DIR="
	run -1 doctor --fix
	[ "$(stat -c %a "$SHMQ_RUNTIME_DIR")" = 1777 ]
}

@test "doctor_leaves_a_living_bus_alone" {
	machine
	shmq create t -q
	run -0 doctor --all --fix
	has "$output" "bus \"$SHMQ_BUS\" is there"
	shmq ls --no-start | grep -qx t
}

@test "doctor_removes_what_a_dead_bus_left_and_nothing_else" {
	local pid
	machine
	mkdir -p "$XDG_CONFIG_HOME/shmq"
	echo 'linger = 60s' >"$XDG_CONFIG_HOME/shmq/$SHMQ_BUS.conf"
	shmq create t -q
	[ -e "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.conf" ]
	: >"$SHMQ_RUNTIME_DIR/mine.txt"
	: >"$SHMQ_RUNTIME_DIR/.999999999"
	for pid in $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"); do kill -STOP $pid; done
	for pid in $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"); do kill -KILL $pid; done
	await '! pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"'
	run -1 doctor
	has "$output" "bus \"$SHMQ_BUS\" died and left its files"
	has "$output" "process 999999999 died and left .999999999"
	has "$output" "--fix repairs 2"
	run -0 doctor --fix
	[ "$(find "$SHMQ_RUNTIME_DIR" -type f -o -type s | grep -v '\.log$')" = "$SHMQ_RUNTIME_DIR/mine.txt" ]
	run -0 doctor
}

@test "doctor_does_not_start_what_a_service_manager_would" {
	machine
	: >"$SHMQ_RUNTIME_DIR/no;bus.lock"
	python3 -c '
import socket, subprocess, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.bind(sys.argv[1])
sock.listen()
status = subprocess.run(sys.argv[2:]).returncode
sock.setblocking(False)
try:
    sock.accept()
    sys.exit("it connected")
except BlockingIOError:
    sys.exit(status)
' "$SHMQ_RUNTIME_DIR/asked.sock" "$BIN/shmq" doctor --root "$DIR/m" --all --fix >said
	has "$(<said)" 'bus "asked" starts when somebody connects'
	[[ "$(<said)" != *"no;bus"* ]]
	[ -e "$SHMQ_RUNTIME_DIR/asked.sock" ]
}

@test "doctor_keeps_what_clients_of_a_dead_supervisor_hold" {
	local pid
	machine
	shmq create t -q
	start reader sub t --no-start
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$(pid_of reader)"
	for pid in $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"); do kill -STOP $pid; done
	for pid in $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"); do kill -KILL $pid; done
	await '! pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"'
	run -1 doctor --fix
	has "$output" "bus \"$SHMQ_BUS\" has no supervisor, and clients go on"
	has "$output" "shmqd --bus $SHMQ_BUS"
	[ -e "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.manifest" ]
}

@test "doctor_keeps_what_clients_of_another_user_may_hold" {
	[ "$(id -u)" = 0 ] || skip 'only root can be two users'
	local as_guest=(setpriv --reuid 4711 --regid 4711 --clear-groups)
	"${as_guest[@]}" test -x "$BIN/shmq" || skip 'another user cannot run it from here'
	machine
	chmod 755 "$DIR" "$DIR/m"
	mkdir -m 700 guest
	python3 -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind("guest/b.sock")'
	echo 'shmq manifest 1' >guest/b.manifest
	chown -R 4711:4711 guest
	chmod 600 guest/b.sock
	run -1 "${as_guest[@]}" "$BIN/shmq" --runtime-dir "$DIR/guest" doctor --root "$DIR/m"
	has "$output" 'bus "b" died and left its files'
	chmod 666 guest/b.sock # as of a bus that lets others in
	run -1 "${as_guest[@]}" "$BIN/shmq" --runtime-dir "$DIR/guest" doctor --root "$DIR/m" --fix
	has "$output" 'bus "b" has no supervisor'
	[ -e guest/b.manifest ]
}

# It waits where it mends what stands before; meanwhile somebody listens for the bus.
@test "doctor_leaves_what_is_listened_at_since_it_looked" {
	machine
	rm m/$THP/shmem_enabled
	mkfifo m/$THP/shmem_enabled
	: >"$SHMQ_RUNTIME_DIR/late.lock"
	timeout 60 python3 -c '
import socket, subprocess, sys
doctor = subprocess.Popen(sys.argv[3:])
with open(sys.argv[1], "w") as value:
    value.write("always within_size advise [never] deny force\n")
with open(sys.argv[1]) as value: # once it writes there it has looked at all
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(sys.argv[2])
    sock.listen()
    value.read()
doctor.wait()
' "$DIR/m/$THP/shmem_enabled" "$SHMQ_RUNTIME_DIR/late.sock" "$BIN/shmq" doctor --root "$DIR/m" --fix 3>&-
	[ -e "$SHMQ_RUNTIME_DIR/late.sock" ]
}

@test "doctor_does_not_wait_at_what_somebody_laid_in_the_directory" {
	machine
	mkfifo "$SHMQ_RUNTIME_DIR/a.lock" "$SHMQ_RUNTIME_DIR/b.control" \
		"$SHMQ_RUNTIME_DIR/c.manifest" "$SHMQ_RUNTIME_DIR/d.sock"
	run -0 timeout 60 "$BIN/shmq" buses
	run -1 timeout 60 "$BIN/shmq" doctor --root "$DIR/m"
	has "$output" "--fix repairs 4"
	run -0 timeout 60 "$BIN/shmq" doctor --root "$DIR/m" --fix
	[ -z "$(find "$SHMQ_RUNTIME_DIR" -type p)" ]
}

@test "doctor_of_root_does_not_trust_a_default_directory_of_another" {
	[ "$(id -u)" = 0 ] || skip 'only root can be two users'
	local as_root=(unshare -m sh -c 'mount -t tmpfs none /tmp && mkdir -m 700 /tmp/shmq-0 &&
		chown 4711 /tmp/shmq-0 && exec env -u SHMQ_RUNTIME_DIR -u XDG_RUNTIME_DIR "$@"' sh)
	"${as_root[@]}" test -x "$BIN/shmq" || skip 'it cannot mount, or not run what is below /tmp'
	run -1 "${as_root[@]}" "$BIN/shmq" doctor
	has "$output" "/tmp/shmq-0 belongs to uid 4711"
}

@test "doctor_trusts_the_directory_that_root_made_for_a_service" {
	[ "$(id -u)" = 0 ] || skip 'only root can be two users'
	local as_guest=(setpriv --reuid 4711 --regid 4711 --clear-groups)
	"${as_guest[@]}" test -x "$BIN/shmq" || skip 'another user cannot run it from here'
	machine
	chmod 755 "$DIR" "$DIR/m"
	mkdir -m 755 service
	chown 4712:4712 service
	run -0 "${as_guest[@]}" "$BIN/shmq" --runtime-dir "$DIR/service" doctor --root "$DIR/m"
	chmod 777 "$DIR" # anybody could have made it
	run -1 "${as_guest[@]}" "$BIN/shmq" --runtime-dir "$DIR/service" doctor --root "$DIR/m"
	has "$output" "$DIR/service belongs to uid 4712"
}

@test "doctor_as_json_takes_a_path_that_is_no_text" {
	machine
	mkdir -m 775 $'r\xff'
	run -1 --separate-stderr shmq --runtime-dir $'r\xff' doctor --root "$DIR/m" --json
	[ -z "$stderr" ]
	[ "$(json "scalar grep \$_->{fix_base64}, @\$_" <<<"$output")" = 1 ]
}

@test "doctor_of_this_machine_says_something_of_each_feature" {
	shmq doctor --json >list || [ $? = 1 ]
	for check in hugepages pidfd membarrier futex_waitv io_uring landlock permissions; do
		[ "$(json "scalar grep \$_->{check} eq '$check', @\$_" <list)" = 1 ]
	done
}

@test "doctor_refuses_wrong_usage" {
	run -2 shmq doctor everything
	run -1 shmq doctor --root /nowhere/at/all
	is_said_well "$output"
}
