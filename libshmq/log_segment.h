/* SPDX-License-Identifier: MIT
 *
 * log_segment: one segment file, for reading, and the directory it is in.
 *
 * A scan goes through a segment record by record.  It may run while the
 * segment is written, as far as the writer says that it is.  Nothing in a
 * file is trusted.  An object belongs to one thread at a time.
 */
#ifndef SHMQ_LOG_SEGMENT_H
#define SHMQ_LOG_SEGMENT_H

#include <string.h>

#include "atomics.h"
#include "error.h"
#include "log_record.h"
#include "log_zip.h"

/* Whose a segment is. */
struct log_owner {
	uint8_t log_id[16];
	uint32_t partition;
};

struct log_segment {
	int fd;
	struct log_zip *zip; /* it is compressed; else NULL */
	uint64_t first_seq, seed, base_ts;
	struct log_owner owner;
};

/* "00000000000000000042.log"; suffix is "log", "zst", "idx", or that with ".new". */
void shmq__log_name(uint64_t first_seq, const char *suffix, char name[LOG_NAME_BYTES]);

/* 1 and the seq if it is the name of a segment, as we write it. */
int shmq__log_read_name(const char *name, uint64_t *first_seq);

/* The first seqs of all segments in a partition's directory, in order; *out
 * is the caller's to free().  Other files are not looked at.  0, -errno, or
 * SHMQ_ECORRUPT: they span half of all seqs, so they have no order. */
int shmq__log_list(int dir, uint64_t **out, unsigned *count);

/* Open the segment that begins with first_seq and check its header.  owner:
 * the one it has to have, NULL for any.  0, SHMQ_EVERSION, SHMQ_ECORRUPT (what
 * is no file included) or -errno, with why. */
int shmq__log_segment_open(int dir, uint64_t first_seq, const struct log_owner *owner,
			   struct log_segment *out, struct shmq__why *why);
/* Likewise of a file of any name, "*.zst*" if it is compressed. */
int shmq__log_segment_open_file(int dir, const char *name, uint64_t first_seq,
				const struct log_owner *owner, struct log_segment *out,
				struct shmq__why *why);
/* 0 if it is a file in which nothing was written yet, not even a header. */
int shmq__log_segment_has_begun(int dir, uint64_t first_seq);
void shmq__log_segment_close(struct log_segment *s);

/* Read at an offset, compressed or not: as many bytes as there are, SHMQ_ECORRUPT,
 * or -errno. */
ssize_t shmq__log_segment_read(const struct log_segment *s, void *buf, size_t bytes, uint64_t off);

/* Bytes it has, or -errno. */
int64_t shmq__log_segment_bytes(const struct log_segment *s);

/* The name of its file: compressed only if there is no other. */
void shmq__log_segment_name(int dir, uint64_t first_seq, char name[LOG_NAME_BYTES]);

/* Write all of it, at the place where fd is.  0 or -errno. */
int shmq__log_write(int fd, const void *data, size_t bytes);

/* A file or directory that root has made in directory `dir` of another user's is that
 * user's, whose bus and subscribers are to go on with it. */
void shmq__log_give(int dir, int fd);

/* By what a place in the log is looked for. */
enum log_by { LOG_BY_SEQ, LOG_BY_TIME };

/* The last place in the index from which on `target` can still come: the record
 * there begins at or before that seq; all before it are older than that time.
 * Without a (good) index the segment's beginning. */
void shmq__log_index_find(int dir, const struct log_segment *s, enum log_by by, uint64_t target,
			  struct log_index_entry *out);

/* The first place in the index behind offset `off`.  0 or SHMQ_EEMPTY. */
int shmq__log_index_after(int dir, const struct log_segment *s, uint64_t off,
			  struct log_index_entry *out);

/* Cut the index to what lies before offset `off`.  0 or -errno. */
int shmq__log_index_cut(int dir, const struct log_segment *s, uint64_t off);

/* ---- scan ------------------------------------------------------------ */

struct log_scan {
	struct log_segment seg;
	struct log_key key; /* of its seed */
	uint64_t next;      /* seq that the next record begins with */
	uint64_t from;      /* offset in the file of buf[0] */
	const char *buf;    /* in `own`, or in the map */
	size_t pos, have, capacity;
	size_t run; /* bytes to read next: more the longer it goes straight on */
	int maps;   /* the file is complete, and is read in place where it is in memory */
	char *own;
	void *map; /* NULL none */
	size_t map_bytes;
};

/* With a buffer, at no segment (seg.fd is -1).  0 or -ENOMEM. */
int shmq__log_scan_init(struct log_scan *s);
void shmq__log_scan_fini(struct log_scan *s);

/* Go to segment *seg, which is taken over, at offset off, where the record
 * begins with seq. */
void shmq__log_scan_start(struct log_scan *s, const struct log_segment *seg, uint64_t off,
			  uint64_t seq);

/* From the next read on, in this segment: where it goes straight on, and the file is in
 * memory, what is handed out is in a map of the file.  That is to be written no more
 * by anybody: who makes it shorter kills who reads there (SIGBUS), as does a disk from
 * which it can't be had again. */
void shmq__log_scan_map(struct log_scan *s);

/* Go to another place in the same segment, or look at this one afresh. */
void shmq__log_scan_move(struct log_scan *s, uint64_t off, uint64_t seq);

/* Is there a record?  As shmq__log_scan_next(), which would return it. */
int shmq__log_scan_peek(struct log_scan *s);

/* The next record: 1, and *head; *body points into the scan and is valid
 * until the next call.  0: nothing is there (yet); or END, which is left
 * standing, and is *head.  SHMQ_ECORRUPT: something is, but no record.  -errno. */
int shmq__log_scan_next(struct log_scan *s, struct log_record *head, const char **body);

/* Offset of the next record. */
static inline uint64_t log_scan_off(const struct log_scan *s)
{
	return s->from + s->pos;
}

/* As shmq__log_scan_next(), short, if the next record is a plain message and was read;
 * else 0, and nothing is changed but *head. */
static inline int log_scan_plain(struct log_scan *s, struct log_record *head, const char **body)
{
	const char *at = s->buf + s->pos;
	uint64_t bytes;

	if (unlikely(s->have - s->pos < sizeof(*head)))
		return 0;
	memcpy(head, at, sizeof(*head));
	bytes = log_record_bytes(head->body_bytes);
	if (unlikely(!log_record_is_plain(head) || head->seq != s->next ||
		     s->have - s->pos < bytes || !log_record_is_good(&s->key, at, head)))
		return 0;
	*body = at + sizeof(*head);
	s->pos += bytes;
	s->next++;
	return 1;
}

#endif
