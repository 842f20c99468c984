#!/bin/sh
# make deps: silent when all is there, names what is missing without the right
# to install it, installs it with that right.  A kernel's image is unpacked.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/ci" "$dir/bin"
cp .ci/deps "$dir/ci"
printf '%s\n' '# required: x' 'here  # is there' '# optional: y' 'extra # is not' \
	'# bench: z' 'peer # is not either' \
	'# guest: w' 'linux-image-none # is only read' >"$dir/ci/packages"

# A dpkg that knows the packages in $dir/installed, an apt-get that adds to them.
cat >"$dir/bin/dpkg-query" <<END
#!/bin/sh
sed 's/^/installed /' "$dir/installed"
END
cat >"$dir/bin/apt-get" <<END
#!/bin/sh
echo "\$*" >>"$dir/apt"
case \$* in *download*) touch linux-image-9-none.deb ;; esac
[ "\$1" != install ] || for p; do case \$p in [a-z]*) echo "\$p" >>"$dir/installed" ;; esac; done
END
# A kernel of version 9.
printf '#!/bin/sh\necho "  Depends: linux-image-9-none"\n' >"$dir/bin/apt-cache"
mkdir -p "$dir/kernel/boot" "$dir/kernel/lib"
touch "$dir/kernel/boot/vmlinuz-9-none" "$dir/kernel/boot/config-9-none" "$dir/kernel/lib/module"
printf '#!/bin/sh\nexec tar -C "%s/kernel" -c .\n' "$dir" >"$dir/bin/dpkg-deb"
# A sudo that has no rights without a password.
cat >"$dir/bin/sudo" <<END
#!/bin/sh
case \$1 in
-n) exit 1 ;;
-v) echo asked >>"$dir/asked" && exec cat "$dir/rights" ;;
*) exec "\$@" ;;
esac
END
printf '#!/bin/sh\ncat "%s/uid"\n' "$dir" >"$dir/bin/id"
chmod +x "$dir"/bin/*
PATH=$dir/bin:$PATH

n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
deps() {
	"$dir/ci/deps" "$@" >"$dir/said" 2>&1
	code=$?
}

at_terminal() {
	script -qec "$dir/ci/deps $*" "$dir/typescript" >"$dir/said" 2>&1
	code=$?
}

echo 1..19
echo 1000 >"$dir/uid"
echo here >"$dir/installed"
deps
check nothing_missing_succeeds [ $code -eq 0 ]
check nothing_missing_is_silent [ ! -s "$dir/said" ]
deps optional
check missing_without_rights_stops [ $code -eq 1 ]
check missing_package_is_named grep -q 'missing packages: extra$' "$dir/said"
check the_line_to_run_is_given grep -q 'apt-get install .* extra$' "$dir/said"
check nothing_was_installed [ ! -e "$dir/apt" ]
check without_a_terminal_no_password_is_asked_for [ ! -e "$dir/asked" ]
at_terminal optional
check with_a_wrong_password_it_stops_as_well [ $code -eq 1 -a -e "$dir/asked" -a ! -e "$dir/apt" ]
check what_the_password_is_for_is_said_before grep -q 'sudo is to install extra' "$dir/said"
touch "$dir/rights"
at_terminal optional
check with_the_password_it_installs [ $code -eq 0 ]
check by_sudo_only_what_is_missing_is_installed grep -q -- '--no-install-recommends extra$' "$dir/apt"
rm "$dir/apt"
echo here >"$dir/installed"
echo 0 >"$dir/uid"
deps optional
check root_installs [ $code -eq 0 ]
check only_what_is_missing_is_installed grep -q -- '--no-install-recommends extra$' "$dir/apt"
rm "$dir/apt"
echo 1000 >"$dir/uid"
deps guest
check an_image_is_unpacked_without_any_right [ $code -eq 0 -a -e "$dir/build/guest/vmlinuz-9-none" ]
check nothing_else_of_its_package_is_kept [ "$(ls "$dir/build/guest")" = vmlinuz-9-none ]
check it_is_that_of_the_version_there_is grep -q 'download linux-image-9-none$' "$dir/apt"
rm "$dir/apt"
deps guest
check an_image_that_is_there_is_not_fetched_again [ $code -eq 0 -a ! -e "$dir/apt" ]
check the_list_names_every_package sh -c '! grep -vE "^(#.*|[a-z0-9.+-]+ +# .+|)$" .ci/packages'
# What is built finds its libraries only when it is built: before, they may be missing.
printf '#!/bin/sh\nexit 1\n' >"$dir/bin/pkg-config"
chmod +x "$dir/bin/pkg-config"
check make_deps_needs_none_of_what_it_installs make -n B="$dir/none" deps
exit $failed
