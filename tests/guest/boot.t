#!/bin/sh
# What boots the guest passes its TAP on as it is, ends one that hangs, and
# skips by name what is missing.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}

# A machine that does what is in $dir/does with its two serial lines.
mkdir "$dir/bin"
cat >"$dir/bin/qemu-system-x86_64" <<END
#!/bin/sh
for word; do case \$word in file:*/console) console=\${word#file:} ;; file:*/tap) tap=\${word#file:} ;; esac; done
. "$dir/does"
END
printf '#!/bin/sh\n[ "$1" != cpio ] || exec cat >"%s/names"\n' "$dir" >"$dir/bin/busybox"
chmod +x "$dir/bin"/*
touch "$dir/vmlinuz"
boot() { # what it does
	echo "$1" >"$dir/does"
	PATH=$dir/bin:$PATH SHMQ_DAEMON=/bin/true SHMQ_GUEST_KERNEL="$dir/vmlinuz" SHMQ_GUEST_LIMIT=${2:-60} \
		tests/guest/boot /bin/true >"$dir/got" 2>"$dir/said"
}
skips() { # reason
	mkdir -p "$dir/few"
	for tool in sh dirname uname; do ln -sf "$(command -v $tool)" "$dir/few"; done
	PATH=$dir/few tests/guest/boot /bin/true >"$dir/got" 2>/dev/null && grep -qx "1..0 # SKIP $1.*" "$dir/got"
}

echo 1..8
boot 'printf "1..1\r\nok 1 - a\r\n" >"$tap"; echo noise >"$console"'
check a_guest_that_ends_in_order_succeeds [ $? -eq 0 ]
printf '1..1\nok 1 - a\n' >"$dir/want"
check its_tap_is_passed_on_alone diff "$dir/want" "$dir/got"
check what_its_kernel_says_is_shown grep -q noise "$dir/said"
check the_program_and_its_libraries_are_in_it grep -q '^./lib.*libc.so' "$dir/names"
boot 'echo 1..2 >"$tap"; exec sleep 60' 1
check a_guest_that_hangs_is_ended [ $? -eq 124 ]
check what_came_before_is_passed_on grep -qx 1..2 "$dir/got"
boot 'exit 3'
check a_machine_that_fails_fails [ $? -eq 3 ]
check without_a_machine_it_skips_by_name skips 'no qemu'
exit $failed
