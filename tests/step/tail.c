/* SPDX-License-Identifier: MIT
 *
 * A tailer that dies at any instruction of what it does for a topic: files and marks as
 * they are then are what its successor finds.
 *
 * What is told to be written is in the files by then, whole and in order; a ceiling above
 * all that may be given out is on the disk before; the successor takes the rest from the
 * ring, nothing twice, tells who waits of a mark that was not told, and publishers go on.
 */
#include "cast.h"
#include "helpers.h"
#include "steps.h"

#include "clock.h"
#include "log.h"
#include "log_reader.h"
#include "log_recover.h"
#include "shmem.h"
#include "tail_lane.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { BYTES = 40, MEMBER = 24, LARGE = 300, ARENA = 16384, BUFFER_BYTES = 16 << 10 };
enum { HEAD_BYTES = 16 }; /* of what cast_fill() makes */

struct scene {
	const char *name;
	void (*act)(void);
	enum shmq_log log;
	enum shmq_sync sync;
	size_t bytes;
	unsigned before, count; /* messages that are in the log; of the operation */
	int is_atomic, ends;
};

static const struct log_owner owner = { .log_id = "of a test's log", .partition = 0 };

/* ---- the log --------------------------------------------------------------------- */

static char below[PATH_MAX], above[PATH_MAX]; /* the subject's, and a copy */

/* A death takes nothing from files that were not synced, and a disk may be another's for
 * long. */
__attribute__((constructor)) static void work_in_memory(void)
{
	if (!access("/dev/shm", W_OK))
		setenv("TMPDIR", "/dev/shm", 1);
}

static void name_dirs(void)
{
	snprintf(below, sizeof(below), "%s/log", test_tmpdir());
	snprintf(above, sizeof(above), "%s/copy", test_tmpdir());
}

static void make_dir(const char *path)
{
	char part[PATH_MAX + 8];

	snprintf(part, sizeof(part), "%s/0", path);
	CHECK_OK(mkdir(path, 0700));
	CHECK_OK(mkdir(part, 0700));
}

static int open_dir(const char *path, const char *name)
{
	char whole[PATH_MAX + 8];
	int fd;

	snprintf(whole, sizeof(whole), "%s/%s", path, name);
	fd = open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK_GE(fd, 0);
	return fd;
}

static void copy_file(int from, int to, const char *name)
{
	static char buf[1 << 16];
	int in = openat(from, name, O_RDONLY | O_CLOEXEC);
	int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t n;

	CHECK(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(out, buf, (size_t)n), n);
	CHECK_EQ(n, 0);
	close(in);
	close(out);
}

