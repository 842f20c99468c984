/* SPDX-License-Identifier: MIT */
#include "durable.h"
#include "checksum.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PREFIX "shmq-bench-log-"
#define PIECE_MAX (4 * MIB)
#define DEPTH_MAX 8u

static char dir[PATH_MAX - 320];
static pid_t parent, keeper, supervisor;
static int keeper_fd;

/* ---- the directory ------------------------------------------------------- */

static const char *disk(void)
{
	const char *path = getenv("SHMQ_BENCH_DISK");

	return path && *path ? path : "/var/tmp";
}

/* Forked before the supervisor: it holds nothing that the supervisor keeps. */
static void keep(int end_fd)
{
	char c;

	/* What ends the program by its group leaves the keeper. */
	setpgid(0, 0);
	close(0);
	close(1);
	while (read(end_fd, &c, 1) < 0 && errno == EINTR)
		;
	bench_scrub(disk(), PREFIX, parent);
	_exit(0);
}

static void dismiss_keeper(void)
{
	if (getpid() != parent)
		return;
	durable_kill();
	close(keeper_fd);
	waitpid(keeper, NULL, 0);
}

static void start_keeper(void)
{
	int end[2];

	if (pipe2(end, O_CLOEXEC))
		bench_fail("pipe: %s", strerror(errno));
	keeper = fork();
	if (keeper < 0)
		bench_fail("fork: %s", strerror(errno));
	if (!keeper) {
		close(end[1]);
		keep(end[0]);
	}
	close(end[0]);
	keeper_fd = end[1];
	atexit(dismiss_keeper);
}

void durable_init(const char *figures, uint64_t bytes)
{
	struct statvfs fs;
	uint64_t room;

	parent = getpid();
	bytes = durable_amount(bytes);
	/* What a keeper that was killed too has left. */
	bench_scrub(disk(), PREFIX, parent);
	if (statvfs(disk(), &fs))
		bench_fail("%s: %s", disk(), strerror(errno));
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	/* The supervisor warns of disks that are nearly full. */
	if (room < bytes + bytes / 4) {
		bench_label(figures, "not measured: %s has %llu MiB left, it takes %llu", disk(),
			    (unsigned long long)(room / MIB),
			    (unsigned long long)((bytes + bytes / 4) / MIB));
		exit(bench_end());
	}
	start_keeper();
	if (snprintf(dir, sizeof(dir), "%s/" PREFIX "%d", disk(), (int)parent) >=
		    (int)sizeof(dir) ||
	    mkdir(dir, 0700))
		bench_fail("making %s: %s", dir, strerror(errno));
	setenv("SHMQ_DATA_DIR", dir, 1);
}

const char *durable_dir(void)
{
	return dir;
}

uint64_t durable_amount(uint64_t bytes)
{
	return bench.smoke ? (bytes < MIB ? bytes : MIB) : bytes;
}

/* ---- the bus ------------------------------------------------------------- */

void durable_start(void)
{
	supervisor = bench_start_supervisor(bench.bus, DURABLE_OTHERS);
}

/* Nobody is left of it. */
static void await_end(void)
{
	while (!kill(-supervisor, 0)) {
		while (waitpid(-supervisor, NULL, WNOHANG) > 0)
			;
		usleep(1000);
	}
	supervisor = 0;
}

void durable_stop(void)
{
	shmq_bus *bus = bench_open_started();

	BENCH_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	await_end();
}

void durable_kill(void)
{
	if (supervisor <= 0)
		return;
	kill(-supervisor, SIGKILL);
	await_end();
}

void durable_create(shmq_bus *bus, const char *topic, size_t bytes, uint64_t ring_bytes,
		    struct shmq_topic_options *o)
{
	o->size = sizeof(*o);
	o->max_message_bytes = bytes;
	/* Beyond a slot's largest payloads are in the arena. */
	o->slot_bytes = bytes <= 2048 ? ((uint32_t)bytes + 16 + 63) / 64 * 64 : 128;
	o->depth = ring_bytes / bytes;
	BENCH_OK(shmq_topic_create(bus, topic, o, NULL));
}

