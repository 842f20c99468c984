/* SPDX-License-Identifier: MIT */
#include "log_record.h"
#include "logfile.h"
#include "tap.h"

#include "helpers.h"

#include <endian.h>

#define SEED UINT64_C(0x1122334455667788)
#define SEQ (UINT64_C(0) - 2)

/* "hello", as it stands in a file; little-endian. */
static const unsigned char hello[48] = {
	0x76, 0x98, 0x46, 0x2f, 5, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0x08, 7,    6,    5,    4, 3, 2, 1, 0x11, 0,    0,    0,    0,    0,    0,    0x80,
	0x34, 0x12, 0,    0,    1, 0, 0, 0, 'h',  'e',  'l',  'l',  'o',  0,    0,    0,
};

static const struct log_record hello_head = { .body_bytes = 5,
					      .seq = SEQ,
					      .ts = UINT64_C(0x0102030405060708),
					      .tag = UINT64_C(0x8000000000000011),
					      .type = 0x1234,
					      .kind = LOG_MESSAGE };

static int64_t check(const struct logfile *f, size_t bytes, uint64_t seq, uint64_t *need)
{
	/* So much and no more: a sanitizer sees what is read behind it. */
	char *mem = malloc(bytes + 1);
	struct log_key key = shmq__log_key(f->seed);
	struct log_record head;
	int64_t rc;

	CHECK(mem);
	if (bytes)
		memcpy(mem, f->mem + LOG_BLOCK, bytes);
	rc = shmq__log_record_check(mem, bytes, &key, seq, &head, need);
	free(mem);
	return rc;
}

/* A segment of one record. */
static struct logfile one(struct log_record head, const char *body)
{
	struct logfile f;

	logfile_begin(&f, SEQ, 0);
	head.seq = SEQ;
	logfile_record(&f, head, body);
	return f;
}

TEST(a_record_is_these_bytes)
{
	struct log_key key = shmq__log_key(SEED);
	struct log_record got;
	struct iovec body = { (void *)(uintptr_t) "hello", 5 };
	uint64_t need;

	if (__BYTE_ORDER != __LITTLE_ENDIAN)
		SKIP("they are of the other byte order");
	CHECK_EQ(shmq__log_record_sum(SEED, &hello_head, &body, 1), le32toh(*(uint32_t *)hello));
	CHECK_EQ(shmq__log_record_check((const char *)hello, sizeof(hello), &key, SEQ, &got, &need),
		 48);
	CHECK_EQ(got.tag, hello_head.tag);
	CHECK_EQ(need, 48);
}

TEST(one_and_many_pieces_have_the_same_checksum)
{
	struct log_key key = shmq__log_key(SEED);
	char whole[sizeof(struct log_record) + 1000];
	struct log_record head = { .body_bytes = 1000, .seq = 5, .kind = LOG_MESSAGE };
	struct iovec piece[3];
	unsigned a, b;
	uint32_t want;

	fill(whole + sizeof(head), 1000, 1);
	memcpy(whole, &head, sizeof(head));
	want = shmq__log_record_sum_whole(&key, whole);
	for (a = 0; a <= 1000; a += 37) {
		for (b = a; b <= 1000; b += 91) {
			piece[0] = (struct iovec){ whole + sizeof(head), a };
			piece[1] = (struct iovec){ whole + sizeof(head) + a, b - a };
			piece[2] = (struct iovec){ whole + sizeof(head) + b, 1000 - b };
			head.checksum = a; /* is not looked at */
			CHECK_EQ(shmq__log_record_sum(SEED, &head, piece, 3), want);
		}
	}
	key = shmq__log_key(SEED + 1);
	CHECK_NE(shmq__log_record_sum_whole(&key, whole), want);
}

TEST(a_record_takes_whole_words)
{
	CHECK_EQ(log_record_bytes(0), 40);
	CHECK_EQ(log_record_bytes(1), 48);
	CHECK_EQ(log_record_bytes(8), 48);
	CHECK_EQ(log_record_bytes(9), 56);
	CHECK_EQ(log_record_bytes(LOG_BODY_MAX), LOG_BODY_MAX + 40);
}

TEST(a_record_that_is_not_all_there_says_how_much_is_needed)
{
	struct logfile f;
	uint64_t need;
	size_t n;

	logfile_begin(&f, SEQ, 0);
	logfile_message(&f, 1, 100);
	for (n = 0; n < 144; n++) {
		CHECK_EQ(check(&f, n, SEQ, &need), -EAGAIN);
		CHECK_EQ(need, n < 40 ? 40 : 144);
	}
	CHECK_EQ(check(&f, 144, SEQ, &need), 144);
	logfile_free(&f);
}

TEST(no_flipped_bit_passes)
{
	struct logfile f;
	uint64_t need;
	unsigned bit;

	logfile_begin(&f, SEQ, 0);
	logfile_message(&f, 1, 21);
	for (bit = 0; bit < (40 + 21) * 8; bit++) {
		f.mem[LOG_BLOCK + bit / 8] ^= (char)(1 << bit % 8);
		CHECK_LT(check(&f, 64, SEQ, &need), 0);
		f.mem[LOG_BLOCK + bit / 8] ^= (char)(1 << bit % 8);
	}
	CHECK_EQ(check(&f, 64, SEQ, &need), 64);
	logfile_free(&f);
}

