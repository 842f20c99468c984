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

# Ticks at 1, 10, 100 … of the base unit between two values; where these are
# more than $most, at every other, and where they are too few to read from, at 2
# and 5 between them.
sub decades {
	my ($unit, $low, $high, $most) = @_;
	my ($from, $to) = map { POSIX::floor(log($_) / log(10) + 1e-9) } $low, $high;
	my $step = $to - $from < $most ? 1 : 2;
	my @at   = map { 10**($from + $step * $_) } 0 .. ($to + 1 - $from) / $step;
	@at = map { ($_, 2 * $_, 5 * $_) } @at if (grep { $_ >= $low && $_ <= $high } @at) < 2;
	return join ', ', map { gnuplot_text(human($_, base_unit($unit)) =~ s/\.0+(?= )//r) . " $_" } @at;
}

my $TICS = "nomirror textcolor rgb '#333333'";

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
		. 'set ytics (' . join(', ', @tics) . ") scale 0 $TICS\n"
		. ($log ? 'set xtics (' . decades($first->{unit}, $left, $high, 3) . ") $TICS\nset xlabel 'logarithmic'\n"
			: "unset xtics\nunset xlabel\n")
		. "plot \$p$n using 3:1:2:3:(\$1-0.36):(\$1+0.36):6 with boxxyerror lc rgb variable fs solid noborder, "
		. "\$p$n using 3:1:4:5 with xerrorbars pt -1 lc rgb '#333333', "
		. "\$p$n using 5:1:7 with labels left offset 0.7,0\n";
}

# Points of a curve: how many are left beyond a percentile, and ns.  Where no
# sample is beyond, the largest is repeated: that is left out.
sub points {
	my ($name) = @_;
	my @points = map { [1 / (1 - $_->[0] / 100), $_->[1]] } grep { $_->[0] < 100 && $_->[1] > 0 } @{ $curve{$name} };
	pop @points while @points > 1 && $points[-1][1] == $points[-2][1];
	return @points;
}

# Percentile curves, by what they are called; the axis has as much room for the
# last thousandth as for what is below it.  All panels of a plot reach as far.
sub curve_panel {
	my ($n, $title, $of, $style, $all) = @_;
	my %points = map { $_ => [points($of->{$_})] } keys %$of;
	my (undef, $far) = bounds(2, map { $_->[0] } @$all);
	my ($low, $high) = bounds(map { $_->[1] } @$all);
	my ($text, @plot) = '';

	# The key names the curves from top to bottom.
	for my $who (sort { $points{$b}[-1][1] <=> $points{$a}[-1][1] || $a cmp $b } grep { @{ $points{$_} } } keys %points) {
		my $data = "\$p${n}_" . @plot;
		$text .= "$data << END\n" . join('', map { "@$_\n" } @{ $points{$who} }) . "END\n";
		push @plot, "$data using 1:2 with lines $style->{$who} title " . gnuplot_text($who =~ s/^peer\.//r);
	}
	return unless @plot;
	my @tics = ('"50" 2', map { sprintf '"%.*f" %d', $_ > 2 ? $_ - 2 : 0, 100 - 100 / 10**$_, 10**$_ }
		1 .. POSIX::floor(log($far) / log(10) + 1e-6));
	return $text . ($title ne '' ? 'set title ' . gnuplot_text($title) : 'unset title') . "\n"
		. sprintf("set logscale xy\nset xrange [1:%g]\nset yrange [%g:%g]\n", $far, $low / 1.5, $high * 1.5)
		. 'set xtics (' . join(', ', @tics) . ") $TICS\nset ytics (" . decades('ns', $low, $high, 12) . ") $TICS\n"
		. (@plot > 1 ? "set key outside right center Left reverse noinvert samplen 2 spacing 1.2\n" : "unset key\n")
		. "set grid xtics ytics lt 1 lw 0.5 lc rgb '#cccccc'\nset xlabel 'percentile'\nplot " . join(', ', @plot) . "\n";
}

sub colours {
	my ($width, @who) = @_;
	return map { $who[$_] => "$width lc rgb '$PEER_COLOURS[$_ % @PEER_COLOURS]'" } 0 .. $#who;
}

# The title is what is measured, the line below it how to read that.
sub draw {
	my ($file, $title, $note, $most, $wide, $high, @panels) = @_;
	my $columns = @panels < $most ? @panels : $most;
	my $rows    = POSIX::ceil(@panels / $columns);
	my ($w, $h) = ($wide * $columns, $high * $rows + 60);
	my (undef, $letters) = bounds(map { length } $title, $note);
	$w = 11 * $letters if $w < 11 * $letters;
	my $body = "set multiplot layout $rows,$columns title \"$title\\n$note\" font ',13'\n"
		. "set border 3 lc rgb '#999999'\nset tmargin 3\nset lmargin 11\nunset key\n"
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
		my ($name, $what) = $g->{stat} eq 'rate' ? ('messages a second', 'longer is better') : ('time', 'shorter is better');
		push @drawn, $g->{name} if draw("$dir/$g->{name}", "$g->{name}: $name",
			"median of the rounds, their minimum and maximum; $what", 3, 380, 84 + 24 * $most, @panels);
	}
	my (%of, @order);
	for my $name (@curves) {
		my ($w, $who) = $name =~ /^(.+?)(?:\.(limit|peer\.[^.]+))?$/;
		push @order, $w unless $of{$w};
		$of{$w}{ $who // 'shmq' } = $name;
	}
	my %peers = map { map { $_ => 1 } grep { /^peer/ } keys %$_ } values %of;
	my %style = (shmq => "lw 3 lc rgb '$SHMQ_COLOUR'", limit => "lw 2 dt 2 lc rgb '$LIMIT_COLOUR'",
		colours("lw 1.5", sort keys %peers));
	for my $g (groups(map { { name => $_, stat => 'curve', of => $of{$_} } } @order)) {
		my @w   = @{ $g->{workloads} };
		my @all = map { points($_) } map { values %{ $_->{of} } } @w or next;
		# Of shmq alone, all curves are compared with each other.
		my $alone = !grep { join(' ', keys %{ $_->{of} }) ne 'shmq' } @w;
		my %own   = $alone ? map { $_->{title} => $_->{of}{shmq} } @w : ();
		my @panels = $alone ? curve_panel($n++, '', \%own, { colours('lw 2', map { $_->{title} } @w) }, \@all)
			: map { curve_panel($n++, $_->{title}, $_->{of}, \%style, \@all) } @w;
		push @drawn, "$g->{name}.curve" if @panels && draw("$dir/$g->{name}.curve", "$g->{name}: time, by percentile",
			'lower is better; both axes are logarithmic', 2, 580, 360, @panels);
	}
	return @drawn;
}

1;
