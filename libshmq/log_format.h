/* SPDX-License-Identifier: MIT
 *
 * log_format: every byte of a log on disk; shmq_log(5) says the same to
 * people.
 *
 *   DIR/topic                 whose log this is (struct log_identity)
 *   DIR/P/                    partition P, decimal
 *   DIR/P/SEQ.log             segment; SEQ is its first seq, 20 digits
 *   DIR/P/SEQ.zst             ... or that, compressed, once it was complete
 *   DIR/P/SEQ.idx             its sparse index
 *   DIR/P/ceiling             no seq at or above it was ever given out
 *   DIR/P/compacted           how far compaction has come
 *   DIR/P/cut/                what recovery cut off, kept for people
 *   DIR/P/SEQ.*.new           not finished: takes the place of SEQ.* when it is
 *   DIR/cursors/NAME          how far somebody has read, in all partitions
 *
 * A segment is a header and records, one behind the other.  The records of
 * a partition account for every seq: each covers [seq, seq + count), and
 * the next begins where it ends, in the next segment if need be.  So what
 * is missing is known to be missing.
 *
 * Numbers are in the byte order of the machine that wrote them; another
 * one's show in the magic.  Nothing depends on word size or page size.
 * Whoever reads trusts nothing: files are written by who has the right to,
 * and are read from disks that err.
 */
#ifndef SHMQ_LOG_FORMAT_H
#define SHMQ_LOG_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define LOG_VERSION 1u
#define LOG_MAGIC_SEGMENT UINT64_C(0x31676573514d4853)   /* "SHMQseg1" */
#define LOG_MAGIC_ZIP UINT64_C(0x3174737a514d4853)       /* "SHMQzst1" */
#define LOG_MAGIC_INDEX UINT64_C(0x31786469514d4853)     /* "SHMQidx1" */
#define LOG_MAGIC_IDENTITY UINT64_C(0x31706f74514d4853)  /* "SHMQtop1" */
#define LOG_MAGIC_CEILING UINT64_C(0x316c6563514d4853)   /* "SHMQcel1" */
#define LOG_MAGIC_COMPACTED UINT64_C(0x31706d63514d4853) /* "SHMQcmp1" */
#define LOG_MAGIC_CURSOR UINT64_C(0x31727563514d4853)    /* "SHMQcur1" */

#define LOG_BLOCK 4096u   /* writes are in whole ones of these, aligned */
#define LOG_ALIGN 8u      /* records begin at multiples of this */
#define LOG_NAME_BYTES 32 /* of a file in a partition's directory, with NUL */

/* ---- segment --------------------------------------------------------- */

struct log_segment_header {
	uint64_t magic;
	uint32_t version;
	uint32_t checksum; /* of the header with this 0; low half of XXH3 */
	uint8_t log_id[16];
	uint64_t seed; /* of the checksums of its records: so what an older
			  file left on the disk is not taken for one of them */
	uint64_t first_seq;
	uint64_t base_ts; /* highest ts of all records before */
	uint64_t created_ns;
	uint32_t partition;
	uint32_t pad;
	char topic[256];
	uint8_t rest[LOG_BLOCK - 328];
};
_Static_assert(sizeof(struct log_segment_header) == LOG_BLOCK, "segment header");
_Static_assert(offsetof(struct log_segment_header, topic) == 72, "segment header");

/* ---- record ---------------------------------------------------------- */

enum log_kind {
	LOG_NOTHING = 0, /* all zero: here the log ends, so far */
	LOG_MESSAGE = 1,
	LOG_HOLE = 2, /* `tag` seqs that never were messages, or were superseded */
	LOG_GAP = 3,  /* `tag` seqs that were or may have been, and are not here */
	LOG_END = 4,  /* last of its segment; seq is the first of the next */
};

/*   0          4          8        16       24       32     34     36    37  40
 *   +----------+----------+--------+--------+--------+------+------+-----+---+----
 *   | checksum | body     | seq    | ts     | tag    | type | flags| kind| 0 | body
 *   +----------+----------+--------+--------+--------+------+------+-----+---+----
 * The body, as it stood in the slot: struct lay_batch if flags has BATCH;
 * struct lay_meta, key and properties if it has META; then the message.
 * Zeros follow up to a multiple of LOG_ALIGN.  checksum is the low half of
 * XXH3 (64 bits, with the segment's seed) over all of it from `body_bytes`
 * on, padding excluded. */
struct log_record {
	uint32_t checksum;
	uint32_t body_bytes;
	uint64_t seq;
	uint64_t ts;
	uint64_t tag; /* HOLE, GAP: the number of seqs */
	uint16_t type;
	uint16_t flags; /* SHMQ_MSG_BATCH, SHMQ_MSG_META; HOLE, GAP: LOG_HOLE_*, LOG_GAP_* */
	uint8_t kind;   /* enum log_kind */
	uint8_t pad[3];
};
_Static_assert(sizeof(struct log_record) == 40, "record");

/* A hole of messages: each was followed by one of the same key, or deleted it. */
#define LOG_HOLE_SUPERSEDED 1u

/* Why a gap is one. */
#define LOG_GAP_OVERRUN 1u /* the tailer was too slow for a log that may gap */
#define LOG_GAP_UNKNOWN 2u /* the bus went down: who knows how far it was */
#define LOG_GAP_DAMAGE 4u  /* found by a reader or a repair, never by a tailer */
#define LOG_GAP_BOUND 8u   /* beside OVERRUN: there were more holes than the ring remembers */

/* Members of an atomic batch that has begun before it may be in it.  What a tailer is
 * overrun by holds none: it copies a batch whole before it takes any of it. */
