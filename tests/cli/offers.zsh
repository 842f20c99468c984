# SPDX-License-Identifier: MIT
#
# offers.zsh DIRECTORY: each line of stdin typed at a zsh on a terminal of its own that
# has its completions from there, and printed with all in it that is offered at its end.
zmodload zsh/zpty
zpty z "TERM=dumb zsh -f -i"
say() { zpty -w z "$1" }
say "fpath=($1 \$fpath); autoload -Uz compinit && compinit -u -D; PS1=; unsetopt prompt_cr prompt_sp"
say 'zle -C all complete-word _generic; bindkey "^A" all; zstyle ":completion:all::::" completer _all_matches _complete'
say 'zstyle ":completion:all:*" insert true; zstyle ":completion:all:*" old-matches false'
# What is typed is also echoed, so no word that is waited for stands there whole.
say 'report() { print -r -- "offe""rs<${BUFFER}>"; BUFFER=; zle redisplay }; zle -N report; bindkey "^B" report'
say 'print -r -- read''y'
zpty -r z got '*ready*'
while IFS= read -r line; do
	zpty -w -n z "$line"$'\x01\x02'
	zpty -r z got '*offers<*>*' || exit 1
	print -r -- ${${got##*offers<}%%>*}
done
zpty -d z
