/* SPDX-License-Identifier: MIT
 *
 * A partition on its way into its log, whose publishers write whatever they like into
 * ring, void list, arenas and bells, before the tailer looks and while it does.  What is
 * on disk is read meanwhile: it is whole records, one behind the other, as far as the
 * marks say; and a lane is closed and opened again.
 */
#include "scene.h"

#include "log.h"
#include "log_reader.h"
#include "tail_lane.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

const unsigned fuzz_runs = 200;

enum { OPS_MAX = 48, BUFFER_BYTES = 64 << 10, LOG_STEPS = 1 << 24 };
/* A pump takes thousands of messages, and each may cost a look at a whole ring. */
#define PUMP_STEPS (8 * SCENE_STEPS)

static struct scene *c;
static struct tail_lane *lane; /* NULL: its ring says that it is none */
static struct tail_io *io;
static struct shmq_topic_info info;
static struct lay_partition *part;
static struct ring_writer writer;
static struct log_owner owner = { .log_id = "of this fuzz log" };
static int log_dir = -1;
static uint64_t written; /* so far */

/* ---- the log ------------------------------------------------------------------ */

static const char *log_path(void)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/log", test_tmpdir());
	return path;
}

/* Of what is synced here nothing has to survive, and a disk may be another's for long. */
__attribute__((constructor)) static void work_in_memory(void)
{
	if (!access("/dev/shm", W_OK))
		setenv("TMPDIR", "/dev/shm", 1);
}