shmq_pub *durable_open_pub(shmq_bus *bus, const char *topic, uint64_t ring_bytes)
{
	struct shmq_pub_options o = { .size = sizeof(o), .arena_bytes = ring_bytes };
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, topic, &o, &pub));
	return pub;
}

BENCH_ALWAYS void publish_n(shmq_pub *pub, size_t bytes, uint64_t from, uint64_t to)
{
	for (; from < to; from++) {
		void *data;

		BENCH_OK(shmq_claim(pub, bytes, &data));
		bench_fill(data, bytes, from);
		BENCH_OK(shmq_commit(pub, NULL));
	}
}

void durable_publish(shmq_pub *pub, size_t bytes, uint64_t from, uint64_t to)
{
	if (bytes == 128)
		publish_n(pub, 128, from, to);
	else if (bytes == 1024)
		publish_n(pub, 1024, from, to);
	else
		publish_n(pub, bytes, from, to);
}

void durable_publish_paced(shmq_pub *pub, size_t bytes, uint64_t from, uint64_t to,
			   double per_second, struct histogram *seen)
{
	uint64_t start = bench_tick() + (uint64_t)(1e6 / bench_tick_ns), n = to - from, i;

	for (i = 0; i < n; i++) {
		uint64_t due = bench_due(start, per_second, i);

		bench_spin_until(due);
		publish_n(pub, bytes, from + i, from + i + 1);
		if (i >= n / 10)
			histogram_add(seen, bench_tick() - due);
	}
}

double durable_windows(const struct histogram *first, unsigned n, unsigned step, double q)
{
	double value[DURABLE_WINDOWS];
	unsigned i, have = 0;

	for (i = 0; i < n && i < DURABLE_WINDOWS; i++, first += step)
		if (bench_enough(first->count, q))
			value[have++] = bench_tick_ns * (double)histogram_quantile(first, q);
	return have ? bench_median(value, have) : NAN;
}

uint64_t durable_head(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info = { 0 };

	BENCH_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info.head;
}

void durable_await(shmq_pub *pub, uint64_t seq, enum shmq_confirm level)
{
	uint64_t confirmed = 0;

	BENCH_OK(shmq_pub_wait_confirm(pub, 0, seq - 1, level, SHMQ_FOREVER));
	BENCH_OK(shmq_pub_confirmed(pub, 0, level, &confirmed));
	if (confirmed < seq)
		bench_fail("message %llu was confirmed and is not in the log",
			   (unsigned long long)seq - 1);
}

shmq_sub *durable_open_at(shmq_bus *bus, const char *topic, uint64_t seq)
{
	struct shmq_sub_options o = { .size = sizeof(o),
				      .from = SHMQ_FROM_SEQ,
				      .seq = seq,
				      .partition_plus1 = 1,
				      .flags = SHMQ_SUB_OBSERVE };
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, topic, &o, &sub));
	return sub;
}

/* What is read is verified at the speed of memory, by vectors where there are some: of
 * a kilobyte that is half of what plain code takes to read and verify it. */
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE __attribute__((target("avx2")))
#else
#define WIDE
#endif

static int has_wide(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	return __builtin_cpu_supports("avx2") != 0;
#else
	return 0;
#endif
}

BENCH_ALWAYS void receive_n(shmq_sub *sub, size_t bytes, uint64_t from, uint64_t to)
{
	struct shmq_msg msg;

	for (; from < to; from++) {
		int rc = shmq_receive(sub, &msg, SHMQ_FOREVER);

		if (rc)
			bench_fail("message %llu: %s", (unsigned long long)from, shmq_strerror(rc));
		if (msg.seq != from || msg.len != bytes || bench_verify(msg.data, bytes, from))
			bench_fail("message %llu is lost, torn or out of order",
				   (unsigned long long)from);
	}
}