/* What a kill leaves of the files: all that was written. */
static void copy_log(void)
{
	int from = open_dir(below, "0"), to;
	struct dirent *e;
	DIR *d;

	make_dir(above);
	to = open_dir(above, "0");
	d = fdopendir(from);
	CHECK(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			copy_file(from, to, e->d_name);
	closedir(d);
	close(to);
}

/* ---- the lane, of the subject and of its successors --------------------------------- */

struct hand {
	const struct scene *scene;
	struct shmq_topic_info info;
	struct tail_io *io;
	struct tail_keep *keep;
	struct tail_lane *lane;
	struct lay_partition *part;
	shmq_bus *bus;
	int dir;
	const char *path; /* of that */
};

static void open_lane(struct hand *h)
{
	struct tail_lane_options o = { .bus = h->bus,
				       .io = h->io,
				       .keep = h->keep,
				       .topic = &h->info,
				       .dir = h->dir,
				       .log_id = owner.log_id,
				       .part = h->part };
	struct shmq__why why = { "" };
	int rc = tail_lane_open(&o, &h->lane, &why);

	if (rc)
		FAIL("opening a lane: %s: %s", shmq_errname(rc), why.text);
}

static void begin_hand(struct hand *h, const struct scene *scene, const char *path, shmq_bus *bus,
		       struct lay_partition *part)
{
	*h = (struct hand){
		.scene = scene, .bus = bus, .part = part, .dir = open_dir(path, "."), .path = path
	};
	CHECK_OK(shmq__bus_describe_topic(bus, 0, &h->info));
	h->info.sync = scene->sync;
	h->info.sync_ns = 1;
	h->info.segment_bytes = LAY_SEGMENT_BYTES_MIN;
	CHECK_OK(tail_io_create(&(struct tail_io_options){ .buffer_count = 3,
							   .buffer_bytes = BUFFER_BYTES,
							   .kind = TAIL_IO_PLAIN },
				&h->io));
	CHECK_OK(tail_keep_create(&h->path, 1, &h->keep));
}

static void end_hand(struct hand *h)
{
	tail_keep_destroy(h->keep);
	tail_io_destroy(h->io);
	close(h->dir);
}

/* One turn of the loop of tailer.c, some time later: what waits to be written is. */
static int turn(struct hand *h)
{
	static uint64_t now;
	int rc = tail_lane_pump(h->lane, 0);

	now = now ? now + 1000000000 : shmq__clock_monotonic_ns();
	tail_lane_tend(h->lane, now);
	tail_io_reap(h->io, 0);
	tail_lane_tend(h->lane, now);
	return rc;
}

/* ---- the subject ------------------------------------------------------------------- */

static struct hand subject;
static struct shared { /* from whom it is told what */
	pid_t pid;
	int registry_fd;
} * shared;

static void act_write(void)
{
	turn(&subject);
	turn(&subject);
}

static void act_open(void)
{
	open_lane(&subject);
	turn(&subject);
}

static void act_close(void)
{
	while (turn(&subject) >= 0)
		;
	CHECK_OK(tail_lane_close(subject.lane));
}

/* What is below is what is above once the supervisor has answered: but the marks stay. */
static void close_before(void)
{
	uint64_t written = load_relaxed(&subject.part->log_written);
	uint64_t synced = load_relaxed(&subject.part->log_synced);

	CHECK_OK(tail_lane_close(subject.lane));
	store_relaxed(&subject.part->log_written, written);
	store_relaxed(&subject.part->log_synced, synced);
}

static int live(void *arg)
{
	const struct scene *scene = arg;
	shmq_bus *bus = steps_bus();
	char path[64];
	void *mem;
	int fd;

	/* As a worker of the supervisor's it may write the registry. */
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)shared->pid, shared->registry_fd);
	CHECK_GE(fd = open(path, O_RDWR | O_CLOEXEC), 0);
	CHECK_OK(shmq__shmem_map(fd, LAY_HEAP_OFF, LAY_PAGE, PROT_READ | PROT_WRITE, &mem));
	begin_hand(&subject, scene, below, bus, mem);
	open_lane(&subject);
	turn(&subject);
	turn(&subject);
	if (scene->act == act_open)
		close_before();
	STEPPER_MARK();
	scene->act();
	STEPPER_MARK();
	return 0;
}

/* ---- whoever lives on ----------------------------------------------------------------- */

struct stage {
	const struct scene *scene;
	struct world *w;
	struct fake *f;
	shmq_bus *bus;
	struct lay_partition *part; /* above */
	unsigned client, sent;      /* the subject's; messages */
	unsigned buried;
	uint64_t base;
};

static void send(struct stage *t, shmq_pub *pub, unsigned n, int is_atomic)
{
	static char buf[64][CAST_MESSAGE_MAX];
	struct shmq_msg many[64];
	unsigned i;

	CHECK_LE(n, 64);
	for (i = 0; i < n; i++) {
		cast_fill(buf[i], t->scene->bytes, CAST_OTHERS, t->sent + i);
		many[i] = (struct shmq_msg){ .data = buf[i], .len = t->scene->bytes };
	}
	CHECK_EQ(shmq_publish_batch(pub, many, n, is_atomic ? SHMQ_ATOMIC : 0), n);
	t->sent += n;
}

static void check_body(struct stage *t, const struct log_record *head, const char *body)
{
	struct lay_batch batch;
	struct shmq_msg msg;
	uint64_t at[2];

	CHECK_OK(shmq__log_decode(head, body, &msg, &batch));
	CHECK_EQ(msg.len, t->scene->bytes);
	memcpy(at, msg.data, sizeof(at));
	CHECK_EQ(at[0], CAST_OTHERS);
	CHECK_EQ(at[1], head->seq - t->base);
	CHECK(is_filled((const char *)msg.data + HEAD_BYTES, msg.len - HEAD_BYTES,
			at[0] << 32 | at[1]));
}

