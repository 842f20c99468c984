#!/usr/bin/perl
# bench/run draws the right conclusions from what the programs print, on a
# machine that is made up, and says with its exit status how they ended.
use strict;
use warnings;

use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use JSON::PP;
use POSIX qw(WNOHANG);

my $dir  = tempdir(CLEANUP => 1);
my $n    = 0;
my $bad  = 0;
my $root = "$dir/root";
my ($code, $said, $json, $text) = (0, '', {}, '');

# What matches nothing is false here, not left out.
sub check($$@) {
	my ($name, $ok, @got) = @_;
	$n++;
	$bad++ if !$ok;
	print $ok ? '' : 'not ', "ok $n - $name\n";
	print STDERR "$name: got ", join(', ', map { $_ // 'nothing' } @got), "\n" if !$ok;
	return;
}

sub is { my ($name, $got, $want) = @_; check($name, ($got // 'nothing') eq $want, $got); return }

sub spew {
	my ($path, $content) = @_;
	make_path($path =~ s{/[^/]*$}{}r);
	open my $out, '>', $path or die "$path: $!\n";
	print $out $content;
	close $out or die "$path: $!\n";
	return;
}

sub slurp {
	my ($path) = @_;
	open my $in, '<', $path or return '';
	local $/;
	return scalar <$in>;
}

sub cpuinfo { my ($flags) = @_; return "model name\t: Abacus\ncpu MHz\t\t: 3000.0\nflags\t\t: constant_tsc $flags\n" }

# A machine with nothing wrong but what is given.
sub machine {
	my (%wrong) = @_;
	my $cpu  = 'sys/devices/system/cpu';
	my %file = (
		'proc/cpuinfo'      => cpuinfo('nonstop_tsc'),
		'proc/self/status'  => "Cpus_allowed_list:\t0-1\n",
		'proc/loadavg'      => "0.10 0.10 0.10 1/100 1\n",
		'proc/stat'         => "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0\ncpu1 0\n",
		"$cpu/cpu0/cpufreq/scaling_governor" => "performance\n",
		"$cpu/cpu0/cpufreq/cpuinfo_max_freq" => "3400000\n",
		"$cpu/cpu0/topology/thread_siblings_list" => "0\n",
		'sys/devices/system/clocksource/clocksource0/current_clocksource' => "tsc\n",
		'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'   => "8\n",
		'sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages' => "5\n",
		'sys/kernel/mm/transparent_hugepage/shmem_enabled' => "always [never] force\n",
		%wrong,
	);
	remove_tree($root);
	spew("$root/$_", $file{$_}) for keys %file;
	return;
}

# Programs by name; their text is what they print, or with "#!" what they are.
sub programs {
	my (%program) = @_;
	remove_tree("$dir/bench");
	for my $name (keys %program) {
		my $script = $program{$name};
		$script = "#!/bin/sh\ncat <<'END'\n${script}END\n" unless $script =~ /^#!/;
		spew("$dir/bench/$name", $script);
		chmod 0755, "$dir/bench/$name";
	}
	return;
}

sub run {
	my @options = grep { !ref } @_;    # a reference: into the directory as it is
	remove_tree("$dir/out") unless @options < @_;
	local $ENV{SHMQ_BENCH_ROOT} = $root;
	$code = system("bench/run --programs '$dir/bench' --targets '$dir/targets' --out '$dir/out' @options "
		. ">'$dir/stdout' 2>'$dir/stderr'") >> 8;
	$said = slurp("$dir/stderr");
	$text = slurp("$dir/out/report.md");
	$json = eval { decode_json(slurp("$dir/out/report.json")) } // {};
	return;
}

sub of { my ($list, $key, $name) = @_; return (grep { $_->{$key} eq $name } @{ $json->{$list} // [] })[0] // {} }
sub ratio   { my ($name) = @_; return of('ratios', 'name', $name) }
sub versus  { my ($other) = @_; return of('comparisons', 'other', $other) }
sub doubted { my ($about, $reason) = @_; return scalar grep { $_->{figures} eq $about && $_->{reason} =~ /$reason/ } @{ $json->{distrust} // [] } }

spew("$dir/targets", <<'END');
# comment
rtt.spin.64.vs_limit  <= 1.15  against two lines
stream.1p1c.64.vs_limit >= 0.72 against a bare ring
stream.1p2c.64.vs_1p1c >= 0.65 two readers
idle.cpu_percent      <= 0.1   asleep, {rtt.spin.64.p99} apart, {no.figure}
never.measured        <= 1     nothing
log.write.vs_disk     >= 0.9   a log
END
my %good = (
	rtt => <<'END',
figure rtt.spin.64.p50 220 ns
figure rtt.spin.64.p50.min 210 ns
figure rtt.spin.64.p50.max 260 ns
figure rtt.spin.64.limit.p50 200 ns
figure rtt.spin.64.peer.slow.p50 2.2 us
figure rtt.spin.64.peer.fast.p50 110 ns
figure rtt.spin.64.peer.near.p50 215 ns
rounds rtt.spin.64.p50 210 210 220 220 230 230 260
rounds rtt.spin.64.peer.near.p50 215 215 215 - 225 225 225
rounds rtt.spin.64.peer.slow.p50 2.1 2.1 2.2 2.2 2.3 2.3 2.6
rounds rtt.spin.64.peer.fast.p50 100 100 110 110 120 120 140
rounds rtt.spin.64.limit.p50 200 200 200 200 200 200 200
figure rtt.spin.64.p99 300 ns
figure rtt.spin.64.limit.p99 290 ns
figure rtt.spin.64.peer.lucky.p99 280 ns
figure rtt.spin.64.peer.near.p99 310 ns
figure rtt.spin.64.peer.slow.p99 3 us
rounds rtt.spin.64.p99 300 300 300 300 300 300 300
rounds rtt.spin.64.limit.p99 290 290 290 290 290 290 290
rounds rtt.spin.64.peer.lucky.p99 270 270 270 270 270 270 270
rounds rtt.spin.64.peer.near.p99 280 280 280 310 310 310 310
rounds rtt.spin.64.peer.slow.p99 3 3 3 3 3 3 3
figure rtt.spin.64.p999 800 ns
figure rtt.spin.64.limit.p999 900 ns
figure rtt.spin.64.peer.slow.p999 9 us
rounds rtt.spin.64.p999 800 800 800 800 800 800 800
rounds rtt.spin.64.limit.p999 900 900 900 900 900 900 900
rounds rtt.spin.64.peer.slow.p999 9 9 9 9 9 9 9
figure rtt.spin.64.vs_limit 1.1 ratio
curve rtt.spin.64 50 220
curve rtt.spin.64 99.9 900
absent gone not built
peer slow 1.2.3
END
	stream => <<'END',
a line that is no figure
figure stream.1p1c.64.rate 60 M/s
figure stream.1p1c.64.limit 100 M/s
figure stream.1p1c.64.peer.slow 600 k/s
figure stream.1p2c.64.vs_1p1c 0.7 ratio
label stream.1p2c.64.vs_1p1c three on two
label stream.1p1c.64.peer.small carries too little
distrust stream.1p1c.64 the ring is in the way
END
	idle => "figure idle.cpu_percent 0.05 %\n",
);

# ---- everything runs -------------------------------------------------------
machine();
programs(%good);
run();
is('all_programs_ran_is_success', $code, 0);
is('schema_has_a_number', $json->{schema}, 2);
my $f = $json->{figures}{'rtt.spin.64.p50'} // {};
is('a_figure_has_median_min_max_unit', join(' ', map { $_ // '-' } @$f{qw(median min max unit program)}), '220 210 260 ns rtt');
check('bounds_are_no_figures', !exists $json->{figures}{'rtt.spin.64.p50.min'});
is('a_ratio_at_most_its_target_is_met', ratio('rtt.spin.64.vs_limit')->{verdict}, 'met');
is('a_ratio_nobody_printed_is_made_of_medians', ratio('stream.1p1c.64.vs_limit')->{median}, 0.6);
is('a_ratio_below_its_target_is_missed', ratio('stream.1p1c.64.vs_limit')->{verdict}, 'missed');
is('a_figure_that_is_no_ratio_has_a_verdict', ratio('idle.cpu_percent')->{verdict}, 'met');
is('what_is_promised_of_logs_is_not_missed_without_them', ratio('log.write.vs_disk')->{verdict}, 'nothing');
is('what_nobody_measured_is_said_to_be', ratio('never.measured')->{verdict}, 'not measured');
is('a_slower_peer_is_behind', versus('rtt.spin.64.peer.slow.p50')->{verdict}, 'ahead');
is('units_are_converted', versus('rtt.spin.64.peer.slow.p50')->{advantage}, 10);
is('a_faster_peer_is_ahead', versus('rtt.spin.64.peer.fast.p50')->{verdict}, 'behind');
is('now_ahead_and_now_behind_is_level', versus('rtt.spin.64.peer.near.p50')->{verdict}, 'level');
check('the_text_names_the_peer_that_is_level', $text =~ /not tell which.*`rtt\.spin\.64\.p50`: near has 215 ns, shmq 220 ns/s);
is('more_is_better_per_second', versus('stream.1p1c.64.peer.slow')->{advantage}, 100);
is('the_absent_peer_is_named', join(' ', @{ $json->{absent} // [] }), 'gone');
is('a_label_is_kept', $json->{labels}[0]{text}, 'three on two');
check('a_label_stands_beside_the_target', $text =~ /stream\.1p2c\.64\.vs_1p1c.*three on two/);
check('a_distrust_is_kept', doubted('stream.1p1c.64', 'in the way'));
check('a_distrusted_ratio_is_not_trusted', !ratio('stream.1p1c.64.vs_limit')->{trusted});
check('another_ratio_is_trusted', ratio('rtt.spin.64.vs_limit')->{trusted});
check('the_reason_stands_beside_the_target', $text =~ /stream\.1p1c\.64\.vs_limit.*the ring is in the way/);
check('who_is_better_than_the_limit_is_not_trusted', doubted('rtt.spin.64.peer.lucky.p99', '^lucky is 1.07 times as good'));
check('nor_is_shmq_in_a_tail', doubted('rtt.spin.64.p999', '^shmq is 1.12 times as good'));
check('whose_median_is_trusted_all_the_same', ratio('rtt.spin.64.vs_limit')->{trusted});
check('a_tail_level_with_the_limit_is_the_machine', doubted('rtt.spin.64 p99', 'not ahead of lucky, near: comparing'));
check('who_is_level_with_it_is_not_compared', !versus('rtt.spin.64.peer.near.p99')->{trusted} && !versus('rtt.spin.64.peer.lucky.p99')->{trusted});
check('a_tail_behind_the_limit_is_trusted', versus('rtt.spin.64.peer.slow.p99')->{trusted});
check('unless_that_of_shmq_is_level_with_it', doubted('rtt.spin.64 p999', 'not ahead of shmq: ') && !versus('rtt.spin.64.peer.slow.p999')->{trusted});
is('few_rounds_tell_nothing', versus('stream.1p1c.64.peer.slow')->{verdict}, 'too few rounds');
is('how_many_were_better_is_told', join(' of ', @{ versus('rtt.spin.64.peer.near.p50') }{qw(rounds_ahead rounds)}), '2 of 6');
check('nothing_else_is_doubted', @{ $json->{distrust} // [] } == 6, map { "$_->{figures}: $_->{reason}" } @{ $json->{distrust} // [] });
check('the_text_names_the_peer_ahead', $text =~ /`rtt\.spin\.64\.p50`: fast has 110 ns, shmq 220 ns/);
check('the_text_names_the_absent_peer', $text =~ /absent: gone \(not built\)/);
check('what_a_peer_cannot_do_is_said_below_its_table', $text =~ /^- small: carries too little\.$/m);
check('peers_stand_side_by_side', $text =~ /\| slow +\| +2\.20 us, 10\.0x \|/);
is('the_curve_is_kept', $json->{curves}{'rtt.spin.64'}[1][1], 900);
is('the_machine_is_described', join(' ', map { $_ // '-' } @{ $json->{machine} // {} }{qw(cpu_model mhz_max governor thp_shmem cpus_usable)}),
	'Abacus 3400 performance never 2');
is('free_hugepages_are_counted', $json->{machine}{hugepages}{'2.00 MiB'}{free}, 5);
if (grep { -x "$_/gnuplot" } split /:/, $ENV{PATH}) {
	check('bars_and_curves_are_drawn', !grep { !-s "$dir/out/$_" } map { ("$_.svg", "$_.png") } 'rtt.spin', 'rtt.spin.curve', 'stream.1p1c');
	check('gnuplot_has_nothing_to_say', $said !~ /line \d+:|warning/i, $said);
} else {
	print 'ok ', ++$n, " - $_ # SKIP no gnuplot\n" for 'bars_and_curves_are_drawn', 'gnuplot_has_nothing_to_say';
}

check('a_figure_is_put_into_a_note', $text =~ /asleep, 300 ns apart, what was not measured \|/);

# ---- ratios ---------------------------------------------------------------------------
programs(rtt => <<'END', stream => <<'END');
figure rtt.spin.64.p50 225 ns
figure rtt.spin.64.limit.p50 150 ns
rounds rtt.spin.64.p50 200 250 200 250
rounds rtt.spin.64.limit.p50 100 200 200 100
END
figure stream.1p1c.64.rate 225 M/s
figure stream.1p1c.64.limit 150 M/s
rounds stream.1p1c.64.rate 200 250 200 250
rounds stream.1p1c.64.limit 100 200 200 100
END
run();
# Of 2, 1.25, 1 and 2.5; not 1.5, of the medians, nor 1.54, the inverse of the other way round.
for ([versus('rtt.spin.64.limit.p50'), 1 / 1.625], [versus('stream.1p1c.64.limit'), 1.625]) {
	my ($c, $advantage) = @$_;
	check("the_ratio_of_even_rounds_is_the_median_of_theirs_$c->{figure}" =~ s/\W/_/gr,
		$c->{ratio} == 1.625 && abs($c->{advantage} - $advantage) < 1e-9, $c->{ratio}, $c->{advantage});
}
check('it_is_the_same_in_each_table', ratio('rtt.spin.64.vs_limit')->{median} == 1.625
	&& $text =~ /^\| rtt\.spin\.64\.vs_limit +\| +1\.625 \|.*^\| shmq \/ limit +\| +1\.6[23] \|/ms,
	ratio('rtt.spin.64.vs_limit')->{median});

# ---- what was measured --------------------------------------------------------------
spew("$dir/shmqd", "#!/bin/sh\necho shmqd 9.8.7\n");
chmod 0755, "$dir/shmqd";
programs(idle => $good{idle}, rtt => $good{rtt});
spew("$dir/bench/built.txt", "version 1.2\ncommit abc with changes\ncompiler cc 12\nflags -O2 -g\n");
$ENV{SHMQ_DAEMON} = "$dir/shmqd";
run();
delete $ENV{SHMQ_DAEMON};
is('the_report_says_what_was_built', join('|', map { $_ // '-' } @{ $json->{build} // {} }{qw(version commit compiler flags supervisor)}),
	'1.2|abc with changes|cc 12|-O2 -g|shmqd 9.8.7');
is('it_says_which_peers', join(' ', %{ $json->{peers} // {} }), 'slow 1.2.3');
check('so_does_the_text', $text =~ /1\.2, commit abc with changes; supervisor shmqd 9\.8\.7/ && $text =~ /\| cc 12 +\|\n.*-O2 -g.*\n.*slow 1\.2\.3/);
programs(%good);

# ---- options ------------------------------------------------------------------
run('--strict');
is('strict_fails_for_a_missed_target', $code, 3);
check('strict_left_nothing_out_of_a_full_run', $said !~ /left out/, $said);
run('--strict', '--only', 'idle');
is('strict_minds_only_the_chosen', $code, 0);
check('it_says_what_it_left_out', $said =~ /left out: rtt\.spin\.64\.vs_limit, .*, never\.measured, every peer$/m, $said);
spew("$dir/targets3", "unblock.p99_us <= 1000 a wait\n");
run('--only', 'idle', '--targets', "$dir/targets3");
check('what_is_left_out_has_the_unit_of_its_name', $text =~ /unblock\.p99_us +\| +- \| +<= 1\.00 ms \| left out/);
run('--strict', '--only', 'idle');
is('what_is_left_out_is_said_to_be', ratio('rtt.spin.64.vs_limit')->{verdict}, 'left out');
is('only_the_chosen_ran', join(' ', map { $_->{name} } @{ $json->{programs} // [] }), 'idle');
programs(%good);
run('--json');
check('json_goes_to_standard_output', eval { decode_json(slurp("$dir/stdout")) }, slurp("$dir/stdout"));
run('--only', 'nothing');
is('no_program_is_bad_usage', $code, 2);
run('--rounds', '0');
is('no_rounds_are_bad_usage', $code, 2);
run('--wrong');
is('a_wrong_option_is_bad_usage', $code, 2);
run('operand');
is('an_operand_is_bad_usage', $code, 2);
for (["$dir/targets/out", 'a_report_below_a_file'], ["$dir/taken", 'a_report_that_is_a_directory']) {
	make_path("$dir/taken/report.json/x");
	programs(idle => "#!/bin/sh\ntouch $dir/ran\n");
	run('--out', "'$_->[0]'");
	check("$_->[1]_is_bad_usage_before_anything_runs", $code == 2 && $said =~ /^run: --out \Q$_->[0]\E: / && !-e "$dir/ran", $code, $said);
}
programs(map { $_ => "#!/bin/sh\necho $_ >>$dir/ran\necho 'bench: no such thing (see --help)' >&2\nexit 2\n" } qw(idle rtt));
run('--peers kc');
check('what_the_first_program_refuses_is_bad_usage', $code == 2 && $said =~ /^run: no such thing \(see --help\)$/m
	&& slurp("$dir/ran") eq "rtt\n" && !-e "$dir/out/report.md", $code, $said);
programs(idle => "label idle.cpu_percent not measured: no room\n");
run();
check('a_program_that_measured_nothing_has_failed', $code == 1 && $said =~ /idle failed: it measured nothing \(not measured: no room\)/, $said);
programs(idle => $good{idle}, rtt => $good{rtt}, outage => "figure outage.publish_p999.vs_undisturbed 1 ratio\n");
spew("$dir/targets2", "idle.cpu_percent <= 0.1 asleep\noutage.publish_p999.vs_undisturbed <= 1.2 killed\n");
run("--quick --strict --peers none --targets $dir/targets2", '--only', 'idle');
is('strict_can_succeed_without_what_a_quick_run_leaves_out', $code, 0);
run("--quick --strict --targets $dir/targets2 --only 'idle|rtt'");
check('strict_still_judges_the_peers_that_ran', $code == 3 && $said =~ /left out: outage\.publish_p999\.vs_undisturbed$/m, $code, $said);
programs(idle => "figure idle.else 1 %\n");
run("--strict --targets $dir/targets2 --only idle");
is('what_a_program_that_ran_did_not_print_is_missed', $code, 3);

# ---- what an earlier run has left --------------------------------------------------
SKIP: {
	my @names = qw(a_run_replaces_the_plots_of_the_one_before what_is_not_of_a_run_is_left_alone
		a_narrow_plot_has_room_for_its_title ticks_have_room_for_what_they_say what_no_sample_is_beyond_is_not_drawn
		curves_of_shmq_alone_share_a_panel);
	if (!grep { -x "$_/gnuplot" } split /:/, $ENV{PATH}) {
		print 'ok ', ++$n, " - $_ # SKIP gnuplot is not installed\n" for @names;
		last SKIP;
	}
	my $keep = 1;
	programs(rtt => $good{rtt}, idle => $good{idle});
	run();
	my @first = sort map { s{.*/}{}r } glob "$dir/out/*.svg";
	spew("$dir/out/mine.svg", 'mine');
	run('--only idle', \$keep);
	check($names[0], @first > 1 && !(grep { -e "$dir/out/$_" } @first) && !@{ $json->{plots} }, @first);
	check($names[1], slurp("$dir/out/mine.svg") eq 'mine');
	programs(rtt => <<'END', outage => <<'END');
figure rtt.spin.32.p50 148 ns
figure rtt.spin.32.limit.p50 140 ns
figure rtt.spin.32.peer.slow.p50 86 us
END
figure outage.off.p50 1 us
curve outage.off 50 1000
curve outage.off 99 2000
curve outage.on 50 4000
curve outage.on 99 5000
curve outage.on 99.9 6000
curve outage.on 99.99 6000
END
	run();
	my $bars   = slurp("$dir/out/rtt.spin.svg");
	my $curves = slurp("$dir/out/outage.curve.svg");
	my ($wide) = $bars =~ /viewBox="0 0 (\d+)/;
	my ($line) = $bars =~ />([^<]*is better)</;
	check($names[2], $wide >= 11 * length($line // '-' x 1000), $wide, $line);
	check($names[3], $bars =~ />10 ns</ && $bars =~ />1 us</ && $bars !~ />100 ns</);
	check($names[4], $curves =~ />99\.9</ && $curves !~ />99\.99</);
	check($names[5], $curves =~ />off</ && $curves =~ />on</ && (() = $curves =~ />percentile</g) == 1);
}
run('--help');
check('help_tells_the_exit_status', $code == 0 && slurp("$dir/stdout") =~ /Exit status: 0/);

# ---- logs -------------------------------------------------------------------------
programs(%good, log_write => "figure log.write.vs_disk 0.95 ratio\n");
run();
is('programs_of_logs_run_only_if_they_are_asked_for', join(' ', sort map { $_->{name} } @{ $json->{programs} // [] }), 'idle rtt stream');
run('--only ^log_');
is('what_is_promised_of_logs_is_judged', ratio('log.write.vs_disk')->{verdict}, 'met');
is('what_is_promised_of_others_is_not_missed_then', ratio('never.measured')->{verdict}, 'nothing');

programs(log_append => <<'END', unblock => <<'END', latency => <<'END');
figure log.append.1.rate 1 k/s
figure log.append.1.peer.slow 1 k/s
figure log.append.1000.rate 1 M/s
figure log.append.1000.peer.slow 1 M/s
END
figure unblock.4M.p50 1 us
figure unblock.4M.limit.p50 1 us
figure unblock.10_handles.p50 1 us
figure unblock.10_handles.limit.p50 1 us
END
figure latency.10k.p50 1 us
figure latency.10k.limit.p50 1 us
figure latency.1M.p50 1 us
figure latency.1M.limit.p50 1 us
END
run('--only .');
check('what_is_no_size_has_no_unit_of_one', $text =~ /^### log\.append, .*\n\n\| +\| +1 \| +1000 \|$/m, $text =~ /^(\| +\| +1.*)/m);
check('nor_that_of_a_rate', $text =~ /^### unblock, .*\n\n\| +\| +10_handles \| +4M \|$/m, $text =~ /^(\|.*_handles.*)/m);
check('rates_have_it', $text =~ /^### latency, .*\n\n\| +\| +10k\/s \| +1M\/s \|$/m, $text =~ /^(\| +\| +10k.*)/m);

# ---- programs that fail ---------------------------------------------------------
programs(%good, rtt => "#!/bin/sh\necho figure rtt.spin.64.vs_limit 1 ratio\necho message 7 is torn >&2\nexit 1\n");
run();
is('a_failing_program_fails_the_run', $code, 1);
check('it_is_named_with_its_last_words', $said =~ /rtt failed: .*message 7 is torn/, $said);
is('the_others_still_run', ratio('idle.cpu_percent')->{verdict}, 'met');
check('its_figures_are_not_trusted', ratio('rtt.spin.64.vs_limit')->{verdict} eq 'met' && !ratio('rtt.spin.64.vs_limit')->{trusted});
for (['a_figure_that_is_no_number_fails', "figure a.b nan ns\n"], ['a_figure_given_twice_fails', "figure a.b 1 ns\nfigure a.b 1 ns\n"]) {
	programs(idle => $_->[1]);
	run();
	is($_->[0], $code, 1);
}
programs(idle => "#!/bin/sh\nsleep 600 & kill -STOP \$\$\n");
run('--timeout 1');
check('a_program_that_does_not_end_fails', $code == 1 && $said =~ /did not end/, $said);
programs(idle => "#!/bin/sh\nsetsid sleep 3 &\necho figure idle.cpu_percent 0 %\n");
run();
check('what_a_program_leaves_behind_does_not_hold_the_run_up', $code == 0 && $json->{programs}[0]{seconds} < 3,
	$json->{programs}[0]{seconds});

my $tidy = "#!/bin/sh\ntrap 'sleep 0.1; echo tidied >$dir/tidied; exit 1' TERM\ntouch $dir/begun\nsleep 600 & wait\n";
for my $signal (qw(INT TERM)) {
	unlink "$dir/begun", "$dir/tidied";
	programs(idle => $tidy);
	my $pid = fork // die "fork: $!\n";
	if (!$pid) {
		open STDERR, '>', "$dir/stderr";
		exec 'bench/run', '--programs', "$dir/bench", '--targets', "$dir/targets", '--out', "$dir/out";
	}
	select undef, undef, undef, 0.01 until -e "$dir/begun" || waitpid $pid, WNOHANG;
	kill $signal, $pid;
	waitpid $pid, 0;
	check("on_SIG${signal}_the_program_tidies_up_before_it_ends" => -e "$dir/tidied" && $? >> 8 == 128 + ($signal eq 'INT' ? 2 : 15),
		$? >> 8, slurp("$dir/stderr"));
}
unlink "$dir/tidied";
programs(idle => $tidy);
run('--timeout 1');
check('so_it_does_after_its_time', $code == 1 && -e "$dir/tidied" && $said =~ /did not end/, $said);

programs(rtt => "figure rtt.spin.64.p50 100 ns\nfigure rtt.spin.64.limit.p50 200 ns\n");
run();
check('shmq_beyond_the_limit_is_not_trusted',
	doubted('rtt.spin.64', '2.00 times as good') && !ratio('rtt.spin.64.vs_limit')->{trusted});

# ---- machines that cannot be trusted ---------------------------------------------
programs(idle => $good{idle});
my $cpu = 'sys/devices/system/cpu/cpu0';
for ([governor => "$cpu/cpufreq/scaling_governor" => "powersave\n"],
	['time-stamp' => 'proc/cpuinfo' => cpuinfo('')],
	['clock source' => 'sys/devices/system/clocksource/clocksource0/current_clocksource' => "hpet\n"],
	['threads of one core' => "$cpu/topology/thread_siblings_list" => "0-1\n"],
	['one usable processor' => 'proc/self/status' => "Cpus_allowed_list:\t3\n"]) {
	my ($reason, $path, $content) = @$_;
	machine($path => $content);
	run();
	check("doubted_for_the_$reason" =~ s/\W/_/gr, doubted('*', $reason) && !ratio('idle.cpu_percent')->{trusted});
}
machine();
programs(idle => "#!/bin/sh\necho 'cpu 0 0 0 0 0 0 0 1000' >$root/proc/stat\necho figure idle.cpu_percent 0 %\n");
run();
check('stolen_time_is_seen', doubted('*', 'hypervisor took') && !ratio('idle.cpu_percent')->{trusted});
machine();
programs(idle => "#!/bin/sh\necho 'cpu 1000 0 0 0 0 0 0 0' >$root/proc/stat\necho figure idle.cpu_percent 0 %\n");
run();
check('what_others_use_is_seen', doubted('*', 'other processes used'));
check('the_runner_compiles_without_a_warning', `perl -wc bench/run 2>&1` eq "bench/run syntax OK\n");
print "1..$n\n";
exit($bad ? 1 : 0);
