# SPDX-License-Identifier: MIT
#
# Verdict: what figures that belong together say about each other.
package Verdict;
use strict;
use warnings;

use Exporter 'import';
use JSON::PP;

use Measured;

our @EXPORT = qw(read_targets judge_run judge_limits workloads groups compare ratios);

sub read_targets {
	my ($file) = @_;
	my @targets;
	open my $in, '<', $file or die "$file: $!\n";
	while (<$in>) {
		next if /^\s*(#|$)/;
		my ($name, $comparison, $value, $note) = /^(\S+)\s+(<=|>=)\s+($NUMBER)\s*(.*)/
			or die "$file:$.: want a figure, <= or >=, a number and a note\n";
		push @targets, { name => $name, comparison => $comparison, value => $value + 0, note => $note };
	}
	return @targets;
}

# What cannot be trusted for what happened while it was measured.
sub judge_run {
	for my $p (@programs) {
		distrust('*', "the hypervisor took $p->{steal_percent} % of the processors during $p->{name}", $p->{name})
			if $p->{steal_percent} > 0.5;
		distrust('*', "other processes used $p->{others_percent} % of the processors during $p->{name}", $p->{name})
			if $p->{others_percent} > 10;
	}
	return;
}

# The figures of a workload: who is shmq, limit or peer.x.
sub workloads {
	my (%of, @order);
	for my $name (@figures) {
		my ($w, $who, $stat) = $name =~ /^(.+?)\.(limit|peer\.[^.]+)(?:\.([^.]+))?$/ or next;
		my ($shmq) = grep { $figure{$_} } defined $stat ? "$w.$stat" : ("$w.rate", $w);
		$stat //= 'rate';
		push @order, "$w $stat" unless $of{"$w $stat"};
		$of{"$w $stat"}{$who} = $name;
		$of{"$w $stat"}{shmq} = $shmq if defined $shmq;
	}
	return map { my ($w, $stat) = split / /; { name => $w, stat => $stat, of => $of{$_} } } @order;
}

# rtt.spin.64 stands in the table rtt.spin under 64; broadcast.1p2c.block, which
# has no size, in the table broadcast.block under 1p2c.
sub place {
	my ($w) = @_;
	my @part = split /\./, $w;
	my ($at) = map { my $kind = $_; grep { $part[$_] =~ $kind } reverse 0 .. $#part }
		qr/^\d+[kKMG]?$/, qr/^\d+[pc](\d+c)?$/;
	$at //= $#part;
	my ($column) = splice @part, $at, 1;
	return (join('.', @part) || $w, $column);
}

# The number a column's name begins with: a size, a rate, how many of what.
sub amount {
	my ($text) = @_;
	my ($n, $unit) = $text =~ /^(\d+)([kKMG]?)/ or return 0;
	return $n * { '' => 1, k => 1000, K => 2**10, M => 2**20, G => 2**30 }->{$unit};
}

# Workloads by the table and statistic they belong to, in the order they were
# measured.  Columns are sizes if all of their table are powers of two, rates if
# all have the unit of one, as latency.10k, else names.
sub groups {
	my (%group, @order);
	for my $w (@_) {
		(my $table, $w->{column}) = place($w->{name});
		my $key = "$table $w->{stat}";
		push @order, $key unless $group{$key};
		push @{ $group{$key} }, $w;
	}
	my (@groups, %sizes, %rates);
	for (@order) {
		my ($name)  = split / /;
		my @columns = map { $_->{column} } @{ $group{$_} };
		$sizes{$name} //= 1;
		$rates{$name} //= 1;
		$sizes{$name} &&= !grep { !/^\d+[KMG]?$/ || amount($_) & amount($_) - 1 } @columns;
		$rates{$name} &&= !grep { !/^\d+[kMG]$/ } @columns;
	}
	for (@order) {
		my ($name, $stat) = split / /;
		my @w = sort { amount($a->{column}) <=> amount($b->{column}) || $a->{column} cmp $b->{column} }
			@{ $group{$_} };
		for (@w) {
			$_->{title} = $sizes{$name} ? human(amount($_->{column}), 'B') =~ s/\.0+(?= )//r
				: $rates{$name} ? "$_->{column}/s" : $_->{column};
		}
		push @groups, { name => $name, stat => $stat, workloads => \@w };
	}
	return @groups;
}

# One figure divided by another, in each round that has both, or their medians
# if the rounds are not known.  The median of these is the ratio of the two,
# wherever one stands: that of their medians is another, and of an even number of
# rounds so is the inverse of the ratio the other way round.
sub quotients {
	my ($of, $over) = @_;
	my @x = @{ $rounds{$of} // [] };
	my @y = @{ $rounds{$over} // [] };
	my @pairs = @x == @y ? grep { defined $_->[0] && defined $_->[1] } map { [$x[$_], $y[$_]] } 0 .. $#x : ();
	@pairs = [map { $figure{$_}{median} } $of, $over] unless @pairs;
	my ($x_unit, $y_unit) = map { $figure{$_}{unit} } $of, $over;
	my @in_base = map { [in_base($_->[0], $x_unit), in_base($_->[1], $y_unit)] } @pairs;
	return map { $_->[0] / $_->[1] } grep { $_->[0] > 0 && $_->[1] > 0 } @in_base;
}

# How many times better one is than the other: in each round, and by the ratio.
sub advantages {
	my ($of, $over) = @_;
	my $more = more_is_better($figure{$of}{unit});
	return map { $more ? $_ : 1 / $_ } quotients($of, $over);
}

sub advantage {
	my ($of, $over) = @_;
	my $ratio = median(quotients($of, $over)) or return 0;
	return more_is_better($figure{$of}{unit}) ? $ratio : 1 / $ratio;
}

sub median {
	my @sorted = sort { $a <=> $b } @_;
	return 0 unless @sorted;
	return ($sorted[$#sorted / 2] + $sorted[@sorted / 2]) / 2;
}

# Who is better in nearly every round, as chance has it in one run of 20 at
# most (a sign test), is ahead or behind; else the rounds do not tell.  Fewer than
# six cannot tell, whatever they are.
sub verdict {
	my (@advantages) = @_;
	my $ahead  = grep { $_ > 1 } @advantages;
	my $behind = grep { $_ < 1 } @advantages;
	return 'too few rounds' if @advantages < 6;
	my ($fewer, $chance, $ways) = ($ahead < $behind ? $ahead : $behind, 0, 1);
	for my $k (0 .. $fewer) {
		$chance += $ways;
		$ways *= (@advantages - $k) / ($k + 1);
	}
	return 'level' if 2 * $chance / 2**@advantages > 0.05;
	return $ahead > $behind ? 'ahead' : 'behind';
}

sub is_tail { my ($stat) = @_; return $stat !~ /^(rate|p50)$/ }

# Nothing is better than a limit: who is, shmq or peer, was measured by something
# else, in the tail by fewer interruptions of the machine.  And where even a limit
# waits for the machine, in the tail, whoever the rounds do not show the limit to
# be ahead of waited for nothing else: comparing with him says nothing.
sub judge_limits {
	for my $w (grep { $_->{of}{limit} } @_) {
		my ($stat, $limit, %of) = ($w->{stat}, $w->{of}{limit}, %{ $w->{of} });
		my @contenders = grep { $_ ne 'limit' } sort { ($b eq 'shmq') <=> ($a eq 'shmq') || $a cmp $b } keys %of;
		for my $who (@contenders) {
			my $times = advantage($of{$who}, $limit);
			# Of a median or rate all that was measured with it is in doubt.
			distrust($who eq 'shmq' && !is_tail($stat) ? $w->{name} : $of{$who},
				sprintf '%s is %.2f times as good as the limit, which then is none', shown($who), $times)
				if $times > 1.05;
		}
		next unless is_tail($stat);
		my @level = grep { verdict(advantages($limit, $of{$_})) ne 'ahead' } @contenders or next;
		$w->{level} = { map { $_ => 1 } @level };
		distrust("$w->{name} $stat", 'the limit is not ahead of ' . join(', ', map { shown($_) } @level)
			. ': comparing with them measures the machine');
	}
	return;
}

sub shown { my ($who) = @_; return $who =~ s/^peer\.//r }

sub compare {
	my @compared;
	for my $w (@_) {
		my $shmq = $w->{of}{shmq} // next;
		for my $who (sort keys %{ $w->{of} }) {
			next if $who eq 'shmq';
			my $other = $w->{of}{$who};
			my @advantages = advantages($shmq, $other) or next;
			my @why = map { why_not_trusted($_, $figure{$_}{program}) } $shmq, $other;
			push @why, 'level' if $who ne 'limit' && grep { $w->{level}{$_} } 'shmq', $who;
			push @compared, {
				figure => $shmq, against => shown($who), other => $other,
				ratio => median(quotients($shmq, $other)), advantage => advantage($shmq, $other),
				rounds => scalar @advantages, rounds_ahead => scalar(grep { $_ > 1 } @advantages),
				verdict => $who eq 'limit' ? undef : verdict(@advantages),
				trusted => @why ? JSON::PP::false : JSON::PP::true,
			};
		}
	}
	return @compared;
}

# Each target, then every other ratio that was measured.
sub ratios {
	my ($targets, $compared) = @_;
	my (@ratios, %done);
	my %limit = map { $_->{figure} => $_ } grep { $_->{against} eq 'limit' } @$compared;

	for my $t (@$targets, map { { name => $_ } } grep { $figure{$_}{unit} eq 'ratio' } @figures) {
		next if $done{ $t->{name} }++;
		my $f = $figure{ $t->{name} };
		# What no program printed is among the comparisons.
		if (!$f && $t->{name} =~ /^(.+)\.vs_limit$/) {
			my ($of) = grep { $limit{$_} } $1, "$1.p50", "$1.rate";
			$f = { unit => 'ratio', program => $figure{$of}{program},
			       median => $limit{$of}{ratio} } if defined $of;
		}
		my @why = $f ? why_not_trusted($t->{name}, $f->{program}) : ();
		my $r = { name => $t->{name}, trusted => @why ? JSON::PP::false : JSON::PP::true,
			  target => undef, verdict => undef,
			  map { $_ => $f ? $f->{$_} : undef } qw(median min max unit) };
		if ($t->{comparison}) {
			$r->{target}  = { comparison => $t->{comparison}, value => $t->{value}, note => $t->{note} };
			$r->{verdict} = !$f ? 'not measured' : ($t->{comparison} eq '<=' ? $f->{median} <= $t->{value}
				: $f->{median} >= $t->{value}) ? 'met' : 'missed';
		}
		push @ratios, $r;
	}
	return @ratios;
}

1;