/* The log has every message before `limit`, each once, whole and in order. */
static void check_log(struct stage *t, uint64_t limit)
{
	struct log_reader *r;
	struct log_record head;
	struct shmq__why why = { "" };
	uint64_t next = t->base;
	const char *body;
	int dir = open_dir(above, "0");

	CHECK_OK(shmq__log_reader_open(dir, &owner, &r, &why));
	CHECK_OK(shmq__log_reader_seek(r, next, &why));
	for (; next != limit; next++) {
		int rc = shmq__log_reader_next(r, &limit, &head, &body, &why);

		if (rc != 1 || head.kind != LOG_MESSAGE || head.seq != next)
			FAIL("of %llu messages said to be in the log number %llu is not: %d, "
			     "record of kind %d at %llu",
			     (unsigned long long)(limit - t->base),
			     (unsigned long long)(next - t->base), rc, head.kind,
			     (unsigned long long)(head.seq - t->base));
		check_body(t, &head, body);
	}
	shmq__log_reader_close(r);
	close(dir);
}

/* No seq that may be given out is at or above the ceiling. */
static void check_ceiling(struct stage *t)
{
	uint64_t written = load_relaxed(&t->part->log_written);
	struct log_ceiling c;
	int dir = open_dir(above, "0");

	if (written != t->base || t->scene->log != SHMQ_LOG_BLOCK) {
		CHECK_OK(shmq__log_ceiling_read(dir, &owner, &c));
		if (!c.is_clean && t->scene->log == SHMQ_LOG_BLOCK)
			CHECK_GE(seq_diff(c.seq, written + t->f->geo.depth), 0);
		CHECK_GE(seq_diff(c.seq, written), 0);
	}
	close(dir);
}

static void check_marks(struct stage *t)
{
	CHECK_GE(seq_diff(load_relaxed(&t->part->log_written), load_relaxed(&t->part->log_synced)),
		 0);
	CHECK_EQ(t->part->log_error, 0);
}

/* The tailer dies as everything is now, and another comes. */
static void bury(struct stage *t)
{
	struct fake keep = *t->f;
	unsigned sent = t->sent, turns;
	uint64_t written;
	uint32_t word;
	struct hand h;
	shmq_pub *pub;

	world_copy_up(t->w);
	copy_log();
	written = load_relaxed(&t->part->log_written);
	word = load_relaxed(&t->part->log_word);
	check_marks(t);
	check_ceiling(t);
	check_log(t, written);
	cast_take_out(t->f, t->client);
	begin_hand(&h, t->scene, above, t->bus, t->part);
	open_lane(&h);
	/* Else there is nothing new, but that who waits was not told of a mark. */
	pub = t->scene->ends || t->buried++ % 2 ? NULL : open_pub(t->bus, STANDIN_TOPIC);
	if (pub)
		send(t, pub, 2, 0);
	turns = 0;
	do {
		CHECK_LT(turns++, 10);
		CHECK(turn(&h) >= 0 || t->scene->ends);
		check_marks(t);
	} while (load_relaxed(&t->part->log_written) != t->base + t->sent);
	CHECK_NE(load_relaxed(&t->part->log_word), word);
	if (pub)
		shmq_pub_close(pub);
	CHECK_OK(tail_lane_close(h.lane));
	check_log(t, t->base + t->sent);
	end_hand(&h);
	test_remove_tree(above);
	*t->f = keep;
	t->sent = sent;
}

static void begin(struct stage *t, const struct scene *scene, uint64_t base)
{
	struct fake_options o = { .base_seq = base,
				  .mode = SHMQ_SHARED,
				  .log = scene->log,
				  .max_bytes = scene->bytes == LARGE ? CAST_MESSAGE_MAX : 0,
				  .arena_bytes = scene->bytes == LARGE ? ARENA : 0 };
	struct shmq_bus_options plain = { .serve = SHMQ_SERVE_CALLER };
	shmq_pub *pub;

	*t = (struct stage){ .scene = scene, .w = world_new(&o), .base = base };
	t->f = t->w->f;
	t->part = &t->f->partition[0];
	shared->pid = getpid();
	shared->registry_fd = t->w->fd[FAKE_REGISTRY];
	CHECK_OK(standin_open(t->w->s, &plain, &t->bus));
	pub = open_pub(t->bus, STANDIN_TOPIC);
	send(t, pub, scene->before, 0);
	shmq_pub_close(pub);
	world_open_below(t->w);
}