static inline int log_gap_breaks_batches(const struct log_record *head)
{
	return (head->flags & (LOG_GAP_UNKNOWN | LOG_GAP_DAMAGE)) != 0;
}

/* Its seqs were not all messages, as far as anybody knows. */
static inline int log_gap_is_bound(const struct log_record *head)
{
	return (head->flags & (LOG_GAP_UNKNOWN | LOG_GAP_DAMAGE | LOG_GAP_BOUND)) != 0;
}

/* A message with everything that goes along, and room to spare. */
#define LOG_BODY_MAX ((UINT64_C(1) << 30) + 256)

static inline uint64_t log_record_bytes(uint64_t body_bytes)
{
	return (sizeof(struct log_record) + body_bytes + LOG_ALIGN - 1) &
	       ~(uint64_t)(LOG_ALIGN - 1);
}

/* ---- index ----------------------------------------------------------- */

/* For every LOG_INDEX_BYTES of a segment, about, one entry.  What an entry
 * says is checked against the record it leads to; without an index the
 * segment is scanned. */
#define LOG_INDEX_BYTES 65536u

struct log_index_header {
	uint64_t magic;
	uint32_t version;
	uint32_t entry_bytes;
	uint64_t seed; /* as in the segment */
	uint64_t first_seq;
	uint8_t pad[32];
};
struct log_index_entry {
	uint64_t seq;
	uint64_t max_ts;   /* of all records of the partition before this one */
	uint64_t off;      /* of the record that begins with seq */
	uint32_t checksum; /* low half of XXH3, with the seed, of the above */
	uint32_t pad;
};
_Static_assert(sizeof(struct log_index_header) == 64, "index header");
_Static_assert(sizeof(struct log_index_entry) == 32, "index entry");

/* ---- compressed segment ---------------------------------------------- */

/* The segment, up to the end of its END, cut into pieces of frame_bytes, each a
 * frame of zstd; then one more frame, which zstd skips: so it undoes the file,
 * too.  That one is 8 bytes of zstd's (LOG_ZIP_SKIPPED and how many follow, both
 * little-endian), an entry for each frame, and the tail.  Offsets, in the index
 * too, are those of the segment. */
#define LOG_ZIP_SKIPPED 0x184d2a5eu
#define LOG_ZIP_FRAME (UINT32_C(1) << 18) /* as we write them */
#define LOG_ZIP_FRAME_MAX (UINT32_C(1) << 24)
struct log_zip_entry {
	uint32_t bytes;    /* of the frame; it begins where the one before ends */
	uint32_t checksum; /* low half of XXH3 of them */
};
struct log_zip_tail {
	uint64_t magic;
	uint64_t plain_bytes;
	uint32_t frame_bytes;
	uint32_t frames;
	uint32_t entries_sum; /* low half of XXH3 of the entries */
	uint32_t checksum;    /* low half of XXH3 of all before it in the tail */
};
_Static_assert(sizeof(struct log_zip_entry) == 8, "entry of a compressed segment");
_Static_assert(sizeof(struct log_zip_tail) == 32, "tail of a compressed segment");

/* ---- ceiling --------------------------------------------------------- */

/* Two of them, one block each: the older is overwritten, so one is always
 * whole.  The one with the higher serial counts. */
struct log_ceiling {
	uint64_t magic;
	uint64_t serial;
	uint64_t seq;
	uint8_t log_id[16];
	uint32_t is_clean; /* 1: stopped in order; seq is the next one to give */
	uint32_t checksum; /* low half of XXH3, the partition being the seed, of all
			      before it: in another partition it is none */
};
_Static_assert(sizeof(struct log_ceiling) == 48, "ceiling");

/* ---- compaction ------------------------------------------------------ */

/* A hint: without it, or with one that is behind, more is read again.  A pass drops
 * what messages from clean_seq to end_seq supersede, segment by segment. */
struct log_compacted {
	uint64_t magic;
	uint64_t clean_seq;    /* what comes before supersedes nothing any more */
	uint64_t end_seq;      /* of the pass that did not end; else clean_seq */
	uint64_t passed_seq;   /* segments before it that pass has gone through */
	uint64_t tombstone_ns; /* before, none of those that delete a key is due */
	uint8_t log_id[16];
	uint32_t partition;
	uint32_t checksum; /* low half of XXH3 of all before it */
};
_Static_assert(sizeof(struct log_compacted) == 64, "compaction");

/* ---- cursor ---------------------------------------------------------- */

/* Two blocks for each partition, P's from 2 * P on: the one that is not the
 * last stored is overwritten, so one is always whole.  Of those of the log the
 * one with the higher serial counts.  A block of zeros, or one behind the end
 * of the file, was never stored. */
struct log_cursor {
	uint64_t magic;
	uint64_t serial; /* from 1 on; odd ones are in the second block */
	uint64_t seq;    /* the next to read: all before it is done */
	uint8_t log_id[16];
	uint64_t stored_ns;
	uint32_t partition;
	uint32_t checksum; /* low half of XXH3 of all before it */
};
_Static_assert(sizeof(struct log_cursor) == 56, "cursor");

/* ---- identity -------------------------------------------------------- */

/* What is needed to make the topic again; fields as in shmq.h. */
struct log_identity {
	uint64_t magic;
	uint32_t version;
	uint32_t checksum; /* of the rest, from log_id on */
	uint8_t log_id[16];
	uint64_t created_ns;
	char topic[256];
	uint8_t options[512]; /* struct proto_options of the creation */
	uint8_t pad[LOG_BLOCK - 808];
};
_Static_assert(sizeof(struct log_identity) == LOG_BLOCK, "identity");

#endif