WIDE static void receive_wide(shmq_sub *sub, uint64_t from, uint64_t to)
{
	receive_n(sub, 1024, from, to);
}

void durable_receive(shmq_sub *sub, size_t bytes, uint64_t from, uint64_t to)
{
	if (bytes == 128)
		receive_n(sub, 128, from, to);
	else if (bytes == 1024 && has_wide())
		receive_wide(sub, from, to);
	else if (bytes == 1024)
		receive_n(sub, 1024, from, to);
	else
		receive_n(sub, bytes, from, to);
}

struct span {
	const char *topic;
	size_t bytes;
	uint64_t from, to;
};

static void fill(void *arg)
{
	const struct span *s = arg;
	shmq_bus *bus = bench_open_started();
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, s->topic, NULL, &pub));
	durable_publish(pub, s->bytes, s->from, s->to);
	durable_await(pub, durable_head(bus, s->topic), SHMQ_WRITTEN);
	shmq_bus_close(bus);
}

static void check(void *arg)
{
	const struct span *s = arg;
	shmq_bus *bus = bench_open_started();

	durable_receive(durable_open_at(bus, s->topic, s->from), s->bytes, s->from, s->to);
	if (durable_head(bus, s->topic) != s->to)
		bench_fail("%llu messages were sent, not %llu",
			   (unsigned long long)durable_head(bus, s->topic),
			   (unsigned long long)s->to);
	shmq_bus_close(bus);
}

void durable_fill(const char *topic, size_t bytes, uint64_t n)
{
	struct span span = { topic, bytes, 0, n };

	bench_run(&(struct bench_proc){ fill, &span, DURABLE_PUBLISHER }, 1);
}

void durable_check(const char *topic, size_t bytes, uint64_t from, uint64_t to)
{
	struct span span = { topic, bytes, from, to };

	bench_run(&(struct bench_proc){ check, &span, DURABLE_PUBLISHER }, 1);
}

/* ---- the disk ------------------------------------------------------------ */

/* Of how much at once, and how many of them under way. */
struct shape {
	size_t piece;
	unsigned depth;
};

static void remove_limit(const char *path)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* What a filesystem does about it later would be in what is measured next. */
	if (unlink(path) || fd < 0 || syncfs(fd))
		bench_fail("removing %s: %s", path, strerror(errno));
	close(fd);
}

/* Writes by the kernel's own asynchronous interface, which needs no library, to a
 * file that is as new as a segment is: rewriting what was just written, most
 * disks that are files themselves do in the memory of another machine. */
static double write_with(struct shape shape, uint64_t bytes)
{
	static char *data;
	struct iocb cb[DEPTH_MAX], *start;
	struct io_event done[DEPTH_MAX];
	char path[sizeof(dir) + 16];
	aio_context_t context = 0;
	uint64_t at = 0, began;
	unsigned under_way = 0, i;
	long n;
	int fd;

	if (!data && posix_memalign((void **)&data, 2 * MIB, DEPTH_MAX * PIECE_MAX))
		bench_fail("no memory to write from");
	for (i = 0; i < shape.depth; i++)
		memset(data + i * shape.piece, (int)i + 1, shape.piece);
	snprintf(path, sizeof(path), "%s/limit", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600);
	if (fd < 0 || fallocate(fd, 0, 0, (off_t)bytes) ||
	    syscall(SYS_io_setup, DEPTH_MAX, &context))
		bench_fail("writing %s: %s", path, strerror(errno));
	memset(cb, 0, sizeof(cb));
	for (i = 0; i < DEPTH_MAX; i++) {
		cb[i].aio_data = i;
		cb[i].aio_lio_opcode = IOCB_CMD_PWRITE;
		cb[i].aio_fildes = (uint32_t)fd;
		cb[i].aio_buf = (uint64_t)(uintptr_t)(data + i * shape.piece);
		cb[i].aio_nbytes = shape.piece;
		done[i].data = i;
	}
	began = bench_now();
	for (n = shape.depth; under_way || at < bytes;) {
		for (i = 0; i < (unsigned)n && at < bytes; i++, at += shape.piece, under_way++) {
			start = &cb[done[i].data];
			start->aio_offset = (int64_t)at;
			if (syscall(SYS_io_submit, context, 1, &start) != 1)
				bench_fail("writing %s: %s", path, strerror(errno));
		}
		n = syscall(SYS_io_getevents, context, 1, DEPTH_MAX, done, NULL);
		for (i = 0; n > 0 && i < (unsigned)n; i++)
			if (done[i].res != (int64_t)shape.piece)
				bench_fail("writing %s: %s", path, strerror((int)-done[i].res));
		under_way -= n > 0 ? (unsigned)n : 0;
	}
	began = bench_now() - began;
	syscall(SYS_io_destroy, context);
	close(fd);
	remove_limit(path);
	return (double)bytes * 1e9 / (double)began;
}