static void make_dir(uint32_t p)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", p);
	CHECK_OK(mkdir(log_path(), 0700));
	CHECK_GE(log_dir = open(log_path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
	CHECK_OK(mkdirat(log_dir, name, 0700));
}

static void check_record(const struct log_record *head, const char *body)
{
	struct lay_batch batch;
	struct shmq_msg msg;

	if (head->kind != LOG_MESSAGE)
		return;
	fuzz_touch(body, head->body_bytes);
	CHECK_OK(shmq__log_decode(head, body, &msg, &batch));
	CHECK_LE(msg.len + msg.key_len + msg.properties_len, info.max_message_bytes);
}

/* All that is said to be written is there, one record behind the other. */
static void read_log(void)
{
	uint64_t limit = load_relaxed(&part->log_written), next = part->base_seq;
	struct log_reader *r;
	struct log_record head;
	struct shmq__why why = { "" };
	const char *body;
	char name[16];
	int dir;

	snprintf(name, sizeof(name), "%u", owner.partition);
	CHECK_GE(dir = openat(log_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
	CHECK_OK(shmq__log_reader_open(dir, &owner, &r, &why));
	CHECK_OK(shmq__log_reader_seek(r, next, &why));
	while (next != limit) {
		if (WITHIN(LOG_STEPS, shmq__log_reader_next(r, &limit, &head, &body, &why)) != 1)
			FAIL("of %llu to %llu the log has what comes before %llu: %s",
			     (unsigned long long)part->base_seq, (unsigned long long)limit,
			     (unsigned long long)next, why.text);
		CHECK_EQ(head.seq, next);
		CHECK(!(head.kind == LOG_GAP && head.flags & LOG_GAP_DAMAGE));
		check_record(&head, body);
		/* A hole at the end may go further. */
		next = seq_diff(next + log_record_count(&head), limit) > 0 ?
			       limit :
			       next + log_record_count(&head);
	}
	shmq__log_reader_close(r);
	close(dir);
}

/* ---- the lane ------------------------------------------------------------------ */

static void check_marks(void)
{
	uint64_t now = load_relaxed(&part->log_written), synced = load_relaxed(&part->log_synced);

	CHECK_GE(seq_diff(now, written), 0);
	CHECK_GE(seq_diff(now, synced), 0);
	CHECK_EQ(part->log_error, 0);
	written = now;
}

static int pump(int is_ending)
{
	int rc = lane ? WITHIN(PUMP_STEPS, tail_lane_pump(lane, is_ending)) : SHMQ_EENDED;

	CHECK(rc == 1 || rc == 0 || rc == -EAGAIN || rc == SHMQ_EENDED || rc == SHMQ_EMOVED);
	return rc;
}

static void tend(void)
{
	if (!lane)
		return;
	WITHIN(LOG_STEPS, tail_lane_tend(lane, shmq__clock_monotonic_ns()));
	check_marks();
	tail_io_reap(io, 0);
}

static void open_lane(void)
{
	struct tail_lane_options o = { .bus = &c->bus,
				       .io = io,
				       .topic = &info,
				       .partition = owner.partition,
				       .dir = log_dir,
				       .log_id = owner.log_id,
				       .part = part };
	struct shmq__why why = { "" };
	int rc = tail_lane_open(&o, &lane, &why);

	if (rc && rc != SHMQ_ECORRUPT && rc != SHMQ_EVERSION)
		FAIL("opening a lane: %s: %s", shmq_errname(rc), why.text);
}

static void close_lane(void)
{
	if (!lane)
		return;
	CHECK_OK(tail_lane_close(lane));
	check_marks();
}

static void begin(struct bites *in)
{
	unsigned how;

	c = scene_begin(in);
	how = (unsigned)bite(in, 1);
	c->f->rec->log = how & 1 ? SHMQ_LOG_BLOCK : SHMQ_LOG_GAP;
	owner.partition = (uint32_t)bite_below(in, c->f->geo.partitions);
	part = &c->f->partition[owner.partition];
	part->base_seq = written = c->base;
	part->log_error = 0;
	store_relaxed(&part->log_written, written);
	store_relaxed(&part->log_synced, written);
	CHECK_OK(shmq__bus_describe_topic(&c->bus, 0, &info));
	info.sync = (enum shmq_sync)(SHMQ_SYNC_NONE + (how >> 1 & 3));
	info.sync_ns = 5000000;
	info.segment_bytes = LAY_SEGMENT_BYTES_MIN;
	make_dir(owner.partition);
	CHECK_OK(tail_io_create(&(struct tail_io_options){ .buffer_count = 2 + (how >> 3 & 3),
							   .buffer_bytes = BUFFER_BYTES,
							   .kind = TAIL_IO_PLAIN },
				&io));
	writer = fake_writer(c->f, c->peer_pub, owner.partition);
	open_lane();
}

static void end(void)
{
	unsigned n;

	noise_between_steps(NULL, 0, 0);
	for (n = 0; n < 8 && pump(1) >= 0; n++)
		tend();
	tend();
	close_lane();
	read_log();
	tail_io_destroy(io);
	close(log_dir);
	test_remove_tree(log_path());
	scene_end(c);
}

static void say_of_the_end(struct bites *in)
{
	struct lay_ring *ring = c->f->topic->ring[owner.partition].mem;

	store_relaxed(&ring->moved_seq, c->base + bite_below(in, 64) - 8);
	store_release(&ring->state, (uint32_t)bite_below(in, 7));
}

static void play(struct bites *in)
{
	unsigned what = (unsigned)bite_below(in, 12), n;

	if (scene_publisher_lies(c, in, what))
		return;
	switch (what) {
	case 5:
	case 6:
		n = (unsigned)bite_below(in, 64);
		writer.limit = writer.next + 1024;
		while (n--)
			fake_publish(&writer, n);
		break;
	case 7:
		say_of_the_end(in);
		break;
	case 8:
		close_lane();
		open_lane();
		break;
	case 9:
		if (lane && bite(in, 1) % 2)
			tail_lane_leave(lane, part->base_seq + bite(in, 2));
		read_log();
		break;
	default:
		pump(0);
		tend();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	unsigned ops = 0;

	begin(&in);
	while (in.left && ops++ < OPS_MAX)
		play(&in);
	end();
	return 0;
}

void fuzz_leave(void)
{
	scene_leave();
}

/* ---- what becomes of segments is another's business, and a thread's ------------- */

void __wrap_log_line(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

void __wrap_log_line(enum log_level level, const char *format, ...)
{
}

__typeof__(tail_keep_add) __wrap_tail_keep_add;
__typeof__(tail_keep_remove) __wrap_tail_keep_remove;
__typeof__(tail_keep_began) __wrap_tail_keep_began;
__typeof__(tail_keep_rolled) __wrap_tail_keep_rolled;
__typeof__(tail_keep_has_room) __wrap_tail_keep_has_room;

int __wrap_tail_keep_add(struct tail_keep *k, const struct tail_kept_options *o,
			 struct tail_kept **out)
{
	*out = NULL;
	return 0;
}

void __wrap_tail_keep_remove(struct tail_kept *p)
{
}

void __wrap_tail_keep_began(struct tail_kept *p, uint64_t first_seq, uint64_t base_ts)
{
}

void __wrap_tail_keep_rolled(struct tail_kept *p, uint64_t first_seq, uint64_t bytes)
{
}

int __wrap_tail_keep_has_room(struct tail_kept *p)
{
	return 1;
}
