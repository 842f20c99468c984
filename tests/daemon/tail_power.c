/* SPDX-License-Identifier: MIT
 *
 * What a loss of power leaves, at every call that changes a file, of all that is
 * done to the log of a partition: writing, rolling, indexes, the ceiling, compressing,
 * dropping what was superseded, removing what is too old, and recovery itself.
 *
 * The disk here keeps what was synced.  Of what was not, each block and each change
 * of a name may be there or not, in any combination.
 */
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "helpers.h"
#include "log_batch.h"
#include "log_reader.h"
#include "log_recover.h"
#include "logfile.h"
#include "tail_compact.h"
#include "tail_writer.h"

#define FIRST UINT64_C(1000)

/* ---- the disk ------------------------------------------------------------ */

enum { FILES_MAX = 256, NAMES_MAX = 512, OPS_MAX = 4096 };

struct file {
	ino_t ino;
	int fd; /* so that the number is not given again */
	char *synced;
	size_t bytes;
};

struct name {
	char text[64];
	int file; /* -1: none has it */
};

struct change {
	enum { MADE, RENAMED, REMOVED } what;
	char from[64], to[64];
	int file;
};

static struct {
	int is_on, dir;
	unsigned steps, last_step, seed;
	struct file file[FILES_MAX];
	unsigned files;
	struct name name[NAMES_MAX]; /* as they were synced */
	unsigned names;
	struct change change[OPS_MAX]; /* since */
	unsigned changes;
	/* What is promised at any moment; NULL: by nobody. */
	const struct tail_writer *writer;
	uint64_t *told;
} disk;

static char *read_fd(int fd, size_t *bytes)
{
	struct stat st;
	char *mem;

	CHECK_OK(fstat(fd, &st));
	*bytes = (size_t)st.st_size;
	mem = malloc(*bytes + 1);
	CHECK_EQ(pread(fd, mem, *bytes, 0), (ssize_t)*bytes);
	return mem;
}

static int file_of(int fd)
{
	struct stat st;
	unsigned i;
	char path[64];

	CHECK_OK(fstat(fd, &st));
	for (i = 0; i < disk.files; i++)
		if (disk.file[i].ino == st.st_ino)
			return (int)i;
	CHECK_LT(disk.files, FILES_MAX);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	disk.file[i] = (struct file){ .ino = st.st_ino, .fd = open(path, O_RDONLY | O_CLOEXEC) };
	CHECK_GE(disk.file[i].fd, 0);
	disk.files++;
	return (int)i;
}

static void sync_file(int fd)
{
	struct file *f = &disk.file[file_of(fd)];

	free(f->synced);
	f->synced = read_fd(f->fd, &f->bytes);
}

static struct name *name_of(struct name *all, unsigned *count, const char *text)
{
	unsigned i;

	for (i = 0; i < *count; i++)
		if (!strcmp(all[i].text, text))
			return &all[i];
	CHECK_LT(*count, NAMES_MAX);
	snprintf(all[i].text, sizeof(all[i].text), "%s", text);
	all[i].file = -1;
	++*count;
	return &all[i];
}

static void apply(struct name *all, unsigned *count, const struct change *c)
{
	if (c->what == MADE || c->what == RENAMED)
		name_of(all, count, c->to)->file = c->file;
	if (c->what != MADE)
		name_of(all, count, c->from)->file = -1;
}

static int named(const char *text)
{
	static struct name now[NAMES_MAX];
	unsigned count = disk.names, i;

	memcpy(now, disk.name, sizeof(now));
	for (i = 0; i < disk.changes; i++)
		apply(now, &count, &disk.change[i]);
	return name_of(now, &count, text)->file;
}

static void note_change(struct change c)
{
	CHECK_LT(disk.changes, OPS_MAX);
	disk.change[disk.changes++] = c;
}

static void sync_names(void)
{
	unsigned i;

	for (i = 0; i < disk.changes; i++)
		apply(disk.name, &disk.names, &disk.change[i]);
	disk.changes = 0;
}

/* ---- its power goes ------------------------------------------------------ */

