#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# Runs the steps of README.md here, one after the other in one shell, and holds what
# they print against what it says.  Those of ../README.md print nothing that it says,
# and succeed.
use strict;
use warnings;
use File::Basename;
use File::Temp 'tempdir';
use IPC::Open2;

my $limit_s = 60;
my $here = dirname($0);
my $dir = tempdir(CLEANUP => 1);
my $build = $ENV{SHMQ_BUILD} || "$here/../build";
chomp($build = `realpath $build`);
mkdir "$dir/run", 0700;
@ENV{qw(SHMQ_RUNTIME_DIR SHMQ_DATA_DIR XDG_CONFIG_HOME SHMQ_DAEMON PATH)} =
	("$dir/run", "$dir/data", "$dir/config", "$build/shmqd", "$build:$ENV{PATH}");
$ENV{SHMQ_BUS} = 'walk';

# Steps: heading, commands, what they print (undef: nothing is said of it).
my (@steps, $heading, $kind, $text);
@ARGV = ("$here/README.md", "$here/../README.md");
while (<>) {
	if (/^```(\w*)$/) {
		if (!defined $kind) { ($kind, $text) = ($1, ''); next }
		$text = "trap 'echo \"--- failed: \$BASH_COMMAND\"' ERR\n$text" if $ARGV ne "$here/README.md";
		push @steps, { heading => $heading, commands => $text } if $kind eq 'sh';
		$steps[-1]{wanted} = $text if $kind eq 'text';
		undef $kind;
	} elsif (defined $kind) {
		$text .= $_;
	} elsif (/^## (.*)/) {
		$heading = $1;
	}
}

# A line of three dots' character alone is any lines, or none; within a line it is any text.
sub pattern {
	my ($wanted) = @_;
	my $re = join '', map { $_ eq "\xe2\x80\xa6\n" ? '(?:.*\n)*' : $_ eq "\xe2\x80\xa6" ? '[^\n]*' : quotemeta }
		split /(^\xe2\x80\xa6\n|\xe2\x80\xa6)/m, $wanted;
	$re =~ s/(?:\\ )+/ */g; # columns are as wide as what is in them
	return qr/^$re$/;
}

$SIG{PIPE} = 'IGNORE';
my $pid = open2(my $out, my $to, "cd $dir && exec bash 2>&1");
$to->autoflush(1);
print '1..', scalar(@steps), "\n";
my $failed = 0;
for my $i (0 .. $#steps) {
	my $step = $steps[$i];
	my $got = '';
	my $ended = eval {
		local $SIG{ALRM} = sub { die "slow\n" };
		alarm $limit_s;
		print $to "{\n$step->{commands}}\necho '--- end of step'\n";
		while (<$out>) {
			last if $_ eq "--- end of step\n";
			$got .= $_ unless /^\[\d+\]|Killed|Terminated/;
		}
		alarm 0;
		1;
	};
	my $fits = $ended && $got !~ /^--- failed/m && (!defined $step->{wanted} || $got =~ pattern($step->{wanted}));
	print $fits ? '' : 'not ', 'ok ', $i + 1, " - $step->{heading}\n";
	next if $fits;
	$failed = 1;
	print STDERR "# ", $ended ? 'printed' : "not done after $limit_s s, printed", ":\n";
	print STDERR "#   $_\n" for split /\n/, $got;
	last unless $ended;
}
system('timeout', '20', 'shmq', 'stop', '--force') if -e "$dir/run/walk.sock";
kill 'KILL', $pid if $failed;
exit $failed;
