/* SPDX-License-Identifier: MIT */
#include "log_segment.h"
#include "logfile.h"
#include "tap.h"

#include "helpers.h"
#include "memory.h"

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define FIRST (UINT64_C(0) - 3) /* just below the wrap */
#define MiB ((size_t)1 << 20)

/* ---- golden files ------------------------------------------------------ */

#define GOLDEN "tests/log/golden"
#define GOLDEN_NAME "18446744073709551613"

/* What is in them: every kind of record, across the wrap. */
static struct logfile golden(void)
{
	static const struct log_record meta = { .body_bytes = 20,
						.seq = FIRST + 2,
						.ts = 1700000000000000002,
						.tag = 77,
						.type = 9,
						.flags = SHMQ_MSG_META,
						.kind = LOG_MESSAGE };
	struct logfile f;

	logfile_begin(&f, FIRST, 1700000000000000000);
	f.index_every = 64;
	logfile_message(&f, 1700000000000000001, 5);
	logfile_message(&f, 1700000000000000000, 0);
	logfile_record(&f, meta, "\003\000\004\000keypropmessage..");
	logfile_skip(&f, LOG_HOLE, 2, 0);
	logfile_skip(&f, LOG_GAP, 5, LOG_GAP_OVERRUN);
	logfile_member(&f, f.seq, 0, 2);
	logfile_member(&f, f.seq - 1, 1, 2);
	logfile_end(&f);
	return f;
}

