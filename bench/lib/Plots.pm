# SPDX-License-Identifier: MIT
#
# Plots: bars of what is compared, and percentile curves, drawn by gnuplot as
# SVG and PNG.
package Plots;
use strict;
use warnings;

use Exporter 'import';
use POSIX ();

use Measured;
use Verdict;

our @EXPORT = qw(plots has_gnuplot);

my ($SHMQ_COLOUR, $LIMIT_COLOUR, $PEER_COLOUR) = ('#d1495b', '#8d99a6', '#7fa8c9');
my @PEER_COLOURS = map { "#$_" } qw(0072b2 e69f00 009e73 cc79a7 56b4e9 b2912f 6a3d9a 555555 9acd32 a6761d);

sub gnuplot_text { my ($text) = @_; $text =~ s/["\\]//g; return qq("$text") }

# Ticks at 1, 10, 100 … of the base unit between two values; where they would
# be more than $most, at every other.
sub decades {
	my ($unit, $low, $high, $most) = @_;
	my ($from, $to) = map { POSIX::floor(log($_) / log(10) + 1e-9) } $low, $high;
	my $base = base_unit($unit);
	return join ', ', map { gnuplot_text(human(10**$_, $base) =~ s/\.0+(?= )//r) . ' ' . 10**$_ }
		grep { $to - $from < $most || ($_ - $from) % 2 == 0 } $from .. $to + 1;
}

# Bars of one workload, best on top.  They start at 0, but where the longest
# would hide the shortest, which times then do, on a logarithmic axis.
sub bars_panel {
	my ($n, $w) = @_;
	my $first = $figure{ (values %{ $w->{of} })[0] };
	my $more  = more_is_better($first->{unit});
	my %value = map { $_ => in_base(@{ $figure{ $w->{of}{$_} } }{qw(median unit)}) } keys %{ $w->{of} };
	my @who   = sort { $value{$a} <=> $value{$b} || $a cmp $b } keys %value;
	@who = reverse @who unless $more;
	my @all   = map { my $f = $figure{ $w->{of}{$_} }; map { in_base($f->{$_}, $f->{unit}) } qw(min max median) } @who;
	my ($low, $high) = bounds(@all);
	my $log  = !$more && $low > 0 && $high > 15 * $low;
	my $left = $log ? 10**POSIX::floor(log($low / 2) / log(10)) : 0;
	my (@data, @tics);
	for my $y (0 .. $#who) {
		my $f = $figure{ $w->{of}{ $who[$y] } };
		my @v = map { in_base($f->{$_}, $f->{unit}) } qw(median min max);
		push @data, join ' ', $y, $left, @v,
			hex substr({ shmq => $SHMQ_COLOUR, limit => $LIMIT_COLOUR }->{ $who[$y] } // $PEER_COLOUR, 1),
			gnuplot_text(human($f->{median}, $f->{unit}));
		push @tics, gnuplot_text($who[$y] =~ s/^peer\.//r) . " $y";
	}
	my $right = $log ? $high * ($high / $left)**0.42 : $high * 1.32;
	return "\$p$n << END\n" . join("\n", @data) . "\nEND\n"
		. 'set title ' . gnuplot_text($w->{title}) . "\n"
		. ($log ? "set logscale x\n" : "unset logscale x\n")
		. sprintf("set xrange [%g:%g]\n", 0.999 * $left, $right) . "set yrange [-0.7:" . (@who - 0.3) . "]\n"
		. 'set ytics (' . join(', ', @tics) . ") scale 0\n"
		. ($log ? 'set xtics (' . decades($first->{unit}, $left, $high, 4) . ")\n" : "unset xtics\n")
		. "plot \$p$n using 3:1:2:3:(\$1-0.36):(\$1+0.36):6 with boxxyerror lc rgb variable fs solid noborder, "
		. "\$p$n using 3:1:4:5 with xerrorbars pt -1 lc rgb '#333333', "
		. "\$p$n using 5:1:7 with labels left offset 0.7,0\n";
}

# Percentile curves of one workload: the axis has as much room for the last
# thousandth as for what is below it.
sub curve_panel {
	my ($n, $w, $colour) = @_;
	my (%points, @all, $text, @plot);
	for my $who (keys %{ $w->{of} }) {
		my @points = map { [1 / (1 - $_->[0] / 100), $_->[1]] }
			grep { $_->[0] < 100 && $_->[1] > 0 } @{ $curve{ $w->{of}{$who} } };
		next unless @points;
		push @all, @points;
		$points{$who} = \@points;
	}
	return unless @all;
	my (undef, $far) = bounds(2, map { $_->[0] } @all);
	my ($low, $high) = bounds(map { $_->[1] } @all);

	# The key names the curves from top to bottom.
	for my $who (sort { $points{$b}[0][1] <=> $points{$a}[0][1] } keys %points) {
		my $data  = "\$p${n}_" . @plot;
		my $style = $who eq 'shmq' ? "lw 3 lc rgb '$SHMQ_COLOUR'"
			: $who eq 'limit' ? "lw 2 dt 2 lc rgb '$LIMIT_COLOUR'"
			: "lw 1.5 lc rgb '$colour->{$who}'";
		$text .= "$data << END\n" . join('', map { "@$_\n" } @{ $points{$who} }) . "END\n";
		push @plot, "$data using 1:2 with lines $style title " . gnuplot_text($who =~ s/^peer\.//r);
	}
	my @tics = ('"50" 2', map { sprintf '"%.*f" %d', $_ > 2 ? $_ - 2 : 0, 100 - 100 / 10**$_, 10**$_ }
		1 .. POSIX::floor(log($far) / log(10) + 1e-6));
	return $text . 'set title ' . gnuplot_text($w->{title}) . "\nset logscale xy\nset xrange [1:$far]\n"
		. sprintf("set yrange [%g:%g]\n", $low / 1.5, $high * 1.5)
		. 'set xtics (' . join(', ', @tics) . ")\nset ytics (" . decades('ns', $low, $high, 12) . ")\n"
		. "set key outside right center Left reverse samplen 2 spacing 1.2\n"
		. "set grid xtics ytics lt 1 lw 0.5 lc rgb '#cccccc'\nset xlabel 'percentile'\nplot " . join(', ', @plot) . "\n";
}

sub draw {
	my ($file, $title, $most, $wide, $high, @panels) = @_;
	my $columns = @panels < $most ? @panels : $most;
	my $rows    = POSIX::ceil(@panels / $columns);
	my ($w, $h) = ($wide * $columns, $high * $rows + 40);
	my $body    = "set multiplot layout $rows,$columns title " . gnuplot_text($title) . " font ',14'\n"
		. "set border 3 lc rgb '#999999'\nset tmargin 2.5\nset tics nomirror textcolor rgb '#333333'\nunset key\n"
		. join('', @panels) . "unset multiplot\nunset output\n";
	open my $gnuplot, '|-', 'gnuplot' or return;
	print $gnuplot "set encoding utf8\n",
		"set terminal svg size $w,$h font 'sans-serif,12' background rgb 'white' noenhanced\nset output '$file.svg'\n$body",
		"reset\nset terminal pngcairo size ", 2 * $w, ',', 2 * $h,
		" font 'sans-serif,12' fontscale 2 linewidth 2 background rgb 'white' noenhanced\nset output '$file.png'\n$body";
	return close $gnuplot;
}

sub has_gnuplot { return grep { -x "$_/gnuplot" } split /:/, $ENV{PATH} }

# Draws into a directory; returns the names of the plots.
sub plots {
	my ($dir, @workloads) = @_;
	my @drawn;
	my $n = 0;
	for my $g (grep { $_->{stat} eq 'rate' || $_->{stat} eq 'p50' } groups(@workloads)) {
		my ($most) = (bounds(map { scalar keys %{ $_->{of} } } @{ $g->{workloads} }))[1];
		my @panels = map { bars_panel($n++, $_) } @{ $g->{workloads} };
		push @drawn, $g->{name} if draw("$dir/$g->{name}", "$g->{name}, "
			. ($g->{stat} eq 'rate' ? 'messages a second (longer is better)'
				: 'median (shorter is better; an axis with ticks is logarithmic)'),
			3, 380, 70 + 24 * $most, @panels);
	}
	my (%of, @order);
	for my $name (@curves) {
		my ($w, $who) = $name =~ /^(.+?)(?:\.(limit|peer\.[^.]+))?$/;
		push @order, $w unless $of{$w};
		$of{$w}{ $who // 'shmq' } = $name;
	}
	my %peers  = map { map { $_ => 1 } grep { /^peer/ } keys %$_ } values %of;
	my @peers  = sort keys %peers;
	my %colour = map { $peers[$_] => $PEER_COLOURS[$_ % @PEER_COLOURS] } 0 .. $#peers;
	for my $g (groups(map { { name => $_, stat => 'curve', of => $of{$_} } } @order)) {
		my @panels = grep { defined } map { curve_panel($n++, $_, \%colour) } @{ $g->{workloads} };
		push @drawn, "$g->{name}.curve" if @panels
			&& draw("$dir/$g->{name}.curve", "$g->{name}, percentiles", 2, 580, 380, @panels);
	}
	return @drawn;
}

1;