/* The subject stands at its mark. */
static void begin_steps(struct stage *t)
{
	shmq_pub *pub;

	world_close_below(t->w);
	standin_hold_others(t->w->s);
	t->client = t->f->clients;
	world_look(t->w);
	world_copy_up(t->w);
	pub = open_pub(t->bus, STANDIN_TOPIC);
	if (t->scene->count)
		send(t, pub, t->scene->count, t->scene->is_atomic);
	shmq_pub_close(pub);
	if (t->scene->ends) {
		store_relaxed(&t->f->rec->state, LAY_TOPIC_ENDED);
		store_release(&t->f->topic->ring[0].mem->state, LAY_RING_ENDED);
	}
	world_copy_down(t->w);
}

static void run(const struct scene *scene, uint64_t base, struct steps_tally *tally)
{
	struct stepper s;
	struct stage t;
	enum stepper_at at;

	name_dirs();
	make_dir(below);
	shared = mmap(NULL, LAY_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	stepper_fork(&s, live, (void *)(uintptr_t)scene);
	begin(&t, scene, base);
	stepper_go(&s);
	begin_steps(&t);
	bury(&t);
	tally->scenes++;
	tally->deaths++;
	while ((at = stepper_step(&s)) != STEPPER_MARKED) {
		int changed = world_look(t.w);

		tally->instructions++;
		tally->states += (unsigned)changed;
		if (at == STEPPER_ENDED)
			FAIL("%s: the tailer ended: %d", scene->name, s.ended);
		if (changed && getenv("SHMQ_STEPS"))
			NOTE("%s, instruction %llu: %s", scene->name, (unsigned long long)s.steps,
			     t.w->watch.label);
		if (changed || s.was_syscall) {
			bury(&t);
			tally->deaths++;
		}
		if (at == STEPPER_ASLEEP) {
			world_copy_up(t.w);
			world_answer(t.w);
			CHECK_NE(stepper_await(&s), STEPPER_ENDED);
		}
	}
	world_look(t.w);
	world_copy_up(t.w);
	CHECK_EQ(load_relaxed(&t.part->log_written), base + t.sent);
	stepper_kill(&s);
	shmq_bus_close(t.bus);
	world_free(t.w);
	munmap(shared, LAY_PAGE);
	test_remove_tree(below);
}

/* ---- where ------------------------------------------------------------------------------ */

static const struct scene scenes[] = {
	{ "write messages", act_write, SHMQ_LOG_BLOCK, SHMQ_SYNC_NONE, BYTES, 3, 2, 0, 0 },
	{ "write the first messages", act_write, SHMQ_LOG_BLOCK, SHMQ_SYNC_NONE, BYTES, 0, 2, 0,
	  0 },
	{ "write and sync", act_write, SHMQ_LOG_BLOCK, SHMQ_SYNC_EVERY, BYTES, 3, 1, 0, 0 },
	{ "write from an arena", act_write, SHMQ_LOG_BLOCK, SHMQ_SYNC_BATCH, LARGE, 3, 2, 0, 0 },
	{ "write an atomic batch", act_write, SHMQ_LOG_BLOCK, SHMQ_SYNC_NONE, MEMBER, 3, 3, 1, 0 },
	{ "write where nobody waits", act_write, SHMQ_LOG_GAP, SHMQ_SYNC_INTERVAL, BYTES, 3, 2, 0,
	  0 },
	{ "open a log and go on", act_open, SHMQ_LOG_BLOCK, SHMQ_SYNC_NONE, BYTES, 3, 2, 0, 0 },
	{ "write to the end and close", act_close, SHMQ_LOG_BLOCK, SHMQ_SYNC_BATCH, BYTES, 3, 2, 0,
	  1 },
};
static const uint64_t bases[] = FAKE_BASES;

TEST_WITHIN(a_tailer_may_die_at_any_instruction, 600)
{
	uint64_t random = steps_seed();

	stepper_need();
	log_open("test", LOG_ERROR);
	for (size_t i = 0; i < COUNT(scenes); i++) {
		struct steps_tally tally = { 0 };

		/* Those that open and close take a hundred thousand instructions. */
		for (size_t k = 0; k < COUNT(bases); k++)
			if (steps_is_torture() || (!i && !k) ||
			    fake_random(&random) % (scenes[i].act == act_write ? 18 : 99) == 0)
				run(&scenes[i], bases[k], &tally);
		if (tally.scenes)
			steps_report(scenes[i].name, &tally);
	}
}