static int golden_dir(void)
{
	int dir = open(GOLDEN, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		FAIL("%s: %s", GOLDEN, strerror(errno));
	if (__BYTE_ORDER != __LITTLE_ENDIAN)
		SKIP("the golden files are of the other byte order");
	return dir;
}

static void check_file(int dir, const char *name, const void *want, size_t want_bytes)
{
	size_t bytes;
	char *got = logfile_get(dir, name, &bytes);

	CHECK_EQ(bytes, want_bytes);
	CHECK_MEM(got, want, bytes);
	free(got);
}

TEST(the_golden_files_are_what_the_format_says)
{
	struct logfile f = golden();
	int dir = golden_dir(), ours = logfile_dir();
	size_t bytes;
	char *mem;

	logfile_write(&f, ours);
	logfile_ceiling(ours, 0, 6, 20, 0);
	logfile_ceiling(ours, 1, 7, 9, 1);
	mem = logfile_get(ours, GOLDEN_NAME ".log", &bytes);
	check_file(dir, GOLDEN_NAME ".log", mem, bytes);
	free(mem);
	mem = logfile_get(ours, GOLDEN_NAME ".idx", &bytes);
	check_file(dir, GOLDEN_NAME ".idx", mem, bytes);
	free(mem);
	mem = logfile_get(ours, "ceiling", &bytes);
	check_file(dir, "ceiling", mem, bytes);
	free(mem);
	close(ours);
	close(dir);
	logfile_free(&f);
}

TEST(the_structs_are_the_bytes_of_the_golden_segment)
{
	struct log_segment_header h;
	struct log_record r;
	struct log_key key;
	int dir = golden_dir();
	size_t bytes;
	char *mem = logfile_get(dir, GOLDEN_NAME ".log", &bytes);

	memcpy(&h, mem, sizeof(h));
	CHECK_EQ(h.magic, LOG_MAGIC_SEGMENT);
	CHECK_EQ(h.version, LOG_VERSION);
	CHECK_MEM(h.log_id, logfile_owner.log_id, 16);
	CHECK_EQ(h.seed, mix(FIRST));
	key = shmq__log_key(h.seed);
	CHECK_EQ(h.first_seq, FIRST);
	CHECK_EQ(h.base_ts, 1700000000000000000);
	CHECK_EQ(h.created_ns, 1234567890);
	CHECK_EQ(h.partition, 3);
	CHECK_STR(h.topic, "prices");
	memcpy(&r, mem + LOG_BLOCK + 48 + 40, sizeof(r));
	CHECK_EQ(r.body_bytes, 20);
	CHECK_EQ(r.seq, FIRST + 2);
	CHECK_EQ(r.ts, 1700000000000000002);
	CHECK_EQ(r.tag, 77);
	CHECK_EQ(r.type, 9);
	CHECK_EQ(r.flags, SHMQ_MSG_META);
	CHECK_EQ(r.kind, LOG_MESSAGE);
	CHECK_EQ(shmq__log_record_sum_whole(&key, mem + LOG_BLOCK + 88), r.checksum);
	free(mem);
	close(dir);
}

TEST(the_golden_segment_is_read_back)
{
	static const struct log_record want[] = {
		{ .seq = FIRST, .body_bytes = 5, .kind = LOG_MESSAGE },
		{ .seq = FIRST + 1, .body_bytes = 0, .kind = LOG_MESSAGE },
		{ .seq = FIRST + 2, .body_bytes = 20, .kind = LOG_MESSAGE },
		{ .seq = 0, .tag = 2, .kind = LOG_HOLE },
		{ .seq = 2, .tag = 5, .kind = LOG_GAP },
		{ .seq = 7, .body_bytes = 16, .kind = LOG_MESSAGE },
		{ .seq = 8, .body_bytes = 16, .kind = LOG_MESSAGE },
	};
	struct log_index_entry e;
	struct log_segment seg;
	struct log_record head;
	struct log_scan scan;
	const char *body;
	int dir = golden_dir();
	unsigned i;

	CHECK_OK(shmq__log_segment_open(dir, FIRST, &logfile_owner, &seg, NULL));
	shmq__log_index_find(dir, &seg, LOG_BY_SEQ, 3, &e);
	CHECK_EQ(e.seq, 0);
	CHECK_EQ(e.max_ts, 1700000000000000002);
	CHECK_OK(shmq__log_scan_init(&scan));
	shmq__log_scan_start(&scan, &seg, LOG_BLOCK, FIRST);
	for (i = 0; i < COUNT(want); i++) {
		CHECK_EQ(shmq__log_scan_next(&scan, &head, &body), 1);
		CHECK_EQ(head.seq, want[i].seq);
		CHECK_EQ(head.kind, want[i].kind);
		CHECK_EQ(head.body_bytes, want[i].body_bytes);
		if (head.kind != LOG_MESSAGE)
			CHECK_EQ(head.tag, want[i].tag);
		if (i == 3)
			CHECK_EQ(log_scan_off(&scan), e.off + 40);
	}
	CHECK_EQ(shmq__log_scan_next(&scan, &head, &body), 0); /* END */
	CHECK_EQ(scan.next, 9);
	shmq__log_scan_fini(&scan);
	close(dir);
}

/* A second one, in use, of all that the first has not; written by another program. */
static void check_why(const struct logfile *f)
{
	static const struct log_record want[] = {
		{ .seq = 9, .tag = 3, .kind = LOG_HOLE, .flags = LOG_HOLE_SUPERSEDED },
		{ .seq = 12, .tag = 4, .kind = LOG_GAP, .flags = LOG_GAP_UNKNOWN },
		{ .seq = 16, .tag = 2, .kind = LOG_GAP, .flags = LOG_GAP_DAMAGE },
		{ .seq = 18, .tag = 7, .kind = LOG_GAP, .flags = LOG_GAP_OVERRUN | LOG_GAP_BOUND },
		{ .seq = 25, .tag = 5, .kind = LOG_MESSAGE, .flags = 5 },
		{ .seq = 26, .tag = 0, .kind = LOG_MESSAGE, .flags = SHMQ_MSG_BATCH },
	};
	struct lay_batch batch;
	struct log_record head;
	struct log_scan scan;
	struct log_segment seg;
	struct shmq_msg msg;
	const char *body;
	int dir = golden_dir();
	unsigned i;

	CHECK_OK(shmq__log_segment_open(dir, f->first_seq, &logfile_owner, &seg, NULL));
	CHECK_EQ(seg.base_ts, 1700000000000000002);
	CHECK_OK(shmq__log_scan_init(&scan));
	shmq__log_scan_start(&scan, &seg, LOG_BLOCK, 9);
	for (i = 0; i < COUNT(want); i++) {
		CHECK_EQ(shmq__log_scan_next(&scan, &head, &body), 1);
		CHECK_EQ(head.seq, want[i].seq);
		CHECK_EQ(head.kind, want[i].kind);
		CHECK_EQ(head.flags, want[i].flags);
		CHECK_EQ(head.tag, want[i].tag);
		if (head.kind == LOG_MESSAGE) {
			CHECK_OK(shmq__log_decode(&head, body, &msg, &batch));
			CHECK_EQ(batch.first_seq, 25);
			CHECK_EQ(batch.index, i - 4);
			CHECK_EQ(batch.count, 2);
		}
		if (i != 4)
			continue;
		CHECK_EQ(head.type, 6);
		CHECK_MEM(msg.key, "k", 1);
		CHECK_EQ(msg.key_len, 1);
		CHECK_MEM(msg.properties, "pr", 2);
		CHECK_EQ(msg.properties_len, 2);
		CHECK_MEM(msg.data, "msg", 3);
		CHECK_EQ(msg.len, 3);
	}
	CHECK_EQ(shmq__log_scan_next(&scan, &head, &body), 0);
	CHECK_EQ(head.kind, LOG_NOTHING);
	shmq__log_scan_fini(&scan);
	close(dir);
}

TEST(every_reason_and_every_flag_is_in_a_golden_segment)
{
	static const struct log_record both = { .body_bytes = 26,
						.seq = 25,
						.ts = 1700000000000000003,
						.tag = 5,
						.type = 6,
						.flags = 5,
						.kind = LOG_MESSAGE };
	struct log_record second = { .body_bytes = 16,
				     .seq = 26,
				     .ts = 1700000000000000002,
				     .flags = 1,
				     .kind = LOG_MESSAGE };
	struct logfile f;
	int dir = golden_dir(), ours = logfile_dir();
	size_t bytes;
	char *mem;

	logfile_begin(&f, 9, 1700000000000000002);
	f.seed = UINT64_C(0x0123456789abcdef);
	memcpy(f.mem + 32, &f.seed, 8);
	logfile_sum_header(&f);
	f.index_every = 0;
	logfile_skip(&f, LOG_HOLE, 3, 1);
	logfile_skip(&f, LOG_GAP, 4, 2);
	logfile_skip(&f, LOG_GAP, 2, 4);
	logfile_skip(&f, LOG_GAP, 7, 9);
	logfile_record(&f, both, "\031\0\0\0\0\0\0\0\0\0\0\0\002\0\0\0\001\0\002\0kprmsg");
	logfile_record(&f, second, "\031\0\0\0\0\0\0\0\001\0\0\0\002\0\0\0");
	logfile_write(&f, ours);
	mem = logfile_get(ours, "00000000000000000009.log", &bytes);
	check_file(dir, "00000000000000000009.log", mem, bytes);
	check_why(&f);
	free(mem);
	close(ours);
	close(dir);
	logfile_free(&f);
}

TEST(the_golden_segment_of_the_other_byte_order_is_refused_by_name)
{
	struct log_segment seg;
	struct shmq__why why;
	int dir = golden_dir(), ours = logfile_dir();
	size_t bytes, i;
	char *mem = logfile_get(dir, GOLDEN_NAME ".log", &bytes);

	for (i = 0; i < bytes / 2; i += 8) { /* all of it, at the width of most */
		uint64_t word;

		memcpy(&word, mem + i, 8);
		word = __builtin_bswap64(word);
		memcpy(mem + i, &word, 8);
	}
	logfile_put(ours, GOLDEN_NAME ".log", mem, bytes);
	CHECK_EQ(shmq__log_segment_open(ours, FIRST, NULL, &seg, &why), SHMQ_EVERSION);
	CHECK(strstr(why.text, GOLDEN_NAME ".log"));
	CHECK(strstr(why.text, "byte order"));
	CHECK_EQ(seg.fd, -1);
	free(mem);
	close(ours);
	close(dir);
}

/* ---- the directory ------------------------------------------------------- */

static void touch(int dir, const char *name)
{
	logfile_put(dir, name, "", 0);
}

static void touch_seq(int dir, uint64_t seq)
{
	char name[LOG_NAME_BYTES];

	shmq__log_name(seq, "log", name);
	touch(dir, name);
}

TEST(a_segment_is_named_by_its_first_seq_in_twenty_digits)
{
	char name[LOG_NAME_BYTES];

	shmq__log_name(42, "log", name);
	CHECK_STR(name, "00000000000000000042.log");
	shmq__log_name(UINT64_MAX, "idx", name);
	CHECK_STR(name, "18446744073709551615.idx");
}

TEST(segments_are_listed_in_the_order_of_their_seqs_across_the_wrap)
{
	static const uint64_t in_order[] = {
		UINT64_MAX - 1000, UINT64_MAX - 1, UINT64_MAX, 0, 1, 1000
	};
	static const unsigned put[] = { 3, 0, 5, 2, 4, 1 };
	uint64_t *all;
	unsigned n, i;
	int dir = logfile_dir();

	for (i = 0; i < COUNT(put); i++)
		touch_seq(dir, in_order[put[i]]);
	CHECK_OK(shmq__log_list(dir, &all, &n));
	CHECK_EQ(n, COUNT(in_order));
	CHECK_MEM(all, in_order, sizeof(in_order));
	free(all);
	close(dir);
}

TEST(what_is_named_otherwise_is_not_listed)
{
	static const char *const others[] = {
		"ceiling",
		"00000000000000000001.idx",
		"1.log",
		"0000000000000000001.log",
		"000000000000000000001.log",
		" 0000000000000000001.log",
		"+0000000000000000001.log",
		"-0000000000000000001.log",
		"18446744073709551616.log",
		"99999999999999999999.log",
		"00000000000000000001.log.new",
		"0000000000000000000x.log",
		"00000000000000000001log",
		".log",
	};
	uint64_t *all;
	unsigned n, i;
	int dir = logfile_dir();

	for (i = 0; i < COUNT(others); i++)
		touch(dir, others[i]);
	CHECK_EQ(mkdirat(dir, "cut", 0700), 0);
	CHECK_OK(shmq__log_list(dir, &all, &n));
	CHECK_EQ(n, 0);
	CHECK(!all);
	touch_seq(dir, 7);
	CHECK_OK(shmq__log_list(dir, &all, &n));
	CHECK_EQ(n, 1);
	CHECK_EQ(all[0], 7);
	free(all);
	close(dir);
}

TEST(a_huge_directory_is_listed_whole)
{
	enum { SEGMENTS = 5000 };
	uint64_t *all;
	unsigned n, i;
	int dir = logfile_dir();

	for (i = 0; i < SEGMENTS; i++)
		touch_seq(dir, FIRST + mix(i) % 1000 + 1000 * (uint64_t)i);
	CHECK_OK(shmq__log_list(dir, &all, &n));
	CHECK_EQ(n, SEGMENTS);
	for (i = 0; i < n; i++)
		CHECK_EQ(all[i], FIRST + mix(i) % 1000 + 1000 * (uint64_t)i);
	free(all);
	close(dir);
}

TEST(segments_that_span_half_of_all_seqs_have_no_order)
{
	uint64_t *all;
	unsigned n;
	int dir = logfile_dir();

	touch_seq(dir, 0);
	touch_seq(dir, (uint64_t)INT64_MAX);
	CHECK_OK(shmq__log_list(dir, &all, &n));
	CHECK_EQ(all[0], 0);
	free(all);
	touch_seq(dir, UINT64_MAX - 5); /* behind the last, and before the first */
	CHECK_EQ(shmq__log_list(dir, &all, &n), SHMQ_ECORRUPT);
	CHECK(!all && !n);
	close(dir);
}

TEST(listing_survives_every_shortage_of_memory)
{
	uint64_t *all;
	unsigned n, k;
	int dir = logfile_dir(), rc;

	for (k = 0; k < 200; k++)
		touch_seq(dir, k);
	for (k = 1;; k++) {
		scarce_begin(k);
		rc = shmq__log_list(dir, &all, &n);
		if (!scarce_end())
			break;
		CHECK_EQ(rc, -ENOMEM);
		CHECK(!all && !n);
	}
	CHECK_OK(rc);
	CHECK_EQ(n, 200);
	CHECK_GT(k, 2);
	free(all);
	close(dir);
}

/* ---- the header ---------------------------------------------------------- */

static void check_refused(int dir, uint64_t first_seq, const struct log_owner *owner, int want,
			  const char *text)
{
	struct log_segment seg;
	struct shmq__why why = { "" };
	int before = test_fd_count();

	CHECK_ERROR(shmq__log_segment_open(dir, first_seq, owner, &seg, &why), want);
	if (!strstr(why.text, text))
		FAIL("\"%s\" does not say \"%s\"", why.text, text);
	CHECK_EQ(seg.fd, -1);
	CHECK_EQ(test_fd_count(), before);
}

TEST(a_segment_says_what_it_is)
{
	struct log_segment seg;
	struct logfile f;
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 99);
	logfile_write(&f, dir);
	CHECK_OK(shmq__log_segment_open(dir, FIRST, &logfile_owner, &seg, NULL));
	CHECK_EQ(seg.first_seq, FIRST);
	CHECK_EQ(seg.seed, f.seed);
	CHECK_EQ(seg.base_ts, 99);
	CHECK_EQ(seg.owner.partition, 3);
	CHECK_MEM(seg.owner.log_id, logfile_owner.log_id, 16);
	CHECK(fcntl(seg.fd, F_GETFD) & FD_CLOEXEC);
	shmq__log_segment_close(&seg);
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

TEST(a_segment_of_another_log_partition_seq_or_version_is_refused)
{
	struct log_owner other = logfile_owner;
	struct log_segment seg;
	struct logfile f;
	int dir = logfile_dir();

	check_refused(dir, 1, NULL, -ENOENT, "00000000000000000001.log");
	logfile_begin(&f, 1, 0);
	logfile_write(&f, dir);
	other.log_id[15]++;
	check_refused(dir, 1, &other, SHMQ_ECORRUPT, "another log");
	other = logfile_owner;
	other.partition++;
	check_refused(dir, 1, &other, SHMQ_ECORRUPT, "partition 3, not 4");
	CHECK_OK(shmq__log_segment_open(dir, 1, NULL, &seg, NULL));
	shmq__log_segment_close(&seg);
	CHECK_EQ(renameat(dir, "00000000000000000001.log", dir, "00000000000000000002.log"), 0);
	check_refused(dir, 2, NULL, SHMQ_ECORRUPT, "begins with seq 1");
	f.mem[8] = 2;
	logfile_sum_header(&f);
	logfile_write(&f, dir);
	check_refused(dir, 1, NULL, SHMQ_EVERSION, "version 2 of the format, not 1");
	logfile_free(&f);
	close(dir);
}

TEST(no_flipped_bit_in_a_header_passes)
{
	struct log_segment seg;
	struct logfile f;
	unsigned i;
	int dir = logfile_dir(), rc;

	logfile_begin(&f, 1, 0);
	for (i = 0; i < LOG_BLOCK; i++) {
		f.mem[i] ^= (char)(1 << i % 8);
		logfile_write_cut(&f, dir, f.bytes);
		rc = shmq__log_segment_open(dir, 1, NULL, &seg, NULL);
		CHECK(rc == SHMQ_ECORRUPT || rc == SHMQ_EVERSION);
		f.mem[i] ^= (char)(1 << i % 8);
	}
	logfile_free(&f);
	close(dir);
}

TEST(half_a_header_is_none)
{
	struct logfile f;
	unsigned n;
	int dir = logfile_dir();

	logfile_begin(&f, 1, 0);
	for (n = 0; n < LOG_BLOCK; n += 63) {
		logfile_write_cut(&f, dir, n);
		check_refused(dir, 1, NULL, SHMQ_ECORRUPT, "shorter than its header");
	}
	memset(f.mem, 0, LOG_BLOCK); /* made, and never written */
	logfile_write_cut(&f, dir, LOG_BLOCK);
	check_refused(dir, 1, NULL, SHMQ_ECORRUPT, "no segment of a log");
	logfile_free(&f);
	close(dir);
}

TEST(what_is_no_file_is_refused_at_once)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct logfile f;
	int dir = logfile_dir(), sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(mkfifoat(dir, "00000000000000000001.log", 0600), 0);
	check_refused(dir, 1, NULL, SHMQ_ECORRUPT, "no regular file");
	CHECK_EQ(mkdirat(dir, "00000000000000000002.log", 0700), 0);
	check_refused(dir, 2, NULL, SHMQ_ECORRUPT, "no regular file");
	logfile_begin(&f, 9, 0);
	logfile_write(&f, dir);
	CHECK_EQ(symlinkat("00000000000000000009.log", dir, "00000000000000000003.log"), 0);
	check_refused(dir, 3, NULL, SHMQ_ECORRUPT, "no regular file");
	snprintf(address.sun_path, sizeof(address.sun_path),
		 "/proc/self/fd/%d/00000000000000000004.log", dir);
	CHECK_EQ(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	check_refused(dir, 4, NULL, SHMQ_ECORRUPT, "no regular file");
	close(sock);
	logfile_free(&f);
	close(dir);
}

/* ---- scanning -------------------------------------------------------------- */

static void start(struct log_scan *s, const struct logfile *f, int dir)
{
	struct log_segment seg;

	CHECK_OK(shmq__log_segment_open(dir, f->first_seq, NULL, &seg, NULL));
	CHECK_OK(shmq__log_scan_init(s));
	shmq__log_scan_start(s, &seg, LOG_BLOCK, f->first_seq);
}

/* Right messages up to seq `end`, none less than a line further on in its page than it is
 * in the file's; what came then. */
static int scan_to(struct log_scan *s, uint64_t end)
{
	struct log_record head;
	const char *body;
	int rc;

	for (;;) {
		uint64_t seq = s->next, off = log_scan_off(s), further;

		CHECK_EQ(shmq__log_scan_peek(s), rc = shmq__log_scan_next(s, &head, &body));
		if (rc != 1)
			break;
		CHECK_EQ(head.seq, seq);
		CHECK(logfile_is_right(&head, body));
		further = ((uintptr_t)body - sizeof(head) - off) % LOG_BLOCK;
		CHECK(further == 0 || further >= 64);
	}
	CHECK_EQ(s->next, end);
	return rc;
}

TEST(records_across_reads_of_any_size_come_whole)
{
	struct log_scan s;
	struct logfile f;
	unsigned i;
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 0);
	f.index_every = 0;
	for (i = 0; f.bytes < 6 * MiB; i++)
		logfile_message(&f, 0, mix(i) % (i % 50 ? 5000 : 200000));
	logfile_message(&f, 0, 3 * MiB); /* longer than what is read at once */
	logfile_message(&f, 0, 10);
	logfile_message(&f, 0, 5 * MiB + 1);
	logfile_message(&f, 0, 0);
	logfile_write(&f, dir);
	start(&s, &f, dir);
	CHECK_EQ(scan_to(&s, f.seq), 0);
	CHECK_EQ(log_scan_off(&s), f.bytes);
	CHECK_LT(s.capacity, 6 * MiB); /* not more than the largest */
	shmq__log_scan_fini(&s);
	logfile_free(&f);
	close(dir);
}

