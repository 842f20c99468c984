#!/bin/sh
# What make install puts down is enough to build against, in C and C++, and
# make uninstall takes all of it away.
dir=$(mktemp -d) || exit 1
prefix=/opt/shmq
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
# What make says of itself is a line of 80 columns, whatever it does.
is_brief() { ! grep -q '.\{200\}' "$dir/said" && ! grep -q 'install -m' "$dir/said" && grep -q 'INST .*/stage/opt/shmq' "$dir/said"; }
loud_make() { MAKEFLAGS= ${MAKE:-make} "$@" DESTDIR="$dir/stage" PREFIX=$prefix >"$dir/said" 2>&1; }
quiet_make() { MAKEFLAGS= ${MAKE:-make} -s "$@" DESTDIR="$dir/stage" PREFIX=$prefix >&2; }

cat >"$dir/t.c" <<'END'
#include <shmq.h>
#include <string.h>
int main(void) { return strcmp(shmq_version(), VERSION) != 0; }
END
root=$dir/stage$prefix
export PKG_CONFIG_SYSROOT_DIR="$dir/stage" PKG_CONFIG_LIBDIR="$root/lib/pkgconfig:$(pkg-config --variable pc_path pkg-config)"
compile() { # compiler, flags...
	"$@" -Wall -Werror -pedantic -DVERSION="\"$(pkg-config --modversion shmq)\"" -I"$root/include" \
		-o "$dir/t" "$dir/t.c" -L"$root/lib" -lshmq
}
runs() { LD_LIBRARY_PATH=$root/lib "$dir/t"; }
needs() { readelf -d "$dir/t" | grep -q 'NEEDED.*libshmq\.so\.0\]'; }
pc_flags() { pkg-config --cflags --libs shmq | grep -q -- -lshmq; }
benchmarks() { [ -x "$("$root/bin/shmq-bench" --help | sed -n '/--programs/{n;s/[ ()]//g;p;}')/rtt" ]; }
page() { [ -s "$(readlink -f "$root/share/man/$1")" ]; }

static_link() {
	"${CC:-cc}" -DVERSION="\"$(pkg-config --modversion shmq)\"" -I"$root/include" -o "$dir/s" "$dir/t.c" \
		"$root/lib/libshmq.a" $(pkg-config --static --libs shmq | sed 's/-lshmq//') && "$dir/s"
}
all_can_read() { [ -z "$(find "$dir/stage" -type f ! -perm -444)" ]; }
units() { grep -q "^ExecStart=$prefix/bin/shmqd" "$root/lib/systemd/system/shmqd@.service" && [ -s "$root/lib/systemd/user/shmqd@.service" ] &&
	grep -q "^ExecStart=$prefix/bin/shmq .* metrics --listen" "$root/lib/systemd/system/shmq-metrics@.service"; }
# What it says of users and documentation that a machine without shmq lacks is no fault of the units.
verified() {
	command -v systemd-analyze >/dev/null || { echo '# no systemd-analyze' && return; }
	for unit in "$root"/lib/systemd/system/shmqd@.service "$root"/lib/systemd/system/shmqd@.socket; do
		cp "$unit" "$dir/$(basename "$unit" | sed 's/@/@x/')"
	done
	sed -i "s|=$prefix/bin/shmq|=$root/bin/shmq|" "$dir"/shmqd@x.service
	systemd-analyze verify --man=no "$dir/shmqd@x.service" "$dir/shmqd@x.socket" 2>&1 | grep shmqd@x >&2
	! systemd-analyze verify --man=no "$dir/shmqd@x.service" "$dir/shmqd@x.socket" 2>&1 | grep -q 'shmqd@x'
}

umask 077
echo 1..16
check install_succeeds loud_make install
check it_says_so_in_a_line is_brief
check a_c11_program_compiles compile "${CC:-cc}" -std=c11
check it_runs_against_the_installed_library runs
check it_needs_the_versioned_name needs
check a_cxx_program_compiles compile g++ -x c++ -std=c++11
check pkg_config_finds_it pc_flags
check a_page_is_found_by_each_function page man3/shmq_publish.3
check a_page_with_a_dot_in_its_name_is_one page man5/shmqd.conf.5
check it_links_statically static_link
check everybody_can_read_it all_can_read
check units_name_the_program units
check systemd_takes_the_units verified
check the_benchmarks_are_found benchmarks
quiet_make uninstall
check uninstall_succeeds [ $? -eq 0 ]
check nothing_is_left [ -z "$(find "$dir/stage/opt" -mindepth 1)" ]
exit $failed