/* Seed 0: nothing survives that need not; 1: everything does; else by chance. */
static int survives(void)
{
	static uint64_t at;

	if (disk.seed < 2)
		return (int)disk.seed;
	return (int)(mix(disk.seed * UINT64_C(1000003) + ++at) & 1);
}

static void leave_file(int dir, const char *name, const struct file *f)
{
	size_t bytes, at, n, size;
	char *now = read_fd(f->fd, &bytes), *mem;

	size = survives() ? bytes : f->bytes;
	mem = calloc(1, size + 1);
	memcpy(mem, f->synced ? f->synced : "", f->bytes < size ? f->bytes : size);
	for (at = 0; at < bytes && at < size; at += LOG_BLOCK) {
		n = (bytes < size ? bytes : size) - at;
		n = n < LOG_BLOCK ? n : LOG_BLOCK;
		if (survives())
			memcpy(mem + at, now + at, n);
	}
	logfile_put(dir, name, mem, size);
	free(mem);
	free(now);
}

static void lose_power(void)
{
	char path[4096];
	unsigned i;
	int dir;

	disk.is_on = 0;
	for (i = 0; i < disk.changes; i++)
		if (survives())
			apply(disk.name, &disk.names, &disk.change[i]);
	snprintf(path, sizeof(path), "%s/after", test_tmpdir());
	CHECK_OK(mkdir(path, 0700));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (i = 0; i < disk.names; i++)
		if (disk.name[i].file >= 0)
			leave_file(dir, disk.name[i].text, &disk.file[disk.name[i].file]);
	_exit(0);
}

/* What is synced; and, if all that is written survives, what is written. */
static void note_marks(void)
{
	struct tail_marks marks = tail_writer_marks(disk.writer);

	CHECK(!marks.error && !marks.sync_error);
	CHECK_LE(marks.synced, marks.written);
	disk.told[0] = marks.synced;
	disk.told[1] = disk.seed == 1 ? marks.written : marks.synced;
}

static void step(void)
{
	if (disk.is_on && disk.writer)
		note_marks();
	if (disk.is_on && ++disk.steps == disk.last_step)
		lose_power();
}

/* What is there now is synced. */
static void power_on(int dir, unsigned last_step, unsigned seed)
{
	uint64_t *first;
	unsigned count, i;

	memset(&disk, 0, sizeof(disk));
	CHECK_OK(shmq__log_list(dir, &first, &count));
	for (i = 0; i < 3 * count; i++) {
		static const char *const suffixes[] = { "idx", "log", "zst" };
		char name[LOG_NAME_BYTES];
		int fd;

		shmq__log_name(first[i / 3], suffixes[i % 3], name);
		fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		name_of(disk.name, &disk.names, name)->file = file_of(fd);
		sync_file(fd);
		close(fd);
	}
	free(first);
	disk.dir = dir;
	disk.last_step = last_step;
	disk.seed = seed;
	disk.is_on = 1;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t off)
{
	step();
	return syscall(SYS_pwrite64, fd, data, bytes, off);
}

ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t off, int flags)
{
	ssize_t n = pwrite(fd, data->iov_base, data->iov_len, off);

	CHECK_EQ(count, 1);
	CHECK_EQ(flags, RWF_DSYNC);
	if (disk.is_on && n > 0) { /* nothing else of the file is */
		struct file *f = &disk.file[file_of(fd)];
		size_t end = (size_t)off + (size_t)n;

		if (end > f->bytes) {
			f->synced = realloc(f->synced, end);
			memset(f->synced + f->bytes, 0, end - f->bytes);
			f->bytes = end;
		}
		memcpy(f->synced + off, data->iov_base, (size_t)n);
	}
	return n;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
	step();
	return syscall(SYS_write, fd, data, bytes);
}

int ftruncate(int fd, off_t bytes)
{
	step();
	return (int)syscall(SYS_ftruncate, fd, bytes);
}

int fdatasync(int fd)
{
	step();
	if (disk.is_on)
		sync_file(fd);
	return 0;
}

int fsync(int fd)
{
	struct stat st;

	step();
	CHECK_OK(fstat(fd, &st));
	if (disk.is_on && S_ISDIR(st.st_mode))
		sync_names();
	else if (disk.is_on)
		sync_file(fd);
	return 0;
}