static struct shape best_shape(uint64_t bytes)
{
	struct shape shape, best = { MIB, 1 };
	double most = 0, rate;

	for (shape.piece = MIB; shape.piece <= PIECE_MAX; shape.piece *= 2)
		for (shape.depth = 1; shape.depth <= DEPTH_MAX; shape.depth *= 2) {
			rate = write_with(shape, bytes);
			if (rate > most)
				best = shape;
			most = rate > most ? rate : most;
		}
	return best;
}

double durable_write_limit(uint64_t bytes)
{
	static struct shape shape;

	bytes = (bytes + PIECE_MAX - 1) / PIECE_MAX * PIECE_MAX;
	if (!shape.depth)
		shape = best_shape(bytes);
	return write_with(shape, bytes);
}

static void walk(const char *path, const char *suffix, void (*call)(void *arg, const char *path),
		 void *arg)
{
	struct dirent **entry;
	char below[PATH_MAX];
	struct stat st;
	int n = scandir(path, &entry, NULL, alphasort), i;

	for (i = 0; i < n; i++) {
		const char *name = entry[i]->d_name, *end = strrchr(name, '.');

		if (*name != '.' &&
		    snprintf(below, sizeof(below), "%s/%s", path, name) < (int)sizeof(below) &&
		    !lstat(below, &st)) {
			if (S_ISDIR(st.st_mode))
				walk(below, suffix, call, arg);
			else if (!suffix || (end && !strcmp(end, suffix)))
				call(arg, below);
		}
		free(entry[i]);
	}
	if (n >= 0)
		free(entry);
}

static void drop(void *arg, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	(void)arg;
	if (fd < 0)
		return;
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

void durable_drop_caches(void)
{
	walk(dir, NULL, drop, NULL);
}

static void look_whether_cold(void *arg, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), *cold = arg;
	unsigned char *in;
	struct stat st;
	size_t pages, i;
	void *map;

	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		goto out;
	pages = ((size_t)st.st_size + 4095) / 4096;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	in = malloc(pages);
	if (map != MAP_FAILED && in && !mincore(map, (size_t)st.st_size, in))
		for (i = 0; i < pages; i++)
			*cold &= !(in[i] & 1);
	if (map != MAP_FAILED)
		munmap(map, (size_t)st.st_size);
	free(in);
out:
	if (fd >= 0)
		close(fd);
}

int durable_is_cold(void)
{
	int cold = 1;

	walk(dir, ".log", look_whether_cold, &cold);
	return cold;
}

static void each_segment(const char *topic, void (*call)(void *arg, const char *path), void *arg)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%.3000s/%s/%s/0", getenv("SHMQ_DATA_DIR"), bench.bus, topic);
	walk(path, ".log", call, arg);
}

struct amount {
	uint64_t bytes, enough; /* read, and of how many no more is wanted */
};

