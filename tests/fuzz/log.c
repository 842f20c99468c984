/* SPDX-License-Identifier: MIT
 *
 * A log whose files were damaged, cut, mixed up or forged: segments, indexes,
 * ceiling.  It is read, searched, verified and recovered, and then read again.
 */
#include "fuzz.h"

#include "log_reader.h"
#include "log_recover.h"
#include "logfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const unsigned fuzz_runs = 3000;

enum { SEGMENTS = 3, RECORDS = 12, SPOILS = 8, RECORDS_MAX = 10000, STEPS = 1 << 22 };

#define FIRST (UINT64_C(0) - 20)

static struct logfile seg[SEGMENTS];
static size_t at[SEGMENTS][RECORDS + 2]; /* of records, and behind the last */
static int is_forged;                    /* a checksum was made right */

static void build(void)
{
	uint64_t seq = FIRST, max_ts = 0;
	unsigned i, k;

	for (i = 0; i < SEGMENTS; i++) {
		struct logfile *f = &seg[i];

		logfile_begin(f, seq, max_ts);
		f->index_every = 200;
		for (k = 0; k < RECORDS; k++) {
			at[i][k] = f->bytes;
			if (k == 3)
				logfile_skip(f, LOG_HOLE, 2, 0);
			else if (k == 5)
				logfile_skip(f, LOG_GAP, 3, LOG_GAP_OVERRUN);
			else if (k >= 8 && k < 10)
				logfile_member(f, f->seq - (k - 8), k - 8, 2);
			else
				logfile_message(f, 100 * i + (k ^ 2), 10 + 20 * k);
		}
		at[i][k] = f->bytes;
		if (i < SEGMENTS - 1)
			logfile_end(f);
		at[i][k + 1] = f->bytes;
		seq = f->seq;
		max_ts = f->max_ts;
	}
}

static void sum_record(struct logfile *f, size_t off)
{
	uint32_t body_bytes;

	memcpy(&body_bytes, f->mem + off + 4, 4);
	if (off + 40 > f->bytes || body_bytes > f->bytes - off - 40)
		return;
	logfile_sum_record(f, off);
	is_forged = 1;
}

static void sum_entry(struct logfile *f, uint64_t i)
{
	uint32_t sum;
	char *e = f->index + 64 + 32 * i;

	if (64 + 32 * (i + 1) > f->index_bytes)
		return;
	sum = shmq__log_sum(f->seed, e, 24);
	memcpy(e + 24, &sum, 4);
	is_forged = 1;
}

static void spoil(struct bites *in)
{
	unsigned i = (unsigned)bite_below(in, SEGMENTS), k = (unsigned)bite_below(in, RECORDS + 1);
	struct logfile *f = &seg[i];
	struct area area[] = {
		{ f->mem, 80 },
		{ f->mem + at[i][k], 40 },
		{ f->mem + LOG_BLOCK, f->bytes - LOG_BLOCK },
		{ f->index, f->index_bytes },
	};
	struct noise noise;

	switch (bite_below(in, 8)) {
	case 0:
		logfile_sum_header(f);
		is_forged = 1;
		break;
	case 1:
		sum_record(f, at[i][k]);
		break;
	case 2:
		sum_entry(f, k);
		break;
	case 3:
		f->bytes = bite_below(in, f->bytes + 1);
		f->bytes = f->bytes < LOG_BLOCK + 80 ? LOG_BLOCK + 80 : f->bytes;
		break;
	default: /* and, at times, right again */
		if (at[i][k] + 40 > f->bytes)
			break;
		noise = bite_noise(in, area, sizeof(area) / sizeof(area[0]));
		noise_make(&noise);
		if (bite(in, 1) % 2)
			sum_record(f, at[i][k]);
	}
}

/* Compressed, and damaged after that, at times with checksums that are right. */
static void put_zip(struct bites *in, const struct logfile *f, int dir, const char *name)
{
	size_t bytes;
	char *mem = logfile_zip(f, 300 + 100 * bite_below(in, 8), &bytes);
	struct area area[] = { { mem, bytes }, { mem + bytes - 32, 32 } };
	unsigned how = (unsigned)bite(in, 1);
	struct noise noise;

	if (how & 1) {
		noise = bite_noise(in, area, sizeof(area) / sizeof(area[0]));
		noise_make(&noise);
	}
	if (how & 2) {
		logfile_sum_zip(mem, bytes);
		is_forged = 1;
	}
	logfile_put(dir, name, mem, how & 4 ? bite_below(in, bytes + 1) : bytes);
	free(mem);
}