TEST(behind_a_long_record_no_more_is_read_at_once_than_before)
{
	struct log_record head;
	const char *body;
	struct log_scan s;
	struct logfile f;
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 0);
	logfile_message(&f, 0, 5 * MiB);
	while (f.bytes < 12 * MiB)
		logfile_message(&f, 0, 1000);
	logfile_write(&f, dir);
	start(&s, &f, dir);
	CHECK_EQ(shmq__log_scan_next(&s, &head, &body), 1);
	CHECK_EQ(head.body_bytes, 5 * MiB);
	CHECK_EQ(shmq__log_scan_next(&s, &head, &body), 1);
	CHECK_LE(s.have, MiB);
	CHECK_EQ(scan_to(&s, f.seq), 0);
	shmq__log_scan_fini(&s);
	logfile_free(&f);
	close(dir);
}

/* Three messages, the offset behind each. */
static struct logfile three(size_t end[4])
{
	struct logfile f;
	unsigned i;

	logfile_begin(&f, FIRST + 1, 0);
	end[0] = f.bytes;
	for (i = 1; i < 4; i++) {
		logfile_message(&f, 0, 3 + 40 * (size_t)i);
		end[i] = f.bytes;
	}
	return f;
}

TEST(a_file_cut_at_any_byte_ends_with_its_last_whole_record)
{
	size_t end[4], n;
	struct logfile f = three(end);
	struct log_scan s;
	unsigned whole = 0;
	int dir = logfile_dir(), rc;

	for (n = end[0]; n <= f.bytes; n++) {
		if (whole < 3 && n == end[whole + 1])
			whole++;
		logfile_write_cut(&f, dir, n);
		start(&s, &f, dir);
		rc = scan_to(&s, f.first_seq + whole);
		/* Zeros at the very end of a record are padding, and a piece
		 * of nothing. */
		if (n == end[whole])
			CHECK_EQ(rc, 0);
		else
			CHECK_EQ(rc, SHMQ_ECORRUPT);
		CHECK_EQ(log_scan_off(&s), end[whole]);
		shmq__log_scan_fini(&s);
	}
	logfile_free(&f);
	close(dir);
}