static void read_segment(void *arg, const char *path)
{
	static char buf[MIB];
	struct amount *a = arg;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	if (fd < 0)
		bench_fail("opening %s: %s", path, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while (a->bytes < a->enough && (n = read(fd, buf, sizeof(buf))) > 0)
		a->bytes += (uint64_t)n;
	if (n < 0)
		bench_fail("reading %s: %s", path, strerror(errno));
	close(fd);
}

uint64_t durable_read(const char *topic, uint64_t enough)
{
	struct amount a = { .enough = enough };

	each_segment(topic, read_segment, &a);
	return a.bytes;
}

struct records {
	size_t record_bytes, bytes;
	int has_sums; /* their checksums are made, too */
	struct checksum_key key;
	uint64_t *next;
};

/* A segment has a block before its records, with the seed of their checksums, and 40
 * bytes before each message; what is no message of that size is its end. */
#define BLOCK 4096
#define SEED_AT 32
#define HEAD 40u

BENCH_ALWAYS int verify_n(const char *buf, size_t n, size_t record_bytes, size_t bytes,
			  const struct checksum_key *key, uint64_t *next)
{
	uint32_t body, sum;

	for (; n >= record_bytes; n -= record_bytes, buf += record_bytes) {
		memcpy(&body, buf + 4, sizeof(body));
		if (body != bytes)
			return 0;
		memcpy(&sum, buf, sizeof(sum));
		if ((key && checksum_wide(key, buf + 4, HEAD - 4 + bytes) != sum) ||
		    bench_verify(buf + HEAD, bytes, (*next)++))
			bench_fail("message %llu is torn or out of order",
				   (unsigned long long)*next - 1);
	}
	return 1;
}

WIDE static int verify_wide(const char *buf, size_t n, const struct records *r)
{
	return verify_n(buf, n, r->record_bytes, 1024, r->has_sums ? &r->key : NULL, r->next);
}

static int verify(const char *buf, size_t n, const struct records *r)
{
	if (r->bytes == 1024 && has_wide())
		return verify_wide(buf, n, r);
	if (r->bytes == 1024)
		return verify_n(buf, n, r->record_bytes, 1024, NULL, r->next);
	return verify_n(buf, n, r->record_bytes, r->bytes, NULL, r->next);
}

static void verify_segment(void *arg, const char *path)
{
	struct records *r = arg;
	uint64_t seed;
	static char buf[MIB];
	size_t piece = sizeof(buf) / r->record_bytes * r->record_bytes;
	int fd = open(path, O_RDONLY | O_CLOEXEC), more = 1;
	off_t at;
	ssize_t n;

	if (fd < 0)
		bench_fail("opening %s: %s", path, strerror(errno));
	if (pread(fd, &seed, sizeof(seed), SEED_AT) == (ssize_t)sizeof(seed))
		checksum_key(seed, &r->key);
	for (at = BLOCK; more && (n = pread(fd, buf, piece, at)) > 0; at += n)
		more = verify(buf, (size_t)n, r);
	close(fd);
}

int durable_read_records(const char *topic, size_t record_bytes, size_t bytes, int sums,
			 uint64_t *next)
{
	struct records r = { .record_bytes = record_bytes, .bytes = bytes, .next = next };

	r.has_sums = sums && bytes == 1024 && has_wide();
	each_segment(topic, verify_segment, &r);
	return r.has_sums == sums;
}

static void note_path(void *arg, const char *path)
{
	snprintf(arg, PATH_MAX, "%s", path);
}

void durable_last_segment(const char *topic, char path[PATH_MAX])
{
	*path = 0;
	each_segment(topic, note_path, path);
}

uint64_t durable_read_last(const char *topic)
{
	struct amount a = { .enough = UINT64_MAX };
	char path[PATH_MAX];

	durable_last_segment(topic, path);
	read_segment(&a, path);
	return a.bytes;
}