int openat(int dir, const char *name, int flags, ...)
{
	va_list args;
	int mode, fd;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, int) : 0;
	va_end(args);
	if (flags & O_CREAT)
		step();
	fd = (int)syscall(SYS_openat, dir, name, flags, mode);
	if (disk.is_on && fd >= 0 && flags & O_CREAT && named(name) != file_of(fd)) {
		struct change c = { .what = MADE, .file = file_of(fd) };

		snprintf(c.to, sizeof(c.to), "%s", name);
		note_change(c);
	}
	return fd;
}

/* Into cut/ too: that its names are among the others does no harm. */
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	struct change c = { .what = RENAMED, .file = disk.is_on ? named(from) : -1 };

	step();
	snprintf(c.from, sizeof(c.from), "%s", from);
	snprintf(c.to, sizeof(c.to), "%s", to);
	if (disk.is_on)
		note_change(c);
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return renameat2(from_dir, from, to_dir, to, 0);
}

int unlinkat(int dir, const char *name, int flags)
{
	int rc = 0;

	step();
	rc = (int)syscall(SYS_unlinkat, dir, name, flags);
	if (disk.is_on && !rc) {
		struct change c = { .what = REMOVED, .file = -1 };

		snprintf(c.from, sizeof(c.from), "%s", name);
		note_change(c);
	}
	return rc;
}

/* ---- at every step of it ------------------------------------------------- */

enum { NO_STEP = 99 /* exit code: there was no such step */ };

struct run {
	void (*prepare)(int dir);
	void (*act)(int dir, uint64_t *told); /* told: what was promised, [2] */
	void (*check)(int dir, const uint64_t *told);
	uint64_t *told; /* shared */
	unsigned step, seed;
};

static int act(void *arg)
{
	struct run *r = arg;
	char path[4096];
	int dir;

	snprintf(path, sizeof(path), "%s/before", test_tmpdir());
	CHECK_OK(mkdir(path, 0700));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r->prepare(dir);
	power_on(dir, r->step, r->seed);
	r->act(dir, r->told);
	return NO_STEP;
}

static void clear(const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	test_remove_tree(path);
}

static void lose_power_at_every_step(struct run r)
{
	unsigned seeds = getenv("SHMQ_TORTURE") ? 20 : 4;
	char path[4096];
	int dir, end = 0;

	r.told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(r.told != MAP_FAILED);
	snprintf(path, sizeof(path), "%s/after", test_tmpdir());
	for (r.step = 1; !end; r.step++)
		for (r.seed = 0; !end && r.seed < seeds; r.seed++) {
			memset(r.told, 0, 4096);
			end = test_join(test_spawn(act, &r));
			clear("before");
			if (end)
				break;
			dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			CHECK_GE(dir, 0);
			r.check(dir, r.told);
			close(dir);
			clear("after");
		}
	CHECK_EQ(end, NO_STEP);
	CHECK_GT(r.step, 5);
	NOTE("%u steps", r.step - 2);
	munmap(r.told, 4096);
}

static void recover(int dir, struct log_state *state)
{
	static const char *const suffixes[] = { ".log.new", ".zst.new", ".idx.new" };
	struct shmq__why why = { "" };
	char name[64];
	size_t i;
	int error = shmq__log_recover(dir, &logfile_owner, 1024, state, NULL, NULL, &why);

	if (error)
		FAIL("recovering: %s: %s", shmq_errname(error), why.text);
	for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(name, sizeof(name), "%020" PRIu64 "%s", FIRST, suffixes[i]);
		CHECK_EQ(faccessat(dir, name, F_OK, 0), -1);
	}
}

static struct log_reader *open_reader(int dir)
{
	struct log_reader *r;
	struct shmq__why why = { "" };
	int error = shmq__log_reader_open(dir, &logfile_owner, &r, &why);

	if (error)
		FAIL("reading: %s: %s", shmq_errname(error), why.text);
	return r;
}

/* ---- compressing --------------------------------------------------------- */

enum { SEGMENTS = 4, EACH = 40 };
#define LAST "00000000000000001120.log"

