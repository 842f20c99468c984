# SPDX-License-Identifier: MIT
#
# Report: the figures as Markdown.
package Report;
use strict;
use warnings;

use Exporter 'import';
use Measured;
use Verdict;

our @EXPORT = qw(markdown target_table peers doubts);

sub table {
	my ($align, $head, @rows) = @_;
	my @side = split //, $align;
	my @width = map { length } @$head;
	for my $row (@rows) {
		for my $i (0 .. $#$head) {
			$row->[$i] =~ s/\|/\\|/g;
			$width[$i] = length $row->[$i] if length $row->[$i] > $width[$i];
		}
	}
	my $line = sub {
		my ($row) = @_;
		return join(' ', '|', map { sprintf($side[$_] eq 'r' ? '%*s |' : '%-*3$s |', $side[$_] eq 'r'
			? ($width[$_], $row->[$_]) : ($row->[$_], 0, $width[$_])) } 0 .. $#$head) . "\n";
	};
	return $line->($head)
		. '|' . join('|', map { $side[$_] eq 'r' ? '-' x ($width[$_] + 1) . ':' : '-' x ($width[$_] + 2) } 0 .. $#$head)
		. "|\n" . join '', map { $line->($_) } @rows;
}

# A note of bench/targets, with what was measured put in.
sub filled_in {
	my ($note) = @_;
	return $note =~ s/\{([\w.]+)\}/my $f = $figure{$1}; $f ? human(@$f{qw(median unit)}) : 'what was not measured'/ger;
}

sub target_table {
	my ($report) = @_;
	my @rows;
	for my $r (grep { $_->{target} } @{ $report->{ratios} }) {
		my $unit = $r->{unit} // ($r->{name} =~ /_(ns|us|ms)$/ ? $1 : 'number');
		my ($must, $limit, $note) = @{ $r->{target} }{qw(comparison value note)};
		$limit = human($limit, $unit) unless $unit =~ /^(ratio|number)$/;
		push @rows, [$r->{name}, defined $r->{median} ? human_range($r) : '-', "$must $limit",
			$r->{verdict} . ($r->{trusted} ? '' : ', not trusted'),
			join '; ', filled_in($note), remarks($r->{name}), special_doubts($r->{name}, ($figure{ $r->{name} } // {})->{program})];
	}
	my @peers = grep { defined $_->{verdict} } @{ $report->{comparisons} };
	my @order = ('ahead', 'level', 'behind', 'too few rounds');
	my %of    = map { $_ => 0 } @order;
	$of{ $_->{verdict} }++ for @peers;
	my $doubt = grep { !$_->{trusted} } @peers;
	push @rows, ['every figure against every peer',
		@peers ? join(', ', map { "$of{$_} $_" } grep { $of{$_} || $_ eq 'ahead' } @order) : '-',
		'ahead of all', (@peers ? $of{behind} ? 'missed' : $of{level} || $of{'too few rounds'} ? 'not told' : 'met'
			: $report->{options}{peers} eq 'none' ? 'left out' : 'not measured') . ($doubt ? ', not trusted' : ''),
		@peers ? $doubt ? "$doubt of " . @peers . ' are not trusted' : ''
			: $report->{quick} ? 'peers are measured in the full run' : ''];
	return table('lrrll', ['Figure', 'Measured', 'Must be', 'Verdict', 'What it says'], @rows);
}

# What the peers have that are so (behind or level), a line each.
sub against {
	my ($report, $verdict) = @_;
	my $value = sub { my ($f) = @_; return human(@{ $figure{$f} }{qw(median unit)}) };
	return map { "- `$_->{figure}`: $_->{against} has " . $value->($_->{other})
		. ', shmq ' . $value->($_->{figure}) . ", better in $_->{rounds_ahead} of $_->{rounds} rounds" . ($_->{trusted} ? '' : ' (not trusted)') . "\n" }
		grep { ($_->{verdict} // '') eq $verdict } @{ $report->{comparisons} };
}

# All that is said of the peers as a whole, as paragraphs.
sub peers {
	my ($report) = @_;
	my %title = (behind => 'A peer is ahead:',
		level => 'Now one and now the other is ahead, so that the rounds do not tell which is better:',
		'too few rounds' => 'Fewer than six rounds do not tell which is better:');
	my $text = '';
	for my $verdict ('behind', 'level', 'too few rounds') {
		my @lines = against($report, $verdict) or next;
		$text .= "$title{$verdict}\n\n@lines\n" =~ s/^ //gmr;
	}
	my @absent = map { "$_ ($absent{$_})" } @{ $report->{absent} };
	$text .= 'Peers that are absent: ' . join(', ', @absent) . ".\n\n" if @absent;
	return $text;
}

sub doubts {
	my @lines;
	for my $d (@distrust) {
		my $about = $d->{figures} ne '*' ? "`$d->{figures}`"
			: defined $d->{program} ? "Figures of `$d->{program}`" : 'Every figure';
		push @lines, "- $about: $d->{reason}.\n";
	}
	return @lines;
}

# Below a table: what is remarked on shmq's figures, which peers are not in
# its columns and why, and which columns are not trusted.
sub said_below {
	my (@workloads) = @_;
	my (@lines, %columns, @said, %who);
	my $say = sub {
		my ($line, $w, $peer) = @_;
		push @lines, [$line, $peer] unless $columns{$line}{ $peer // '' };
		push @{ $columns{$line}{ $peer // '' } }, $w->{title};
	};
	for my $w (@workloads) {
		my $shmq = $w->{of}{shmq} // next;
		$say->($_, $w) for remarks($shmq);
		for my $l (@labels) {
			my ($peer) = $l->{figure} =~ /^\Q$w->{name}\E\.peer\.([^.]+)$/ or next;
			$say->($l->{text}, $w, $peer);
		}
		$say->("not trusted: $_", $w) for special_doubts($shmq, $figure{$shmq}{program});
	}
	# Peers of which the same is said in the same columns share a line.
	for (@lines) {
		my ($line, $peer) = @$_;
		my @in   = @{ $columns{$line}{ $peer // '' } };
		my $text = $line . (@in == @workloads ? '' : ' (' . join(', ', @in) . ')');
		push @said, $text unless $who{$text};
		push @{ $who{$text} }, $peer // ();
	}
	return map { @{ $who{$_} } ? join(', ', @{ $who{$_} }) . ": $_" : $_ } @said;
}

sub side_by_side {
	my ($compared, @workloads) = @_;
	my %against = map { ("$_->{figure} $_->{against}" => $_) } @$compared;
	my (%told, $text);

	for my $g (groups(@workloads)) {
		my @w = @{ $g->{workloads} };
		my %who = map { map { $_ => 1 } keys %{ $_->{of} } } @w;
		my @rows;
		for my $who ((grep { $who{$_} } 'limit', 'shmq'), sort grep { /^peer/ } keys %who) {
			my @row = ($who eq 'shmq' ? '**shmq**' : $who =~ s/^peer\.//r);
			for my $w (@w) {
				my $f = $figure{ $w->{of}{$who} // '' };
				my $c = $against{ ($w->{of}{shmq} // '') . ' ' . ($who =~ s/^peer\.//r) };
				my $cell = $f ? human($f->{median}, $f->{unit}) : '-';
				$cell = "**$cell**" if $who eq 'shmq';
				$cell .= { ahead => sprintf(', %sx', three_digits($c->{advantage})), level => ', level',
					'too few rounds' => sprintf(', %sx in %d of %d rounds', three_digits($c->{advantage}), @$c{qw(rounds_ahead rounds)}),
					behind => ', **shmq behind**' }->{ $c->{verdict} } if $c && $c->{verdict};
				push @row, $cell;
			}
			push @rows, \@row;
		}
		my @limits = map { $against{ ($_->{of}{shmq} // '') . ' limit' } } @w;
		push @rows, ['shmq / limit', map { $_ ? sprintf '%.2f', $_->{ratio} : '-' } @limits] if grep { $_ } @limits;
		my @said = $told{ $g->{name} }++ ? () : said_below(@w);
		$text .= "### $g->{name}, " . ($g->{stat} eq 'rate' ? 'messages a second' : $g->{stat}) . "\n\n"
			. table('l' . 'r' x @w, ['', map { $_->{title} } @w], @rows)
			. (@said ? "\n" . join('', map { "- $_.\n" } @said) : '') . "\n";
	}
	return $text;
}

sub yes { my ($flag) = @_; return !defined $flag ? 'unknown' : $flag ? 'yes' : 'no' }

sub machine_table {
	my ($report) = @_;
	my $m = $report->{machine};
	my %build = map { $_ => $report->{build}{$_} // 'unknown' } keys %{ $report->{build} };
	my @peers = map { "$_ $peer{$_}" } sort keys %peer;
	my @huge = map { "$m->{hugepages}{$_}{free} of $m->{hugepages}{$_}{nr} free of $_" } sort keys %{ $m->{hugepages} };
	return table('ll', ['Machine', ''],
		['processor', $m->{cpu_model} // 'unknown'],
		['usable processors', "$m->{cpus_usable} ($m->{cpus_list})"
			. (defined $m->{cpu_quota} ? sprintf ', quota %.3g', $m->{cpu_quota} : '')],
		['clock', join ', ', (defined $m->{mhz_now} ? sprintf '%.0f MHz now', $m->{mhz_now} : ()),
			(defined $m->{mhz_max} ? sprintf '%.0f MHz at most', $m->{mhz_max} : ()),
			'governor ' . ($m->{governor} // 'unknown'), 'boost ' . yes($m->{boost})],
		['threads of one core', 'SMT ' . yes($m->{smt}) . ', pinned to one core: ' . yes($m->{pinned_to_one_core})],
		['virtualised', defined $m->{hypervisor} ? "yes: $m->{hypervisor}" : 'no'],
		['clock source', "$m->{clocksource}, invariant TSC: " . yes($m->{invariant_tsc})],
		['NUMA nodes', $m->{numa_nodes}],
		['isolated', 'isolcpus ' . ($m->{isolated_cpus} || 'none') . ', nohz_full ' . ($m->{nohz_full} || 'none')],
		['memory', human($m->{memory_bytes}, 'B') . ', pages of ' . human($m->{page_bytes}, 'B')],
		['hugepages', join('; ', @huge) || 'none'],
		['transparent hugepages', ($m->{thp} // 'unknown') . ', for shared memory ' . ($m->{thp_shmem} // 'unknown')],
		['kernel', $m->{kernel} // 'unknown'],
		['perf counters', yes($m->{perf_counters}) . ', perf_event_paranoid ' . ($m->{perf_event_paranoid} // 'unknown')],
		['load', "$m->{load_start} before, $m->{load_end} after"],
		['shmq', "$build{version}, commit $build{commit}; supervisor $build{supervisor}"],
		['compiled by', $build{compiler}],
		['with', $build{flags}],
		['peers', join(', ', @peers) || 'none measured']);
}

sub markdown {
	my ($report, $plots, @workloads) = @_;
	my %shown = map { map { $_ => 1 } values %{ $_->{of} } } @workloads;
	my @rest  = grep { !$shown{$_} } @figures;
	my @failed = grep { $_->{status} eq 'failed' } @programs;
	my @doubts = doubts();
	my $text = "# shmq, measured\n\n";

	$text .= sprintf "%s to %s, %s%s.\n\n", $report->{time}{start}, $report->{time}{end},
		minutes($report->{time}{seconds}) . ' minutes', $report->{quick} ? ', quick' : '';
	$text .= "**Failed:** " . join('; ', map { "`$_->{name}`: $_->{reason}" } @failed) . "\n\n" if @failed;
	$text .= "## What is promised\n\n" . target_table($report) . "\n";
	$text .= peers($report);
	$text .= "## What cannot be trusted here\n\n" . (join('', @doubts) || "Nothing was found.\n") . "\n";
	$text .= "## Side by side\n\nA limit is what the machine can do with nothing in between. "
		. "Beside a peer: how many times better shmq is.\n\n" . side_by_side($report->{comparisons}, @workloads)
		if @workloads;
	$text .= join('', map { "![$_]($_.svg)\n\n" } @$plots);
	$text .= "## Other figures\n\n" . table('lrrrl', ['Figure', 'Median', 'Min', 'Max', 'Remark'],
		map { my $f = $figure{$_};
			[$_, (map { human($f->{$_}, $f->{unit}) } qw(median min max)), join '; ', remarks($_)] } @rest) . "\n"
		if @rest;
	$text .= "## Where\n\n" . machine_table($report) . "\n"
		. table('lrrrl', ['Program', 'Seconds', 'Stolen', 'Others', ''],
			map { [@$_{qw(name seconds)}, "$_->{steal_percent} %", "$_->{others_percent} %", $_->{reason} // 'ok'] }
				@programs);
	return $text;
}

1;