static void put(struct bites *in, int dir)
{
	char name[LOG_NAME_BYTES], ceiling[LOG_BLOCK + 48] = { 0 };
	struct area area = { ceiling, sizeof(ceiling) };
	struct noise noise;
	unsigned i, which = (unsigned)bite(in, 1), zips = (unsigned)bite(in, 1);

	for (i = 0; i < SEGMENTS; i++) {
		shmq__log_name(seg[i].first_seq, "idx", name);
		unlinkat(dir, name, 0);
		shmq__log_name(seg[i].first_seq, "log", name);
		unlinkat(dir, name, 0);
		shmq__log_name(seg[i].first_seq, "zst", name);
		unlinkat(dir, name, 0);
		if (zips >> i & 1)
			put_zip(in, &seg[i], dir, name);
		/* Beside the other, or alone. */
		if (which >> i & 1 || zips >> (3 + i) & 1)
			continue;
		if (which >> (3 + i) & 1)
			seg[i].index_every = 0;
		logfile_write(&seg[i], dir);
	}
	logfile_ceiling(dir, 0, 1, FIRST + bite(in, 1), which >> 6 & 1);
	if (which >> 7) {
		noise = bite_noise(in, &area, 1);
		noise_make(&noise);
		logfile_put(dir, "ceiling", ceiling, sizeof(ceiling));
	}
}

/* Read on to the end: every record begins where the one before has ended, and
 * no wrong message comes of damage alone. */
static void read_on(struct log_reader *r, const uint64_t *limit)
{
	uint64_t next = shmq__log_reader_seq(r);
	struct log_record head;
	struct lay_batch batch;
	struct shmq__why why;
	struct shmq_msg msg;
	const char *body;
	unsigned n = 0;

	while (WITHIN(STEPS, shmq__log_reader_next(r, limit, &head, &body, &why)) == 1) {
		CHECK_LT(n++, RECORDS_MAX);
		CHECK_EQ(head.seq, next);
		next += log_record_count(&head);
		CHECK_EQ(shmq__log_reader_seq(r), next);
		if (head.kind != LOG_MESSAGE)
			continue;
		fuzz_touch(body, head.body_bytes);
		CHECK(is_forged || head.flags || logfile_is_right(&head, body));
		if (!shmq__log_decode(&head, body, &msg, &batch)) {
			fuzz_touch(msg.data, msg.len);
			fuzz_touch(msg.key, msg.key_len);
			fuzz_touch(msg.properties, msg.properties_len);
		}
	}
}

static void read_and_seek(int dir, struct bites *in)
{
	uint64_t limit = FIRST + bite(in, 1), seq = FIRST + bite(in, 1), ts = bite(in, 2);
	struct log_reader *r = NULL;
	struct shmq__why why;

	WITHIN(STEPS, shmq__log_reader_open(dir, NULL, &r, &why));
	if (!r)
		return;
	read_on(r, NULL);
	if (!WITHIN(STEPS, shmq__log_reader_seek(r, seq, &why)))
		read_on(r, &limit);
	if (!WITHIN(STEPS, shmq__log_reader_seek_time(r, ts, &why)))
		read_on(r, NULL);
	shmq__log_reader_close(r);
}

static void recover(int dir)
{
	struct log_state once, twice;
	struct log_verdict v;
	struct shmq__why why;

	if (WITHIN(STEPS, shmq__log_recover(dir, &logfile_owner, 1024, &once, NULL, NULL, &why)))
		return;
	CHECK_OK(WITHIN(STEPS,
			shmq__log_recover(dir, &logfile_owner, 1024, &twice, NULL, NULL, &why)));
	CHECK_EQ(twice.cut_bytes, 0);
	once.cut_bytes = 0;
	CHECK_MEM(&twice, &once, sizeof(once));
	if (once.has_next)
		CHECK(!once.has_segment || once.off >= LOG_BLOCK);
	WITHIN(STEPS, shmq__log_verify(dir, -1, &logfile_owner, &v, NULL, NULL, NULL, &why));
}

static void forget_cut(void)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/cut", test_tmpdir());
	test_remove_tree(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	struct log_verdict v;
	struct shmq__why why;
	unsigned i, spoils = (unsigned)bite_below(&in, SPOILS);
	int before = test_fd_count(), dir = open(test_tmpdir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	CHECK_GE(dir, 0);
	is_forged = 0;
	build();
	while (spoils--)
		spoil(&in);
	put(&in, dir);
	read_and_seek(dir, &in);
	WITHIN(STEPS, shmq__log_verify(dir, -1, NULL, &v, NULL, NULL, NULL, &why));
	recover(dir);
	read_and_seek(dir, &in);
	forget_cut();
	for (i = 0; i < SEGMENTS; i++)
		logfile_free(&seg[i]);
	close(dir);
	CHECK_EQ(test_fd_count(), before);
	return 0;
}

void fuzz_leave(void)
{
}