TEST(what_is_left_of_the_last_block_is_no_record_however_short)
{
	struct log_scan s;
	struct logfile f;
	size_t left;
	int dir = logfile_dir();

	for (left = 0; left <= 80; left += 8) {
		logfile_begin(&f, FIRST, 0);
		logfile_message(&f, 0, LOG_BLOCK - 40 - left);
		logfile_write(&f, dir);
		start(&s, &f, dir);
		CHECK_EQ(scan_to(&s, FIRST + 1), 0);
		shmq__log_scan_fini(&s);
		logfile_free(&f);
	}
	close(dir);
}

TEST(a_head_that_claims_a_gigabyte_gets_no_memory)
{
	size_t end[4];
	struct logfile f = three(end);
	struct log_scan s;
	uint32_t claim = 1u << 30;
	int dir = logfile_dir();

	memcpy(f.mem + end[2] + 4, &claim, 4);
	logfile_write(&f, dir);
	start(&s, &f, dir);
	CHECK_EQ(scan_to(&s, FIRST + 3), SHMQ_ECORRUPT);
	CHECK_EQ(s.capacity, MiB);
	shmq__log_scan_fini(&s);
	logfile_free(&f);
	close(dir);
}

TEST(what_is_appended_after_it_was_looked_for_is_found)
{
	size_t n, next = LOG_BLOCK;
	struct logfile f, part;
	struct log_scan s;
	unsigned i;
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 0);
	logfile_write(&f, dir);
	start(&s, &f, dir);
	for (i = 0; i < 40; i++) {
		logfile_message(&f, 0, mix(i) % 300);
		/* In pieces, each of which is found to be no record yet. */
		for (n = next; n + 8 < f.bytes; n += 17) {
			part = f;
			part.bytes = n;
			logfile_write(&part, dir);
			CHECK_NE(scan_to(&s, FIRST + i), 1);
		}
		logfile_write(&f, dir);
		CHECK_EQ(scan_to(&s, FIRST + i + 1), 0);
		next = f.bytes;
	}
	shmq__log_scan_fini(&s);
	logfile_free(&f);
	close(dir);
}

