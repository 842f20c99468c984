# SPDX-License-Identifier: MIT
#
# Measured: what the programs printed, in the order they printed it, and how a
# value is spelled for people.
package Measured;
use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(
	%figure @figures %rounds %curve @curves %absent %peer @labels @distrust @programs $NUMBER
	read_line distrust why_not_trusted special_doubts remarks
	human human_range three_digits in_base base_unit more_is_better minutes bounds
);

# Figures by name (median, min, max, unit, program) and their rounds (values,
# undef where a round has none), curves by name (points of percentile and ns),
# why a peer is absent, or which version of it is there, remarks and doubts with the figures they are about.
our (%figure, @figures, %rounds, %curve, @curves, %absent, %peer, @labels, @distrust, @programs);

sub is_about {
	my ($prefix, $name) = @_;
	return $prefix eq '*' || $name eq $prefix || index($name, "$prefix.") == 0;
}

sub distrust {
	my ($figures, $reason, $program) = @_;
	return if grep { $_->{figures} eq $figures && $_->{reason} eq $reason
			&& ($_->{program} // '') eq ($program // '') } @distrust;
	push @distrust, { figures => $figures, reason => $reason, program => $program };
	return;
}

sub why_not_trusted {
	my ($name, $program) = @_;
	my %seen;
	return grep { !$seen{$_}++ } map { $_->{reason} }
		grep { is_about($_->{figures}, $name) && (!defined $_->{program} || $_->{program} eq $program) }
		@distrust;
}

# Those that are not about everything.
sub special_doubts {
	my ($name, $program) = @_;
	my %seen;
	return grep { !$seen{$_}++ } map { $_->{reason} } grep { $_->{figures} ne '*' && is_about($_->{figures}, $name)
			&& (!defined $_->{program} || !defined $program || $_->{program} eq $program) } @distrust;
}

sub remarks {
	my ($name) = @_;
	return map { $_->{text} } grep { is_about($_->{figure}, $name) } @labels;
}

our $NUMBER = qr/[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/;
my %READ = (
	figure => sub {
		my ($program, $rest) = @_;
		my ($name, $value, $unit) = $rest =~ /^(\S+) ($NUMBER) (\S+)$/ or return;
		my $bounds;
		$bounds = $figure{$1} if $name =~ /^(.+)\.(min|max)$/;
		if ($bounds && $bounds->{program} eq $program) {
			$bounds->{ $name =~ /min$/ ? 'min' : 'max' } = $value + 0;
			return 1;
		}
		return if $figure{$name};
		push @figures, $name;
		$figure{$name} = { median => $value + 0, min => $value + 0, max => $value + 0,
				   unit => $unit, program => $program };
	},
	rounds => sub {
		my ($program, $rest) = @_;
		my ($name, @values) = split / /, $rest;
		return if !@values || grep { !/^(?:$NUMBER|-)$/ } @values;
		$rounds{$name} = [map { $_ eq '-' ? undef : $_ + 0 } @values];
	},
	curve => sub {
		my ($program, $rest) = @_;
		my ($name, $percentile, $ns) = $rest =~ /^(\S+) ($NUMBER) ($NUMBER)$/ or return;
		push @curves, $name unless $curve{$name};
		push @{ $curve{$name} }, [$percentile + 0, $ns + 0];
	},
	absent => sub {
		my ($program, $rest) = @_;
		my ($name, $why) = $rest =~ /^(\S+)(?: (.*\S))?$/ or return;
		$absent{$name} = $why // 'missing';
	},
	peer => sub {
		my ($program, $rest) = @_;
		my ($name, $version) = $rest =~ /^(\S+) (.*\S)/ or return;
		$peer{$name} = $version;
	},
	label => sub {
		my ($program, $rest) = @_;
		my ($name, $text) = $rest =~ /^(\S+) (.*\S)/ or return;
		push @labels, { figure => $name, text => $text };
	},
	distrust => sub {
		my ($program, $rest) = @_;
		my ($name, $reason) = $rest =~ /^(\S+) (.*\S)/ or return;
		distrust($name, $reason, $program);
		1;
	},
);

# Take a line of a program: its kind, or undef if it is none of these lines,
# or dies of one that cannot be used.
sub read_line {
	my ($program, $line) = @_;
	my ($kind, $rest) = split / /, $line, 2;
	return undef unless defined $kind && $READ{$kind};
	$READ{$kind}->($program, $rest // '') or die "it printed what cannot be used: $line\n";
	return $kind;
}

sub three_digits {
	my ($x) = @_;
	return sprintf $x >= 100 ? '%.0f' : $x >= 10 ? '%.1f' : $x >= 1 ? '%.2f' : '%.3g', $x;
}

# Units that belong together, each with its step to the next.
my %SCALE = (
	time  => [[ns   => 1],   [us    => 1e3],  [ms    => 1e6], [s    => 1e9]],
	rate  => [['/s' => 1],   ['k/s' => 1e3],  ['M/s' => 1e6], ['G/s' => 1e9]],
	flow  => [['B/s' => 1],  ['kB/s' => 1e3], ['MB/s' => 1e6], ['GB/s' => 1e9]],
	bytes => [[B    => 1],   [KiB   => 2**10], [MiB  => 2**20], [GiB => 2**30]],
);
my %UNIT = map {
	my $scale = $SCALE{$_};
	map { $_->[0] => [$scale, $_->[1]] } @$scale
} keys %SCALE;

sub human {
	my ($value, $unit) = @_;
	return '-' unless defined $value;
	return sprintf '%.3f', $value if $unit eq 'ratio';
	my ($scale, $factor) = @{ $UNIT{$unit} // [[[$unit => 1]], 1] };
	my $base = $value * $factor;
	my ($best) = ((grep { abs $base >= $_->[1] } reverse @$scale), $scale->[0]);
	return $best->[0] eq 'B' ? "$base B" : sprintf '%s %s', three_digits($base / $best->[1]), $best->[0];
}

sub in_base {
	my ($value, $unit) = @_;
	return $value * ($UNIT{$unit} ? $UNIT{$unit}[1] : 1);
}

sub base_unit { my ($unit) = @_; return $UNIT{$unit} ? $UNIT{$unit}[0][0][0] : $unit }

sub more_is_better { my ($unit) = @_; return $unit =~ m{/s$} }

sub human_range {
	my ($f) = @_;
	my $text = human($f->{median}, $f->{unit});
	$text .= sprintf ' (%s to %s)', human($f->{min}, $f->{unit}), human($f->{max}, $f->{unit})
		if defined $f->{min} && $f->{min} != $f->{max};
	return $text;
}

sub minutes { my ($s) = @_; return sprintf '%d:%02d', $s / 60, $s % 60 }

sub bounds { my @sorted = sort { $a <=> $b } @_; return @sorted[0, -1] }

1;