static int no_turn(void *arg, const uint64_t *rewriting)
{
	(void)arg;
	(void)rewriting;
	return 0;
}

static void put_segments(int dir)
{
	struct logfile f;
	unsigned i, k;
	uint64_t seq = FIRST, ts = 0;

	for (i = 0; i < SEGMENTS; i++) {
		logfile_begin(&f, seq, ts);
		f.index_every = 1000;
		for (k = 0; k < EACH; k++)
			logfile_message(&f, ts + k, 200);
		if (i + 1 < SEGMENTS)
			logfile_end(&f);
		seq = f.seq;
		ts = f.max_ts;
		logfile_write(&f, dir);
		logfile_free(&f);
	}
}

static void compress(int dir, uint64_t *told)
{
	struct tail_rewrite r = {
		.dir = dir, .owner = &logfile_owner, .level = 1, .turn = { no_turn, NULL }
	};
	struct shmq__why why;
	unsigned i;

	(void)told;
	for (i = 0; i + 1 < SEGMENTS; i++) {
		r.first_seq = FIRST + i * EACH;
		CHECK_OK(tail_rewrite(&r, &why));
	}
}

static void check_all_is_there(int dir, const uint64_t *told)
{
	struct log_reader *r;
	struct log_state state;
	struct logfile_tally t;

	(void)told;
	recover(dir, &state);
	CHECK_EQ(state.next, FIRST + SEGMENTS * EACH);
	r = open_reader(dir);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.messages, SEGMENTS * EACH);
	CHECK_EQ(t.lost, 0);
	CHECK_OK(shmq__log_reader_seek(r, FIRST + 2 * EACH + 7, NULL));
	CHECK_EQ(logfile_tally(r, NULL).messages, 2 * EACH - 7);
	shmq__log_reader_close(r);
}

TEST_WITHIN(a_segment_is_whole_whenever_the_power_goes_while_it_is_compressed, 120)
{
	lose_power_at_every_step((struct run){
		.prepare = put_segments, .act = compress, .check = check_all_is_there });
}

/* ---- removing ------------------------------------------------------------ */

static void remove_oldest(int dir, uint64_t *told)
{
	unsigned i;

	(void)told;
	for (i = 0; i + 1 < SEGMENTS; i++)
		CHECK_OK(tail_remove(dir, FIRST + i * EACH));
}

static void check_nothing_is_missing(int dir, const uint64_t *told)
{
	struct log_reader *r;
	struct log_state state;
	struct logfile_tally t;

	(void)told;
	recover(dir, &state);
	CHECK_EQ(state.next, FIRST + SEGMENTS * EACH);
	r = open_reader(dir);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.lost, 0);
	CHECK_EQ(t.messages, state.next - t.first);
	shmq__log_reader_close(r);
}

TEST_WITHIN(what_is_too_old_goes_from_the_beginning_whenever_the_power_goes, 120)
{
	lose_power_at_every_step((struct run){
		.prepare = put_segments, .act = remove_oldest, .check = check_nothing_is_missing });
}

/* ---- recovering ---------------------------------------------------------- */

enum { TORN = 5000 };

static void put_torn(int dir)
{
	static char torn[TORN];
	struct stat st;
	int fd;

	put_segments(dir);
	memset(torn, 'x', sizeof(torn));
	fd = openat(dir, LAST, O_WRONLY | O_CLOEXEC);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(pwrite(fd, torn, sizeof(torn), st.st_size), TORN);
	close(fd);
}

