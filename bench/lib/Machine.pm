# SPDX-License-Identifier: MIT
#
# Machine: what this machine is, and what cannot be measured on it.
package Machine;
use strict;
use warnings;

use Exporter 'import';
use JSON::PP;
use POSIX ();
use Time::HiRes qw(time);

use Measured;

our @EXPORT = qw(machine machine_time load judge_machine);

# The machine is read below this directory, so that tests can make one up.
my $root = $ENV{SHMQ_BENCH_ROOT} // '';

# A file's text without the last newline, or undef.
sub slurp {
	my ($path) = @_;
	open my $in, '<', $root . $path or return undef;
	local $/;
	my $text = <$in>;
	return undef unless defined $text;
	$text =~ s/\s+\z//;
	return $text;
}

sub flag { my ($set) = @_; return $set ? JSON::PP::true : JSON::PP::false }

sub list_of { my ($text) = @_; return map { /^(\d+)-(\d+)$/ ? $1 .. $2 : $_ } split /,/, $text // '' }

sub chosen { my ($text) = @_; return ($text // '') =~ /\[(\w+)\]/ ? $1 : undef }

sub cpu_quota {    # in processors, or undef
	for (split /\n/, slurp('/proc/self/cgroup') // '') {
		my (undef, $which, $path) = split /:/, $_, 3;
		my ($quota, $period);
		if ($which eq '') {
			($quota, $period) = split ' ', slurp("/sys/fs/cgroup$path/cpu.max") // 'max';
		} elsif (grep { $_ eq 'cpu' } split /,/, $which) {
			($quota, $period) = map { slurp("/sys/fs/cgroup/cpu$path/cpu.cfs_${_}_us") } qw(quota period);
		}
		return $quota / $period if ($quota // '') =~ /^[1-9]\d*$/ && $period;
	}
	return undef;
}

sub hypervisor {
	my ($flags) = @_;
	my $by = slurp('/sys/hypervisor/type')
		// join(' ', grep { defined } map { slurp("/sys/class/dmi/id/$_") } qw(sys_vendor product_name));
	return unless $flags->{hypervisor} || $by =~ /xen|qemu|kvm|vmware|virtual/i;
	# Only the processor itself may know; lscpu asks it.
	my ($vendor) = $root eq '' && `LC_ALL=C lscpu 2>/dev/null` =~ /^Hypervisor vendor:\s*(.*)/m;
	return join(', ', grep { defined && length } $vendor, $by) || 'unknown hypervisor';
}

sub machine {
	my $cpuinfo = slurp('/proc/cpuinfo') // '';
	my ($flags) = $cpuinfo =~ /^flags\s*:\s*(.*)/m;
	my %flags   = map { $_ => 1 } split ' ', $flags // '';
	my ($model) = $cpuinfo =~ /^model name\s*:\s*(.*)/m;
	my ($mhz)   = $cpuinfo =~ /^cpu MHz\s*:\s*(.*)/m;
	my ($allowed) = (slurp('/proc/self/status') // '') =~ /^Cpus_allowed_list:\s*(\S+)/m;
	my @cpus      = list_of($allowed);
	my $cpu       = '/sys/devices/system/cpu';
	my $freq      = "$cpu/cpu" . ($cpus[0] // 0) . '/cpufreq';
	my $max       = slurp("$freq/cpuinfo_max_freq");
	my $clocksource = slurp('/sys/devices/system/clocksource/clocksource0/current_clocksource') // '';
	my ($total)   = (slurp('/proc/meminfo') // '') =~ /^MemTotal:\s*(\d+)/m;
	my %huge;
	for my $dir (glob "$root/sys/kernel/mm/hugepages/hugepages-*") {
		my ($kib) = $dir =~ /-(\d+)kB$/ or next;
		$huge{ human($kib * 1024, 'B') } =
			{ map { $_ => (slurp(substr("$dir/${_}_hugepages", length $root)) // 0) + 0 } qw(nr free) };
	}
	# The programs pin to the first of the processors they may use.
	my @pair = @cpus > 1 ? list_of(slurp("$cpu/cpu$cpus[0]/topology/thread_siblings_list")) : ();
	my $boost   = slurp("$cpu/cpufreq/boost");
	my $no_turbo = slurp("$cpu/intel_pstate/no_turbo");
	$boost = 1 - $no_turbo if !defined $boost && defined $no_turbo;

	return {
		cpu_model     => $model,
		cpus_usable   => scalar @cpus,
		cpus_list     => $allowed,
		cpu_quota     => cpu_quota(),
		mhz_now       => defined $mhz ? $mhz + 0 : undef,
		mhz_max       => defined $max ? $max / 1000 : undef,
		boost         => defined $boost ? flag($boost) : undef,
		governor      => slurp("$freq/scaling_governor"),
		hypervisor    => scalar hypervisor(\%flags),
		invariant_tsc => flag($flags{constant_tsc} && $flags{nonstop_tsc}),
		clocksource   => $clocksource,
		smt           => flag((slurp("$cpu/smt/active") // '') eq '1'),
		pinned_to_one_core => flag(scalar grep { $_ == ($cpus[1] // -1) } @pair),
		numa_nodes    => scalar(list_of(slurp('/sys/devices/system/node/online') // '0')),
		isolated_cpus => slurp("$cpu/isolated") // '',
		nohz_full     => slurp("$cpu/nohz_full") // '',
		memory_bytes  => ($total // 0) * 1024,
		page_bytes    => POSIX::sysconf(POSIX::_SC_PAGESIZE()),
		hugepages     => \%huge,
		thp           => chosen(slurp('/sys/kernel/mm/transparent_hugepage/enabled')),
		thp_shmem     => chosen(slurp('/sys/kernel/mm/transparent_hugepage/shmem_enabled')),
		kernel        => slurp('/proc/sys/kernel/osrelease'),
		perf_counters => flag(scalar grep { -e "$root/sys/bus/event_source/devices/$_" } qw(cpu cpu_core)),
		perf_event_paranoid => slurp('/proc/sys/kernel/perf_event_paranoid'),
		load_start    => load(),
		busy_percent_start => busy_percent(),
	};
}

sub load { my ($one) = split ' ', slurp('/proc/loadavg') // 0; return $one + 0 }

# Of the processors, right now.  The load alone also counts what has just
# ended, as the build of the programs does.
sub busy_percent {
	my ($used, undef, $cpus) = machine_time();
	my $began = time;
	select undef, undef, undef, $root eq "" ? 0.3 : 0.01;
	my ($used_now) = machine_time();
	return sprintf('%.1f', 100 * ($used_now - $used) / ((time - $began) * $cpus)) + 0;
}

# Processor time of the whole machine: used, stolen, in seconds; and how many
# processors there are.
sub machine_time {
	my $stat = slurp('/proc/stat') // return (0, 0, 1);
	my ($user, $nice, $system, undef, undef, $irq, $softirq, $steal) =
		$stat =~ /^cpu\s+(.*)/ ? split(' ', $1) : (0) x 8;
	my $cpus = () = $stat =~ /^cpu\d/mg;
	my $hz   = POSIX::sysconf(POSIX::_SC_CLK_TCK());
	return (($user + $nice + $system + $irq + $softirq) / $hz, ($steal // 0) / $hz, $cpus || 1);
}

# What makes every figure doubtful here.
sub judge_machine {
	my ($m) = @_;
	my $cpus = $m->{cpus_usable};
	distrust('*', sprintf 'the load was %.2f before the first program, on %d usable processors',
		$m->{load_start}, $cpus)
		if $m->{load_start} > 0.5 * $cpus && $m->{busy_percent_start} > 10;
	distrust('*', 'there is one usable processor: two processes take turns on it') if $cpus < 2;
	distrust('*', sprintf 'a control group allows %.3g processors of %d', $m->{cpu_quota}, $cpus)
		if defined $m->{cpu_quota} && $m->{cpu_quota} < $cpus;
	distrust('*', "the frequency governor is $m->{governor}, not performance")
		if defined $m->{governor} && $m->{governor} ne 'performance';
	distrust('*', 'the time-stamp counter is not invariant') unless $m->{invariant_tsc};
	distrust('*', "the clock source is $m->{clocksource}: reading it costs more than a message")
		unless $m->{clocksource} =~ /^(tsc|kvm-clock|hyperv_clocksource_tsc_page)$|^$/;
	distrust('*', 'the first two usable processors are threads of one core') if $m->{pinned_to_one_core};
	return;
}

1;
