#!/bin/sh
# make doc: every page is there under each of its names, and every link leads somewhere.
for tool in mandoc groff; do
	command -v $tool >/dev/null || { echo "1..0 # SKIP no $tool (make doc installs it)" && exit 0; }
done
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
every_name() {
	for page in man/*.[13578]; do
		for each in $(sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \([^ ]*\).*/\1/p' "$page"); do
			grep -q '<html' "$dir/$each.${page##*.}.html" || return 1
		done
	done
}
every_link() {
	for link in $(cat "$dir"/*.html | sed 's/href=/\n&/g' | sed -n 's/^href="\([^"#:]*\)["#].*/\1/p' | sort -u); do
		[ -e "$dir/$link" ] || { echo "no $link" && return 1; }
	done
}
no_link_of_ours_leads_away() { ! grep -o 'href="https://[^"]*/shmq[^"]*"' "$dir"/*.html; }

fits_a_terminal() {
	for page in man/*.[13578]; do
		mandoc -T utf8 -O width=80 "$page" | col -bx | sed "s|^|$page: |"
	done | perl -CS -ne 'print, $bad = 1 if /^\S+: (.*)$/ && length $1 > 80; END { exit !!$bad }'
}

echo 1..6
check it_renders man/render "$dir"
check every_page_has_all_its_names every_name
check every_link_leads_somewhere every_link
check pages_of_ours_are_linked_to_here no_link_of_ours_leads_away
check there_is_one_pdf sh -c "head -c 5 '$dir/shmq.pdf' | grep -q %PDF"
check pages_fit_80_columns fits_a_terminal
exit $failed
