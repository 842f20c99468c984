# SPDX-License-Identifier: MIT
# Completion of shmq and shmqd for bash.  What there is to complete is what --help
# says, of the program that is installed.

# Options of a command's help: name, a tab, and what stands for its argument.
_shmq_options() {
	sed -n 's/^ *\(-., \)\{0,1\}--\([a-z-]*\) \{0,1\}\([^ ]*\).*/--\2\t\3/p'
}

_shmq_commands() {
	sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

_shmq() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local program=${COMP_WORDS[0]} words=() bus=() help commands arg i
	COMPREPLY=()
	# The command, and that of log and cursor; which bus it is about.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-b | --bus | --runtime-dir)
			bus+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]-}")
			((i++))
			;;
		-*) ;;
		*) [[ ${#words[@]} -ge 2 ]] || words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	[[ ${words[0]-} = help ]] && words=()
	help=$("$program" "${words[@]}" --help 2>/dev/null) ||
		help=$("$program" ${words[0]+"${words[0]}"} --help 2>/dev/null) || return 0
	commands=$(_shmq_commands <<<"$help")
	if [[ $prev = -* ]]; then
		arg=$(_shmq_options <<<"$help" | sed -n "s/^$prev\t//p")
		case $arg in
		*[a-z]\|*) COMPREPLY=($(compgen -W "${arg//|/ }" -- "$cur")) && return ;;
		FILE | DIR | PATH) COMPREPLY=($(compgen -f -- "$cur")) && return ;;
		?*) return ;;
		esac
	fi
	if [[ $cur = -* ]]; then
		COMPREPLY=($(compgen -W "$(_shmq_options <<<"$help" | cut -f1)" -- "$cur"))
	elif [[ -n $commands ]]; then
		COMPREPLY=($(compgen -W "$commands" -- "$cur"))
	elif [[ ${program##*/} = shmq && ${words[0]-} != config ]]; then
		COMPREPLY=($(compgen -W "$("$program" "${bus[@]}" --no-start ls 2>/dev/null)" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}

complete -F _shmq shmq shmqd