TEST(a_file_that_shrinks_under_a_scan_just_ends)
{
	struct log_scan s;
	struct logfile f;
	struct log_record head;
	const char *body;
	int dir = logfile_dir(), rc;

	logfile_begin(&f, FIRST, 0);
	while (f.bytes < 4 * MiB)
		logfile_message(&f, 0, 10000);
	logfile_write(&f, dir);
	start(&s, &f, dir);
	CHECK_EQ(shmq__log_scan_next(&s, &head, &body), 1);
	logfile_write_cut(&f, dir, LOG_BLOCK + 100);
	while ((rc = shmq__log_scan_next(&s, &head, &body)) == 1)
		CHECK(logfile_is_right(&head, body));
	CHECK_EQ(rc, 0);
	logfile_write_cut(&f, dir, 0);
	CHECK_EQ(shmq__log_scan_next(&s, &head, &body), 0);
	shmq__log_scan_fini(&s);
	logfile_free(&f);
	close(dir);
}

TEST(a_scan_that_finds_no_memory_can_be_asked_again)
{
	struct log_record head;
	const char *body;
	struct log_scan s;
	struct logfile f;
	int dir = logfile_dir();

	scarce_begin(1);
	CHECK_EQ(shmq__log_scan_init(&s), -ENOMEM);
	CHECK(scarce_end());
	logfile_begin(&f, FIRST, 0);
	logfile_message(&f, 0, 2 * MiB);
	logfile_write(&f, dir);
	start(&s, &f, dir);
	scarce_begin(1);
	CHECK_EQ(shmq__log_scan_next(&s, &head, &body), -ENOMEM);
	CHECK(scarce_end());
	CHECK_EQ(scan_to(&s, f.seq), 0);
	shmq__log_scan_fini(&s);
	logfile_free(&f);
	close(dir);
}