TEST(zeros_are_where_the_log_ends)
{
	struct log_key key = shmq__log_key(SEED);
	struct log_record got;
	static const char zeros[64];
	uint64_t need;

	CHECK_EQ(shmq__log_record_check(zeros, 64, &key, SEQ, &got, &need), 0);
	CHECK_EQ(shmq__log_record_check(zeros, 40, &key, 0, &got, &need), 0);
	CHECK_EQ(shmq__log_record_check(zeros, 39, &key, 0, &got, &need), -EAGAIN);
}

TEST(a_record_of_another_seq_or_seed_is_none)
{
	struct logfile f = one(hello_head, "hello");
	uint64_t need;

	CHECK_EQ(check(&f, 48, SEQ, &need), 48);
	CHECK_EQ(check(&f, 48, SEQ + 1, &need), SHMQ_ECORRUPT);
	f.seed++;
	CHECK_EQ(check(&f, 48, SEQ, &need), SHMQ_ECORRUPT);
	logfile_free(&f);
}

TEST(what_no_tailer_writes_is_refused_whatever_its_checksum)
{
	static const struct log_record bad[] = {
		{ .kind = LOG_NOTHING, .tag = 1 },
		{ .kind = LOG_HOLE, .tag = 0 },
		{ .kind = LOG_GAP, .tag = 0 },
		{ .kind = LOG_HOLE, .tag = 1, .body_bytes = 8 },
		{ .kind = LOG_GAP, .tag = 1, .body_bytes = 8 },
		{ .kind = LOG_HOLE, .tag = (uint64_t)INT64_MAX + 1 },
		{ .kind = LOG_GAP, .tag = UINT64_MAX },
		{ .kind = LOG_END, .body_bytes = 8 },
		{ .kind = LOG_MESSAGE, .flags = 0x8000 },
		{ .kind = 5 },
		{ .kind = 255 },
	};
	static const struct log_record good[] = {
		{ .kind = LOG_HOLE, .tag = INT64_MAX },
		{ .kind = LOG_GAP, .tag = 1, .flags = LOG_GAP_UNKNOWN },
		{ .kind = LOG_END, .tag = 0 },
		{ .kind = LOG_MESSAGE, .body_bytes = 8, .flags = SHMQ_MSG_BATCH | SHMQ_MSG_META },
	};
	struct logfile f;
	uint64_t need;
	unsigned i;

	for (i = 0; i < COUNT(bad); i++) {
		f = one(bad[i], "12345678");
		CHECK_EQ(check(&f, f.bytes - LOG_BLOCK, SEQ, &need), SHMQ_ECORRUPT);
		logfile_free(&f);
	}
	for (i = 0; i < COUNT(good); i++) {
		f = one(good[i], "12345678");
		CHECK_EQ(check(&f, f.bytes - LOG_BLOCK, SEQ, &need), f.bytes - LOG_BLOCK);
		logfile_free(&f);
	}
	for (i = 0; i < 3; i++) { /* reserved bytes */
		f = one(hello_head, "hello");
		f.mem[LOG_BLOCK + 37 + i] = 1;
		logfile_sum_record(&f, LOG_BLOCK);
		CHECK_EQ(check(&f, 48, SEQ, &need), SHMQ_ECORRUPT);
		logfile_free(&f);
	}
}

TEST(a_body_longer_than_any_message_is_refused_before_it_is_asked_for)
{
	struct log_key key = shmq__log_key(SEED);
	struct log_record got;
	struct log_record head = hello_head;
	uint64_t need;

	head.body_bytes = (uint32_t)LOG_BODY_MAX;
	CHECK_EQ(shmq__log_record_check((char *)&head, 40, &key, SEQ, &got, &need), -EAGAIN);
	CHECK_EQ(need, LOG_BODY_MAX + 40);
	head.body_bytes++;
	CHECK_EQ(shmq__log_record_check((char *)&head, 40, &key, SEQ, &got, &need), SHMQ_ECORRUPT);
	head.body_bytes = UINT32_MAX;
	CHECK_EQ(shmq__log_record_check((char *)&head, 40, &key, SEQ, &got, &need), SHMQ_ECORRUPT);
}

TEST(each_kind_covers_its_seqs)
{
	CHECK_EQ(log_record_count(&(struct log_record){ .kind = LOG_MESSAGE, .tag = 7 }), 1);
	CHECK_EQ(log_record_count(&(struct log_record){ .kind = LOG_HOLE, .tag = 7 }), 7);
	CHECK_EQ(log_record_count(&(struct log_record){ .kind = LOG_GAP, .tag = 7 }), 7);
	CHECK_EQ(log_record_count(&(struct log_record){ .kind = LOG_END, .tag = 7 }), 0);
}
