# SPDX-License-Identifier: MIT
# Completion of shmq and shmqd for bash.  What there is to complete is what --help
# says, of the program that is installed.  compgen -W expands what it is given as the
# shell does, commands and all: what others can have named is names before it is that.

_shmq_names() {
	grep -x '[A-Za-z0-9_./-]*'
}

# Options of a command's help: name, a tab, and what stands for its argument.
_shmq_options() {
	sed -n 's/^ *-\(.\), --\([a-z-]*\) \{0,1\}\([^ ]*\).*/--\2\t\3\n-\1\t\3/p; t
		s/^ *--\([a-z-]*\) \{0,1\}\([^ ]*\).*/--\1\t\2/p'
}

_shmq_commands() {
	sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

_shmq_buses() {
	local dir=${SHMQ_RUNTIME_DIR-}
	[[ -z $dir && -O ${XDG_RUNTIME_DIR-} ]] && dir=$XDG_RUNTIME_DIR/shmq
	(cd "${dir:-/tmp/shmq-$UID}" 2>/dev/null && printf '%s\n' *.sock | sed -n 's/^\([A-Za-z0-9_-]*\)\.sock$/\1/p')
}

_shmq() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local program=${COMP_WORDS[0]} words=() bus=() name=${SHMQ_BUS:-default} kind=topics help commands arg i
	COMPREPLY=()
	# The command, that of log and cursor, and what comes then; which bus it is about.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-b | --bus | --runtime-dir)
			bus+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]-}")
			[[ ${COMP_WORDS[i]} = --runtime-dir ]] || name=${COMP_WORDS[i + 1]-}
			((i++))
			;;
		-*) ;;
		*) words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	[[ ${words[0]-} = help ]] && words=("${words[@]:1}") kind=none
	help=$("$program" "${words[@]:0:2}" --help 2>/dev/null) ||
		help=$("$program" ${words[0]+"${words[0]}"} --help 2>/dev/null) || return 0
	commands=$(_shmq_commands <<<"$help")
	case ${words[*]:0:2} in
	'log import') [[ ${#words[@]} -lt 3 ]] || kind=files ;;
	'cursor set' | 'cursor rm') [[ ${#words[@]} -lt 3 ]] && kind=logs || kind=cursors ;;
	'log '* | 'cursor '*) [[ $kind = none ]] || kind=logs ;;
	config) ;;
	config*) kind=files commands= ;;
	esac
	[[ ${program##*/} = shmq ]] || kind=files
	if [[ $prev = -* ]]; then
		arg=$(_shmq_options <<<"$help" | sed -n "s/^$prev\t//p")
		case $prev:$arg in
		*:*[a-z]\|*) COMPREPLY=($(compgen -W "${arg//|/ }" -- "$cur")); return ;;
		*:FILE* | *:DIR* | *:PATH) COMPREPLY=($(compgen -f -- "$cur")); return ;;
		-b:* | --bus:*) COMPREPLY=($(compgen -W "$(_shmq_buses)" -- "$cur")); return ;;
		*:TOPIC) kind=topics ;;
		*:?*) return ;;
		esac
	fi
	if [[ $cur = -* ]]; then
		COMPREPLY=($(compgen -W "$(_shmq_options <<<"$help" | cut -f1 | grep -e --)" -- "$cur"))
	elif [[ -n $commands ]]; then
		COMPREPLY=($(compgen -W "$commands" -- "$cur"))
	elif [[ $kind = topics ]]; then
		COMPREPLY=($(compgen -W "$("$program" "${bus[@]}" --no-start ls 2>/dev/null |
			_shmq_names)" -- "$cur"))
	elif [[ $kind = logs ]]; then
		COMPREPLY=($(compgen -W "$("$program" "${bus[@]}" log ls 2>/dev/null |
			sed -n "1d; s/ .*//; p; s|^$name/||p" | _shmq_names | sort -u)" -- "$cur"))
	elif [[ $kind = cursors ]]; then
		COMPREPLY=($(compgen -W "$("$program" "${bus[@]}" cursor ls "${words[2]}" 2>/dev/null |
			sed '1d; s/^[^ ]* *//; s/ .*//' | _shmq_names | sort -u)" -- "$cur"))
	elif [[ $kind = files ]]; then
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}

complete -F _shmq shmq shmqd
