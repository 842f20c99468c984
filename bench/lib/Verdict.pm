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
# measured.  Columns that are all sizes are spelled as such; those of
# latency.10k are rates.
sub groups {
	my (%group, @order);
	for my $w (@_) {
		(my $table, $w->{column}) = place($w->{name});
		my $key = "$table $w->{stat}";
		push @order, $key unless $group{$key};
		push @{ $group{$key} }, $w;
	}
	my @groups;
	for (@order) {
		my ($name, $stat) = split / /;
		my @w = sort { amount($a->{column}) <=> amount($b->{column}) || $a->{column} cmp $b->{column} }
			@{ $group{$_} };
		my $sizes = !grep { $_->{column} !~ /^\d+[KMG]?$/ } @w;
		$_->{title} = $sizes ? human(amount($_->{column}), 'B') =~ s/\.0+(?= )//r : $_->{column} for @w;
		push @groups, { name => $name, stat => $stat, workloads => \@w };
	}
	return @groups;
}

# How many times better one figure is than another.
sub advantage {
	my ($of, $over) = @_;
	my ($x, $y) = map { in_base(@{ $figure{$_} }{qw(median unit)}) } $of, $over;
	return 0 unless $x > 0 && $y > 0;
	return more_is_better($figure{$of}{unit}) ? $x / $y : $y / $x;
}

# Is the median of each within the range of the other?  Then the rounds do not
# tell which is better.
sub level {
	my ($x, $y) = @_;
	return !grep {
		my ($in, $median) = ($figure{ $_->[0] }, in_base(@{ $figure{ $_->[1] } }{qw(median unit)}));
		my ($min, $max) = map { in_base($in->{$_}, $in->{unit}) } qw(min max);
		$min == $max || $median < $min || $median > $max;
	} [$x, $y], [$y, $x];
}

# Nothing is better than a limit, so if shmq is, something else was measured.
sub judge_limits {
	for my $w (grep { $_->{stat} =~ /^(rate|p50)$/ && $_->{of}{shmq} && $_->{of}{limit} } @_) {
		my $times = advantage($w->{of}{shmq}, $w->{of}{limit});
		distrust($w->{name}, sprintf 'shmq is %.2f times as good as the limit, which then is none', $times)
			if $times > 1.05;
	}
	return;
}

sub compare {
	my @compared;
	for my $w (@_) {
		my $shmq = $w->{of}{shmq} // next;
		for my $who (sort keys %{ $w->{of} }) {
			next if $who eq 'shmq';
			my $other = $w->{of}{$who};
			my $advantage = advantage($shmq, $other) or next;
			my @why = map { why_not_trusted($_, $figure{$_}{program}) } $shmq, $other;
			push @compared, {
				figure => $shmq, against => $who =~ s/^peer\.//r, other => $other,
				ratio => more_is_better($figure{$shmq}{unit}) ? $advantage : 1 / $advantage, advantage => $advantage,
				verdict => $who eq 'limit' ? undef : level($shmq, $other) ? 'level'
					: $advantage > 1 ? 'ahead' : 'behind',
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
		# A ratio that no program made round by round is made of medians.
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