/* Of one segment both forms are there, and the plain one is not whole. */
static void put_spoilt(int dir)
{
	char plain[LOG_NAME_BYTES], mem[2 * LOG_BLOCK];
	int fd;

	put_segments(dir);
	shmq__log_name(FIRST, "log", plain);
	fd = openat(dir, plain, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(pread(fd, mem, sizeof(mem), 0), (ssize_t)sizeof(mem));
	close(fd);
	compress(dir, NULL);
	logfile_put(dir, plain, mem, sizeof(mem));
}

static void recover_once(int dir, uint64_t *told)
{
	struct log_state state;

	(void)told;
	recover(dir, &state);
}

/* Once it is not in its file any more it is in one of its own. */
static void check_what_is_cut(int dir, const uint64_t *told)
{
	char *last, *kept = NULL;
	size_t bytes, kept_bytes = 0;
	struct dirent *e;
	DIR *d;
	int fd = openat(dir, LAST, O_RDONLY | O_CLOEXEC);

	last = read_fd(fd, &bytes);
	close(fd);
	d = fdopendir(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	while ((e = readdir(d)))
		if (strchr(e->d_name, '-')) {
			fd = openat(dir, e->d_name, O_RDONLY | O_CLOEXEC);
			kept = read_fd(fd, &kept_bytes);
			close(fd);
		}
	closedir(d);
	if (bytes < TORN || last[bytes - 1] != 'x' || last[bytes - TORN] != 'x') {
		CHECK_GE(kept_bytes, TORN);
		CHECK_EQ(kept[kept_bytes - TORN], 'x');
		CHECK_EQ(kept[kept_bytes - 1], 'x');
	}
	free(kept);
	free(last);
	check_all_is_there(dir, told);
}

TEST_WITHIN(what_is_cut_off_is_in_one_place_or_the_other_whenever_the_power_goes, 120)
{
	lose_power_at_every_step((struct run){
		.prepare = put_torn, .act = recover_once, .check = check_what_is_cut });
}

TEST_WITHIN(the_good_one_of_a_segment_that_is_there_twice_is_kept_whenever_the_power_goes, 120)
{
	lose_power_at_every_step((struct run){
		.prepare = put_spoilt, .act = recover_once, .check = check_all_is_there });
}

/* ---- dropping ------------------------------------------------------------ */

enum { KEYS = 7 };

/* Every third deletes its key; one in ten has none, nor has what is not complete. */
static int key_of(uint64_t seq)
{
	return seq % 10 == 4 || seq >= FIRST + (SEGMENTS - 1) * EACH ? -1 : (int)(mix(seq) % KEYS);
}

static int is_tombstone(uint64_t seq)
{
	return key_of(seq) >= 0 && mix(seq + 1) % 3 == 0;
}

static void put_keyed(struct logfile *f)
{
	struct log_record head = { .seq = f->seq, .ts = f->seq, .kind = LOG_MESSAGE };
	char body[64];
	int key = key_of(f->seq);
	uint16_t meta[2] = { 2, 0 };

	memset(body, 'x', sizeof(body));
	if (key < 0) {
		head.body_bytes = 30;
	} else {
		head.flags = SHMQ_MSG_META;
		memcpy(body, meta, 4);
		body[4] = 'k';
		body[5] = (char)('0' + key);
		head.body_bytes = is_tombstone(f->seq) ? 6 : 40;
	}
	logfile_record(f, head, body);
}

static void put_keyed_segments(int dir)
{
	struct logfile f;
	unsigned i, k;
	uint64_t seq = FIRST, ts = 0;

	for (i = 0; i < SEGMENTS; i++) {
		logfile_begin(&f, seq, ts);
		f.index_every = 300;
		for (k = 0; k < EACH; k++)
			put_keyed(&f);
		if (i + 1 < SEGMENTS)
			logfile_end(&f);
		seq = f.seq;
		ts = f.max_ts;
		logfile_write(&f, dir);
		logfile_free(&f);
	}
}

static void compact_by(int dir, int level, uint64_t merge_bytes)
{
	uint64_t first[SEGMENTS - 1];
	struct tail_compact c = { .dir = dir,
				  .owner = &logfile_owner,
				  .first = first,
				  .count = SEGMENTS - 1,
				  .keep_from = FIRST + SEGMENTS * EACH,
				  .merge_bytes = merge_bytes,
				  .level = level,
				  .key_bytes = 1 << 20,
				  .now_ns = FIRST + 1000,
				  .tombstone_ns = 1000 - EACH, /* those of the first segment go */
				  .turn = { no_turn, NULL } };
	struct tail_compacted done;
	struct shmq__why why;
	unsigned i;

	for (i = 0; i < SEGMENTS - 1; i++)
		first[i] = FIRST + i * EACH;
	CHECK_OK(tail_compact(&c, &done, &why));
	CHECK_EQ(done.done, SEGMENTS - 1);
	CHECK_GT(done.dropped, EACH);
}

static void compact(int dir, uint64_t *told)
{
	(void)told;
	compact_by(dir, 0, 0);
}

static void compact_and_compress(int dir, uint64_t *told)
{
	(void)told;
	compact_by(dir, 1, 0);
}

static void merge(int dir, uint64_t *told)
{
	(void)told;
	compact_by(dir, 0, UINT64_MAX);
}

static void merge_and_compress(int dir, uint64_t *told)
{
	(void)told;
	compact_by(dir, 1, UINT64_MAX);
}

/* The last message of each key, as a reader of everything has it in the end; 0: it
 * was deleted, or there was none. */
static void check_last_of_each_key(int dir, const uint64_t *told)
{
	uint64_t want[KEYS] = { 0 }, got[KEYS] = { 0 }, seq, plain = 0, plain_want = 0,
		 next = FIRST;
	struct log_reader *r;
	struct log_state state;
	struct log_record head;
	const char *body;
	int key;

	(void)told;
	recover(dir, &state);
	CHECK_EQ(state.next, FIRST + SEGMENTS * EACH);
	for (seq = FIRST; seq < state.next; seq++) {
		key = key_of(seq);
		plain_want += key < 0;
		if (key >= 0)
			want[key] = is_tombstone(seq) ? 0 : seq;
	}
	r = open_reader(dir);
	while (shmq__log_reader_next(r, NULL, &head, &body, NULL) == 1) {
		CHECK_EQ(head.seq, next);
		next += log_record_count(&head);
		CHECK_NE(head.kind, LOG_GAP);
		if (head.kind == LOG_HOLE)
			CHECK_EQ(head.flags, LOG_HOLE_SUPERSEDED);
		if (head.kind != LOG_MESSAGE)
			continue;
		key = head.flags ? body[5] - '0' : -1;
		CHECK_EQ(key, key_of(head.seq));
		plain += key < 0;
		if (key >= 0)
			got[key] = head.body_bytes == 6 ? 0 : head.seq;
	}
	CHECK_EQ(next, state.next);
	CHECK_EQ(plain, plain_want);
	CHECK_MEM(got, want, sizeof(want));
	shmq__log_reader_close(r);
}

TEST_WITHIN(the_last_of_each_key_is_there_whenever_the_power_goes_while_others_are_dropped, 120)
{
	lose_power_at_every_step((struct run){
		.prepare = put_keyed_segments, .act = compact, .check = check_last_of_each_key });
}

TEST_WITHIN(likewise_while_what_is_left_is_compressed, 120)
{
	lose_power_at_every_step((struct run){ .prepare = put_keyed_segments,
					       .act = compact_and_compress,
					       .check = check_last_of_each_key });
}

TEST_WITHIN(likewise_while_what_is_left_of_several_becomes_one, 120)
{
	lose_power_at_every_step((struct run){
		.prepare = put_keyed_segments, .act = merge, .check = check_last_of_each_key });
}

TEST_WITHIN(likewise_while_that_is_compressed, 120)
{
	lose_power_at_every_step((struct run){ .prepare = put_keyed_segments,
					       .act = merge_and_compress,
					       .check = check_last_of_each_key });
}

/* ---- writing ------------------------------------------------------------- */

static void put_nothing(int dir)
{
	(void)dir;
}

static void append(struct tail_io *io, struct tail_writer *w, uint64_t seq)
{
	char body[4000];
	uint32_t bytes = (uint32_t)(mix(seq) % sizeof(body));
	/* As logfile_is_right() has it. */
	struct log_record head = { .body_bytes = bytes,
				   .seq = seq,
				   .ts = seq,
				   .tag = mix(seq) ^ bytes,
				   .type = (uint16_t)seq,
				   .kind = LOG_MESSAGE };
	struct iovec piece = { body, bytes };
	int rc;

	fill(body, bytes, seq ^ mix(seq));
	while ((rc = tail_writer_append(w, &head, &piece, 1)) == -EAGAIN)
		tail_io_reap(io, SHMQ_FOREVER);
	CHECK_OK(rc);
}

/* told: what is synced, and the ceiling. */
static void write_some(int dir, uint64_t *told)
{
	struct tail_io_options o = { 3, 16384, TAIL_IO_PLAIN };
	struct tail_layout layout = { .dir = dir,
				      .partition = logfile_owner.partition,
				      .segment_bytes = 5 * LOG_BLOCK,
				      .direct = TAIL_DIRECT_NO };
	struct tail_resume anew = { .next_seq = FIRST };
	struct tail_marks marks;
	struct tail_writer *w;
	struct tail_io *io;
	uint64_t seq;

	memcpy(layout.log_id, logfile_owner.log_id, sizeof(layout.log_id));
	strcpy(layout.topic, "prices");
	CHECK_OK(tail_io_create(&o, &io));
	CHECK_OK(tail_writer_open(io, &layout, &anew, &w));
	for (seq = FIRST; seq < FIRST + 60; seq++) {
		append(io, w, seq);
		if (mix(seq) % 7 == 0)
			tail_writer_set_ceiling(w, seq + 20);
		if (mix(seq) % 3 == 0)
			tail_writer_flush(w, mix(seq) % 2 ? TAIL_SYNC : TAIL_WRITE);
		tail_io_reap(io, 0);
		marks = tail_writer_marks(w);
		CHECK(!marks.error && !marks.sync_error);
		told[0] = marks.synced;
		told[1] = marks.ceiling;
	}
	tail_writer_close(w, TAIL_CLOSE_OPEN);
	tail_io_destroy(io);
}

static void check_what_was_told(int dir, const uint64_t *told)
{
	struct log_reader *r;
	struct log_state state;
	struct logfile_tally t;
	uint64_t seq;

	recover(dir, &state);
	if (told[0] > FIRST) {
		CHECK(state.has_next);
		CHECK_GE(state.next, told[0]);
	}
	CHECK_GE(state.resume, told[1]);
	if (!state.has_next)
		return;
	r = open_reader(dir);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	/* Of what was not synced some may be there, and nothing is missing before it. */
	CHECK_EQ(t.next, state.next);
	CHECK_EQ(t.lost, 0);
	CHECK_EQ(t.messages, t.next - t.first);
	CHECK_LE(t.first, told[0] > FIRST ? FIRST : state.next);
	/* By what is left of the indexes. */
	for (seq = FIRST; seq < told[0]; seq += 5) {
		CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
		CHECK_EQ(logfile_tally(r, &told[0]).messages, told[0] - seq);
	}
	shmq__log_reader_close(r);
}

TEST_WITHIN(what_was_said_to_be_synced_is_there_and_no_seq_is_given_twice, 240)
{
	lose_power_at_every_step((struct run){
		.prepare = put_nothing, .act = write_some, .check = check_what_was_told });
}

/* ---- atomic batches -------------------------------------------------------- */

enum { BATCHED = 32 };

/* Messages, and batches of which two interleave; larger than a segment, some. */
static struct lay_batch member_of(uint64_t seq, struct lay_batch open[2])
{
	struct lay_batch *b = &open[mix(seq) % 2], m = { 0 };

	if (b->index == b->count) {
		if (mix(seq) % 5 == 0 || seq + 16 > FIRST + BATCHED)
			b = &open[!(mix(seq) % 2)];
		if (b->index == b->count && seq + 16 > FIRST + BATCHED)
			return m;
		if (b->index == b->count)
			*b = (struct lay_batch){ seq, 0, (uint32_t)(1 + mix(seq + 1) % 7) };
	}
	m = *b;
	b->index++;
	return m;
}

struct spans {
	const struct log_batches *batches;
	unsigned count; /* segments that begin inside one */
};

static void note_span(void *arg, uint64_t first_seq, uint64_t base_ts)
{
	struct spans *s = arg;

	(void)first_seq;
	(void)base_ts;
	s->count += s->batches->left != 0;
}

static void append_member(struct tail_io *io, struct tail_writer *w, uint64_t seq,
			  const struct lay_batch *b)
{
	char body[4000];
	struct log_record head = { .body_bytes = (uint32_t)(mix(seq) % sizeof(body)),
				   .seq = seq,
				   .ts = seq,
				   .flags = SHMQ_MSG_BATCH,
				   .kind = LOG_MESSAGE };
	struct iovec piece[2] = { { (void *)(uintptr_t)b, sizeof(*b) }, { body, head.body_bytes } };
	int rc;

	fill(body, head.body_bytes, seq);
	head.body_bytes += (uint32_t)sizeof(*b);
	while ((rc = tail_writer_append(w, &head, piece, 2)) == -EAGAIN)
		tail_io_reap(io, SHMQ_FOREVER);
	CHECK_OK(rc);
}

static void write_batches(int dir, uint64_t *told)
{
	struct tail_io_options o = { 3, 8192, TAIL_IO_PLAIN };
	struct log_batches batches = { 0 };
	struct spans spans = { &batches, 0 };
	struct lay_batch open[2] = { 0 }, m;
	struct tail_layout layout = { .dir = dir,
				      .partition = logfile_owner.partition,
				      .segment_bytes = 2 * LOG_BLOCK,
				      .direct = TAIL_DIRECT_NO,
				      .began = note_span,
				      .arg = &spans };
	struct tail_resume anew = { .next_seq = FIRST };
	struct tail_writer *w;
	struct tail_io *io;
	uint64_t seq;

	memcpy(layout.log_id, logfile_owner.log_id, sizeof(layout.log_id));
	strcpy(layout.topic, "prices");
	CHECK_OK(tail_io_create(&o, &io));
	CHECK_OK(tail_writer_open(io, &layout, &anew, &w));
	disk.told = told;
	disk.writer = w;
	for (seq = FIRST; seq < FIRST + BATCHED; seq++) {
		m = member_of(seq, open);
		if (m.count) {
			append_member(io, w, seq, &m);
			log_batches_note(&batches, &m, seq);
		} else {
			append(io, w, seq);
		}
		tail_writer_hold(w, batches.left ? &batches.seq : NULL);
		if (mix(seq + 2) % 4 == 0)
			tail_writer_flush(w, mix(seq) % 2 ? TAIL_SYNC : TAIL_WRITE);
		tail_io_reap(io, 0);
	}
	disk.writer = NULL;
	CHECK_EQ(batches.left, 0);
	CHECK_GE(spans.count, 2);
	CHECK_OK(tail_writer_close(w, TAIL_CLOSE_OPEN));
	tail_io_destroy(io);
}

static void check_batches(int dir, const uint64_t *told)
{
	struct lay_batch want[BATCHED], open[2] = { 0 }, b;
	struct log_reader *r;
	struct log_state state;
	struct log_record head;
	struct shmq_msg msg;
	const char *body;
	uint64_t next = FIRST, left = 0;

	for (uint64_t seq = FIRST; seq < FIRST + BATCHED; seq++)
		want[seq - FIRST] = member_of(seq, open);
	recover(dir, &state);
	if (told[0] > FIRST || told[1] > FIRST) {
		CHECK_GE(state.next, told[0]);
		CHECK_GE(state.next, told[1]);
	}
	if (!state.has_next)
		return;
	r = open_reader(dir);
	while (shmq__log_reader_next(r, &state.next, &head, &body, NULL) == 1) {
		CHECK_EQ(head.kind, LOG_MESSAGE);
		CHECK_EQ(head.seq, next++);
		if (!want[head.seq - FIRST].count)
			continue;
		CHECK_OK(shmq__log_decode(&head, body, &msg, &b));
		CHECK_MEM(&b, &want[head.seq - FIRST], sizeof(b));
		CHECK(is_filled(msg.data, msg.len, head.seq));
		left += b.index ? -UINT64_C(1) : b.count - 1;
	}
	CHECK_EQ(next, state.next);
	CHECK_EQ(left, 0);
	shmq__log_reader_close(r);
}

TEST_WITHIN(an_atomic_batch_is_whole_or_gone_whenever_the_power_goes_and_marks_are_never_inside,
	    240)
{
	lose_power_at_every_step((struct run){
		.prepare = put_nothing, .act = write_batches, .check = check_batches });
}