/* ---- the index --------------------------------------------------------------- */

#define TS(i) (1000 + 10 * (uint64_t)(i))
#define COUNT_INDEXED 300

/* An entry for every three records or so; the clock steps back now and then. */
static struct logfile indexed(int dir, struct log_segment *seg)
{
	struct logfile f;
	unsigned i;

	logfile_begin(&f, FIRST, 0);
	f.index_every = 300;
	for (i = 0; i < COUNT_INDEXED; i++)
		logfile_message(&f, i % 7 == 6 ? TS(i) - 55 : TS(i), 60);
	logfile_write(&f, dir);
	CHECK_OK(shmq__log_segment_open(dir, FIRST, NULL, seg, NULL));
	return f;
}

static struct log_index_entry *entry(const struct logfile *f, unsigned i)
{
	return (struct log_index_entry *)(f->index + 64) + i;
}

static unsigned entries(const struct logfile *f)
{
	return (unsigned)((f->index_bytes - 64) / 32);
}

TEST(every_seq_is_found_at_the_last_entry_before_it)
{
	struct log_index_entry e;
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	unsigned i, at = 0;

	CHECK_GT(entries(&f), 50);
	for (i = 0; i < COUNT_INDEXED; i++) {
		if (at + 1 < entries(&f) && entry(&f, at + 1)->seq == FIRST + i)
			at++;
		shmq__log_index_find(dir, &seg, LOG_BY_SEQ, FIRST + i, &e);
		CHECK_MEM(&e, entry(&f, at), sizeof(e));
	}
	shmq__log_index_find(dir, &seg, LOG_BY_SEQ, FIRST - 1, &e);
	CHECK_EQ(e.off, LOG_BLOCK);
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

TEST(every_time_is_found_at_the_last_entry_all_before_which_is_older)
{
	struct log_index_entry e;
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	uint64_t ts;
	unsigned at;

	for (ts = TS(0) - 100; ts < TS(COUNT_INDEXED) + 100; ts++) {
		for (at = entries(&f) - 1; at && entry(&f, at)->max_ts >= ts;)
			at--;
		shmq__log_index_find(dir, &seg, LOG_BY_TIME, ts, &e);
		CHECK_EQ(e.off, entry(&f, at)->off);
	}
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

TEST(the_first_entry_behind_an_offset_is_found)
{
	struct log_index_entry e;
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	size_t off;
	unsigned at = 0;

	for (off = 0; off < f.bytes; off += 8) {
		while (at < entries(&f) && entry(&f, at)->off <= off)
			at++;
		if (at == entries(&f)) {
			CHECK_EQ(shmq__log_index_after(dir, &seg, off, &e), SHMQ_EEMPTY);
			continue;
		}
		CHECK_OK(shmq__log_index_after(dir, &seg, off, &e));
		CHECK_EQ(e.off, entry(&f, at)->off);
	}
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

static void write_index(const struct logfile *f, int dir)
{
	logfile_put(dir, GOLDEN_NAME ".idx", f->index, f->index_bytes);
}

TEST(a_damaged_entry_leads_nowhere_and_those_around_it_still_do)
{
	struct log_index_entry e;
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	unsigned i, k, byte;

	for (k = 0; k < entries(&f); k += 5) {
		byte = 64 + 32 * k + k % 28;
		f.index[byte] ^= 4;
		write_index(&f, dir);
		for (i = 0; i < COUNT_INDEXED; i++) {
			shmq__log_index_find(dir, &seg, LOG_BY_SEQ, FIRST + i, &e);
			CHECK_LE(e.seq - FIRST, i);
			CHECK(e.off == LOG_BLOCK || e.off != entry(&f, k)->off);
		}
		CHECK_OK(shmq__log_index_after(dir, &seg, k ? entry(&f, k - 1)->off : 0, &e));
		CHECK_EQ(e.seq, entry(&f, k + 1)->seq);
		f.index[byte] ^= 4;
	}
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

TEST(without_an_index_of_its_own_a_segment_is_entered_at_its_beginning)
{
	struct log_index_entry e;
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	unsigned byte, k;

	for (byte = 0; byte < 32; byte++) {
		f.index[byte] ^= 1;
		write_index(&f, dir);
		shmq__log_index_find(dir, &seg, LOG_BY_SEQ, FIRST + 200, &e);
		CHECK_EQ(e.off, LOG_BLOCK);
		CHECK_EQ(e.seq, FIRST);
		CHECK_EQ(shmq__log_index_after(dir, &seg, 0, &e), SHMQ_EEMPTY);
		f.index[byte] ^= 1;
	}
	for (k = 0; k < 5; k++) {
		CHECK_EQ(unlinkat(dir, GOLDEN_NAME ".idx", k == 3 ? AT_REMOVEDIR : 0), 0);
		if (k == 0)
			touch(dir, GOLDEN_NAME ".idx");
		else if (k == 1)
			CHECK_EQ(mkfifoat(dir, GOLDEN_NAME ".idx", 0600), 0);
		else if (k == 2)
			CHECK_EQ(mkdirat(dir, GOLDEN_NAME ".idx", 0700), 0);
		else if (k == 3)
			CHECK_EQ(symlinkat(GOLDEN_NAME ".log", dir, GOLDEN_NAME ".idx"), 0);
		shmq__log_index_find(dir, &seg, LOG_BY_SEQ, FIRST + 200, &e);
		CHECK_EQ(e.off, LOG_BLOCK);
		CHECK_EQ(shmq__log_index_after(dir, &seg, 0, &e), SHMQ_EEMPTY);
	}
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

TEST(an_entry_of_impossible_places_leads_nowhere)
{
	static const uint64_t bad[][2] = { /* seq, off */
					   { FIRST - 1, LOG_BLOCK },
					   { FIRST, LOG_BLOCK + 8 },
					   { FIRST + 1, LOG_BLOCK },
					   { FIRST, 0 },
					   { FIRST, LOG_BLOCK - 8 },
					   { FIRST, LOG_BLOCK + 4 },
					   { FIRST, (uint64_t)INT64_MAX - 7 + 8 },
					   { FIRST, UINT64_MAX - 7 }
	};
	struct log_index_entry e;
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	unsigned i;

	f.index_bytes = 64 + 32;
	for (i = 0; i < COUNT(bad); i++) {
		*entry(&f, 0) = (struct log_index_entry){ .seq = bad[i][0], .off = bad[i][1] };
		entry(&f, 0)->checksum = shmq__log_sum(f.seed, entry(&f, 0), 24);
		write_index(&f, dir);
		CHECK_EQ(shmq__log_index_after(dir, &seg, 0, &e), SHMQ_EEMPTY);
	}
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}

TEST(an_index_is_cut_to_what_lies_before_an_offset)
{
	struct log_segment seg;
	int dir = logfile_dir();
	struct logfile f = indexed(dir, &seg);
	unsigned k;

	for (k = entries(&f); k--;) {
		CHECK_OK(shmq__log_index_cut(dir, &seg, entry(&f, k)->off + 1));
		check_file(dir, GOLDEN_NAME ".idx", f.index, 64 + 32 * (size_t)(k + 1));
		CHECK_OK(shmq__log_index_cut(dir, &seg, entry(&f, k)->off));
		check_file(dir, GOLDEN_NAME ".idx", f.index, 64 + 32 * (size_t)k);
	}
	f.index[16] ^= 1; /* not its own: it goes */
	write_index(&f, dir);
	CHECK_OK(shmq__log_index_cut(dir, &seg, LOG_BLOCK));
	CHECK_LT(faccessat(dir, GOLDEN_NAME ".idx", F_OK, 0), 0);
	CHECK_OK(shmq__log_index_cut(dir, &seg, LOG_BLOCK));
	shmq__log_segment_close(&seg);
	logfile_free(&f);
	close(dir);
}
